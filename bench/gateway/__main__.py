"""`python -m bench.gateway`: all gateways, all workloads, interleaved, in one run."""

import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import click

from bench.gateway import wrk
from bench.gateway.corpus import ROOT, load
from bench.gateway.gateways import STARTERS, Running
from bench.gateway.load import Plan
from bench.gateway.measurements import (
    Cell,
    Upstream,
    check_fidelity,
    combine,
    measure,
    measure_growth,
    measure_storage,
    start_upstream,
)
from bench.gateway.processes import GATEWAY_CORE, LOAD_CORE, StartFailed
from bench.gateway.reports import Results, write_json, write_tables
from bench.gateway.workloads import Workload, make_workloads

CELLS = {
    "small": (1, 16, 64),
    "agent": (1, 16, 64),
    "fresh": (16, 64),
    "session": (16, 64),
    "paced": (16, 64),
}
QUICK_CELLS = {"small": (64,), "agent": (1, 64), "fresh": (64,), "session": (16,), "paced": (64,)}
PLAN = Plan(warm_seconds=0.5, seconds=3.4, most_seconds=15.0)
QUICK_PLAN = Plan(warm_seconds=0.3, seconds=1.2, most_seconds=8.0)
# Starts spread over one answer, so that streams are at different events at any one time.
STAGGER_SECONDS, PACED_WARM_SECONDS, PACED_SECONDS = 1.0, 1.5, 3.0
GROWTH_ANSWERS, GROWTH_SECONDS = 10_000, 120.0
QUICK_GROWTH_ANSWERS, QUICK_GROWTH_SECONDS = 2_000, 10.0
EXTRAS = ("growth", "storage", "wrk")
# Fast enough that a generator in Python might hold them back.
FAST = ("direct", "nginx")


@click.command()
@click.option("--quick", is_flag=True, help="Short visits and fewer cells: a few minutes, rough figures.")
@click.option(
    "--only",
    multiple=True,
    metavar="WORD",
    help=f"A gateway ({' '.join(STARTERS)}), workload ({' '.join(CELLS)}), c1 c16 c64, {' '.join(EXTRAS)}.",
)
@click.option("--visits", type=click.IntRange(min=1), help="Visits to each cell. [default: 3, quick 1]")
@click.option(
    "--corpus",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A recording to take requests from, instead of recording the real agent.",
)
@click.option(
    "--agent", type=click.Path(path_type=Path), help="The agent's program, if not the one npm installed here."
)
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures here."
)
def main(
    quick: bool,
    only: tuple[str, ...],
    visits: int | None,
    corpus: Path | None,
    agent: Path | None,
    json_file: Path | None,
) -> None:
    """Measure what forwarding costs: Bailee beside no gateway, nginx, LiteLLM and two bare probes.

    Tables go to standard output, progress to standard error. A gateway that is not installed is reported as
    such, with the reason; `bench/setup` installs them.
    """
    wanted = set(only)
    unknown = wanted - {*STARTERS, *CELLS, *EXTRAS, "c1", "c16", "c64"}
    if unknown:
        raise click.BadParameter(f"unknown: {', '.join(sorted(unknown))}", param_hint="--only")
    names = [name for name in STARTERS if name in wanted] or list(STARTERS)
    extras = wanted & set(EXTRAS)
    cells = select_cells(QUICK_CELLS if quick else CELLS, wanted)
    if extras and not wanted & {*CELLS, "c1", "c16", "c64"}:
        cells = {}
    extras = extras or (set(EXTRAS) if not wanted & {*CELLS, "c1", "c16", "c64"} else set())
    plan = QUICK_PLAN if quick else PLAN
    rounds = visits or (1 if quick else 3)

    loaded = load(corpus, agent)
    workloads = make_workloads(loaded)
    settings = f"{rounds} visit(s) of {plan.seconds:g} s a cell, interleaved{', QUICK' if quick else ''}"
    results = Results(loaded.origin, settings, list(workloads.values()))
    os.sched_setaffinity(0, {LOAD_CORE} & os.sched_getaffinity(0) or os.sched_getaffinity(0))
    if (os.cpu_count() or 1) <= max(GATEWAY_CORE, LOAD_CORE):
        tell("only one core: gateway and generator share it, figures are not comparable")
    # Ended politely, it ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="bailee-bench-") as name:
        place = Path(name)
        # nginx's worker gives up root and must still reach its own folder.
        place.chmod(0o755)
        with start_upstream(results.workloads, place / "stub.log") as upstream:
            running = start_gateways(names, place, upstream, workloads["agent"], results)
            try:
                run_cells(running, cells, workloads, plan, rounds, upstream, results)
                run_extras(running, extras, workloads, quick, upstream, results)
                if "wrk" in extras:
                    run_wrk(running, workloads, 1.0 if quick else 3.0, upstream, place, results)
            finally:
                for gateway in running:
                    gateway.stop()
    if json_file is not None:
        write_json(results, json_file)
    click.echo(write_tables(results), nl=False)


def select_cells(cells: dict[str, tuple[int, ...]], wanted: set[str]) -> dict[str, tuple[int, ...]]:
    """Return the workloads and concurrencies asked for; all of them if none is named."""
    chosen = {name: levels for name, levels in cells.items() if name in wanted or not wanted & set(cells)}
    asked = {int(word[1:]) for word in wanted if word[1:].isdigit()}
    if not asked:
        return chosen
    return {
        name: tuple(sorted(asked)) if name in wanted else tuple(c for c in levels if c in asked)
        for name, levels in chosen.items()
    }


def start_gateways(
    names: list[str], place: Path, upstream: Upstream, workload: Workload, results: Results
) -> list[Running]:
    """Start every gateway and see that it answers right; what does not is reported and left out."""
    running = []
    for name in names:
        folder = place / name
        folder.mkdir(mode=0o755)
        tell(f"starting {name}")
        gateway: Running | None = None
        try:
            gateway = STARTERS[name](folder, upstream.port)
            results.fidelity.append(check_fidelity(gateway, workload, upstream))
        except (StartFailed, ValueError, KeyError, subprocess.SubprocessError) as error:
            results.failures[name] = " ".join(str(error).split())[:300]
            tell(f"  not measured: {results.failures[name]}")
            if gateway is not None:
                gateway.stop()
            continue
        running.append(gateway)
    results.gateways = running
    return running


def run_cells(
    running: list[Running],
    cells: dict[str, tuple[int, ...]],
    workloads: dict[str, Workload],
    plan: Plan,
    rounds: int,
    upstream: Upstream,
    results: Results,
) -> None:
    """Visit all cells of all gateways in turn, then again, so that a disturbance meets all alike."""
    found: dict[tuple[str, str, int], list[Cell]] = {}
    for round_number in range(rounds):
        for name, levels in cells.items():
            workload = workloads[name]
            fitted = fit(plan, workload)
            for level in levels:
                for gateway in running:
                    cell = measure(gateway, workload, level, fitted, upstream)
                    found.setdefault((name, gateway.name, level), []).append(cell)
                    tell(f"  {round_number + 1}/{rounds} {describe(cell)}")
    results.cells = [combine(visited) for visited in found.values()]


def describe(cell: Cell) -> str:
    """Return one visit as a line of progress."""
    return (
        f"{cell.workload} c{cell.concurrency} {cell.gateway}: {cell.per_second:,.1f}/s, p50 {cell.p50:.2f},"
        f" cpu {cell.cpu:.3f} ms, busy {cell.busy:.0%}, others {cell.foreign:.0%}, bad {cell.bad}"
    )


def fit(plan: Plan, workload: Workload) -> Plan:
    """Return the plan for a workload: paced streams start spread out and are given time to do so."""
    if not workload.pace:
        return plan
    seconds = max(plan.seconds, PACED_SECONDS)
    return replace(plan, stagger_seconds=STAGGER_SECONDS, warm_seconds=PACED_WARM_SECONDS, seconds=seconds)


def run_extras(
    running: list[Running],
    extras: set[str],
    workloads: dict[str, Workload],
    quick: bool,
    upstream: Upstream,
    results: Results,
) -> None:
    """Measure growth of memory and of what is kept."""
    answers, seconds = (
        (QUICK_GROWTH_ANSWERS, QUICK_GROWTH_SECONDS) if quick else (GROWTH_ANSWERS, GROWTH_SECONDS)
    )
    for gateway in running:
        if "storage" in extras and gateway.home is not None:
            tell(f"storage {gateway.name}")
            sessions = 20 if quick else 100
            results.storage.append(measure_storage(gateway, workloads["session"], sessions, upstream))
        if "growth" in extras and gateway.process is not None:
            tell(f"growth {gateway.name}")
            results.growth.append(measure_growth(gateway, workloads["agent"], answers, seconds, upstream))


def run_wrk(
    running: list[Running],
    workloads: dict[str, Workload],
    seconds: float,
    upstream: Upstream,
    place: Path,
    results: Results,
) -> None:
    """Measure the fastest rows with a generator written in C as well, as a check on ours."""
    if not wrk.is_installed():
        results.failures["wrk"] = "wrk is not installed: run bench/setup"
        return
    for name in ("small", "agent"):
        upstream.choose(name)
        for level in (16, 64):
            for gateway in (one for one in running if one.name in FAST):
                ceiling = wrk.measure(gateway, workloads[name], level, seconds, place)
                results.ceilings.append(ceiling)
                tell(f"  wrk {name} c{level} {gateway.name}: {ceiling.per_second:,.1f}/s, bad {ceiling.bad}")


def tell(text: str) -> None:
    """Write a line of progress."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
