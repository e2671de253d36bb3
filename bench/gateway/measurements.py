"""One visit to one gateway, and what is read from the machine meanwhile."""

import math
import os
import pickle
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import uvloop

from bench.gateway.answers import MESSAGE_STOP
from bench.gateway.corpus import ROOT
from bench.gateway.gateways import Running
from bench.gateway.load import Plan, Script, Visit, visit
from bench.gateway.processes import (
    LOAD_CORE,
    Memory,
    read_cpu_seconds,
    read_machine_cpu_seconds,
    read_memory,
    start,
    stop,
    wait_for_quiet,
)
from bench.gateway.workloads import Workload

# A visit during which others took more than this share of a core is repeated.
FOREIGN_SHARE = 0.12
_REPEATS = 2
_QUIET_SECONDS = 6.0


@dataclass(frozen=True)
class Cell:
    """What one visit, or the median of several, told. Times in ms, memory in bytes.

    Attributes:
        late_p50, late_p99: paced answers: from the upstream's sending an event to its arrival.
        cpu: CPU time of the gateway's processes per request.
        busy: share of its core that the gateway used; well below 1 under load, something else held it back.
        foreign: share of a core that others used.
    """

    gateway: str
    workload: str
    concurrency: int
    answers: int
    per_second: float
    p50: float
    p99: float
    first_p50: float
    first_p99: float
    late_p50: float
    late_p99: float
    cpu: float
    busy: float
    pss: int
    rss: int
    foreign: float
    bad: int
    first_bad: str
    visits: int = 1
    spread: float = 1.0


@dataclass(frozen=True)
class Growth:
    """Memory of a gateway before and after a number of requests."""

    gateway: str
    answers: int
    before: Memory
    after: Memory


@dataclass(frozen=True)
class Storage:
    """What a gateway keeps of the session workload, in bytes; `journal` is the part a checkpoint empties."""

    gateway: str
    sessions: int
    request_bytes: int
    stored_bytes: int
    journal_bytes: int


@dataclass(frozen=True)
class Fidelity:
    """Whether the upstream saw the bytes of the body that was sent, and the client those of the answer."""

    gateway: str
    request_same: bool
    answer_same: bool


class Upstream:
    """The stub upstream as a process of its own, on the load generator's core."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int) -> None:
        self.process = process
        self.port = port

    def choose(self, workload: str, *, digest: bool = False) -> None:
        """Switch to a workload."""
        self._ask("PUT", f"/bench/{workload}{'?digest' if digest else ''}")

    def read_last(self) -> bytes:
        """Return length and digest of the body of the last request."""
        return self._ask("GET", "/bench/last")

    def _ask(self, method: str, target: str) -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{target}", method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=10) as answer:
            body: bytes = answer.read()
            return body


@contextmanager
def start_upstream(workloads: list[Workload], log: Path) -> Iterator[Upstream]:
    """Run the stub upstream for as long as the context lasts."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        port = listener.getsockname()[1]
        command = [sys.executable, "-m", "bench.gateway.stub", str(listener.fileno())]
        environment = {"PATH": os.environ["PATH"]}
        process = start(
            command,
            core=LOAD_CORE,
            environment=environment,
            log=log,
            stdin=subprocess.PIPE,
            descriptors=(listener.fileno(),),
            directory=ROOT,
        )
    try:
        assert process.stdin is not None
        pickle.dump(workloads, process.stdin)
        process.stdin.close()
        yield Upstream(process, port)
    finally:
        stop(process)


def measure(gateway: Running, workload: Workload, concurrency: int, plan: Plan, upstream: Upstream) -> Cell:
    """Visit a gateway; again if others disturbed, keeping the least disturbed visit."""
    upstream.choose(workload.name)
    best: Cell | None = None
    for _ in range(1 + _REPEATS):
        wait_for_quiet(_QUIET_SECONDS)
        cell = _measure_once(gateway, workload, concurrency, plan, upstream)
        if best is None or cell.foreign < best.foreign:
            best = cell
        if best.foreign <= FOREIGN_SHARE:
            break
    assert best is not None
    return best


def _measure_once(
    gateway: Running, workload: Workload, concurrency: int, plan: Plan, upstream: Upstream
) -> Cell:
    clocks: list[tuple[float, float, float, float]] = []

    def read_clocks() -> None:
        ours = time.process_time() + read_cpu_seconds(upstream.process.pid)
        theirs = read_cpu_seconds(gateway.process.pid) if gateway.process else 0.0
        clocks.append((time.monotonic(), theirs, ours, read_machine_cpu_seconds()))

    outcome = _visit(gateway, workload, concurrency, plan, read_clocks)
    seconds, theirs, ours, machine = (b - a for a, b in zip(clocks[0], clocks[-1], strict=True))
    memory = read_memory(gateway.process.pid) if gateway.process else Memory(0, 0, 0)
    tally = outcome.tally
    count = len(tally.latencies)
    return Cell(
        gateway=gateway.name,
        workload=workload.name,
        concurrency=concurrency,
        answers=count,
        per_second=count / outcome.seconds,
        p50=_percentile(tally.latencies, 50),
        p99=_percentile(tally.latencies, 99),
        first_p50=_percentile(tally.first_bytes, 50),
        first_p99=_percentile(tally.first_bytes, 99),
        late_p50=_percentile(tally.lateness, 50),
        late_p99=_percentile(tally.lateness, 99),
        cpu=1000 * theirs / count if count else math.nan,
        busy=theirs / seconds,
        pss=memory.pss,
        rss=memory.rss,
        foreign=max(0.0, (machine - theirs - ours) / seconds),
        bad=tally.bad,
        first_bad=tally.first_bad[:500],
    )


def measure_growth(
    gateway: Running, workload: Workload, answers: int, most_seconds: float, upstream: Upstream
) -> Growth:
    """Read memory, send many requests, read it again; both after a moment of rest."""
    assert gateway.process is not None
    upstream.choose(workload.name)
    # Caches and pools fill first: what is asked is whether it goes on growing.
    _visit(
        gateway, workload, 16, Plan(warm_seconds=0.0, answers=answers // 20, most_seconds=most_seconds / 10)
    )
    time.sleep(1.0)
    before = read_memory(gateway.process.pid)
    outcome = _visit(
        gateway, workload, 16, Plan(warm_seconds=0.0, answers=answers, most_seconds=most_seconds)
    )
    time.sleep(1.0)
    return Growth(gateway.name, len(outcome.tally.latencies), before, read_memory(gateway.process.pid))


def measure_storage(gateway: Running, workload: Workload, sessions: int, upstream: Upstream) -> Storage:
    """Replay whole sessions one after another and look at what the gateway's folder has grown by."""
    assert gateway.home is not None
    upstream.choose(workload.name)
    all_before, journal_before = _read_sizes(gateway.home)
    plan = Plan(warm_seconds=0.0, answers=sessions * len(workload.turns), most_seconds=300.0)
    outcome = _visit(gateway, workload, 1, plan)
    time.sleep(1.0)
    everything, journal = _read_sizes(gateway.home)
    stored = everything - journal - (all_before - journal_before)
    return Storage(gateway.name, sessions, outcome.all_sent_bytes, stored, journal)


def _read_sizes(home: Path) -> tuple[int, int]:
    """Return the bytes of all files of a folder, and of those that are write-ahead logs of SQLite."""
    sizes = {path: path.stat().st_size for path in home.rglob("*") if path.is_file()}
    return sum(sizes.values()), sum(
        size for path, size in sizes.items() if path.name.endswith(("-wal", "-shm"))
    )


def check_fidelity(gateway: Running, workload: Workload, upstream: Upstream) -> Fidelity:
    """Send one request and compare bytes at both ends.

    Raises:
        ValueError: it is not answered with status 200 and a whole stream; the text is the answer.
    """
    upstream.choose(workload.name, digest=True)
    turn = workload.turns[0]
    request = urllib.request.Request(
        f"http://127.0.0.1:{gateway.port}/v1/messages?beta=true",
        data=turn.body,
        headers=dict((*turn.headers, *gateway.headers)),
        method="POST",
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as answer:
            body: bytes = answer.read()
    except urllib.error.HTTPError as error:
        raise ValueError(f"{error.code}: {error.read()[:300]!r}") from error
    except OSError as error:
        raise ValueError(str(error)) from error
    if not body.rstrip().endswith(MESSAGE_STOP.rstrip()):
        raise ValueError(f"the answer does not end with message_stop: {body[-200:]!r}")
    seen = upstream.read_last()
    sent = b"%d %b" % (len(turn.body), sha256(turn.body).hexdigest().encode())
    return Fidelity(gateway.name, seen == sent, body == b"".join(workload.answers[0]))


def combine(cells: list[Cell]) -> Cell:
    """Return the medians of several visits of one cell."""

    def median(name: str) -> float:
        return float(statistics.median(getattr(cell, name) for cell in cells))

    first = cells[0]
    rates = [cell.per_second for cell in cells]
    return Cell(
        gateway=first.gateway,
        workload=first.workload,
        concurrency=first.concurrency,
        answers=sum(cell.answers for cell in cells),
        **{name: median(name) for name in _MEDIANS},
        pss=int(median("pss")),
        rss=int(median("rss")),
        foreign=max(cell.foreign for cell in cells),
        bad=sum(cell.bad for cell in cells),
        first_bad=next((cell.first_bad for cell in cells if cell.first_bad), ""),
        visits=len(cells),
        spread=max(rates) / min(rates) if min(rates) else math.inf,
    )


_MEDIANS = (
    "per_second", "p50", "p99", "first_p50", "first_p99", "late_p50", "late_p99", "cpu", "busy",
)  # fmt: skip


def _visit(
    gateway: Running,
    workload: Workload,
    concurrency: int,
    plan: Plan,
    on_edge: Callable[[], None] = lambda: None,
) -> Visit:
    script = Script(workload, f"127.0.0.1:{gateway.port}", gateway.headers)
    address = ("127.0.0.1", gateway.port)
    return uvloop.run(visit(script, address, connections=concurrency, plan=plan, on_edge=on_edge))


def _percentile(nanoseconds: list[int], percent: int) -> float:
    """Return a percentile (nearest rank) in ms; 0 of nothing."""
    if not nanoseconds:
        return 0.0
    ordered = sorted(nanoseconds)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] / 1e6
