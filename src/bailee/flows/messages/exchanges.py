"""One exchange: a request forwarded as it came, its answer relayed as it comes, both recorded.

An answer is complete for the agent only once its record is durable: the last event (or the last byte)
is held back until the recorder says so. What an agent has received in full can therefore always be found
again, whatever is killed when; nothing but the end of the answer waits for it.
"""

import asyncio
import time
from typing import Protocol

from bailee.accounts.keys import Principal
from bailee.flows.messages.connections import UpstreamConnection, UpstreamFailed
from bailee.flows.messages.eventstream import MessageBoundary, encode_ping
from bailee.flows.messages.gateway import PING_SECONDS, SILENCE_SECONDS, Gateway
from bailee.flows.messages.headers import find, select_response_headers, to_lines
from bailee.flows.messages.refusals import Refusal, RefusalKind
from bailee.flows.messages.upstreams import Headers, Request
from bailee.flows.messages.usage import Usage, UsageReader
from bailee.policy.decisions import Decision
from bailee.policy.problems import Problem
from bailee.vault.frames import Begin, Decided, Finish, Part
from bailee.vault.recording import RecorderGone
from bailee.vault.tables import State

# Small enough that a killed gateway loses little, large enough that 200 events make few frames.
PART_BYTES = 32 * 1024
PART_SECONDS = 0.25
_LAST_EVENT = b"event: message_stop"
# How long the end of an answer waits for its record. Committing takes 2 ms, and SQLite itself waits 10 s for
# another process; a recorder that takes longer stands still.
DURABLE_SECONDS = 30.0


class Agent(Protocol):
    """The agent's end of an exchange.

    Attributes:
        takes_chunks: it speaks HTTP/1.1; to another nothing may be sent in chunks (RFC 9112 section 6.1).
    """

    takes_chunks: bool

    def write(self, data: bytes) -> None:
        """Send bytes of the response."""
        ...

    def end(self, *, can_keep_alive: bool) -> None:
        """The response is complete."""
        ...

    def break_off(self) -> None:
        """Close the connection so that the agent sees the response was cut short."""
        ...

    def refuse(self, refusal: Refusal) -> None:
        """Send an answer of our own; only before any other byte."""
        ...


class Exchange:
    """Receives the upstream's answer on behalf of one agent's request.

    Attributes:
        is_over: nothing more comes in: the record is handed over, and the agent has its answer but for its
            end, or is gone.
    """

    def __init__(
        self,
        gateway: Gateway,
        agent: Agent,
        principal: Principal,
        decision: Decision,
        decided: Decided,
        session: str,
        request: Request,
        started_ms: int,
    ) -> None:
        self.is_over = False
        self._gateway = gateway
        self._agent = agent
        self._principal = principal
        self._decided = decided
        self._session = session
        self._request = request
        self._keep = not decision.terms.retention.is_none
        self._started_ms = started_ms
        self._started = self._heard = self._handed_on = time.monotonic()
        self.id = gateway.new_exchange(started_ms)
        self._connection: UpstreamConnection | None = None
        self._is_paused = False
        self._status: int | None = None
        self._first_byte_ms: int | None = None
        self._response_headers = b""
        self._response_bytes = 0
        self._chunked = False
        self._is_stream = False
        self._usage: UsageReader | None = None
        self._boundary: MessageBoundary | None = None
        self._part: list[bytes] = []
        self._part_bytes = 0
        self._held: list[bytes] = []
        self._durable: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Record the request, then send it; the answer comes in through the receiving methods."""
        gateway = self._gateway
        gateway.active.add(self)
        try:
            gateway.recording.begin(self._begin(), self._decided)
            target, headers = await gateway.upstream.authorize(self._request)
            connection = await gateway.pool.acquire()
            if self.is_over:  # the agent hung up meanwhile
                connection.abort()
                return
            self._send(connection, target, headers)
        except RecorderGone as gone:
            self.stop(str(gone))
        except (Problem, UpstreamFailed) as failure:
            self.receive_failure(UpstreamFailed(str(failure)))
        except Exception as error:
            self._fail(error)

    def _begin(self) -> Begin:
        request = self._request
        return Begin(
            exchange=self.id,
            account=self._principal.account_id,
            session=self._session,
            key=self._principal.key_id,
            decision=self._decided.digest,
            flow=self._gateway.flow.id.value,
            keep=self._keep,
            started_ms=self._started_ms,
            upstream=self._gateway.upstream.name,
            path=request.target.split(b"?", 1)[0].decode("latin-1"),
            request_bytes=len(request.body),
            headers=to_lines(request.headers) if self._keep else b"",
            body=request.body if self._keep else b"",
        )

    def _send(self, connection: UpstreamConnection, target: bytes, headers: Headers) -> None:
        pool = self._gateway.pool
        self._connection = connection
        self._outgoing = (target, headers)
        head = b"".join(
            [
                self._request.method,
                b" ",
                pool.target_prefix.encode(),
                target,
                b" HTTP/1.1\r\nHost: ",
                pool.origin.authority.encode(),
                b"\r\n",
                to_lines(headers),
                to_lines(pool.proxy_headers),
                b"Content-Length: %d\r\n\r\n" % len(self._request.body),
            ]
        )
        if self._is_paused:
            connection.pause()
        connection.send(head, self._request.body, self)

    # The upstream's end.

    def receive_head(self, status: int, reason: bytes, headers: Headers) -> None:
        """Relay the status line and the end-to-end headers."""
        self._heard = time.monotonic()
        self._first_byte_ms = int((self._heard - self._started) * 1000)
        self._status = status
        relayed = select_response_headers(headers)
        lines = to_lines(relayed)
        self._response_headers = lines if self._keep else b""
        content_type = find(relayed, b"content-type")
        self._usage = UsageReader(content_type, find(relayed, b"content-encoding"))
        self._is_stream = content_type.startswith(b"text/event-stream")
        is_unframed = status not in (204, 304) and not find(relayed, b"content-length")
        if is_unframed and content_type.startswith(b"application/vnd.amazon.eventstream"):
            self._boundary = MessageBoundary()
        self._chunked = is_unframed and self._agent.takes_chunks
        framing = b"transfer-encoding: chunked\r\n" if self._chunked else b""
        self._agent.write(
            b"HTTP/1.1 %d %s\r\n%s%sx-bailee-exchange: %x\r\n\r\n" % (status, reason, lines, framing, self.id)
        )

    def receive_data(self, data: bytes, is_whole: bool) -> None:
        """Relay bytes of the answer, and hold back its end until the record is durable."""
        assert self._usage is not None
        now = self._heard = time.monotonic()
        self._response_bytes += len(data)
        self._usage.feed(data)
        if self._boundary is not None:
            self._boundary.feed(data)
        if self._keep and data:
            self._part.append(data)
            self._part_bytes += len(data)
        if is_whole:
            # The connection is another's from here on: a slow agent must not pause it.
            self._connection = None
        self._relay(data, is_whole)
        if is_whole:
            durable = self._durable = self._finish(State.COMPLETE, None)
            self._gateway.active.add(self)  # until its record is durable, which `tick` watches
            durable.add_done_callback(self._complete)
        elif self._part_bytes >= PART_BYTES or (self._part and now - self._handed_on > PART_SECONDS):
            self._handed_on = now
            self._gateway.recording.part(Part(self.id, b"".join(self._part)))
            self._part, self._part_bytes = [], 0

    def _relay(self, data: bytes, is_whole: bool) -> None:
        if self._held:
            self._held.append(data)
            return
        end = data.rfind(_LAST_EVENT) if self._is_stream else -1
        if end == -1 and is_whole:
            end = len(data) - 1 if data else 0
        if end == -1:
            self._write(data)
            return
        self._write(data[:end])
        self._held.append(data[end:])

    def _write(self, data: bytes) -> None:
        if data:
            self._agent.write(b"%x\r\n%s\r\n" % (len(data), data) if self._chunked else data)

    def _complete(self, durable: "asyncio.Future[None]") -> None:
        self._gateway.active.discard(self)
        if durable.cancelled() or durable.exception() is not None:
            self._agent.break_off()
            return
        held = b"".join(self._held)
        if self._chunked:
            ending = b"0\r\n\r\n"
            self._agent.write(b"%x\r\n%s\r\n%s" % (len(held), held, ending) if held else ending)
        elif held:
            self._agent.write(held)
        self._agent.end(can_keep_alive=True)

    def receive_failure(self, failure: UpstreamFailed) -> None:
        """Try a stale connection's request once more; else tell the agent, and record it."""
        if self.is_over:
            return
        self._connection = None
        if failure.is_stale:
            task = asyncio.get_running_loop().create_task(self._send_again())
            self._task = task  # the loop alone would not keep it
            return
        if self._status is None:
            self._agent.refuse(Refusal(RefusalKind.UPSTREAM, f"{failure}."))
        else:
            self._agent.break_off()
        self._finish(State.UPSTREAM_FAILED, str(failure))

    async def _send_again(self) -> None:
        try:
            connection = await self._gateway.pool.acquire(fresh=True)
            if self.is_over:
                connection.abort()
            else:
                self._send(connection, *self._outgoing)
        except UpstreamFailed as failure:
            self.receive_failure(failure)
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Tell the agent of a fault nobody thought of, by its kind alone: its text may hold anything."""
        self._drop_upstream()
        self.receive_failure(UpstreamFailed(f"the request could not be sent: {type(error).__name__}"))

    # The agent's end.

    def leave(self) -> None:
        """The agent hung up."""
        if not self.is_over:
            self._drop_upstream()
            self._finish(State.CLIENT_GONE, "the agent closed the connection")

    def pause(self) -> None:
        """The agent does not keep up: read no more from the upstream."""
        self._is_paused = True
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        """The agent has caught up."""
        self._is_paused = False
        self._heard = time.monotonic()
        if self._connection is not None:
            self._connection.resume()

    # Time and the recorder.

    def tick(self, now: float) -> None:
        """Ping an agent that Bedrock leaves in silence; give up on what stays silent.

        That is an upstream in its answer, or a recorder that should have made it durable.
        """
        silence = now - self._heard
        if self._durable is not None and silence > DURABLE_SECONDS:
            self._durable.remove_done_callback(self._complete)
            self._gateway.active.discard(self)
            self._agent.break_off()
        if self.is_over or self._is_paused:
            return
        if silence > SILENCE_SECONDS:
            self._drop_upstream()
            self.receive_failure(UpstreamFailed(f"the upstream was silent for {SILENCE_SECONDS:g} s"))
        elif silence > PING_SECONDS and self._boundary is not None and self._boundary.at_boundary:
            self._write(encode_ping())

    def stop(self, reason: str) -> None:
        """The recorder is gone, so nothing more may pass."""
        if self.is_over:
            return
        self._drop_upstream()
        self.is_over = True
        self._gateway.active.discard(self)
        if self._status is None:
            self._agent.refuse(
                Refusal(RefusalKind.UNAVAILABLE, f"nothing is forwarded that cannot be recorded: {reason}.")
            )
        else:
            self._agent.break_off()

    def _drop_upstream(self) -> None:
        if self._connection is not None:
            self._connection.abort()
            self._connection = None

    def _finish(self, state: State, reason: str | None) -> "asyncio.Future[None]":
        self.is_over = True
        self._gateway.active.discard(self)
        usage = self._usage.read() if self._usage else Usage()
        self._usage = None
        durable = self._gateway.recording.finish(
            Finish(
                exchange=self.id,
                state=state.value,
                reason=reason,
                status=self._status,
                first_byte_ms=self._first_byte_ms,
                duration_ms=int((time.monotonic() - self._started) * 1000),
                response_bytes=self._response_bytes,
                model=usage.model,
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                cache_read_tokens=usage.cache_read_tokens,
                cache_creation_tokens=usage.cache_creation_tokens,
                stop_reason=usage.stop_reason,
                headers=self._response_headers,
                data=b"".join(self._part),
            )
        )
        self._part = []
        # The recorder's own end reports a failure; a future whose exception nobody looked at would be logged.
        durable.add_done_callback(lambda done: done.cancelled() or done.exception())
        return durable


def record_refusal(
    gateway: Gateway,
    principal: Principal,
    decided: Decided,
    session: str,
    path: str,
    refusal: Refusal,
    started_ms: int,
) -> None:
    """Record that a request was refused, and why; nothing of its content."""
    gateway.recording.note(
        exchange=gateway.new_exchange(started_ms),
        account=principal.account_id,
        session=session,
        key=principal.key_id,
        decided=decided,
        flow=gateway.flow.id.value,
        started_ms=started_ms,
        upstream=gateway.upstream.name,
        path=path,
        state=State.REFUSED.value,
        status=refusal.status,
        reason=refusal.message,
    )
