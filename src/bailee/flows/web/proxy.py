"""The security proxy: takes an agent's connections, decides, notes, dials, relays.

A tunnel goes through two protocols joined back to back, without a stream or a task between: that is what its
throughput rests on (`bench/egress`). What has to be looked into is handed to `exchanges`.
"""

import asyncio
import contextlib
import hmac
import socket
import ssl
from base64 import b64encode
from collections.abc import Callable, Coroutine
from enum import Enum, auto
from typing import cast

from bailee.flows.web.authorities import Authority
from bailee.flows.web.denials import write_answer
from bailee.flows.web.heads import Head, Malformed, find_end, read_head
from bailee.flows.web.hello import NotHello, check_hello, read_hello
from bailee.flows.web.hosts import HostConnection, close, dial
from bailee.flows.web.kernel import count_kernel, find_destination
from bailee.flows.web.log import LogFailed, Way
from bailee.flows.web.rules import Refusal, Rule, Wire
from bailee.flows.web.sessions import TOO_MUCH, Session, Unreachable
from bailee.flows.web.targets import Target, Unreadable, read_target

HEAD_SECONDS = 30.0
PATIENCE_SECONDS = 0.3
END_SECONDS = 2.0
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
_TLS_HANDSHAKE = 22
NO_LOG = Refusal("no_log", "the log of connections cannot be written, so that nothing may pass")

# What a redirected connection was for: a name by the address that stood for it; None if there is none.
FindName = Callable[[str], str | None]


class _State(Enum):
    HELD = auto()  # it waits before it is listened to
    HEAD = auto()  # the proxy is being asked
    DIALING = auto()
    HELLO = auto()  # a tunnel whose first message is looked at
    RELAY = auto()
    HANDED = auto()  # somebody else reads
    DONE = auto()


class Proxy:
    """Serves the connections of one session.

    Args:
        authority: opens TLS where a rule needs it.
        service: where the service of this installation listens, for connections that came `Way.SERVICE`.
        credential: `user:password` that every request must carry; None where only the agent can connect.
        find_name: see `FindName`.
        host_tls: what verifies hosts where TLS is opened; by default with the system's authorities.
    """

    def __init__(
        self,
        session: Session,
        *,
        authority: Authority | None = None,
        service: tuple[str, int] | None = None,
        credential: str | None = None,
        find_name: FindName = lambda address: None,
        host_tls: ssl.SSLContext | None = None,
    ) -> None:
        self.session = session
        self.authority = authority
        self.service = service
        self.find_name = find_name
        self._host_tls = host_tls
        self.is_ended = False
        self.credential = None if credential is None else "Basic " + b64encode(credential.encode()).decode()
        self._servers: list[asyncio.Server] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.transports: set[asyncio.Transport] = set()

    @property
    def host_tls(self) -> ssl.SSLContext:
        """What verifies hosts where TLS is opened."""
        if self._host_tls is None:
            self._host_tls = ssl.create_default_context()
        return self._host_tls

    async def serve(self, listener: socket.socket, way: Way) -> None:
        """Take connections from a listener until the end."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: AgentConnection(self, way), sock=listener, backlog=1024)
        self._servers.append(server)

    async def end(self) -> None:
        """Take no more connections and end all that there are."""
        self.is_ended = True
        for server in self._servers:
            server.close()
        self.session.end()
        # An event loop that is closed with something of it open may not come back.
        async with asyncio.timeout(END_SECONDS):
            for task in list(self.tasks):
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            for transport in list(self.transports):
                transport.abort()
            for server in self._servers:
                await server.wait_closed()
            while self.transports:  # noqa: ASYNC110 - a thousand ends in one turn of the loop or two
                await asyncio.sleep(0.002)

    def begin(self, work: Coroutine[object, object, None]) -> "asyncio.Task[None]":
        """Start what a connection waits for."""
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task


class AgentConnection(asyncio.Protocol):
    """One connection of the agent, and its tunnel if it becomes one."""

    def __init__(self, proxy: Proxy, way: Way) -> None:
        self.proxy = proxy
        self.session = proxy.session
        self.way = way
        self.target: Target | None = None
        self.rules: tuple[Rule, ...] = ()
        self.number = self.session.draw()
        self.sent = self.received = 0
        self.address = ""
        self.outcome = ""
        self.buffer = bytearray()
        self.transport: asyncio.Transport
        self.host: HostConnection | None = None
        self._state = _State.HEAD
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._ended = 0

    # --- What the event loop calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        self.session.connections.add(self)
        self.proxy.transports.add(self.transport)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(HEAD_SECONDS, self._give_up)
        wait = self.session.admit()
        if self.session.stopped_for:
            self.refuse(self.session.tell_stopped(), 0)
            return
        if self.way is Way.TRANSPARENT:
            self._look_ahead(wait + PATIENCE_SECONDS)
        if wait and self._state is _State.HEAD:
            self._state = _State.HELD
            loop.call_later(wait, self._release)
        elif self.way is Way.SERVICE:
            self._serve_service()

    def data_received(self, data: bytes) -> None:
        if self._state is _State.RELAY:
            self._pass_on(data)
        elif self._state in (_State.HELD, _State.HEAD, _State.HELLO, _State.DIALING):
            self.buffer += data
            self.sent += len(data)
            if self._state is _State.HEAD:
                self._read_head()
            elif self._state is _State.HELLO:
                self._read_hello()
            elif len(self.buffer) > 1 << 16:
                self.transport.pause_reading()

    def eof_received(self) -> bool:
        if self._state is _State.RELAY and self.host is not None:
            self.host.write_eof()
            self._half_ended()
            return True
        return False

    def pause_writing(self) -> None:
        if self.host is not None:
            self.host.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.host is not None and not self.host.is_closed:
            self.host.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self.proxy.transports.discard(self.transport)
        if error is not None:
            self.outcome = self.outcome or "reset by the agent"
        self.finish()

    # --- Before it is a tunnel ---

    def _release(self) -> None:
        """Listen to a connection that had to wait."""
        if self._state is not _State.HELD or self.transport.is_closing():
            return
        self._state = _State.HEAD
        self.transport.resume_reading()
        if self.session.stopped_for:
            self.refuse(self.session.tell_stopped(), 0)
        elif self.way is Way.SERVICE:
            self._serve_service()
        elif self.buffer:
            self._read_head()

    def _serve_service(self) -> None:
        if self.proxy.service is not None:
            host, port = self.proxy.service
            self.target = Target(host, port)
            rule = Rule(host=host, ports=(port,), wire=Wire.TCP, flow="messages", origin="the service")
            self._begin((rule,), self._relay, [self.proxy.service])

    def _read_head(self) -> None:
        if self.way is Way.TRANSPARENT:
            self._read_redirected()
            return
        try:
            end = find_end(self.buffer)
            if not end:
                return
            head = read_head(bytes(self.buffer[:end]))
        except Malformed as fault:
            self.refuse(Refusal("malformed", str(fault)), 400)
            return
        if self.proxy.credential is not None:
            given = head.all("proxy-authorization")
            if len(given) != 1 or not hmac.compare_digest(given[0].encode(), self.proxy.credential.encode()):
                self.refuse(Refusal("credential", "this proxy is another agent's"), 407)
                return
        if head.method == "CONNECT":
            del self.buffer[:end]
            self._connect(head)
        else:
            self._hand_over("http")

    def _connect(self, head: Head) -> None:
        try:
            target = read_target(head.asked)
            for host in head.all("host"):
                named = read_target(host, target.port)
                if named.host != target.host:
                    self.refuse(Refusal("mismatch", "the Host header names another host"), 400)
                    return
        except Unreadable as fault:
            self.refuse(Refusal("malformed", str(fault)), 400, shown=head.asked)
            return
        self._decide(target, lambda: self._open_tunnel(ESTABLISHED))

    def _look_ahead(self, patience: float) -> None:
        """See where a connection that the firewall led here was going."""
        try:
            address, port = find_destination(self.transport)
        except OSError:
            self.refuse(Refusal("malformed", "the connection was made to the proxy itself"), 0)
            return
        name = self.proxy.find_name(address)
        try:
            self.target = read_target(name, port) if name else _address_target(address, port)
        except Unreadable as fault:
            self.refuse(Refusal("malformed", str(fault)), 0, shown=name or address)
            return
        if isinstance(self.session.decide(self.target), Refusal):
            # Whoever speaks HTTP gets an answer; whoever waits to be spoken to gets an end.
            self._cancel_timer()
            self._timer = asyncio.get_running_loop().call_later(patience, self._read_redirected)

    def _read_redirected(self) -> None:
        """Begin a connection that the firewall led here, by its first bytes."""
        assert self.target is not None
        if self._state is not _State.HEAD:
            return
        if self.buffer and self.buffer[0] != _TLS_HANDSHAKE:
            found = self.session.decide(self.target)
            if isinstance(found, Refusal) or found[0].wire is not Wire.TCP:
                self._hand_over("http")
                return
        self._decide(self.target, lambda: self._open_tunnel(b""))

    def _decide(self, target: Target, then: Callable[[], None]) -> None:
        self.target = target
        found = self.session.decide(target)
        if isinstance(found, Refusal):
            self.refuse(found)
        elif found[0].wire is Wire.HTTP:
            self.refuse(Refusal("wire", f"{target} is allowed for plain HTTP, not through a tunnel"))
        elif any(rule.is_opened for rule in found) or self.session.secrets.for_host(target):
            self._hand_over("tls", found)
        else:
            self._begin(found, then)

    def _hand_over(self, scheme: str, rules: tuple[Rule, ...] = ()) -> None:
        from bailee.flows.web.exchanges import serve

        self._state = _State.HANDED
        self._cancel_timer()
        self.rules = rules
        self._task = self.proxy.begin(serve(self, scheme))

    def _begin(
        self,
        rules: tuple[Rule, ...],
        then: Callable[[], None],
        addresses: list[tuple[str, int]] | None = None,
    ) -> None:
        """Note and dial, then go on."""
        assert self.target is not None
        try:
            self.session.note_opened(self.number, self.way, self.target, rules)
        except LogFailed:
            self.refuse(NO_LOG, 503)
            return
        self.rules = rules
        self._state = _State.DIALING
        self._task = self.proxy.begin(self._dial(then, addresses))

    async def _dial(self, then: Callable[[], None], addresses: list[tuple[str, int]] | None) -> None:
        assert self.target is not None
        try:
            found = addresses or await self.session.find_addresses(self.target, self.rules)
            host, self.address = await dial(found, lambda: HostConnection(self))
        except Unreachable as fault:
            self.refuse(fault.refusal, fault.status)
            return
        if self._state is _State.DONE:
            host.transport.abort()
            return
        self.host = host
        then()

    def _open_tunnel(self, answer: bytes) -> None:
        if answer:
            self.received += len(answer)
            self.transport.write(answer)
        if self.rules[0].wire is Wire.TCP:
            self._relay()
            return
        self._state = _State.HELLO
        self.transport.resume_reading()
        if self.buffer:
            self._read_hello()

    def _read_hello(self) -> None:
        assert self.target is not None
        try:
            hello = read_hello(self.buffer)
        except NotHello as fault:
            self.refuse(Refusal("not_tls", f"{self.target} is allowed for TLS, and this is {fault}"), 0)
            return
        if hello is None:
            return
        if refusal := check_hello(hello.server_name, hello.is_encrypted, self.target):
            self.refuse(refusal, 0)
            return
        self._relay()

    # --- The tunnel ---

    def _relay(self) -> None:
        self._state = _State.RELAY
        self._cancel_timer()
        waiting, self.buffer = bytes(self.buffer), bytearray()
        self.sent -= len(waiting)  # `_pass_on` counts them
        self.transport.resume_reading()
        if waiting:
            self._pass_on(waiting)

    def _pass_on(self, data: bytes) -> None:
        self.sent += len(data)
        if not self.session.may_send(self.rules, len(data), self.way):
            self.stop(self.session.stopped_for or TOO_MUCH)
            return
        assert self.host is not None
        self.host.transport.write(data)

    def take(self, data: bytes) -> None:
        """Take what came from the host."""
        self.received += len(data)
        self.transport.write(data)

    def host_eof(self) -> None:
        """The host has said all that it says."""
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()
        self._half_ended()

    def host_lost(self, error: Exception | None) -> None:
        """The host is gone."""
        if self._state is not _State.DONE:
            if error is not None:
                self.outcome = self.outcome or "reset by the host"
                self.finish(is_abrupt=True)
            else:
                self.finish()

    def _half_ended(self) -> None:
        self._ended += 1
        if self._ended == 2:
            self.finish()

    # --- The end ---

    def refuse(self, refusal: Refusal, status: int = 403, *, shown: str = "") -> None:
        """Note a refusal, answer it and end; 0 for a connection in which there is nobody to answer."""
        if self._state is _State.DONE:
            return
        target = self.target
        host, port = (target.host, target.port) if target else (shown, 0)
        is_plain = self.way is Way.REQUEST
        wait = self.session.note_refused(self.number, self.way, host, port, refusal, is_plain=is_plain)
        answer = b"" if status == 0 or self.way is Way.TRANSPARENT else write_answer(refusal, status)
        self.outcome = self.outcome or f"refused: {refusal.rule}"
        if wait and answer:
            self._state = _State.HANDED
            asyncio.get_running_loop().call_later(wait, self._answer, answer)
        else:
            self._answer(answer)

    def _answer(self, answer: bytes) -> None:
        if answer and not self.transport.is_closing():
            self.received += len(answer)
            self.transport.write(answer)
        self.finish()

    def _give_up(self) -> None:
        if self._state in (_State.HEAD, _State.HELLO):
            self.refuse(Refusal("too_slow", f"nothing to go by came within {HEAD_SECONDS:g} s"), 0)

    def stop(self, outcome: str) -> None:
        """End at once, from outside."""
        self.outcome = outcome
        if self._state is _State.HANDED and self._task is not None:
            self._task.cancel()
        else:
            self.finish(is_abrupt=True)

    def finish(self, *, is_abrupt: bool = False) -> None:
        """Note the end and close both sides."""
        if self._state is _State.DONE:
            return
        is_silent = self._state in (_State.HELD, _State.HEAD) and not self.outcome
        if self.way is Way.TRANSPARENT and is_silent and self.target:
            # It was made and told nothing: that it was tried is worth knowing.
            refusal = Refusal("nothing_said", f"a connection to {self.target} ended before anything was said")
            self.session.note_refused(self.number, self.way, self.target.host, self.target.port, refusal)
        self._state = _State.DONE
        self._cancel_timer()
        self.session.connections.discard(self)
        if self._task is not None and self._task is not _current():
            self._task.cancel()
        self.session.note_closed(
            self.number,
            sent=self.sent,
            received=self.received,
            kernel=count_kernel(self.transport),
            address=self.address,
            outcome=self.outcome or "done",
        )
        close(self.transport, is_abrupt=is_abrupt)
        if self.host is not None:
            self.host.close(is_abrupt=is_abrupt)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _address_target(address: str, port: int) -> Target:
    return read_target(f"[{address}]" if ":" in address else address, port)


def _current() -> "asyncio.Task[object] | None":
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
