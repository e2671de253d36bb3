"""Asks proxies for tunnels, and sends through them: the client and the host in one process, both uvloop.

A tunnel is: connect, CONNECT, a byte each way, close. Throughput is what the client has got from a host that
sends as fast as it can, through one tunnel or sixteen.
"""

import asyncio
import json
import socket
import statistics
import sys
import time
from functools import partial

import uvloop

PIECE = b"x" * (256 * 1024)


class Host(asyncio.Protocol):
    """Echoes a byte, or sends without end when asked with `s`."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.is_sending = self.is_paused = False

    def data_received(self, data: bytes) -> None:
        if data[:1] == b"s":
            self.is_sending = True
            self.send()
        else:
            self.transport.write(data)  # type: ignore[attr-defined]

    def send(self) -> None:
        while self.is_sending and not self.is_paused and not self.transport.is_closing():
            self.transport.write(PIECE)  # type: ignore[attr-defined]

    def pause_writing(self) -> None:
        self.is_paused = True

    def resume_writing(self) -> None:
        self.is_paused = False
        self.send()

    def connection_lost(self, error: Exception | None) -> None:
        self.is_sending = False


class Tunnel(asyncio.Protocol):
    """A client's side: opens one tunnel after the other until it is told to stop."""

    def __init__(self, head: bytes, done: "asyncio.Future[bool]", *, is_sink: bool = False) -> None:
        self.head, self.done, self.is_sink = head, done, is_sink
        self.is_open = False
        self.got = 0
        self.waiting = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(self.head)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if self.is_open:
            self.got += len(data)
            if not self.is_sink:
                self.transport.close()
                self.finish(is_good=True)
            return
        self.waiting += data
        if b"\r\n\r\n" in self.waiting:
            if b" 200 " not in self.waiting[:40]:
                self.finish(is_good=False)
                self.transport.close()
                return
            self.is_open = True
            self.transport.write(b"s" if self.is_sink else b"e")  # type: ignore[attr-defined]

    def connection_lost(self, error: Exception | None) -> None:
        self.finish(is_good=False)

    def finish(self, *, is_good: bool) -> None:
        if not self.done.done():
            self.done.set_result(is_good)


async def main(proxy: int, host: int, kind: str, count: int, seconds: float) -> None:
    """Load a proxy and tell the figures."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Host, "127.0.0.1", host, backlog=1024)
    head = f"CONNECT 127.0.0.1:{host} HTTP/1.1\r\nHost: 127.0.0.1:{host}\r\n\r\n".encode()
    if kind == "tunnels":
        times: list[float] = []
        bad = 0
        end = time.perf_counter() + seconds

        async def go() -> None:
            nonlocal bad
            while time.perf_counter() < end:
                began = time.perf_counter()
                done: asyncio.Future[bool] = loop.create_future()
                await loop.create_connection(partial(Tunnel, head, done), "127.0.0.1", proxy)
                if await done:
                    times.append(time.perf_counter() - began)
                else:
                    bad += 1

        await asyncio.gather(*(go() for _ in range(count)))
        cuts = statistics.quantiles(times, n=100) if len(times) > 2 else [0.0] * 99
        told = {"rate": len(times) / seconds, "p50": cuts[49] * 1e3, "p99": cuts[98] * 1e3, "bad": bad}
    else:
        sinks = []
        for _ in range(count):
            _, sink = await loop.create_connection(
                lambda: Tunnel(head, loop.create_future(), is_sink=True), "127.0.0.1", proxy
            )
            sinks.append(sink)
        await asyncio.sleep(0.3)
        before, began = sum(sink.got for sink in sinks), time.perf_counter()
        await asyncio.sleep(seconds)
        got = sum(sink.got for sink in sinks) - before
        told = {"rate": got / (time.perf_counter() - began) / 1e9, "p50": 0.0, "p99": 0.0, "bad": 0}
        told["bad"] = sum(not sink.is_open for sink in sinks)
        for sink in sinks:
            sink.transport.abort()  # type: ignore[attr-defined]
    server.close()
    print(json.dumps(told))


if __name__ == "__main__":
    socket.setdefaulttimeout(20)
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), float(sys.argv[5])))
