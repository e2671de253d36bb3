"""Reading and writing a connection of the agent piece by piece, in clear or inside TLS opened here."""

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from bailee.flows.web.proxy import AgentConnection

PIECE = 64 * 1024
HANDSHAKE_SECONDS = 20.0


class Stream(Protocol):
    """Bytes in both directions."""

    async def read(self) -> bytes:
        """Return the next bytes; none at the end. Raises OSError."""

    async def write(self, data: bytes) -> None:
        """Send bytes, and wait while too many wait. Raises OSError."""


class ClearStream(asyncio.Protocol):
    """A connection that was a protocol's before; its bytes are counted there.

    Args:
        connection: whose transport is taken over, with what it has read.
    """

    def __init__(self, connection: "AgentConnection") -> None:
        self._connection = connection
        self._transport = connection.transport
        self._pieces = [bytes(connection.buffer)] if connection.buffer else []
        self._waiting = len(connection.buffer)
        self._is_ended = False
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        connection.buffer = bytearray()
        self._transport.set_protocol(self)
        self._transport.resume_reading()

    async def read(self) -> bytes:
        while not self._pieces and not self._is_ended:
            self._news.clear()
            await self._news.wait()
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._waiting = 0
        if not self._is_ended:
            self._transport.resume_reading()
        return data

    async def write(self, data: bytes) -> None:
        if self._transport.is_closing():
            raise ConnectionResetError("the agent is gone")
        self._connection.received += len(data)
        self._transport.write(data)
        await self._room.wait()

    def data_received(self, data: bytes) -> None:
        self._connection.sent += len(data)
        self._pieces.append(data)
        self._waiting += len(data)
        if self._waiting > PIECE:
            self._transport.pause_reading()
        self._news.set()

    def eof_received(self) -> bool:
        self._is_ended = True
        self._news.set()
        return True

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def connection_lost(self, error: Exception | None) -> None:
        self._is_ended = True
        self._news.set()
        self._room.set()
        self._connection.connection_lost(error)


class OpenedStream:
    """The inside of TLS that an agent speaks with a certificate of the session's authority."""

    def __init__(self, below: Stream, context: ssl.SSLContext) -> None:
        self._below = below
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    async def shake_hands(self, first: bytes) -> None:
        """Do the handshake; raises OSError, of which `ssl.SSLError` is one."""
        self._incoming.write(first)
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            while True:
                try:
                    self._tls.do_handshake()
                except ssl.SSLWantReadError:
                    await self._flush()
                    await self._feed()
                except ssl.SSLError:
                    await self._flush()
                    raise
                else:
                    await self._flush()
                    return

    async def read(self) -> bytes:
        while True:
            try:
                return self._tls.read(PIECE)
            except ssl.SSLWantReadError:
                await self._flush()
                await self._feed()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._tls.write(view[:PIECE]) :]
            await self._flush()

    async def close(self) -> None:
        """Say that nothing more comes; an answer without its length ends by that."""
        with contextlib.suppress(ssl.SSLError):  # it has not said so itself yet, and need not
            self._tls.unwrap()
        await self._flush()

    async def _flush(self) -> None:
        if data := self._outgoing.read():
            await self._below.write(data)

    async def _feed(self) -> None:
        if data := await self._below.read():
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
