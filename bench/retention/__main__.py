"""`python -m bench.retention`: how long what is due takes to go, beside batched DELETE."""

import contextlib
import shutil
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from bench.machine import read_busy_cores
from bench.retention import peers
from bench.retention.homes import Holding, build_home, plan_chunks
from bench.retention.measurements import Measured, measure_sweep, tell_deletion
from bench.retention.reports import write_json, write_tables
from bench.servers import Server, ServerMissing, running_server

SEGMENTS, DUE = 10_000_000, 1_000_000
QUICK_SEGMENTS, QUICK_DUE = 100_000, 10_000
# What shows that a little that is due costs little, however much is held: swept three times.
SMALL, TIMES = 100, 3
# The same due in this part of what is held shows that cost does not follow the latter.
FEWER = 5
NAME = "bench"


@click.command()
@click.option("--segments", type=click.IntRange(min=1000), help=f"Held. [default: {SEGMENTS:,}]")
@click.option("--due", type=click.IntRange(min=100), help=f"Due of them. [default: {DUE:,}]")
@click.option(
    "--database", type=click.Choice(["sqlite", "postgresql", "both"]), default="both", show_default=True
)
@click.option("--quick", is_flag=True, help=f"{QUICK_SEGMENTS:,} held and {QUICK_DUE:,} due: rough figures.")
@click.option("--directory", type=click.Path(path_type=Path), help="On the disk to measure. [default: here]")
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures here."
)
def main(
    segments: int | None,
    due: int | None,
    database: str,
    quick: bool,
    directory: Path | None,
    json_file: Path | None,
) -> None:
    """Measure how long it takes until the keys of all that is due are destroyed, and its rows gone.

    A home is made and filled, swept as the service sweeps it, and thrown away; then a peer's table of the
    same rows. Ten million segments take some 20 GB of disk at a time. Tables go to standard output, progress
    to standard error; interrupting leaves nothing behind.
    """
    segments = segments or (QUICK_SEGMENTS if quick else SEGMENTS)
    due = due or (QUICK_DUE if quick else DUE)
    if due * 2 > segments:
        raise click.BadParameter("at most half of what is held may be due", param_hint="--due")
    small = max(1, due // SMALL)
    holdings = [Holding(segments, (*[small] * TIMES, due))]
    if segments // FEWER >= 2 * due:
        holdings.insert(0, Holding(segments // FEWER, (*[small] * TIMES, due)))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    measured: list[Measured] = []
    versions = f"SQLite {sqlite3.sqlite_version}"
    with tempfile.TemporaryDirectory(dir=directory or Path.cwd(), prefix=".bench-retention-") as name:
        place = Path(name)
        place.chmod(0o755)
        if database != "postgresql":
            for holding in holdings:
                measured += measure_holding(place, holding, None)
        if database != "sqlite":
            try:
                with running_server(place) as server:
                    versions += f", PostgreSQL {server.version()} as it ships"
                    for holding in holdings:
                        measured += measure_holding(place, holding, server)
            except ServerMissing as missing:
                versions += f"; NOT MEASURED: {missing}"
    settings = f"Small sweeps {TIMES} times, the large one once{', QUICK' if quick else ''}"
    if json_file is not None:
        write_json(measured, versions, settings, json_file)
    click.echo(write_tables(measured, versions, settings), nl=False)


def measure_holding(place: Path, holding: Holding, server: Server | None) -> list[Measured]:
    """Build a home, sweep it on the days that come, throw it away; then the same of a peer's table."""
    kind = "sqlite" if server is None else "postgresql"
    # Told to whatever sweeps: a benchmark that runs over midnight goes by the same days.
    today = datetime.now(UTC).date()
    url = "" if server is None else server.url(NAME)
    measured = []
    home = place / "home"
    try:
        with drawing(f"{kind}: filling a home", holding.segments) as report:
            build_home(home, holding, today, url or None, report)
        for number, due in enumerate(holding.due):
            day = today + timedelta(days=number)
            one = measure_sweep(home, day, held=holding.segments, due=due, server=server, url=url)
            measured.append(one)
            tell(one)
    finally:
        shutil.rmtree(home, ignore_errors=True)
        if server is not None:
            server.drop(NAME)
    chunks = plan_chunks(holding, today)
    path = place / "peer.db"
    try:
        with drawing(f"{kind}: filling a peer's table", holding.segments) as report:
            if server is None:
                peers.fill_file(path, chunks, report)
            else:
                peers.fill_server(server, chunks, report)
        for number, due in enumerate(holding.due):
            day, busy = today + timedelta(days=number), read_busy_cores()
            done = (
                peers.delete_from_file(path, day) if server is None else peers.delete_from_server(server, day)
            )
            one = tell_deletion(done, held=holding.segments, due=due, server=server, busy=busy)
            measured.append(one)
            tell(one)
    finally:
        path.unlink(missing_ok=True)
        if server is not None:
            server.drop(peers.DATABASE)
    return measured


def tell(one: Measured) -> None:
    """Write what was just measured as a line of progress."""
    click.echo(
        f"  {one.database}, {one.what}: {one.due:,} of {one.held:,} gone after {one.gone_seconds:.1f} s,"
        f" all of it after {one.seconds:.1f} s; others used {one.busy:.1f} cores",
        err=True,
    )


@contextlib.contextmanager
def drawing(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Give what draws a bar while rows are made; a line where standard error is no terminal."""
    if not sys.stderr.isatty():
        click.echo(f"{what}, {total:,}", err=True)
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


if __name__ == "__main__":
    main()
