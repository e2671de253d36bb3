"""Requests that are looked into: plain HTTP, and what is inside TLS where a rule needs to see it.

Each request is checked against the rules before a byte of it goes on, and its Host header must be where the
connection leads. The host's certificate is verified here, as the agent cannot.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from urllib.parse import urlsplit

import h11

from bailee.flows.web.denials import list_headers, write_body
from bailee.flows.web.hello import NotHello, check_hello, read_hello
from bailee.flows.web.log import LogFailed, Way
from bailee.flows.web.placeholders import Secrets
from bailee.flows.web.proxy import ESTABLISHED, HEAD_SECONDS, NO_LOG, AgentConnection
from bailee.flows.web.rules import Led, Refusal, Rule, Wire
from bailee.flows.web.sessions import CONNECT_SECONDS, TOO_MUCH, Unreachable
from bailee.flows.web.streams import PIECE, ClearStream, OpenedStream, Stream
from bailee.flows.web.targets import Target, Unreadable, read_target

IDLE_SECONDS = 300.0
# RFC 9110 section 7.6.1, and what is for a proxy alone.
_HOP = frozenset(
    b"connection keep-alive proxy-connection te upgrade proxy-authorization proxy-authenticate".split()
)
_CODED = Refusal("coded_answer", "the answer is compressed, so that secrets could not be taken out of it")
_Event = h11.Request | h11.InformationalResponse | h11.Response | h11.Data | h11.EndOfMessage


class _Refused(Exception):
    def __init__(self, refusal: Refusal, status: int = 403) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal
        self.status = status


async def serve(connection: AgentConnection, scheme: str) -> None:
    """Serve the requests of a connection until it ends.

    Args:
        scheme: "http", or "tls" for a tunnel that is opened.
    """
    stream = ClearStream(connection)
    try:
        if scheme == "tls":
            await _serve_opened(connection, stream)
        else:
            await _Exchanges(connection, stream, is_opened=False).serve()
    except _Refused as refused:
        connection.refuse(refused.refusal, 0)
    except (OSError, TimeoutError, h11.ProtocolError) as fault:
        connection.outcome = connection.outcome or _tell(fault)
    finally:
        connection.finish()


async def _serve_opened(connection: AgentConnection, stream: ClearStream) -> None:
    assert connection.target is not None
    authority = connection.proxy.authority
    if authority is None:
        raise _Refused(Refusal("no_authority", "its rule needs TLS to be opened, and nothing can here"))
    if connection.way is Way.CONNECT:
        await stream.write(ESTABLISHED)
    first = bytearray()
    async with asyncio.timeout(HEAD_SECONDS):
        while True:
            if not (data := await stream.read()):
                return
            first += data
            try:
                hello = read_hello(first)
            except NotHello as fault:
                reason = f"{connection.target} is allowed for TLS, and this is {fault}"
                raise _Refused(Refusal("not_tls", reason)) from None
            if hello is not None:
                break
    if refusal := check_hello(hello.server_name, hello.is_encrypted, connection.target):
        raise _Refused(refusal)
    opened = OpenedStream(stream, authority.make_context(connection.target.host))
    await opened.shake_hands(bytes(first))
    await _Exchanges(connection, opened, is_opened=True).serve()
    await opened.close()


class _Exchanges:
    """The requests of one connection, one after the other."""

    def __init__(self, connection: AgentConnection, stream: Stream, *, is_opened: bool) -> None:
        self._connection = connection
        self._session = connection.session
        self._stream = stream
        self._is_opened = is_opened
        self._agent = h11.Connection(h11.SERVER, max_incomplete_event_size=64 * 1024)
        self._host: h11.Connection | None = None
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None
        self._secrets = Secrets(())
        self._led: Led | None = None
        self._is_head = False

    async def serve(self) -> None:
        try:
            while True:
                async with asyncio.timeout(IDLE_SECONDS):
                    event = await self._next_of_agent()
                if not isinstance(event, h11.Request):
                    return
                self._is_head = event.method == b"HEAD"
                try:
                    await self._exchange(event)
                except _Refused as refused:
                    await self._refuse(refused)
                    return
                if self._agent.our_state is not h11.DONE or self._agent.their_state is not h11.DONE:
                    return
                self._agent.start_next_cycle()
        except h11.RemoteProtocolError as fault:
            await self._refuse(_Refused(Refusal("malformed", str(fault)), 400))
        finally:
            await self._hang_up()

    async def _next_of_agent(self) -> object:
        while True:
            event = self._agent.next_event()
            if event is not h11.NEED_DATA:
                return event
            self._agent.receive_data(await self._stream.read())

    # --- One request ---

    async def _exchange(self, request: h11.Request) -> None:
        target, path = self._find_target(request)
        connection = self._connection
        connection.target = target  # a refusal tells where it was to go as well
        connection.rules = rules = self._check(request, target, path)
        if self._host is None or self._writer is None or self._host.our_state is not h11.IDLE:
            await self._dial(target, rules)
        self._note(request, path)
        assert self._host is not None
        headers = [pair for pair in _pass_on(request.headers) if pair[0] not in (b"host", b"expect")]
        if self._led is not None:
            path = self._led.base + path
            headers = [pair for pair in headers if pair[0] != b"authorization"]
            headers.append((b"authorization", self._led.authorization.encode()))
        if self._is_opened and self._secrets:
            headers = [pair for pair in self._secrets.put_in(headers) if pair[0] != b"accept-encoding"]
            headers.append((b"accept-encoding", b"identity"))
        is_plain = target.port == (443 if self._is_opened else 80)
        named = str(target).rpartition(":")[0] if is_plain else str(target)
        if self._led is not None:
            named = f"{self._led.host}:{self._led.port}"
        headers.insert(0, (b"host", named.encode()))
        await self._send(h11.Request(method=request.method, target=path.encode(), headers=headers))
        upload = asyncio.ensure_future(self._upload(rules))
        try:
            await self._answer(request)
        finally:
            if not upload.done():
                upload.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError, h11.ProtocolError):
                await upload

    def _find_target(self, request: h11.Request) -> tuple[Target, str]:
        """Return where a request goes, and its path; what it says of that must agree."""
        asked = request.target.decode("ascii", "replace")
        hosts = [value.decode("latin-1") for name, value in request.headers if name == b"host"]
        try:
            if not self._is_opened and self._connection.way is not Way.TRANSPARENT:
                parts = urlsplit(asked)
                if parts.scheme.lower() != "http" or "@" in parts.netloc or not parts.netloc:
                    what = "the proxy is asked for http:// URLs, or with CONNECT"
                    raise _Refused(Refusal("malformed", what), 400)
                target = read_target(parts.netloc, 80)
                path = asked[len(parts.scheme) + 3 + len(parts.netloc) :].partition("#")[0]
                path = path if path.startswith("/") else f"/{path}"
            else:
                assert self._connection.target is not None
                target, path = self._connection.target, asked
                if not path.startswith("/") and not (path == "*" and request.method == b"OPTIONS"):
                    raise _Refused(Refusal("malformed", "the request does not begin with a path"), 400)
            if not hosts and request.http_version == b"1.0" and not self._is_opened:
                return target, path
            if len(hosts) != 1 or read_target(hosts[0], target.port) != target:
                raise _Refused(Refusal("mismatch", f"the Host header is not {target}"), 400)
        except Unreadable as fault:
            raise _Refused(Refusal("malformed", str(fault)), 400) from None
        except ValueError:
            raise _Refused(Refusal("malformed", "the URL cannot be read"), 400) from None
        return target, path

    def _check(self, request: h11.Request, target: Target, path: str) -> tuple[Rule, ...]:
        found = self._session.decide(target)
        if isinstance(found, Refusal):
            raise _Refused(found)
        wire = Wire.TLS if self._is_opened else Wire.HTTP
        fitting = tuple(rule for rule in found if rule.wire is wire or rule.flow == "")
        if not fitting:
            raise _Refused(Refusal("wire", f"{target} is allowed for {found[0].wire}, not for {wire}"))
        headers: dict[str, list[str]] = defaultdict(list)
        for name, value in request.headers:
            headers[name.decode("ascii")].append(value.decode("latin-1"))
        if "upgrade" in headers or request.method == b"CONNECT":
            raise _Refused(Refusal("upgrade", "a connection inside this one cannot be looked into"))
        if "transfer-encoding" in headers and "content-length" in headers:
            raise _Refused(Refusal("malformed", "two lengths of one body (RFC 9112 section 6.3)"), 400)
        method = request.method.decode("ascii")
        reasons = []
        for rule in fitting:
            reason = rule.tell_refused(method, path, headers)
            if not reason:
                return (rule,)
            reasons.append(f"{reason} is not what {rule.label} allows")
        raise _Refused(Refusal("request", f"{target}: {'; '.join(reasons)}"))

    def _note(self, request: h11.Request, path: str) -> None:
        try:
            self._session.note_requested(self._connection.number, request.method.decode("ascii"), path)
        except LogFailed:
            raise _Refused(NO_LOG, 503) from None

    # --- The host ---

    async def _dial(self, target: Target, rules: tuple[Rule, ...]) -> None:
        await self._hang_up()
        connection = self._connection
        self._led = self._session.rules.find_led(target) if self._is_opened else None
        is_bound = self._is_opened and self._led is None
        self._secrets = self._session.secrets.for_host(target) if is_bound else Secrets(())
        try:
            self._session.note_opened(connection.number, connection.way, target, rules)
        except LogFailed:
            raise _Refused(NO_LOG, 503) from None
        try:
            if self._led is not None:
                addresses = [(self._led.host, self._led.port)]
            else:
                addresses = await self._session.find_addresses(target, rules)
        except Unreachable as fault:
            raise _Refused(fault.refusal, fault.status) from None
        tls = connection.proxy.host_tls if is_bound else None
        name = target.host if is_bound else None
        reason = ""
        for address, port in addresses:
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    self._reader, self._writer = await asyncio.open_connection(
                        address, port, ssl=tls, server_hostname=name, limit=PIECE
                    )
            except (OSError, TimeoutError) as fault:
                reason = f"{address}: {_tell(fault)}"
            else:
                connection.address = address
                self._host = h11.Connection(h11.CLIENT)
                return
        raise _Refused(Refusal("unreachable", f"{target}: {reason}"), 502)

    async def _hang_up(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = self._host = None

    async def _send(self, event: h11.Request | h11.Data | h11.EndOfMessage) -> None:
        assert self._host is not None
        assert self._writer is not None
        if data := self._host.send(event):
            self._writer.write(data)
            await self._writer.drain()

    async def _upload(self, rules: tuple[Rule, ...]) -> None:
        """Pass the body of a request on."""
        while True:
            if self._agent.they_are_waiting_for_100_continue:
                await self._say(h11.InformationalResponse(status_code=100, headers=[]))
            event = await self._next_of_agent()
            if isinstance(event, h11.Data):
                if not self._session.may_send(rules, len(event.data), self._connection.way):
                    reason = self._session.stopped_for or TOO_MUCH
                    self._connection.stop(reason)
                    return
                await self._send(h11.Data(data=bytes(event.data)))
            elif isinstance(event, h11.EndOfMessage):
                await self._send(h11.EndOfMessage())
                return
            else:
                self._connection.stop("the agent hung up")
                return

    async def _answer(self, request: h11.Request) -> None:
        taking_out = self._secrets.taking_out()
        while True:
            event = await self._next_of_host()
            if isinstance(event, h11.InformationalResponse):
                continue  # 100 was said by us, and no other is needed
            if isinstance(event, h11.Response):
                headers = [(name, self._secrets.take_out(value)) for name, value in _pass_on(event.headers)]
                if self._secrets and any(
                    name == b"content-encoding" and value.lower() != b"identity" for name, value in headers
                ):
                    raise _Refused(_CODED, 502)
                if not self._is_opened:
                    headers.append((b"connection", b"close"))  # the next request may be for another host
                await self._say(
                    h11.Response(status_code=event.status_code, headers=headers, reason=event.reason)
                )
            elif isinstance(event, h11.Data):
                if data := taking_out.feed(bytes(event.data)):
                    await self._say(h11.Data(data=data))
            elif isinstance(event, h11.EndOfMessage):
                if rest := taking_out.finish():
                    await self._say(h11.Data(data=rest))
                await self._say(h11.EndOfMessage())
                assert self._host is not None
                if self._host.our_state is h11.DONE and self._host.their_state is h11.DONE:
                    self._host.start_next_cycle()
                return
            else:
                raise ConnectionResetError("the host hung up")

    async def _next_of_host(self) -> object:
        assert self._host is not None
        while True:
            event = self._host.next_event()
            if event is not h11.NEED_DATA:
                return event
            self._host.receive_data(await self._reader.read(PIECE))

    # --- The agent ---

    async def _say(
        self, event: h11.Response | h11.InformationalResponse | h11.Data | h11.EndOfMessage
    ) -> None:
        if data := self._agent.send(event):
            await self._stream.write(data)

    async def _refuse(self, refused: _Refused) -> None:
        connection = self._connection
        target = connection.target
        host, port = (target.host, target.port) if target else ("", 0)
        wait = self._session.note_refused(
            connection.number, connection.way, host, port, refused.refusal, is_plain=not self._is_opened
        )
        connection.outcome = f"refused: {refused.refusal.rule}"
        await asyncio.sleep(wait)
        if self._agent.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return  # an answer has begun, and its end would be taken for a whole one
        body = write_body(refused.refusal)
        headers = [*list_headers(refused.refusal), ("content-type", "application/json")]
        headers += [("content-length", str(len(body))), ("connection", "close")]
        reason = HTTPStatus(refused.status).phrase.encode()
        await self._say(h11.Response(status_code=refused.status, headers=headers, reason=reason))
        if not self._is_head:
            await self._say(h11.Data(data=body))
        await self._say(h11.EndOfMessage())


def _pass_on(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return headers without those of one hop."""
    listed = list(headers)
    named = {
        part.strip().lower() for name, value in listed if name == b"connection" for part in value.split(b",")
    }
    return [(name, value) for name, value in listed if name not in _HOP and name not in named]


def _tell(fault: BaseException) -> str:
    if isinstance(fault, TimeoutError):
        return "it does not answer"
    reason: Sequence[object] = (getattr(fault, "verify_message", ""), getattr(fault, "strerror", ""))
    return next((str(one) for one in reason if one), type(fault).__name__)
