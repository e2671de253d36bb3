"""`bailee errors`: what agents reported, grouped."""

from pathlib import Path

import click

from bailee.cli.options import echo_json, echo_table, with_home, with_json
from bailee.moments import tell_minute


@click.command()
@click.option("--traces", is_flag=True, help="The frames of each group's last error as well.")
@with_home
@with_json
def errors(traces: bool, home: Path, as_json: bool) -> None:
    """List the errors that agents reported, by class and place. Who reported which is not in it.

    What is held are class, errno, and the module, function and line of frames of published code.
    """
    import msgspec

    from bailee.flows.errors.results import group, read_faults

    groups = group(read_faults(home))
    if as_json:
        echo_json(msgspec.to_builtins(groups))
        return
    rows = [
        (
            one.name,
            one.where,
            str(one.count),
            tell_minute(one.first_ms),
            tell_minute(one.last_ms),
            ", ".join(one.versions),
        )
        for one in groups
    ]
    heads = ("CLASS", "WHERE", "COUNT", "FIRST (UTC)", "LAST (UTC)", "VERSIONS")
    echo_table(heads, rows, empty="No errors are held.")
    if traces:
        for one in groups:
            click.echo(f"\n{one.name}")
            for frame in one.trace:
                click.echo(f"  {frame}")
