"""What the commands that erase have in common: a count, a question, a receipt."""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bailee.cli.options import echo_json
from bailee.cli.proofs import write_proof
from bailee.policy.problems import Problem
from bailee.sizes import tell_count, tell_size

if TYPE_CHECKING:
    from bailee.vault.erasure import Erasure

_Command = TypeVar("_Command", bound=Callable[..., Any])


def with_erasure(command: _Command) -> _Command:
    """Add `--dry-run`, `--yes` and `--receipt`."""
    for option in (
        click.option(
            "--receipt",
            type=click.Path(dir_okay=False, path_type=Path),
            help="Write the receipt to this new file.",
        ),
        click.option("--yes", is_flag=True, help="Do not ask."),
        click.option("--dry-run", is_flag=True, help="Count what would go, and change nothing."),
    ):
        command = option(command)
    return command


with_local = click.option(
    "--and-local", is_flag=True, help="Delete what the agent keeps of it on this machine as well."
)


def confirm_erasure(what: str, counted: "Erasure", *, yes: bool) -> None:
    """Ask the person, unless `--yes` has answered.

    Raises:
        Problem: nobody is there to be asked.
    """
    require_confirmation(f"Erase {what} ({amount(counted)})? It cannot be undone", yes=yes)


def require_confirmation(question: str, *, yes: bool) -> None:
    """Ask the person, unless `--yes` has answered.

    Raises:
        Problem: nobody is there to be asked.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise Problem("nobody is there to be asked", where="--yes", fix="confirm with --yes")
    click.confirm(question, abort=True, err=True)


def tell_count_of(what: str, counted: "Erasure", *, as_json: bool) -> None:
    """Tell what would go."""
    if as_json:
        echo_json(counted)
    else:
        click.echo(f"Would erase {what}: {amount(counted)}.")
        for copy in counted.copies.reached:
            click.echo(f"Would take it out of {copy.kind} {copy.id}: {copy.folder}")
        _tell_holders(counted)


def tell_erasure(what: str, erased: "Erasure", proof: bytes, receipt: Path | None, *, as_json: bool) -> None:
    """Tell what went, and hand over the receipt.

    Raises:
        OSError: its file cannot be written; it is on standard output then.
    """
    write_proof(receipt, proof)
    if as_json:
        click.echo(proof, nl=False)
    else:
        click.echo(f"Erased {what}: {amount(erased)}.")
        if receipt is None:
            click.echo("Its receipt: give --receipt FILE, or --json, when you erase.", err=True)
        else:
            click.echo(f"Receipt: {receipt} (verify: bailee ledger verify {receipt})", err=True)
    for copy in erased.copies.reached:
        click.echo(f"Taken out of {copy.kind} {copy.id}: {copy.folder}", err=True)
    for copy in erased.copies.pending:
        click.echo(
            f"Not yet taken out of {copy.kind} {copy.id}: {copy.folder}: {copy.why}; each sweep tries again, "
            "see: bailee copies list",
            err=True,
        )
    _tell_holders(erased)
    if not erased.is_overwritten:
        click.echo(
            "Its keys are destroyed, but their bytes stay on the disk for a while: with SQLite until a "
            "process that reads the keystore as it was before is done, which a running service sees to; with "
            "PostgreSQL until its write-ahead log is recycled and the space is used again.",
            err=True,
        )


def let_go_locally(sessions: Iterable[str], *, is_asked: bool, dry_run: bool = False) -> None:
    """Delete what the agent keeps of sessions on this machine if that is asked for, else say that it does.

    Raises:
        Problem: a session cannot be deleted there.
    """
    from bailee.agent.sessions.cache import Cache
    from bailee.agent.state import state_folder

    cache = Cache(state_folder())
    kept = {path.stem for path in cache.paths()}
    # Compared with what is there: any agent names its sessions as it likes, and no path is made of a name.
    found = [session for session in sessions if session in kept]
    if not found:
        return
    what = tell_count(len(found), "session")
    if not is_asked:
        ids = " ".join(found[:5]) + (" ..." if len(found) > 5 else "")
        click.echo(
            f"The agent keeps {what} of it on this machine as well: bailee sessions --local delete {ids}",
            err=True,
        )
        return
    if not dry_run:
        for session in found:
            cache.delete(session)
    verb = "Would delete" if dry_run else "Deleted"
    click.echo(f"{verb} what the agent keeps on this machine: {what}", err=True)


def _tell_holders(erased: "Erasure") -> None:
    for copy in erased.copies.holders:
        click.echo(f"The account holder's own {copy.kind} stays as it is: {copy.folder}", err=True)


def amount(counted: "Erasure") -> str:
    """Write the size of an erasure."""
    return ", ".join(
        (
            tell_count(counted.exchanges, "exchange"),
            tell_count(counted.segments, "segment"),
            tell_size(counted.stored_bytes),
        )
    )
