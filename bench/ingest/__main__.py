"""`python -m bench.ingest`: metrics and errors received and held, events/s on one core, beside a peer."""

import json
import os
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from bench.gateway.processes import (
    GATEWAY_CORE,
    LOAD_CORE,
    StartFailed,
    read_cpu_seconds,
    read_machine_cpu_seconds,
    read_memory,
    wait_for_quiet,
)
from bench.ingest.load import Visit, is_installed, load
from bench.ingest.payloads import Payload, make_payloads
from bench.ingest.receivers import FLOWS, MISSING, STARTERS, Receiver
from bench.machine import describe_machine, tell_machine, write_table

CONNECTIONS = 16
SECONDS, QUICK_SECONDS = 10.0, 2.0
VISITS = 3

NOTES = """\
- Events in requests that were answered 2xx, medians of visits in turn; receiver on core 0, wrk on core 1. An
  answer means that what is held of the request is on the disk, for both.
- `held`: requests found in the store afterwards, to those answered. One that was held when the load ended and
  whose answer nobody read counts as well, so that it may be a little over 1.
- CPU of all processes of the receiver. Memory is its PSS, before the first visit and after the last.
- Not comparable: Bugsink keeps the whole event in clear and groups it on arrival. Bailee keeps what its
  catalogue names, sealed, and groups when it is asked.
- Plain HTTP on the loopback interface."""


@dataclass(frozen=True)
class Cell:
    """What a receiver did with a kind of request, medians of visits. Times in ms, memory in bytes."""

    receiver: str
    payload: str
    events_per_second: float
    requests_per_second: float
    p50: float
    p99: float
    cpu_us_per_event: float
    others: float
    held: float
    bad: int
    before_bytes: int
    after_bytes: int


@click.command()
@click.option("--quick", is_flag=True, help="One short visit to each: rough figures.")
@click.option("--only", multiple=True, metavar="WORD", help="A receiver, or the beginning of a kind's name.")
@click.option("--directory", type=click.Path(path_type=Path), help="On the disk to measure. [default: here]")
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures here."
)
def main(quick: bool, only: tuple[str, ...], directory: Path | None, json_file: Path | None) -> None:
    """Measure how many events a receiver takes and holds on one core.

    Tables go to standard output, progress to standard error; interrupting leaves nothing behind.
    """
    if not is_installed():
        raise click.ClickException("wrk is not installed: run bench/setup")
    os.sched_setaffinity(0, {LOAD_CORE} & os.sched_getaffinity(0) or os.sched_getaffinity(0))
    names = [name for name in STARTERS if name in only] or list(STARTERS)
    words = tuple(word for word in only if word not in STARTERS)
    payloads = [one for one in make_payloads() if not words or one.name.startswith(words)]
    cells: list[Cell] = []
    versions: dict[str, str] = {}
    failures = dict(MISSING)
    with tempfile.TemporaryDirectory(dir=directory or Path.cwd(), prefix=".bench-ingest-") as folder:
        for payload in payloads:
            for name in names:
                if payload.flow not in FLOWS[name]:
                    continue
                place = Path(folder, f"{name}-{len(cells)}")
                place.mkdir()
                try:
                    receiver = STARTERS[name](place)
                except StartFailed as fault:
                    failures[name] = str(fault)
                    continue
                versions[name] = f"{receiver.version}: {receiver.about}"
                try:
                    cells.append(_measure(receiver, payload, place, quick=quick))
                finally:
                    receiver.stop()
    if json_file:
        facts = {"machine": describe_machine(), "receivers": versions, "not_measured": failures}
        facts |= {
            "payloads": {one.name: one.about for one in payloads},
            "cells": [asdict(one) for one in cells],
        }
        json_file.write_text(json.dumps(facts, indent=1) + "\n")
    click.echo(_write(cells, payloads, versions, failures))


def _measure(receiver: Receiver, payload: Payload, place: Path, *, quick: bool) -> Cell:
    seconds = QUICK_SECONDS if quick else SECONDS
    headers = (*payload.headers, *receiver.headers(payload.flow))
    root, visits, cpu, others = receiver.process.pid, [], [], []

    def send(seconds: float) -> Visit:
        return load(
            receiver.port,
            payload.path,
            headers,
            payload.bodies,
            connections=CONNECTIONS,
            seconds=seconds,
            core=LOAD_CORE,
            place=place,
        )

    warm = send(1)
    before = read_memory(root).pss
    for number in range(1 if quick else VISITS):
        busy = wait_for_quiet(6.0)
        print(f"{payload.name}, {receiver.name}, visit {number + 1}, {busy:.2f} busy", file=sys.stderr)
        spent, all_spent = read_cpu_seconds(root), read_machine_cpu_seconds()
        visit = send(seconds)
        used = read_cpu_seconds(root) - spent
        visits.append(visit)
        cpu.append(used / max(1, visit.good * payload.events) * 1e6)
        # wrk is taken to use its core in full.
        others.append(max(0.0, (read_machine_cpu_seconds() - all_spent - used) / seconds - 1))
    good = warm.good + sum(one.good for one in visits)
    return Cell(
        receiver=receiver.name,
        payload=payload.name,
        events_per_second=statistics.median(one.good / seconds * payload.events for one in visits),
        requests_per_second=statistics.median(one.good / seconds for one in visits),
        p50=statistics.median(one.p50 for one in visits),
        p99=statistics.median(one.p99 for one in visits),
        cpu_us_per_event=statistics.median(cpu),
        others=statistics.median(others),
        held=receiver.count(payload.flow) / max(1, good),
        bad=warm.bad + sum(one.bad for one in visits),
        before_bytes=before,
        after_bytes=read_memory(root).pss,
    )


def _write(
    cells: list[Cell], payloads: list[Payload], versions: dict[str, str], failures: dict[str, str]
) -> str:
    parts = ["# Ingest", f"{tell_machine()} Receiver on core {GATEWAY_CORE}, load on core {LOAD_CORE}."]
    told = [[name, about] for name, about in versions.items()]
    told += [[name, f"NOT MEASURED: {why}"] for name, why in failures.items()]
    parts.append(write_table(["receiver", "what it is"], told))
    kinds = [[one.name, f"{one.size:,.0f}", one.about] for one in payloads]
    parts.append(write_table(["requests", "bytes", "what is in each"], kinds))
    aims = {one.name: one.aim for one in payloads}
    heads = ["requests", "receiver", "events/s", "aim", "requests/s", "p50 / p99 ms", "CPU us/event", "held"]
    heads += ["bad", "memory MB before / after"]
    rows = [
        [
            one.payload,
            one.receiver,
            f"{one.events_per_second:,.0f}",
            _tell_aim(one, aims[one.payload]),
            f"{one.requests_per_second:,.0f}",
            f"{one.p50:.1f} / {one.p99:.1f}",
            f"{one.cpu_us_per_event:,.0f}",
            f"{one.held:.3f}",
            str(one.bad),
            f"{one.before_bytes / 1e6:.0f} / {one.after_bytes / 1e6:.0f}",
        ]
        for one in cells
    ]
    return "\n\n".join([*parts, write_table(heads, rows), NOTES])


def _tell_aim(cell: Cell, aim: int) -> str:
    if not aim or cell.receiver != "bailee":
        return "-"
    return f"{aim:,}: {'met' if cell.events_per_second >= aim else 'MISSED'}"


if __name__ == "__main__":
    main()
