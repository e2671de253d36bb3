"""`python -m soak`: kill at random for long, on each database; ends with 1 if anything was violated."""

import argparse
import secrets
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bailee.database.locations import VARIABLE
from counterparts.databases import draw_name, sharing_server
from soak.faults import Victim
from soak.soaks import Soaked, soak
from soak.worlds import set_variable

KILLS = 200


def main() -> int:
    """Soak each database and tell what was found."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # its processes end with it
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--kills", type=int, default=KILLS, help="how many on each database")
    parser.add_argument("--seed", type=int, default=secrets.randbits(32), help="of an earlier soak")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], action="append", help="default: both")
    options = parser.parse_args()
    console = Console()
    console.print(f"Seed {options.seed}; the same again: make soak SEED={options.seed}")
    bars = Progress(
        TextColumn("{task.description:10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[last]}"),
        console=console,
    )
    violations = 0
    with bars:
        for database in options.database or ["sqlite", "postgresql"]:
            violations += len(_soak(database, options.kills, options.seed, bars).violations)
    console.print("[red]Violated.[/red]" if violations else "Nothing was violated.")
    return 1 if violations else 0


def _soak(database: str, kills: int, seed: int, bars: Progress) -> Soaked:
    task = bars.add_task(database, total=kills, last="")
    begun = time.monotonic()

    def report(victim: Victim, violations: list[str]) -> None:
        for what in violations:
            bars.console.print(f"[red]{database}, {victim}: {what}[/red]", markup=True, highlight=False)
        bars.update(task, advance=1, last=str(victim))
        done = int(bars.tasks[task].completed)
        if not bars.console.is_terminal and done % 20 == 0:
            bars.console.print(f"{database}: {done} of {kills}")

    folder = Path(tempfile.mkdtemp(prefix="bailee-soak-"))
    if database == "sqlite":
        put_back = set_variable(VARIABLE, None)
        soaked = soak(folder / "world", seed=seed, kills=kills, server=None, report=report)
    else:
        with sharing_server(f"soak-{secrets.token_hex(4)}") as server:
            put_back = set_variable(VARIABLE, server.url(draw_name()))
            soaked = soak(folder / "world", seed=seed, kills=kills, server=server, report=report)
    put_back()
    if soaked.violations:
        bars.console.print(f"What it left is in {folder}.")
    else:
        shutil.rmtree(folder)
    bars.console.print(
        f"{database}: {sum(soaked.kills.values())} kills in {time.monotonic() - begun:.0f} s "
        f"({', '.join(f'{victim} {count}' for victim, count in sorted(soaked.kills.items()))}); "
        f"{soaked.acknowledged} answers acknowledged, {soaked.gone} erased or expired, "
        f"{soaked.entries} ledger entries; violations: {len(soaked.violations)}"
    )
    return soaked


if __name__ == "__main__":
    sys.exit(main())
