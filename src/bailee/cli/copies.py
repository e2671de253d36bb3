"""`bailee copies`: exports and datasets outside the vault, and what is still to be taken out of them."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bailee.cli.accesses import operator
from bailee.cli.options import echo_json, echo_table, with_home, with_json
from bailee.moments import tell_minute
from bailee.policy.problems import Problem

if TYPE_CHECKING:
    from bailee.vault.copies.registry import Copy
    from bailee.vault.custody import Custody


@click.group()
def copies() -> None:
    """List the exports and datasets that Bailee wrote, and settle what it cannot reach."""


@copies.command(name="list")
@click.option("--all", "with_forgotten", is_flag=True, help="Forgotten ones as well.")
@with_home
@with_json
def list_(with_forgotten: bool, home: Path, as_json: bool) -> None:
    """List copies: where they lie, who made them, what is still to be taken out of them, and why."""
    from bailee.vault.copies.registry import count_segments, list_copies
    from bailee.vault.custody import open_custody

    with closing(open_custody(home)) as custody:
        names = {known.id: known.name for known in custody.directory.all()}
        counts = count_segments(custody.vault)
        found = [one for one in list_copies(custody.vault) if with_forgotten or one.forgotten is None]
    if as_json:
        echo_json([_describe(copy, names, counts.get(copy.id, (0, 0))) for copy in found])
        return
    rows = [
        (
            copy.id,
            copy.kind.value,
            names.get(copy.account, "?") if copy.account else "-",
            tell_minute(copy.made_ms),
            copy.made_by,
            copy.folder,
            _tell_state(copy, counts.get(copy.id, (0, 0))[1]),
        )
        for copy in found
    ]
    heads = ("COPY", "KIND", "ACCOUNT", "MADE (UTC)", "BY", "FOLDER", "STATE")
    echo_table(heads, rows, empty="No exports and no datasets.")


@copies.command()
@click.argument("copy_id")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@with_home
@with_json
def locate(copy_id: str, folder: Path, home: Path, as_json: bool) -> None:
    """Say where a copy lies now, after it was moved; the next sweep finds it there."""
    from bailee.vault.copies.cascade import read_id
    from bailee.vault.copies.registry import locate as note
    from bailee.vault.custody import open_custody

    path = folder.resolve()
    with closing(open_custody(home)) as custody:
        copy = _find(custody, copy_id)
        if read_id(path, copy.kind) != copy.id:
            what = f"this folder does not hold {copy.kind} {copy.id}"
            raise Problem(what, where=str(path), fix="name the one it lies in")
        note(custody.vault, copy.id, path)
    if as_json:
        echo_json({"id": copy.id, "folder": str(path)})
    else:
        click.echo(f"{copy.kind.capitalize()} {copy.id} lies in {path}.")


@copies.command()
@click.argument("copy_id")
@click.option("--reason", required=True, help="Why, in one line: it was deleted, or is kept elsewhere.")
@with_home
@with_json
def forget(copy_id: str, reason: str, home: Path, as_json: bool) -> None:
    """Follow a copy no longer: nothing is taken out of it any more. It is ledgered."""
    from bailee.vault.custody import open_custody

    with closing(open_custody(home)) as custody:
        copy = _find(custody, copy_id)
        custody.forget_copy(copy, reason=reason, by=operator())
    if as_json:
        echo_json({"id": copy.id, "was_pending": copy.due_ms is not None})
    else:
        click.echo(f"Forgot {copy.kind} {copy.id}; what lies in {copy.folder} is yours to see to.")


def _find(custody: "Custody", id: str) -> "Copy":
    from bailee.vault.copies.registry import get

    found = get(custody.vault, id)
    if found is None or found.forgotten is not None:
        raise Problem(f"there is no copy {id!r}", where="COPY_ID", fix="see: bailee copies list")
    return found


def _tell_state(copy: "Copy", due: int) -> str:
    if copy.forgotten is not None:
        return f"forgotten: {copy.forgotten}"
    if copy.due_ms is not None:
        what = "all of it" if copy.is_ended else f"{due} of what it holds"
        return f"{what} is to go since {tell_minute(copy.due_ms)}" + (f": {copy.fault}" if copy.fault else "")
    if copy.is_holders:
        return "the account holder's"
    return "followed" if copy.digest else "not finished"


def _describe(copy: "Copy", names: dict[str, str], counts: tuple[int, int]) -> dict[str, object]:
    import msgspec

    facts: dict[str, object] = msgspec.to_builtins(copy)
    facts["account"] = names.get(copy.account, copy.account) if copy.account else None
    return {**facts, "holds": counts[0], "due": counts[1]}
