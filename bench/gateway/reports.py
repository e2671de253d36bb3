"""What was measured, as Markdown tables for people and as JSON for programs."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.gateway.gateways import Running
from bench.gateway.measurements import Cell, Fidelity, Growth, Storage
from bench.gateway.workloads import Workload
from bench.gateway.wrk import Ceiling
from bench.machine import describe_machine, tell_machine, write_table

_HELD_BACK = 0.9
_ROUGH = 1.35

NOTES = """\
- Stub upstream and load generator (Python, uvloop) share one core; row `direct` is their ceiling, and wrk, a
  generator in C, checks it. `^`: the gateway used less than 90% of its core at that concurrency, so something
  else held it back: the generator (compare row `direct`) or waiting for the disk.
- `~`: best and worst visit differ by more than 1.35x. Figures are medians of visits, p99 of each visit's p99.
- +TTFB: first byte of the answer's body at concurrency 1, less row `direct`'s (p50 less p50, p99 less p99).
- CPU ms/req: user and system time of all the gateway's processes. PSS shares a page among those that map
  it; RSS counts it in each. Memory is read after a visit, of a gateway that has seen all visits before.
- Sessions turn over faster than anybody's: every 12 requests of a connection are a new session, in `fresh`
  every single one.
- Not comparable: nginx and the probes authenticate, decide and record nothing. LiteLLM authenticates against
  one master key without a database, translates routes and counts costs; with content logging off it keeps
  nothing. Bailee authenticates, decides by policy, and keeps every request and answer sealed and committed to
  disk; it does no routing among models, no budgets and no cost tables.
- Plain HTTP on the loopback interface: no TLS, no network latency. Answers of all but `paced` come in one
  write, as one chunk; that shows the cost of bytes and requests, `paced` that of events."""


@dataclass
class Results:
    """Everything one run found."""

    corpus: str
    settings: str
    workloads: list[Workload]
    gateways: list[Running] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)
    fidelity: list[Fidelity] = field(default_factory=list)
    growth: list[Growth] = field(default_factory=list)
    storage: list[Storage] = field(default_factory=list)
    ceilings: list[Ceiling] = field(default_factory=list)

    def find(self, gateway: str, workload: str, concurrency: int) -> Cell | None:
        """Return a cell if it was measured."""
        place = (gateway, workload, concurrency)
        return next((c for c in self.cells if (c.gateway, c.workload, c.concurrency) == place), None)


def write_json(results: Results, path: Path) -> None:
    """Write all of it, figures unrounded."""
    document = {
        "machine": describe_machine(),
        "corpus": results.corpus,
        "settings": results.settings,
        "workloads": {workload.name: workload.about for workload in results.workloads},
        "gateways": {
            gateway.name: {"about": gateway.about, "version": gateway.version} for gateway in results.gateways
        },
        "not_measured": results.failures,
        "cells": [asdict(cell) for cell in results.cells],
        "fidelity": [asdict(one) for one in results.fidelity],
        "growth": [asdict(one) for one in results.growth],
        "storage": [asdict(one) for one in results.storage],
        "ceilings": [asdict(one) for one in results.ceilings],
    }
    path.write_text(json.dumps(document, indent=1) + "\n")


def write_tables(results: Results) -> str:
    """Return all tables as Markdown."""
    parts = [
        "# Gateways",
        f"{tell_machine()} Gateway on core 0, stub and generator on core 1. {results.settings}."
        f" Requests: {results.corpus}.",
    ]
    rows = [[one.name, one.version, one.about] for one in results.gateways]
    rows += [[name, "-", f"NOT MEASURED: {reason}"] for name, reason in results.failures.items()]
    parts.append(write_table(["gateway", "version", "what it does"], rows))
    for workload in results.workloads:
        table = _workload_table(results, workload)
        if table:
            parts += [f"## {workload.name}", workload.about[0].upper() + workload.about[1:] + ".", table]
    if results.growth:
        parts += ["## Memory before and after", _growth_table(results.growth)]
    if results.storage:
        parts += ["## Kept of the session workload", _storage_table(results.storage)]
    if results.ceilings:
        parts += ["## The same by wrk", _ceiling_table(results.ceilings)]
    if results.fidelity:
        rows = [[one.gateway, _yes(one.request_same), _yes(one.answer_same)] for one in results.fidelity]
        heads = ["gateway", "upstream saw the body's bytes", "client saw the answer's bytes"]
        parts += ["## Bytes unchanged", write_table(heads, rows)]
    bad = [cell for cell in results.cells if cell.bad]
    if bad:
        lines = [
            f"- {c.gateway}, {c.workload}, c{c.concurrency}: {c.bad}; first: {c.first_bad!r}" for c in bad
        ]
        parts += ["## Bad answers", "\n".join(lines)]
    parts += ["## Notes", NOTES]
    return "\n\n".join(parts) + "\n"


def _workload_table(results: Results, workload: Workload) -> str:
    cells = [cell for cell in results.cells if cell.workload == workload.name]
    if not cells:
        return ""
    levels = sorted({cell.concurrency for cell in cells})
    most = levels[-1]
    heads = ["gateway"]
    for level in levels:
        heads += [f"c{level} req/s", f"c{level} p50 / p99 ms"]
    has_first = 1 in levels
    if has_first:
        heads.append("+TTFB p50 / p99 ms")
    if workload.pace:
        heads.append(f"event late p50 / p99 ms (c{most})")
    heads += [f"CPU ms/req (c{most})", "PSS / RSS MB", f"vs nginx (c{most})", f"vs LiteLLM (c{most})", "bad"]
    rows = []
    for name in dict.fromkeys(cell.gateway for cell in cells):
        row = [name]
        for level in levels:
            cell = results.find(name, workload.name, level)
            row += _rate(cell, workload) if cell else ["-", "-"]
        if has_first:
            row.append(_added(results, name, workload.name))
        last = results.find(name, workload.name, most)
        if workload.pace:
            row.append(f"{_ms(last.late_p50)} / {_ms(last.late_p99)}" if last else "-")
        is_gateway = last is not None and name != "direct"
        row.append(f"{last.cpu:.3f}" if last and is_gateway else "-")
        row.append(f"{last.pss / 1e6:.0f} / {last.rss / 1e6:.0f}" if last and is_gateway else "-")
        for peer in ("nginx", "litellm"):
            row.append(_ratio(last, results.find(peer, workload.name, most)))
        row.append(str(sum(cell.bad for cell in cells if cell.gateway == name)))
        rows.append(row)
    rows += [
        [name, f"not measured: {reason}", *["-"] * (len(heads) - 2)]
        for name, reason in results.failures.items()
    ]
    return write_table(heads, rows)


def _rate(cell: Cell, workload: Workload) -> list[str]:
    mark = "~" if cell.spread > _ROUGH else ""
    is_loaded = cell.gateway != "direct" and cell.concurrency > 1 and not workload.pace
    if is_loaded and cell.busy < _HELD_BACK:
        mark += "^"
    digits = 0 if cell.per_second >= 1000 else 1
    return [f"{cell.per_second:,.{digits}f}{mark}", f"{_ms(cell.p50)} / {_ms(cell.p99)}"]


def _added(results: Results, gateway: str, workload: str) -> str:
    cell, direct = results.find(gateway, workload, 1), results.find("direct", workload, 1)
    if cell is None or direct is None:
        return "-"
    return f"{cell.first_p50 - direct.first_p50:+.3f} / {cell.first_p99 - direct.first_p99:+.3f}"


def _ratio(cell: Cell | None, other: Cell | None) -> str:
    if cell is None or other is None or not other.per_second:
        return "-"
    ratio = cell.per_second / other.per_second
    return f"{ratio:,.0f}x" if ratio >= 10 else f"{ratio:.3f}x"


def _growth_table(growth: list[Growth]) -> str:
    heads = [
        "gateway",
        "requests",
        "processes",
        "PSS before MB",
        "PSS after MB",
        "change",
        "RSS before / after MB",
    ]
    rows = [
        [
            one.gateway,
            f"{one.answers:,}",
            str(one.after.processes),
            f"{one.before.pss / 1e6:.1f}",
            f"{one.after.pss / 1e6:.1f}",
            f"{100 * (one.after.pss / one.before.pss - 1):+.1f}%" if one.before.pss else "-",
            f"{one.before.rss / 1e6:.1f} / {one.after.rss / 1e6:.1f}",
        ]
        for one in growth
    ]
    return write_table(heads, rows)


def _storage_table(storage: list[Storage]) -> str:
    heads = [
        "gateway",
        "sessions",
        "request bytes",
        "bytes kept",
        "kept / request",
        "write-ahead log besides",
    ]
    rows = [
        [
            one.gateway,
            str(one.sessions),
            f"{one.request_bytes:,}",
            f"{one.stored_bytes:,}",
            f"{100 * one.stored_bytes / one.request_bytes:.2f}%" if one.request_bytes else "-",
            f"{one.journal_bytes:,}",
        ]
        for one in storage
    ]
    return write_table(heads, rows)


def _ceiling_table(ceilings: list[Ceiling]) -> str:
    heads = ["gateway", "workload", "c", "req/s", "p50 / p99 ms", "bad", "faults"]
    rows = [
        [
            one.gateway,
            one.workload,
            str(one.concurrency),
            f"{one.per_second:,.0f}",
            f"{_ms(one.p50)} / {_ms(one.p99)}",
            str(one.bad),
            one.fault or "-",
        ]
        for one in ceilings
    ]
    return write_table(heads, rows)


def _ms(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
