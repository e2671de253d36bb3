"""The stub upstream: answers at once, at protocol level, so that it is never what is measured.

`PUT /bench/NAME` chooses the workload. `GET /bench/last` tells the length and digest of the last request
body, if the workload was chosen with `PUT /bench/NAME?digest`.
"""

import asyncio
import pickle
import re
import socket
import sys
import time
from bisect import bisect_left
from hashlib import sha256

import uvloop

from bench.gateway.answers import HEAD, LAST_CHUNK, TIME_DIGITS, TIME_MARK, frame
from bench.gateway.workloads import Workload

_READ_BYTES = 512 * 1024
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked", re.IGNORECASE)
_END_OF_CHUNKS = b"\r\n0\r\n\r\n"
# All connections read into this one: each read is finished with before the next begins.
_shared = bytearray(_READ_BYTES)
_view = memoryview(_shared)


class Upstream:
    """What all connections share: the workloads and which of them is on."""

    def __init__(self, workloads: list[Workload]) -> None:
        self._workloads = {workload.name: workload for workload in workloads}
        self._lengths: list[int] = []
        self._answers: list[bytes] = []
        self.paced: list[tuple[bytes, int]] = []
        self.pace = 0.0
        self.digest = False
        self.last = b""

    def choose(self, name: str, digest: bool) -> None:
        """Switch to a workload."""
        workload = self._workloads[name]
        # A gateway may write the request anew, so a turn is known by the nearest length.
        ordered = sorted(
            zip([len(turn.body) for turn in workload.turns], workload.write_answers(), strict=True)
        )
        self._lengths = [length for length, _ in ordered]
        self._answers = [answer for _, answer in ordered]
        self.digest = digest
        self.pace = workload.pace
        framed = [frame(event) for event in workload.answers[0]] if workload.pace else []
        self.paced = [(event, event.find(TIME_MARK.encode()) + 1) for event in framed]

    def answer(self, length: int) -> bytes:
        """Return the answer to a request of that many bytes."""
        at = bisect_left(self._lengths, length)
        if at == len(self._lengths):
            return self._answers[-1]
        if at and length - self._lengths[at - 1] < self._lengths[at] - length:
            at -= 1
        return self._answers[at]


class Connection(asyncio.BufferedProtocol):
    """One connection of a gateway; requests come one after another, never pipelined."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._transport: asyncio.Transport
        self._missing = 0  # bytes of body still to come; -1 while its length is not known (chunked)
        self._in_body = False
        self._length = 0
        self._head = b""
        self._tail = b""
        self._body: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's is none of asyncio's classes

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the event loop."""
        if self._timer is not None:
            self._timer.cancel()

    def get_buffer(self, sizehint: int) -> bytearray:
        """Called by the event loop."""
        return _shared

    def buffer_updated(self, size: int) -> None:
        """Called by the event loop."""
        start = 0
        if not self._in_body:
            data = self._head + bytes(_view[: min(size, 16384)])
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._head = data
                return
            start = end + 4 - len(self._head)
            self._begin(data[: end + 2])
        arrived = size - start
        if self._upstream.digest:
            self._body.append(bytes(_view[start:size]))
        if self._missing >= 0:
            self._missing -= arrived
            if self._missing <= 0:
                self._finish()
            return
        self._length += arrived
        self._tail = (self._tail + bytes(_view[max(start, size - 8) : size]))[-8:]
        if self._tail.endswith(_END_OF_CHUNKS):
            self._finish()

    def _begin(self, head: bytes) -> None:
        self._in_body, self._head, self._request_line = True, b"", head[: head.index(b"\r\n")]
        self._tail, self._body = b"\r\n", []
        found = _LENGTH.search(head)
        if found:
            self._missing = self._length = int(found[1])
        else:
            self._length = 0
            self._missing = -1 if _CHUNKED.search(head) else 0

    def _finish(self) -> None:
        self._in_body = False
        upstream = self._upstream
        if self._request_line[:4] != b"POST":
            self._control(self._request_line)
            return
        if upstream.digest:
            body = b"".join(self._body)
            upstream.last = b"%d %b" % (len(body), sha256(body).hexdigest().encode())
        if not upstream.pace:
            self._transport.write(upstream.answer(self._length))
            return
        self._transport.write(HEAD)
        self._next_event(0, asyncio.get_running_loop().time())

    def _next_event(self, number: int, start: float) -> None:
        events = self._upstream.paced
        event, at = events[number]
        if at:
            now = b"%0*d" % (TIME_DIGITS, time.monotonic_ns())
            event = event[:at] + now + event[at + TIME_DIGITS :]
        number += 1
        if number == len(events):
            self._transport.write(event + LAST_CHUNK)
            return
        self._transport.write(event)
        loop = asyncio.get_running_loop()
        due = start + number * self._upstream.pace
        self._timer = loop.call_later(max(0.0, due - loop.time()), self._next_event, number, start)

    def _control(self, line: bytes) -> None:
        method, target, _ = line.split(b" ")
        body = b""
        if method == b"PUT" and target.startswith(b"/bench/"):
            name, _, query = target.removeprefix(b"/bench/").partition(b"?")
            self._upstream.choose(name.decode(), query == b"digest")
        elif target == b"/bench/last":
            body = self._upstream.last
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))


async def serve(listener: socket.socket, workloads: list[Workload]) -> None:
    """Serve until the process is ended."""
    upstream = Upstream(workloads)
    upstream.choose(workloads[0].name, False)
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(upstream), sock=listener, backlog=512
    )
    await server.serve_forever()


def main() -> None:
    """Serve, on the descriptor given, the workloads that the process that started this one writes to it."""
    workloads: list[Workload] = pickle.load(sys.stdin.buffer)
    uvloop.run(serve(socket.socket(fileno=int(sys.argv[1])), workloads))


if __name__ == "__main__":
    main()
