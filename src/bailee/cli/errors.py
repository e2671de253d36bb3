"""`bailee errors`: what agents reported, grouped, and what was decided of it."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bailee.cli.options import echo_json, echo_table, with_home, with_json
from bailee.moments import tell_minute

if TYPE_CHECKING:
    from bailee.flows.errors.triage import State, Triaged


@click.group()
def errors() -> None:
    """What agents reported of their own faults, by class and place. Who reported which is not in it.

    What is held are class, errno, and the module, function and line of frames of published code.
    """


@errors.command(name="list")
@click.option("--all", "with_quiet", is_flag=True, help="Resolved and muted ones as well.")
@with_home
@with_json
def list_(with_quiet: bool, home: Path, as_json: bool) -> None:
    """List groups of errors, the one that came last first. A resolved one that comes again is back."""
    found = [one for one in _read(home) if with_quiet or not one.is_quiet]
    if as_json:
        echo_json([_describe(one) for one in found])
        return
    rows = [
        (
            one.id,
            one.group.name,
            one.group.where,
            str(one.group.count),
            tell_minute(one.group.first_ms),
            tell_minute(one.group.last_ms),
            ", ".join(one.group.versions),
            one.state.value,
        )
        for one in found
    ]
    heads = ("GROUP", "CLASS", "WHERE", "COUNT", "FIRST (UTC)", "LAST (UTC)", "VERSIONS", "STATE")
    empty = "No errors are held." if with_quiet else "No errors are held that are neither resolved nor muted."
    echo_table(heads, rows, empty=empty)


@errors.command()
@click.argument("group")
@with_home
@with_json
def show(group: str, home: Path, as_json: bool) -> None:
    """Show a group: the frames of the error that came last, which agents and versions, and how it stands."""
    from bailee.flows.errors.triage import find

    one = find(_read(home), group)
    if as_json:
        echo_json(_describe(one))
        return
    found = one.group
    click.echo(f"{one.id}  {found.name}, {one.state.value}")
    if one.changed_by is not None and one.changed_ms is not None:
        click.echo(f"Decided by {one.changed_by}, {tell_minute(one.changed_ms)} UTC.")
    click.echo(f"{found.count} times from {tell_minute(found.first_ms)} to {tell_minute(found.last_ms)} UTC")
    click.echo(f"agents {', '.join(found.agents)}; versions {', '.join(found.versions)}")
    for frame in found.trace:
        click.echo(f"  {frame}")


@errors.command()
@click.argument("groups", nargs=-1, required=True)
@with_home
def resolve(groups: tuple[str, ...], home: Path) -> None:
    """Call groups resolved: they are listed again as soon as one of theirs comes."""
    from bailee.flows.errors.triage import State

    _decide(groups, State.RESOLVED, home)


@errors.command()
@click.argument("groups", nargs=-1, required=True)
@with_home
def mute(groups: tuple[str, ...], home: Path) -> None:
    """List groups no more, whatever comes, until they are reopened. They are held like all others."""
    from bailee.flows.errors.triage import State

    _decide(groups, State.MUTED, home)


@errors.command()
@click.argument("groups", nargs=-1, required=True)
@with_home
def reopen(groups: tuple[str, ...], home: Path) -> None:
    """Take back that groups are resolved or muted."""
    from bailee.flows.errors.triage import State

    _decide(groups, State.OPEN, home)


def _read(home: Path) -> "list[Triaged]":
    from bailee.flows.errors.results import group, read_faults
    from bailee.flows.errors.triage import triage
    from bailee.vault.store import open_vault

    groups = group(read_faults(home))
    vault = open_vault(home)
    try:
        return triage(vault, groups)
    finally:
        vault.dispose()


def _decide(groups: tuple[str, ...], state: "State", home: Path) -> None:
    from bailee.cli.accesses import operator
    from bailee.flows.errors.triage import decide, find
    from bailee.vault.store import open_vault

    found = _read(home)
    # All are looked up before anything changes.
    chosen = [find(found, group) for group in groups]
    vault = open_vault(home)
    try:
        for one in chosen:
            decide(vault, one.id, state, by=operator(), now_ms=int(time.time() * 1000))
            click.echo(f"{one.id} {one.group.name}: {state.value} (it was {one.state.value})", err=True)
    finally:
        vault.dispose()


def _describe(one: "Triaged") -> dict[str, object]:
    import msgspec

    facts: dict[str, object] = msgspec.to_builtins(one.group)
    decided = {"changed_by": one.changed_by, "changed_ms": one.changed_ms}
    return {"id": one.id, "state": one.state.value, **facts, **decided}
