"""`bailee retention`: what is due, destroyed now or by the service."""

from datetime import UTC, date, datetime
from pathlib import Path

import click

from bailee.cli.options import echo_json, with_home, with_json
from bailee.sizes import tell_count, tell_size


@click.group()
def retention() -> None:
    """Destroy what has expired, and see whether that is being done."""


@retention.command()
@click.option(
    "--as-of",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="DATE",
    help="Go by this UTC day; one that lies ahead only with --dry-run. [default: today]",
)
@click.option("--dry-run", is_flag=True, help="Count what would go, and change nothing.")
@with_home
@with_json
def sweep(as_of: datetime | None, dry_run: bool, home: Path, as_json: bool) -> None:
    """Sweep now: destroy the keys of what has expired, delete its rows, give the space back.

    A running service does so within 5 seconds by itself. Safe to interrupt: the next sweep goes on.
    """
    from bailee.database.leases import node_name
    from bailee.service.cloud_disks import sweep_disks
    from bailee.vault.custody import open_custody
    from bailee.vault.sweepers import note_earlier, note_start, note_success, read_clocks
    from bailee.vault.sweeping import preview
    from bailee.vault.sweeping import sweep as sweep_once

    custody = open_custody(home)
    day: date | None = as_of.date() if as_of else None
    if dry_run:
        done = preview(custody, as_of=day)
    else:
        note = note_success if day is None or day >= custody.today() else note_earlier
        note_start(custody.keystore.engine, node_name(), read_clocks())
        disks = sweep_disks(home, custody)  # brings them under the terms that the sweep goes by
        done = sweep_once(custody, as_of=day)
        note(custody.keystore.engine, node_name(), read_clocks(), done)
        disks += sweep_disks(home, custody)
        if disks:
            click.echo(f"{tell_count(len(disks), 'cloud session')} went with their disks.", err=True)
    custody.close()
    if as_json:
        echo_json({**_facts(done), "dry_run": dry_run})
        return
    verb = "Would destroy" if dry_run else "Destroyed"
    click.echo(
        f"{verb} {tell_count(done.keys_destroyed, 'key')} as of {done.as_of}; "
        f"{tell_count(done.exchanges + done.facts, 'exchange')}, {tell_size(done.stored_bytes)} "
        f"{'would go' if dry_run else 'went'}."
    )
    if done.tightened:
        click.echo(f"{tell_count(done.tightened, 'segment')} came under stricter terms.")
    if done.copies:
        verb = "would be" if dry_run else "was"
        click.echo(f"It {verb} taken out of exports and datasets: {done.copies}.")
    if done.copies_pending:
        click.echo(
            f"Exports and datasets that still hold some: {done.copies_pending}; see: bailee copies list",
            err=True,
        )
    if done.held_back:
        click.echo(f"{tell_count(done.held_back, 'segment')} due, kept by a legal hold: bailee holds list")


@retention.command(epilog="Exit codes: 0 all is well, 1 something is due and nobody destroys it.")
@with_home
@with_json
def status(home: Path, as_json: bool) -> None:
    """Show when each node swept last, and what is due."""
    from bailee.vault.custody import open_custody
    from bailee.vault.health import check_retention

    custody = open_custody(home)
    health = check_retention(custody.vault, custody.keystore, custody.now_ms())
    custody.close()
    if as_json:
        echo_json(health)
    else:
        for state in health.sweepers:
            last = _minute(state.succeeded_ms) if state.succeeded_ms else "never"
            click.echo(
                f"{state.node}: swept last {last} UTC, {tell_count(state.keys_destroyed, 'key')} in all"
                + (f"; {state.fault}" if state.fault else "")
            )
        click.echo(f"Due longest: {health.lag_seconds:.0f} s" if health.lag_seconds else "Nothing is due.")
        if health.copies_pending:
            click.echo(
                f"Exports and datasets that still hold what is to go: {health.copies_pending}, for "
                f"{health.copies_lag_seconds:.0f} s; see: bailee copies list"
            )
        for alarm in health.alarms:
            click.echo(f"alarm: {alarm}", err=True)
    if health.alarms:
        raise SystemExit(1)


def _minute(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _facts(done: object) -> dict[str, object]:
    import msgspec

    facts: dict[str, object] = msgspec.to_builtins(done)
    return facts
