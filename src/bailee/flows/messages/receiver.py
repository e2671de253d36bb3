"""The server side of model traffic: a lane of its own in uvicorn's HTTP protocol.

Paths that carry model traffic are served at protocol level, everything else by the ASGI application. The
lane exists because of a measurement (docs/adr/0004): through ASGI and a common client an agent-size
exchange costs 0.9 ms of CPU before anything is recorded, here 0.15 ms. Connections, keep-alive, TLS,
limits and graceful shutdown stay uvicorn's.
"""

import asyncio
import socket
import struct
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bailee.accounts.credentials import read_key
from bailee.accounts.keys import Principal
from bailee.flows.messages.exchanges import Exchange, record_refusal
from bailee.flows.messages.gateway import MAX_BODY_BYTES, MAX_HEAD_BYTES, Gateway, read_session
from bailee.flows.messages.headers import select_request_headers, to_lines
from bailee.flows.messages.refusals import Refusal, RefusalKind, render
from bailee.flows.messages.upstreams import Headers, Request
from bailee.flows.messages.wires import Wire, recognize_wire
from bailee.policy.decisions import Decision
from bailee.policy.problems import Problem
from bailee.vault.frames import Decided

# Closes with a reset (SO_LINGER for no time).
_RESET = struct.pack("ii", 1, 0)


# Whose request it is, what was decided, in both forms, and its session.
_Admission = tuple[Principal, Decision, Decided, str]


class _Cycle:
    """What uvicorn's protocol asks of the request in hand, for a request of the lane."""

    def __init__(self, *, keep_alive: bool) -> None:
        self.response_complete = False
        self.disconnected = False
        self.keep_alive = keep_alive
        self.message_event = asyncio.Event()


class MessagesProtocol(HttpToolsProtocol):
    """One connection of an agent."""

    def __init__(self, gateway: Gateway, **options: Any) -> None:
        super().__init__(**options)
        self._gateway = gateway
        self.takes_chunks = True
        self._headers: Headers = []
        self._has_head = False
        self._has_progress = False
        self._pending_bytes = 0
        self._reads = 0
        self._incoming: _Incoming | None = None
        self._exchange: Exchange | None = None
        self._is_ignoring = False
        self._lane_cycle: _Cycle | None = None
        self._is_in_lane = False

    # Called by the event loop.

    def data_received(self, data: bytes) -> None:
        """Called by the event loop: parse, and bound what is held of what is no body.

        Heads, trailers and lengths of chunks stay in the parser until they are whole, and it has no limit.
        """
        if self._is_ignoring:
            return
        self._has_progress = False
        self._reads += 1
        try:
            self._unset_keepalive_if_required()
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._go_on_without_upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            self.send_400_response("the request is not HTTP/1.1")
            return
        self._pending_bytes = 0 if self._has_progress else self._pending_bytes + len(data)
        if self._pending_bytes > MAX_HEAD_BYTES:
            self._refuse_head()

    def _go_on_without_upgrade(self, rest: bytes) -> None:
        """Parse the request as if it did not ask for another protocol, which a server may ignore.

        The parser takes such a request for one without a body, and the body for the other protocol's bytes:
        the agent's prompt would be lost without a word. Source: RFC 9110 section 7.8.
        """
        if self.parser.get_method() == b"CONNECT":
            self.send_400_response("no tunnel is made here")
            return
        head = b"%s %s HTTP/%s\r\n%s\r\n" % (
            self.parser.get_method(),
            self.url,
            self.parser.get_http_version().encode(),
            to_lines([(name, value) for name, value in self._headers if name.lower() != b"upgrade"]),
        )
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(head + rest)

    # Called by the parser.

    def on_message_begin(self) -> None:
        """Called by the parser."""
        super().on_message_begin()
        self._headers = []
        self._has_head = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser; keeps the client's own spelling beside uvicorn's lower case."""
        if self._has_head:
            return  # a trailer, which may be left out (RFC 9110 section 6.5.1) and never becomes a header
        self._headers.append((name, value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Called by the parser: choose the lane, or leave the request to the application."""
        self._has_head = self._has_progress = True
        if self.parser.should_upgrade():
            return  # `_go_on_without_upgrade` comes here again
        lane = self._lane_cycle
        if self._is_ignoring or (lane is not None and not lane.response_complete):
            self._ignore_pipelined()
            return
        if len(self.url) + sum([len(name) + len(value) for name, value in self._headers]) > MAX_HEAD_BYTES:
            self._refuse_head()
            return
        wire = recognize_wire(self.url.split(b"?", 1)[0])
        if wire is None or self.parser.get_method() != b"POST":
            self._is_in_lane = False
            super().on_headers_complete()
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self._ignore_pipelined()
            return
        keep_alive = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        self.takes_chunks = self.parser.get_http_version() != "1.0"
        self._is_in_lane = True
        self._lane_cycle = _Cycle(keep_alive=keep_alive)
        self.cycle = self._lane_cycle  # type: ignore[assignment]
        # Before anything is looked up: what older consents decided must not look newer than their change.
        started_ms = self._gateway.now_ms()
        token = read_key(self._headers)
        admission = self._admit(token, wire, started_ms)
        if admission is not None:
            self._incoming = _Incoming(token, admission, wire, started_ms, self._reads)
        if self._incoming is not None and self.expect_100_continue:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._has_progress = True
        if self._is_ignoring:
            return
        if not self._is_in_lane:
            super().on_body(body)
        elif self._incoming is not None and not self._incoming.take(body):
            wire = self._incoming.wire
            self._incoming = None
            limit = MAX_BODY_BYTES // (1024 * 1024)
            self._refuse(Refusal(RefusalKind.TOO_LARGE, f"the request is larger than {limit} MiB."), wire)

    def on_message_complete(self) -> None:
        """Called by the parser: the request is whole."""
        if self._is_ignoring or self.parser.should_upgrade():
            return
        if not self._is_in_lane:
            super().on_message_complete()
        elif self._incoming is not None:
            incoming, self._incoming = self._incoming, None
            admission = self._admit_again(incoming)
            if admission is None:
                return
            request = incoming.to_request(self.url, self._headers)
            exchange = self._exchange = Exchange(
                self._gateway, self, *admission, request, incoming.started_ms
            )
            task = self.loop.create_task(exchange.run())
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    def _admit_again(self, incoming: "_Incoming") -> _Admission | None:
        """Look again once the body is whole: uploads take minutes, and what changed meanwhile counts.

        What came whole in one read was admitted a moment ago.
        """
        gateway = self._gateway
        if incoming.read == self._reads and gateway.recording.is_ready:
            return incoming.admission
        try:
            principal = gateway.keys.authenticate(incoming.token)
        except Problem as problem:
            self._refuse(Refusal(RefusalKind.UNAVAILABLE, f"{problem.what}."), incoming.wire)
            return None
        if principal == incoming.admission[0] and gateway.recording.is_ready:
            return incoming.admission
        return self._admit(incoming.token, incoming.wire, incoming.started_ms)

    def _admit(self, token: bytes, wire: Wire, started_ms: int) -> _Admission | None:
        """Authenticate and decide; None if the agent was refused."""
        gateway = self._gateway
        try:
            principal = gateway.keys.authenticate(token)
        except Problem as problem:
            self._refuse(Refusal(RefusalKind.UNAVAILABLE, f"{problem.what}."), wire)
            return None
        if principal is None:
            text = "no valid key. Send one from `bailee keys create` as x-api-key or Authorization: Bearer."
            self._refuse(Refusal(RefusalKind.UNAUTHENTICATED, text), wire)
            return None
        decision, decided = gateway.decide(principal)
        session = read_session(self._headers, principal.key_id)
        refusal = gateway.refuse(principal, decision, wire)
        if refusal is not None:
            path = self.url.split(b"?", 1)[0].decode("latin-1")
            record_refusal(gateway, principal, decided, session, path, refusal, started_ms)
            self._refuse(refusal, wire)
            return None
        return principal, decision, decided, session

    def _refuse_head(self) -> None:
        limit = MAX_HEAD_BYTES // 1024
        self._refuse_early(Refusal(RefusalKind.HEAD_TOO_LARGE, f"the headers are larger than {limit} KiB."))

    def send_400_response(self, msg: str) -> None:
        """Called where the parser gives up, in place of uvicorn's answer in plain text."""
        self._refuse_early(Refusal(RefusalKind.MALFORMED, f"{msg}."))

    def _refuse_early(self, refusal: Refusal) -> None:
        """Refuse what is not known to be a request; a response in hand is not to be mixed with that."""
        if self._exchange is not None:
            self._ignore_pipelined()
        elif self._incoming is None and self.cycle is not None and not self.cycle.response_complete:
            self.transport.abort()
        else:
            self._incoming = None
            self._refuse(refusal, Wire.MESSAGES)

    def _refuse(self, refusal: Refusal, wire: Wire) -> None:
        # The body is still arriving and nobody will read it, so the connection cannot be used again.
        self.transport.write(render(refusal, wire, keep_alive=False))
        if self._lane_cycle is not None:
            self._lane_cycle.response_complete = True
        self._is_ignoring = True
        self._close_softly()

    def _close_softly(self) -> None:
        """Close after a moment in which the agent can read the answer.

        Closing at once, with unread bytes of the body in the socket, sends a reset that takes the
        answer away before the agent has seen it.
        """
        self.loop.call_later(1.0, self.transport.close)

    def _ignore_pipelined(self) -> None:
        """Answer no pipelined request: the connection closes after the response in hand (RFC 9112 9.3.2)."""
        self._is_ignoring = True
        self.cycle.keep_alive = False

    # Called by the event loop.

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        if self._exchange is not None:
            self._exchange.leave()
            self._exchange = None
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Called by the event loop when the agent does not keep up."""
        super().pause_writing()
        if self._exchange is not None:
            self._exchange.pause()

    def resume_writing(self) -> None:
        """Called by the event loop when the agent has caught up."""
        super().resume_writing()
        if self._exchange is not None:
            self._exchange.resume()

    # Called by the exchange: `exchanges.Agent`.

    def write(self, data: bytes) -> None:
        """Send bytes of the response."""
        if not self.transport.is_closing():
            self.transport.write(data)

    def end(self, *, can_keep_alive: bool) -> None:
        """The response is complete; the connection waits for the next request, or closes."""
        self._exchange = None
        cycle = self._lane_cycle
        if cycle is None:
            return
        cycle.response_complete = True
        if can_keep_alive and cycle.keep_alive:
            self.on_response_complete()
        else:
            self.transport.close()

    def break_off(self) -> None:
        """Cut the response short, visibly: an aborted connection, no final chunk.

        Where there are no chunks an orderly end would mean the answer's, so the connection is reset.
        """
        self._exchange = None
        connection = self.transport.get_extra_info("socket")
        if not self.takes_chunks and connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    def refuse(self, refusal: Refusal) -> None:
        """Send an answer of our own in place of the upstream's."""
        if self.transport.is_closing():
            return
        wire = recognize_wire(self.url.split(b"?", 1)[0]) or Wire.MESSAGES
        cycle = self._lane_cycle
        keep_alive = cycle is not None and cycle.keep_alive
        self.transport.write(render(refusal, wire, keep_alive=keep_alive))
        self.end(can_keep_alive=True)


class _Incoming:
    """A request that was admitted and is still arriving."""

    def __init__(self, token: bytes, admission: _Admission, wire: Wire, started_ms: int, read: int) -> None:
        self.read = read
        self.token = token
        self.admission = admission
        self.wire = wire
        self.started_ms = started_ms
        self._fragments: list[bytes] = []
        self._size = 0

    def take(self, fragment: bytes) -> bool:
        """Take in a fragment of the body; False once it is too large."""
        self._fragments.append(fragment)
        self._size += len(fragment)
        return self._size <= MAX_BODY_BYTES

    def to_request(self, target: bytes, headers: Headers) -> Request:
        """Return the request, the body being whole."""
        return Request(b"POST", target, select_request_headers(headers), b"".join(self._fragments), self.wire)
