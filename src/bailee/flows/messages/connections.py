"""HTTP/1.1 connections to an upstream: opened through proxies and TLS, kept alive, used again.

httptools parses, asyncio and OpenSSL carry; what stands here is the pool and the hand-over of bytes as
they arrive. The usual clients were measured first (docs/adr/0004): on agent-size requests aiohttp costs
0.4 ms of CPU per request more than this, httpx 6 ms, which is more than all else the gateway does.
"""

import asyncio
import base64
import ssl
import time
from collections.abc import Callable
from typing import Protocol
from urllib.parse import unquote, urlsplit

import httptools

from bailee.flows.messages.upstreams import Headers, Origin

IDLE_CONNECTIONS = 256
# Shorter than the idle limit of the load balancers in front of model APIs (60 s and more), so that
# a connection that is picked up again has rarely been closed at the other end.
IDLE_SECONDS = 30.0
CONNECT_SECONDS = 15.0
# A connection that was closed while it was idle says so within a round trip. What closes later has taken the
# request, may have worked on it and will bill for it: sending that again is the agent's to decide.
STALE_SECONDS = 0.05


class UpstreamFailed(Exception):
    """The upstream could not be reached, or ended its answer before it was whole.

    Attributes:
        is_stale: a connection that had been kept alive turned out to be closed when the request was sent.
    """

    def __init__(self, reason: str, *, is_stale: bool = False) -> None:
        super().__init__(reason)
        self.is_stale = is_stale


class AnswerReceiver(Protocol):
    """What takes in an answer as it arrives."""

    def receive_head(self, status: int, reason: bytes, headers: Headers) -> None:
        """Take in the status line and the headers, hop-by-hop ones included."""
        ...

    def receive_data(self, data: bytes, is_whole: bool) -> None:
        """Take in bytes of the body, framing taken off; `is_whole` says that the answer ends with them."""
        ...

    def receive_failure(self, failure: UpstreamFailed) -> None:
        """Take in that no more will come."""
        ...


class UpstreamConnection(asyncio.Protocol):
    """One connection, which carries one exchange at a time."""

    def __init__(self, release: "Callable[[UpstreamConnection], None]") -> None:
        self._release = release
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._receiver: AnswerReceiver | None = None
        self._fragments: list[bytes] = []
        self._headers: Headers = []
        self._reason = b""
        self._status = 0
        self._sent_at = 0.0
        self._has_bytes = False
        self._has_head = self._is_head_due = False
        self._is_whole = self._ends_with_connection = self._is_kept_alive = False
        self.is_used = False
        self.idle_since = 0.0

    @property
    def is_open(self) -> bool:
        """Whether it can carry another exchange."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, head: bytes, body: bytes, receiver: AnswerReceiver) -> None:
        """Send a request; its answer goes to the receiver."""
        assert self._transport is not None
        self._receiver = receiver
        self._has_bytes = False
        self._sent_at = time.monotonic()
        self._transport.writelines((head, body))

    def abort(self) -> None:
        """Drop the connection and whatever was still to come."""
        self._receiver = None
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        """Stop reading: the agent does not keep up."""
        if self.is_open and self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self.is_open and self._transport is not None:
            self._transport.resume_reading()

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Called by the event loop: parse, then hand on all of it at once."""
        if self._receiver is None:
            self.abort()  # bytes that nobody asked for: the next answer would be taken for another's
            return
        self._has_bytes = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._is_whole:
                self._fail(f"the upstream's answer is not HTTP/1.1: {type(error).__name__}")
                return
            # The answer is whole, and what follows it in the same read is not of it.
            self._is_kept_alive = False
        self._hand_on()

    def eof_received(self) -> None:
        """Called by the event loop; the connection is closed next."""

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the event loop."""
        if self._receiver is None:
            return
        if error is None and self._ends_with_connection:
            self._is_whole = True
            self._hand_on()
            return
        is_stale = self.is_used and not self._has_bytes and time.monotonic() - self._sent_at < STALE_SECONDS
        detail = f": {error}" if error else ""
        self._fail(f"the upstream closed the connection before its answer was whole{detail}", is_stale)

    def _fail(self, reason: str, is_stale: bool = False) -> None:
        receiver, self._receiver = self._receiver, None
        self.abort()
        if receiver is not None:
            receiver.receive_failure(UpstreamFailed(reason, is_stale=is_stale))

    def _hand_on(self) -> None:
        receiver = self._receiver
        assert receiver is not None
        if self._is_head_due:
            self._is_head_due = False
            receiver.receive_head(self._status, self._reason, self._headers)
        fragments, self._fragments = self._fragments, []
        if not (fragments or self._is_whole):
            return
        is_whole = self._is_whole
        if is_whole:
            self._receiver = None
            self._is_whole = False
            if self._ends_with_connection or not self._is_kept_alive:
                self.abort()
            else:
                self._release(self)
        receiver.receive_data(fragments[0] if len(fragments) == 1 else b"".join(fragments), is_whole)

    # Called by the parser.

    def on_message_begin(self) -> None:
        """Called by the parser."""
        if self._is_whole:
            raise UpstreamFailed("bytes that nobody asked for")  # the parser stops, and tells `data_received`
        self._headers, self._reason, self._has_head = [], b"", False

    def on_status(self, reason: bytes) -> None:
        """Called by the parser."""
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        if not self._has_head:  # else it is a trailer, which may be left out (RFC 9110 section 6.5.1)
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self._has_head = True
        status = self._status = self._parser.get_status_code()
        if status < 200:
            return  # RFC 9110 section 15.2: an interim answer; the final one follows
        self._is_head_due = True
        names = {name.lower() for name, _ in self._headers}
        has_body = status not in (204, 304)
        self._ends_with_connection = has_body and not names & {b"content-length", b"transfer-encoding"}

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._fragments.append(body)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        if self._status >= 200:
            self._is_whole = True
            # Only here does the parser know: once it is done with a message it says no for any.
            self._is_kept_alive = self._parser.should_keep_alive()


class ConnectionPool:
    """Connections to one origin.

    Args:
        tls: the context for an https origin: trust anchors and client certificate.
        proxy: the URL of an HTTP proxy to go through, or None.
    """

    def __init__(self, origin: Origin, *, tls: ssl.SSLContext | None, proxy: str | None = None) -> None:
        self.origin = origin
        self._tls = tls
        self._proxy = proxy
        self._idle: list[UpstreamConnection] = []
        self._open = 0

    @property
    def target_prefix(self) -> str:
        """What stands before a request's path: scheme and host for a forwarding proxy (RFC 9112 3.2.2)."""
        is_forwarded = self._proxy is not None and self.origin.scheme == "http"
        return f"http://{self.origin.authority}" if is_forwarded else ""

    @property
    def proxy_headers(self) -> Headers:
        """Headers for the proxy itself, on a request that it forwards."""
        if self._proxy is None or self.origin.scheme != "http":
            return []
        return _proxy_authorization(self._proxy)

    async def acquire(self, *, fresh: bool = False) -> UpstreamConnection:
        """Return a connection that carries nothing; a new one if `fresh` or none is idle.

        Raises:
            UpstreamFailed: it cannot be made: name, network, proxy or certificate.
        """
        now = time.monotonic()
        while self._idle and not fresh:
            connection = self._idle.pop()
            if connection.is_open and now - connection.idle_since < IDLE_SECONDS:
                connection.is_used = True
                return connection
            connection.abort()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                return await self._connect()
        except TimeoutError:
            raise UpstreamFailed(f"no connection to {self._way} within {CONNECT_SECONDS:g} s") from None
        except (OSError, ssl.SSLError) as error:
            raise UpstreamFailed(f"no connection to {self._way}: {_tell(error)}") from None

    @property
    def _way(self) -> str:
        if self._proxy is None:
            return self.origin.authority
        proxy = urlsplit(self._proxy)
        return f"{self.origin.authority} through the proxy {proxy.hostname}:{proxy.port or ''}".rstrip(":")

    def close(self) -> None:
        """Close what is idle."""
        for connection in self._idle:
            connection.abort()
        self._idle = []

    def _release(self, connection: UpstreamConnection) -> None:
        if len(self._idle) >= IDLE_CONNECTIONS or not connection.is_open:
            connection.abort()
            return
        connection.idle_since = time.monotonic()
        self._idle.append(connection)

    async def _connect(self) -> UpstreamConnection:
        loop = asyncio.get_running_loop()
        connection = UpstreamConnection(self._release)
        if self._proxy is None:
            name = self.origin.host if self._tls else None
            await loop.create_connection(
                lambda: connection, self.origin.host, self.origin.port, ssl=self._tls, server_hostname=name
            )
            return connection
        proxy = urlsplit(self._proxy)
        proxy_host = proxy.hostname or ""
        port = proxy.port or {"http": 80, "https": 443}.get(proxy.scheme, 80)
        outer = ssl.create_default_context() if proxy.scheme == "https" else None
        if self._tls is None:
            await loop.create_connection(lambda: connection, proxy_host, port, ssl=outer)
            return connection
        tunnel = _Tunnel()
        transport, _ = await loop.create_connection(lambda: tunnel, proxy_host, port, ssl=outer)
        try:
            await tunnel.ask(self.origin, _proxy_authorization(self._proxy))
            inner = await loop.start_tls(transport, connection, self._tls, server_hostname=self.origin.host)
        except BaseException:
            transport.abort()
            raise
        if inner is None:
            raise UpstreamFailed(f"the proxy closed the tunnel to {self.origin.authority}")
        connection.connection_made(inner)
        return connection


class _Tunnel(asyncio.Protocol):
    """Asks a proxy for a tunnel (RFC 9110 section 9.3.6)."""

    def __init__(self) -> None:
        self._answer = bytearray()
        self._done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if b"\r\n\r\n" in self._answer and not self._done.done():
            self._done.set_result(bytes(self._answer))
        elif len(self._answer) > 65536 and not self._done.done():
            self._done.set_exception(UpstreamFailed("the proxy's answer to CONNECT has no end"))

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(UpstreamFailed("the proxy closed the connection at CONNECT"))

    async def ask(self, origin: Origin, headers: Headers) -> None:
        assert self._transport is not None
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        target = f"{host}:{origin.port}".encode()
        lines = [b"CONNECT " + target + b" HTTP/1.1", b"Host: " + target]
        lines += [name + b": " + value for name, value in headers]
        self._transport.write(b"\r\n".join([*lines, b"", b""]))
        head = (await self._done).split(b"\r\n", 1)[0].split(b" ", 2)
        if len(head) < 2 or head[1] != b"200":
            status = b" ".join(head[1:]).decode("latin-1")
            raise UpstreamFailed(f"the proxy refused a tunnel to {origin.authority}: {status}")


def _proxy_authorization(proxy: str) -> Headers:
    parts = urlsplit(proxy)
    if parts.username is None:
        return []
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
    return [(b"Proxy-Authorization", b"Basic " + base64.b64encode(pair))]


def _tell(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate was not accepted ({error.verify_message})"
    return error.strerror or str(error) or type(error).__name__
