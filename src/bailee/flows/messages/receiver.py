"""The server side of model traffic: a lane of its own in uvicorn's HTTP protocol.

Paths that carry model traffic are served at protocol level, everything else by the ASGI application. The
lane exists because of a measurement (docs/adr/0004): through ASGI and a common client an agent-size
exchange costs 0.9 ms of CPU before anything is recorded, here 0.15 ms. Connections, keep-alive, TLS,
limits and graceful shutdown stay uvicorn's.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bailee.accounts.keys import Principal
from bailee.flows.messages.exchanges import Exchange, record_refusal
from bailee.flows.messages.gateway import MAX_BODY_BYTES, Gateway, read_session
from bailee.flows.messages.headers import read_key, select_request_headers
from bailee.flows.messages.refusals import Refusal, RefusalKind, render
from bailee.flows.messages.upstreams import Headers, Request
from bailee.flows.messages.wires import Wire, recognize_wire
from bailee.policy.decisions import Decision
from bailee.policy.problems import Problem
from bailee.vault.frames import Decided


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
        self._headers: Headers = []
        self._incoming: _Incoming | None = None
        self._exchange: Exchange | None = None
        self._is_ignoring = False
        self._lane_cycle: _Cycle | None = None
        self._is_in_lane = False

    # Called by the parser.

    def on_message_begin(self) -> None:
        """Called by the parser."""
        super().on_message_begin()
        self._headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser; keeps the client's own spelling beside uvicorn's lower case."""
        self._headers.append((name, value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Called by the parser: choose the lane, or leave the request to the application."""
        lane = self._lane_cycle
        if self._is_ignoring or (lane is not None and not lane.response_complete):
            self._ignore_pipelined()
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
        self._is_in_lane = True
        self._lane_cycle = _Cycle(keep_alive=keep_alive)
        self.cycle = self._lane_cycle  # type: ignore[assignment]
        self._incoming = self._admit(wire)
        if self._incoming is not None and self.expect_100_continue:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
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
        if self._is_ignoring:
            return
        if not self._is_in_lane:
            super().on_message_complete()
        elif self._incoming is not None:
            incoming, self._incoming = self._incoming, None
            exchange = self._exchange = incoming.to_exchange(self._gateway, self)
            task = self.loop.create_task(exchange.run())
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    def _admit(self, wire: Wire) -> "_Incoming | None":
        """Authenticate and decide before a byte of the body is read."""
        gateway = self._gateway
        try:
            principal = gateway.keys.authenticate(read_key(self._headers))
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
            record_refusal(gateway, principal, decided, session, path, refusal)
            self._refuse(refusal, wire)
            return None
        return _Incoming(principal, decision, decided, session, wire, self.url, self._headers)

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
        """Cut the response short, visibly: an aborted connection, no final chunk."""
        self._exchange = None
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

    def __init__(
        self,
        principal: Principal,
        decision: Decision,
        decided: Decided,
        session: str,
        wire: Wire,
        target: bytes,
        headers: Headers,
    ) -> None:
        self.wire = wire
        self._principal = principal
        self._decision = decision
        self._decided = decided
        self._session = session
        self._target = target
        self._headers = headers
        self._fragments: list[bytes] = []
        self._size = 0

    def take(self, fragment: bytes) -> bool:
        """Take in a fragment of the body; False once it is too large."""
        self._fragments.append(fragment)
        self._size += len(fragment)
        return self._size <= MAX_BODY_BYTES

    def to_exchange(self, gateway: Gateway, agent: MessagesProtocol) -> Exchange:
        """Return the exchange, the body being whole."""
        request = Request(
            b"POST", self._target, select_request_headers(self._headers), b"".join(self._fragments), self.wire
        )
        return Exchange(
            gateway, agent, self._principal, self._decision, self._decided, self._session, request
        )
