"""A stand-in internet: answers as whatever host is asked for, so that what is tried can be seen to its end.

Nothing leaves the machine. It speaks TLS with a certificate of the session's authority for any name, answers
every request of HTTP with an empty object, and keeps of what it gets the method and the path.
"""

import asyncio
import contextlib
import socket
import ssl
import threading

import h11
import msgspec
import uvloop

from bailee.flows.web.authorities import Authority
from bailee.flows.web.targets import Target

PIECE = 64 * 1024
MOST_REQUESTS = 10_000
PLAIN_PORTS = (80, 8080)
SECONDS = 30.0
_HEADERS = [("content-type", "application/json"), ("content-length", "2")]


class Asked(msgspec.Struct, frozen=True):
    """A request that came; its path without a query."""

    host: str
    method: str
    path: str


class StandIn:
    """Listens on loopback, outside the boundary, for the proxy; what came is in `asked`."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self.asked: list[Asked] = []
        self._loop: asyncio.AbstractEventLoop
        self._done: asyncio.Event
        self._ready = threading.Event()
        self._plain = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._tls = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._thread = threading.Thread(target=lambda: uvloop.run(self._serve()), daemon=True)

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        self._ready.wait()

    def end(self) -> None:
        """Listen no more."""
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join()

    def find(self, target: Target) -> tuple[str, int]:
        """Return where whoever wants to go to a target is led instead."""
        taken = self._plain if target.port in PLAIN_PORTS else self._tls
        host, port = taken.getsockname()[:2]
        return host, port

    async def _serve(self) -> None:
        self._loop, self._done = asyncio.get_running_loop(), asyncio.Event()
        context = self._authority.make_context("stand-in.invalid")
        context.sni_callback = self._choose
        plain = await asyncio.start_server(self._answer, sock=self._plain)
        tls = await asyncio.start_server(self._answer, sock=self._tls, ssl=context)
        self._ready.set()
        await self._done.wait()
        plain.close()
        tls.close()

    def _choose(self, tls: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        if name:
            tls.context = self._authority.make_context(name)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER)
        try:
            async with asyncio.timeout(SECONDS):
                await self._converse(connection, reader, writer)
        except (h11.ProtocolError, OSError, TimeoutError):
            return  # it spoke something else, and the proxy has counted it
        finally:
            with contextlib.suppress(OSError):
                writer.close()

    async def _converse(
        self, connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                if connection.they_are_waiting_for_100_continue:
                    go_on = h11.InformationalResponse(status_code=100, headers=[])
                    writer.write(connection.send(go_on) or b"")
                connection.receive_data(await reader.read(PIECE))
            elif isinstance(event, h11.Request):
                self._note(event)
            elif isinstance(event, h11.EndOfMessage):
                said = (
                    h11.Response(status_code=200, headers=_HEADERS),
                    h11.Data(data=b"{}"),
                    h11.EndOfMessage(),
                )
                writer.write(b"".join(connection.send(one) or b"" for one in said))
                await writer.drain()
                if connection.our_state is not h11.DONE:
                    return
                connection.start_next_cycle()
            elif isinstance(event, h11.ConnectionClosed):
                return

    def _note(self, request: h11.Request) -> None:
        hosts = [value.decode("latin-1") for name, value in request.headers if name == b"host"]
        path = request.target.decode("ascii", "replace").partition("?")[0]
        if len(self.asked) < MOST_REQUESTS:
            host = hosts[0] if hosts else ""
            self.asked.append(Asked(host.rpartition(":")[0] or host, request.method.decode(), path))
