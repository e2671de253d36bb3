"""`bailee holds`: legal holds, placed and released by name and reason."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bailee.cli.accesses import operator
from bailee.cli.options import echo_json, echo_table, with_home, with_json
from bailee.moments import tell_minute
from bailee.sizes import tell_count

if TYPE_CHECKING:
    from bailee.vault.holds import Hold


@click.group()
def holds() -> None:
    """Keep what the law wants kept: it is neither erased nor expired until the hold is released."""


@holds.command()
@click.option("--account", required=True, help="Whose records.")
@click.option("--session", help="Only this session; all that the account holds if left out.")
@click.option("--reason", required=True, help="Why, in one line: a case number.")
@with_home
@with_json
def place(account: str, session: str | None, reason: str, home: Path, as_json: bool) -> None:
    """Place a hold. It is ledgered."""
    from bailee.vault.custody import open_custody

    custody = open_custody(home)
    placed = custody.hold(custody.directory.get(account), session, reason=reason, by=operator())
    custody.settle()
    if as_json:
        echo_json(placed)
    else:
        click.echo(placed.id)
        what = f"session {session}" if session else "all its records"
        click.echo(
            f"{what} of {account} stays until: bailee holds release {placed.id} --reason REASON", err=True
        )
        if placed.gone:
            click.echo(f"Gone before it was placed: {tell_count(placed.gone, 'segment')}.", err=True)


@holds.command()
@click.argument("hold_id")
@click.option("--reason", required=True, help="Why it ends, in one line.")
@with_home
@with_json
def release(hold_id: str, reason: str, home: Path, as_json: bool) -> None:
    """Release a hold: what it covered goes its way by its own terms, at once where they have run out."""
    from bailee.vault.custody import open_custody

    custody = open_custody(home)
    released = custody.release(hold_id, reason=reason, by=operator())
    custody.settle()
    if as_json:
        echo_json(released)
    else:
        click.echo(f"Released {released.id}.")


@holds.command(name="list")
@click.option("--all", "with_released", is_flag=True, help="Released holds as well.")
@with_home
@with_json
def list_(with_released: bool, home: Path, as_json: bool) -> None:
    """List the holds in force, the one placed last first."""
    from bailee.vault.custody import open_custody
    from bailee.vault.holds import list_holds

    custody = open_custody(home)
    names = {known.id: known.name for known in custody.directory.all()}
    with custody.vault.connect() as connection:
        known = list_holds(connection)
    found = [hold for hold in known if with_released or hold.released_ms is None]
    if as_json:
        echo_json(found)
        return
    rows = [_row(hold, names) for hold in found]
    heads = ("HOLD", "ACCOUNT", "SESSION", "SINCE (UTC)", "BY", "STATE", "REASON")
    echo_table(heads, rows, empty="No holds in force.")


def _row(hold: "Hold", names: dict[str, str]) -> tuple[str, ...]:
    state = "in force" if hold.released_ms is None else f"released {tell_minute(hold.released_ms)}"
    return (
        hold.id,
        names.get(hold.account, "?"),
        hold.session or "all",
        tell_minute(hold.placed_ms),
        hold.placed_by,
        state,
        hold.reason,
    )
