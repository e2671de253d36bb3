"""`bailee forwarding`: where metrics and errors go on to, and how far that has come."""

from pathlib import Path

import click

from bailee.cli.options import echo_json, echo_table, with_home, with_json
from bailee.moments import tell_minute


@click.command()
@with_home
@with_json
def forwarding(home: Path, as_json: bool) -> None:
    """Show the next hops there were: what waits for each, what it took, and what stood in the way.

    They are named by `bailee up --forward`. Nothing of a next hop's credentials is kept.
    """
    import msgspec

    from bailee.flows.forwarding.hops import Wire
    from bailee.flows.forwarding.progress import FLOWS, count_waiting, list_progress
    from bailee.vault.store import open_vault

    vault = open_vault(home)
    try:
        found = [(one, count_waiting(vault, one, FLOWS[Wire(one.name)])) for one in list_progress(vault)]
    finally:
        vault.dispose()
    if as_json:
        echo_json([{**msgspec.to_builtins(one), "waiting": waiting} for one, waiting in found])
        return
    rows = [
        (
            one.name,
            one.target,
            str(waiting),
            str(one.sent),
            str(one.refused),
            str(one.overdue),
            tell_minute(one.succeeded_ms) if one.succeeded_ms else "never",
            one.fault or "-",
        )
        for one, waiting in found
    ]
    heads = ("KIND", "TO", "WAITING", "SENT", "REFUSED", "OVERDUE", "LAST (UTC)", "FAULT")
    echo_table(heads, rows, empty="Nothing is forwarded: bailee up --forward otlp=URL")
