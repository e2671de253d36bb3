"""`python -m bench.egress`: tunnels through the security proxy beside other proxies, and a boundary made."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from bench.egress.proxies import STARTERS, Proxy
from bench.egress.starts import measure
from bench.gateway.processes import (
    GATEWAY_CORE,
    LOAD_CORE,
    StartFailed,
    read_cpu_seconds,
    read_memory,
    wait_for_quiet,
)
from bench.machine import describe_machine, tell_machine, write_table

SECONDS, QUICK_SECONDS = 5.0, 1.5
VISITS = 3
KINDS = (("tunnels", 1), ("tunnels", 32), ("bytes", 1), ("bytes", 16))
AIM_READY_MS, AIM_OF_SQUID, AIM_OF_MITMPROXY = 100.0, 0.6, 8.0
NOTES = """\
- A tunnel: connect, CONNECT, a byte each way, close. Bytes: what a client gets through open tunnels from a
  host that sends as fast as it can. Medians of visits in turn; proxy on core 0, client and host on core 1,
  whose limit the fastest are near.
- Bailee seals a row and hands it to the disk before it dials, and another at the end; the others log nothing.
- CPU of all processes of the proxy: for a tunnel, or for a GB."""


@dataclass
class Cell:
    """What a proxy did with a load: tunnels a second or GB/s; ms; CPU in us for a tunnel, s for a GB."""

    proxy: str
    kind: str
    count: int
    rate: float
    p50: float
    p99: float
    cpu: float
    memory: int
    bad: int


@click.command()
@click.option("--quick", is_flag=True, help="One short visit to each: rough figures.")
@click.option("--only", multiple=True, metavar="PROXY", help="Which ones.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all here.")
def main(quick: bool, only: tuple[str, ...], json_file: Path | None) -> None:
    """Measure proxies and a boundary's start.

    Tables go to standard output, progress to standard error; interrupting leaves nothing behind.
    """
    os.sched_setaffinity(0, {LOAD_CORE} & os.sched_getaffinity(0) or os.sched_getaffinity(0))
    names = [name for name in STARTERS if not only or name in only]
    cells: list[Cell] = []
    abouts, failures = {}, {}
    starts = {who: measure(who == "user") for who in ("root", "user") if who == "user" or os.geteuid() == 0}
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-egress-") as made:
        proxies: list[Proxy] = []
        try:
            for name in names:
                place = Path(made, name)
                place.mkdir()
                try:
                    proxies.append(STARTERS[name](place))
                    abouts[name] = proxies[-1].about
                except StartFailed as fault:
                    failures[name] = str(fault)
            for kind, count in KINDS:
                visits: dict[str, list[Cell]] = {}
                for number in range(1 if quick else VISITS):
                    for proxy in proxies:
                        busy = wait_for_quiet(6.0)
                        print(f"{kind} {count}, {proxy.name}, {number + 1}, {busy:.2f} busy", file=sys.stderr)
                        cell = _visit(proxy, kind, count, QUICK_SECONDS if quick else SECONDS)
                        visits.setdefault(proxy.name, []).append(cell)
                cells += [_middle(found) for found in visits.values()]
        finally:
            for proxy in proxies:
                proxy.stop()
    if json_file:
        facts = {"machine": describe_machine(), "proxies": abouts, "not_measured": failures, "starts": starts}
        json_file.write_text(json.dumps(facts | {"cells": [asdict(one) for one in cells]}, indent=1) + "\n")
    click.echo(_write(cells, abouts, failures, starts))


def _visit(proxy: Proxy, kind: str, count: int, seconds: float) -> Cell:
    root = proxy.process.pid
    spent = read_cpu_seconds(root)
    words = [str(proxy.port), str(proxy.host_port), kind, str(count), str(seconds)]
    done = subprocess.run(
        ["taskset", "--cpu-list", str(LOAD_CORE), sys.executable, "-m", "bench.egress.load", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        raise click.ClickException(f"the load failed: {done.stderr[-400:]}")
    told = json.loads(done.stdout)
    used = read_cpu_seconds(root) - spent
    amount = max(1e-9, told["rate"] * seconds)
    cpu = used / amount * (1e6 if kind == "tunnels" else 1)
    memory = read_memory(root).pss
    return Cell(proxy.name, kind, count, told["rate"], told["p50"], told["p99"], cpu, memory, told["bad"])


def _middle(found: list[Cell]) -> Cell:
    middle = {
        name: statistics.median(getattr(one, name) for one in found) for name in ("rate", "p50", "p99", "cpu")
    }
    last = found[-1]
    bad = sum(one.bad for one in found)
    return Cell(last.proxy, last.kind, last.count, **middle, memory=last.memory, bad=bad)


def _write(
    cells: list[Cell],
    abouts: dict[str, str],
    failures: dict[str, str],
    starts: dict[str, dict[str, float]],
) -> str:
    parts = ["# Egress", f"{tell_machine()} Proxy on core {GATEWAY_CORE}, load on core {LOAD_CORE}."]
    told = [[name, about] for name, about in abouts.items()]
    told += [[name, f"NOT MEASURED: {why}"] for name, why in failures.items()]
    parts.append(write_table(["proxy", "what it is"], told))
    rows = [
        [
            f"as {who}",
            f"{one['ready']:.0f}",
            f"{AIM_READY_MS:.0f}: {'met' if one['ready'] < AIM_READY_MS else 'MISSED'}",
            f"{one['whole']:.0f}",
        ]
        for who, one in starts.items()
    ]
    parts.append(write_table(["a boundary", "ready, ms", "aim", "with `true` and its end, ms"], rows))
    rates = {(one.proxy, one.kind, one.count): one.rate for one in cells}
    for kind, unit, cost in (("tunnels", "tunnels/s", "CPU us each"), ("bytes", "GB/s", "CPU s/GB")):
        heads = ["proxy", "at a time", unit, "to bailee", "p50 / p99 ms", cost, "memory MB", "bad"]
        rows = []
        for one in (cell for cell in cells if cell.kind == kind):
            own = rates.get(("bailee", kind, one.count), 0.0)
            rows.append(
                [
                    one.proxy,
                    str(one.count),
                    f"{one.rate:,.0f}" if kind == "tunnels" else f"{one.rate:.2f}",
                    f"{own / one.rate:.2f}" if one.rate else "-",
                    f"{one.p50:.2f} / {one.p99:.2f}" if kind == "tunnels" else "-",
                    f"{one.cpu:,.0f}" if kind == "tunnels" else f"{one.cpu:.2f}",
                    f"{one.memory / 1e6:.0f}",
                    str(one.bad),
                ]
            )
        parts.append(write_table(heads, rows))
    return "\n\n".join([*parts, *_tell_aims(cells), NOTES])


def _tell_aims(cells: list[Cell]) -> list[str]:
    rates = {(one.proxy, one.kind, one.count): one.rate for one in cells}
    told = []
    for peer, kind, count, aim in (
        ("squid", "tunnels", 32, AIM_OF_SQUID),
        ("mitmproxy", "tunnels", 32, AIM_OF_MITMPROXY),
        ("squid", "bytes", 1, 1.0),
    ):
        own, other = rates.get(("bailee", kind, count)), rates.get((peer, kind, count))
        if own and other:
            verdict = "met" if own / other >= aim else "MISSED"
            told.append(f"Aim: {kind} ({count}) at least {aim:g} of {peer}'s; {own / other:.2f}, {verdict}.")
    return ["\n".join(told)] if told else []


if __name__ == "__main__":
    main()
