"""The load generator: a fixed number of connections, each with one request in flight, on one thread."""

import asyncio
import re
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.gateway.answers import MESSAGE_STOP, TIME_MARK
from bench.gateway.workloads import SESSION_HEADER, Workload

_READ_BYTES = 512 * 1024
_SOCKET_BYTES = 208 * 1024
ANSWERS_PER_CONNECTION = 3
PATIENCE_SECONDS = 15.0
_END_OF_CHUNKS = b"\r\n0\r\n\r\n"
_CLOSING = MESSAGE_STOP + _END_OF_CHUNKS
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked", re.IGNORECASE)
_MARK = TIME_MARK[:1].encode()
_TIME = re.compile(_MARK + rb"(\d{%d})" % (len(TIME_MARK) - 1))
_shared = bytearray(_READ_BYTES)
_view = memoryview(_shared)


@dataclass
class Tally:
    """What came back. Times in nanoseconds of the monotonic clock.

    Attributes:
        latencies: from sending a request to the last byte of its answer.
        first_bytes: from sending a request to the first byte of its answer's body.
        lateness: for paced answers, from the upstream's sending an event to its arrival here.
        sent_bytes: bytes of request bodies that were answered.
        bad: answers whose status was not 200 or that did not close with message_stop.
        first_bad: the first of them, as text.
    """

    latencies: list[int] = field(default_factory=list)
    first_bytes: list[int] = field(default_factory=list)
    lateness: list[int] = field(default_factory=list)
    sent_bytes: int = 0
    bad: int = 0
    first_bad: str = ""

    def count_bad(self, text: str) -> None:
        """Count an answer that was none, and keep the first one's text."""
        self.bad += 1
        self.first_bad = self.first_bad or text


@dataclass(frozen=True)
class Plan:
    """How long a visit lasts.

    Attributes:
        warm_seconds: not counted.
        seconds: shortest time counted; it goes on until every connection has been answered three times on
            average, so that a slow server is not judged by its first answers.
        most_seconds: longest time counted.
        answers: end after that many answers instead; 0 for the rule above.
        stagger_seconds: spread the first requests over this time.
    """

    warm_seconds: float = 0.5
    seconds: float = 3.4
    most_seconds: float = 20.0
    answers: int = 0
    stagger_seconds: float = 0.0


@dataclass(frozen=True)
class Visit:
    """The outcome of one visit: what was counted between two edges, and all bytes of bodies sent."""

    seconds: float
    tally: Tally
    all_sent_bytes: int


class Script:
    """The bytes of each request of a workload, ready but for the session."""

    def __init__(self, workload: Workload, host: str, headers: tuple[tuple[str, str], ...]) -> None:
        self.requests: list[tuple[bytes, bytes]] = []
        for turn in workload.turns:
            lines = [
                "POST /v1/messages?beta=true HTTP/1.1",
                f"host: {host}",
                *(f"{name}: {value}" for name, value in (*turn.headers, *headers)),
                f"content-length: {len(turn.body)}",
                f"{SESSION_HEADER}: ",
            ]
            self.requests.append(("\r\n".join(lines).encode(), turn.body))
        self.per_session = len(self.requests) * workload.repeat


class Connection(asyncio.BufferedProtocol):
    """One client that sends the next request as soon as the last one is answered."""

    def __init__(self, script: Script, tally: Tally, on_answer: Callable[[], bool]) -> None:
        self._script = script
        self.tally = tally
        self._on_answer = on_answer
        self._transport: asyncio.Transport
        self._sent = 0
        self._count = 0
        self._session = b""
        self._body_bytes = 0
        self.is_waiting = False
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reset()

    def _reset(self) -> None:
        self._head = b""
        self._has_head = False
        self._first = 0
        self._missing = -1
        self._parts: list[bytes] = []
        self._tail = b""
        self._is_ok = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's is none of asyncio's classes

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the event loop."""
        if self.is_waiting:
            self.tally.count_bad(f"connection closed: {error}")
        if not self.closed.done():
            self.closed.set_result(None)

    def send(self) -> None:
        """Send the next request."""
        script = self._script
        if self._count % script.per_session == 0:
            self._session = str(uuid.uuid4()).encode()
        head, body = script.requests[self._count % len(script.requests)]
        self._count += 1
        self._reset()
        self._body_bytes = len(body)
        self.is_waiting = True
        self._sent = time.monotonic_ns()
        self._transport.writelines((head + self._session + b"\r\n\r\n", body))

    def close(self) -> None:
        """Close the connection."""
        self._transport.abort()

    def get_buffer(self, sizehint: int) -> bytearray:
        """Called by the event loop."""
        return _shared

    def buffer_updated(self, size: int) -> None:
        """Called by the event loop."""
        now = time.monotonic_ns()
        if not self._has_head:
            data = self._head + bytes(_view[:size])
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._head = data
                return
            part = data[end + 4 :]
            self._read_head(data[: end + 2])
        else:
            part = bytes(_view[:size])
        if part:
            if not self._first:
                self._first = now
            self._parts.append(part)
            if _MARK in part:
                self.tally.lateness.extend(now - int(found) for found in _TIME.findall(part))
        if self._missing >= 0:
            self._missing -= len(part)
            if self._missing <= 0:
                self._finish(now)
            return
        self._tail = part[-8:] if len(part) >= 8 else (self._tail + part)[-8:]
        if self._tail.endswith(_END_OF_CHUNKS):
            self._finish(now)

    def _read_head(self, head: bytes) -> None:
        self._has_head, self._head = True, head
        self._is_ok = head.startswith(b"HTTP/1.1 200")
        if not _CHUNKED.search(head):
            found = _LENGTH.search(head)
            self._missing = int(found[1]) if found else 0
        self._tail = b"\r\n"

    def _finish(self, now: int) -> None:
        parts = self._parts
        # A gateway may cut chunks anywhere, the closing event included; then look without the framing.
        if not (
            self._is_ok and (parts[-1].endswith(_CLOSING) or ends_whole(b"".join(parts), self._missing < 0))
        ):
            self.tally.count_bad((self._head + b"\n" + b"".join(parts)[-300:]).decode("utf-8", "replace"))
        tally = self.tally
        tally.latencies.append(now - self._sent)
        tally.first_bytes.append(self._first - self._sent)
        tally.sent_bytes += self._body_bytes
        self.is_waiting = False
        if self._on_answer():
            self.send()


def ends_whole(body: bytes, is_chunked: bool) -> bool:
    """Tell whether a body as it came, in chunks or not, ends with the event that closes an answer."""
    return (unchunk(body) if is_chunked else body).rstrip().endswith(MESSAGE_STOP.rstrip())


def unchunk(body: bytes) -> bytes:
    """Take the chunked coding (RFC 9112 section 7.1) off a whole body."""
    parts: list[bytes] = []
    at = 0
    while True:
        end = body.index(b"\r\n", at)
        size = int(body[at:end].split(b";")[0], 16)
        if size == 0:
            return b"".join(parts)
        parts.append(body[end + 2 : end + 2 + size])
        at = end + 4 + size


async def visit(
    script: Script,
    address: tuple[str, int],
    *,
    connections: int,
    plan: Plan,
    on_edge: Callable[[], None] = lambda: None,
) -> Visit:
    """Load a server and count what it answers between the end of warm-up and the end of the visit.

    Args:
        on_edge: called as counting begins and as it ends, to read the clocks of others.
    """
    loop = asyncio.get_running_loop()
    counted = Tally()
    done = asyncio.Event()
    started = 0.0

    def on_answer() -> bool:
        if started and not done.is_set():
            number, elapsed = len(counted.latencies), loop.time() - started
            if plan.answers:
                is_end = number >= plan.answers
            else:
                is_end = elapsed >= plan.seconds and number >= ANSWERS_PER_CONNECTION * connections
            if is_end or elapsed >= plan.most_seconds:
                done.set()
        return not done.is_set()

    warming = Tally()
    clients = []
    for _ in range(connections):
        _, client = await loop.create_connection(
            lambda: Connection(script, warming, on_answer), sock=_open(address)
        )
        clients.append(client)
    for number, client in enumerate(clients):
        loop.call_later(plan.stagger_seconds * number / connections, client.send)
    await asyncio.sleep(plan.warm_seconds)
    on_edge()
    for client in clients:
        client.tally = counted
    started = loop.time()
    if not await _reached(done, clients, plan.most_seconds + PATIENCE_SECONDS):
        counted.count_bad("no end within the time of the visit")
    seconds = loop.time() - started
    on_edge()
    done.set()
    late = Tally()
    for client in clients:
        client.tally = late
    await _drain(clients)
    for other in (warming, late):
        counted.bad += other.bad
        counted.first_bad = counted.first_bad or other.first_bad
    return Visit(seconds, counted, sum(tally.sent_bytes for tally in (warming, counted, late)))


async def _reached(done: asyncio.Event, clients: list[Connection], seconds: float) -> bool:
    """Wait for the end, or until no connection is left; tell whether the end came in time."""
    waiting = asyncio.ensure_future(done.wait())
    lost = asyncio.ensure_future(asyncio.wait([client.closed for client in clients]))
    try:
        ended, _ = await asyncio.wait({waiting, lost}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        lost.cancel()
    return bool(ended)


async def _drain(clients: list[Connection]) -> None:
    """Let requests in flight be answered, so that the next visit meets a server at rest; then close."""
    loop = asyncio.get_running_loop()
    limit = loop.time() + PATIENCE_SECONDS
    # A future per request would cost the hot path more than looking does here.
    while any(client.is_waiting for client in clients) and loop.time() < limit:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    for client in clients:
        client.close()
    await asyncio.wait([client.closed for client in clients], timeout=1.0)


def _open(address: tuple[str, int]) -> socket.socket:
    opened = socket.create_connection(address)
    opened.setblocking(False)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A whole agent-size request fits, so that sending it takes one system call.
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
    return opened
