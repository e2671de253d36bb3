"""`bailee metrics`: latency, reliability and usage, as far as they are held."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bailee.cli.options import echo_json, echo_table, with_home, with_json
from bailee.policy.periods import Period
from bailee.policy.problems import Problem
from bailee.sizes import tell_count

if TYPE_CHECKING:
    from bailee.flows.metrics.drops import Drops
    from bailee.flows.metrics.results import Usage

_BARS = "▁▂▃▄▅▆▇█"


@click.command()
@click.option(
    "--since", metavar="PERIOD", default="30d", show_default=True, help="How far to look back, such as 7d."
)
@click.option(
    "--parquet",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write every point into this new file instead: hour, name, and a column for each field.",
)
@with_home
@with_json
def metrics(since: str, parquet: Path | None, home: Path, as_json: bool) -> None:
    """Show latency, reliability and usage, by UTC day, and how much was dropped. Who sent what is not in it.

    What is held are the events of the catalogue (docs/operational-data.md), numbers rounded to two digits.
    """
    import msgspec

    from bailee.flows.metrics.results import count_dropped, read_points, summarize

    period = Period.parse(since, where="--since")
    today = datetime.now(UTC).date()
    if period.is_none or (until := period.expires_on(today)) is None:
        raise Problem(f"{since!r} is no time to look back", where="--since", fix="give one such as 7d or 30d")
    first = today - (until - today) + timedelta(days=1)
    points = read_points(home, since=first)
    if parquet is not None:
        from bailee.flows.metrics.tables import write_parquet

        write_parquet(points, parquet)
        told = {"rows": len(points), "out": str(parquet)}
        if as_json:
            echo_json(told)
        else:
            click.echo(f"Wrote {tell_count(len(points), 'point')} to {parquet}.", err=True)
        return
    found, dropped = summarize(points), count_dropped(home, since=first)
    if as_json:
        echo_json(msgspec.to_builtins(found) | {"dropped": msgspec.to_builtins(dropped)})
        return
    if not found.usage:
        echo_table((), [], empty="No metrics are held.")
        _show_dropped(dropped)
        return
    click.echo("Latency (ms)")
    echo_table(
        ("DAY", "MODEL", "ANSWERS", "P50", "P95", "MOST"),
        [
            (one.day.isoformat(), one.model, f"{one.answers:,}", *map(_tell, (one.p50, one.p95, one.most)))
            for one in found.latency
        ],
        empty="No answer of a model is held.",
    )
    click.echo("\nReliability")
    echo_table(
        ("DAY", "WHAT", "DONE", "FAILED", "OTHER"),
        [
            (one.day.isoformat(), one.what, *map(str, (one.done, one.failed, one.other)))
            for one in found.reliability
        ],
        empty="Nothing that can fail is held.",
    )
    click.echo("\nUsage")
    echo_table(("NAME", "KIND", "IN ALL", "BY DAY"), _usage_rows(found.usage), empty="")
    _show_dropped(dropped)


def _show_dropped(dropped: "dict[str, Drops]") -> None:
    if dropped:
        click.echo("\nDropped: not in the catalogue, or a running total from before the service began")
        rows = [(path, f"{one.samples:,}", f"{one.fields:,}") for path, one in dropped.items()]
        echo_table(("CAME TO", "SAMPLES", "FIELDS OF OTHERS"), rows, empty="")


def _usage_rows(usage: "list[Usage]") -> list[tuple[str, ...]]:
    days = sorted({one.day for one in usage})
    amounts = {(one.name, one.kind, one.day): one.amount for one in usage}
    rows: list[tuple[str, ...]] = []
    for name, kind in sorted({(one.name, one.kind) for one in usage}):
        by_day = [amounts.get((name, kind, day), 0.0) for day in days]
        rows.append((name, kind or "-", _tell(sum(by_day)), draw_sparkline(by_day)))
    return rows


def draw_sparkline(values: list[float]) -> str:
    """Draw values as bars of a line of text, the largest the highest."""
    most = max(values, default=0.0)
    if most <= 0:
        return _BARS[0] * len(values)
    return "".join(_BARS[min(len(_BARS) - 1, int(value / most * (len(_BARS) - 1) + 0.5))] for value in values)


def _tell(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:,.2g}"
