"""The service's end of the recorder: hands exchanges over without waiting, and says when they are durable."""

import asyncio
import contextlib
import hashlib
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from bailee.policy.decisions import Decision
from bailee.policy.problems import Problem
from bailee.vault.frames import (
    Again,
    Begin,
    Committed,
    Decided,
    Failed,
    Finish,
    Frame,
    FrameBuffer,
    Part,
    answer_decoder,
    encode,
)
from bailee.vault.tables import State

# Beyond this much handed over and not yet taken in, requests are refused instead of queued: memory
# stays bounded, and an agent told to come back does so, where one kept waiting times out.
OUTSTANDING_BYTES = 32 * 1024 * 1024
RESTART_SECONDS = 1.0


class _Unsettled(msgspec.Struct):
    """An exchange whose end is not durable yet, as far as it was handed over.

    Attributes:
        sent: how much had been sent to the recorder with its request.
    """

    begin: Begin
    decided: Decided
    sent: int
    finish: Finish | None = None


class RecorderGone(Exception):
    """The recorder ended; what was not yet durable will not be."""


class Recording(asyncio.Protocol):
    """A running recorder, restarted when it ends.

    Requests that a recorder was given and did not make durable are given to the next one, marked as
    interrupted, before anything else may begin: so what was sent upstream is on record, and a disk that is
    still full is not tried with another request.

    Attributes:
        is_ready: whether exchanges may begin.
        fault: why not, in the recorder's words; empty while it is ready or starting.
        on_gone: called when the recorder ends, to stop what can no longer be recorded.
    """

    def __init__(self, home: Path, random_bits: Callable[[int], int]) -> None:
        self.is_ready = False
        self._random_bits = random_bits
        self._last_exchange = 0
        self.fault = ""
        self.on_gone: Callable[[], None] = lambda: None
        self._home = home
        self._sent = self._taken = 0
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._told: set[bytes] = set()
        self._unsettled: dict[int, _Unsettled] = {}
        self._is_greeted = False
        self._again: set[int] = set()
        self._buffer = FrameBuffer()
        self._transport: asyncio.Transport | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._started: asyncio.Future[None] | None = None
        self._restart: asyncio.Task[None] | None = None
        self._is_closing = False

    @property
    def has_room(self) -> bool:
        """Whether another exchange may begin now."""
        return self.is_ready and self._sent - self._taken < OUTSTANDING_BYTES

    @property
    def process_id(self) -> int | None:
        """The recorder's process, or None while there is none."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start the recorder and wait until it can write.

        Raises:
            Problem: it cannot: the vault or the keystore is damaged, missing a part, or not writable.
        """
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with theirs:
            for end in (ours, theirs):
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * 1024 * 1024)
            ours.setblocking(False)
            self._started = loop.create_future()
            self._is_greeted = False
            descriptor = theirs.fileno()
            command = [
                "-m",
                "bailee.vault.recorder",
                "--home",
                str(self._home),
                "--descriptor",
                str(descriptor),
            ]
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, *command, pass_fds=[descriptor], stdin=asyncio.subprocess.DEVNULL
            )
        await loop.create_connection(lambda: self, sock=ours)
        await self._started

    async def close(self) -> None:
        """Let the recorder finish what it was given, and wait for its end."""
        self._is_closing = True
        self.is_ready = False
        if self._restart:
            self._restart.cancel()
        if self._transport:
            self._transport.close()
        if self._process:
            await self._process.wait()

    def begin(self, frame: Begin, decided: Decided) -> None:
        """Hand over a request, and the decision it rests on if the recorder has not heard of it.

        Raises:
            RecorderGone: there is no recorder that can take it.
        """
        if not self.is_ready:
            raise RecorderGone(self.fault or "the recorder is starting")
        self._tell(decided)
        self._send(frame)
        self._unsettled[frame.exchange] = _Unsettled(frame, decided, self._sent)

    def part(self, frame: Part) -> None:
        """Hand over the next bytes of an answer.

        Raises:
            RecorderGone: there is no recorder that can take them.
        """
        self._send(frame)

    def finish(self, frame: Finish) -> "asyncio.Future[None]":
        """Hand over the end of an exchange; the future is done once all of it is durable.

        Raises (through the future):
            RecorderGone: the recorder ended before that.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._transport is None:
            future.set_exception(RecorderGone(self.fault))
            return future
        self._waiting[frame.exchange] = future
        if unsettled := self._unsettled.get(frame.exchange):
            unsettled.finish = frame
        self._send(frame)
        return future

    def new_exchange(self, started_ms: int) -> int:
        """Return the id of an exchange: 42 bits of its time, then 21 that are drawn; ids sort by time.

        Drawing alone is not enough: sixty requests of one millisecond drew the same number twice within the
        hour, and a recorder that cannot insert a row ends.
        """
        drawn = (started_ms << 21 | self._random_bits(20)) & 0x7FFFFFFFFFFFFFFF
        self._last_exchange = max(drawn, self._last_exchange + 1)
        return self._last_exchange

    def note(
        self,
        *,
        exchange: int,
        account: str,
        session: str,
        key: str,
        decided: Decided,
        flow: str,
        started_ms: int,
        upstream: str,
        path: str,
        state: str,
        status: int,
        reason: str | None = None,
        request_bytes: int = 0,
    ) -> None:
        """Record that something came, and what became of it; nothing of its content. Nobody waits for it."""
        if not self.is_ready:
            return
        self.begin(
            Begin(
                exchange=exchange,
                account=account,
                session=session,
                key=key,
                decision=decided.digest,
                flow=flow,
                keep=False,
                started_ms=started_ms,
                upstream=upstream,
                path=path,
                request_bytes=request_bytes,
                headers=b"",
                body=b"",
            ),
            decided,
        )
        nothing = (None, None, None, None, None, None, b"", b"")
        self.finish(Finish(exchange, state, reason, status, None, 0, 0, *nothing)).add_done_callback(_notice)

    def _tell(self, decided: Decided) -> None:
        if decided.digest not in self._told:
            self._told.add(decided.digest)
            self._send(decided)

    def _send(self, frame: Frame) -> None:
        if self._transport is None:
            raise RecorderGone(self.fault)
        data = encode(frame)
        self._sent += len(data)
        self._transport.write(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Called by the event loop with answers."""
        for body in self._buffer.feed(data):
            match answer_decoder.decode(body):
                case Committed(exchanges, taken):
                    self._taken += taken
                    for exchange in exchanges:
                        self._unsettled.pop(exchange, None)
                        future = self._waiting.pop(exchange, None)
                        if future and not future.done():
                            future.set_result(None)
                    if not self.is_ready:
                        self._go_on(exchanges)
                case Failed(reason):
                    self.fault = reason

    def _go_on(self, durable: list[int]) -> None:
        """Give a new recorder what the last one may have lost; once that is durable, exchanges may begin."""
        if not self._is_greeted:
            self._is_greeted = True
            self._again = set(self._unsettled)
            for unsettled in self._unsettled.values():
                self._tell(unsettled.decided)
                self._send(Again(unsettled.begin, _interrupt(unsettled)))
                unsettled.sent = self._sent
        self._again.difference_update(durable)
        if not self._again and self._started and not self._started.done():
            self.is_ready, self.fault = True, ""
            self._started.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the event loop when the recorder is gone; a new one is started after a pause."""
        self.is_ready = False
        self._transport = None
        # A request that was taken is durable, and marked by the next recorder if it is still there. Giving it
        # again would bring back what was erased meanwhile.
        self._unsettled = {id: one for id, one in self._unsettled.items() if one.sent > self._taken}
        self._sent = self._taken = 0
        self._told.clear()
        self._buffer = FrameBuffer()
        self.fault = self.fault or "the recorder ended"
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(RecorderGone(self.fault))
        if self._started and not self._started.done():
            self._started.set_exception(Problem(f"the recorder did not start: {self.fault}"))
            return
        self.on_gone()
        if not self._is_closing:
            self._restart = asyncio.get_running_loop().create_task(self._start_again())

    async def _start_again(self) -> None:
        while not self._is_closing:
            await asyncio.sleep(RESTART_SECONDS)
            self.fault, fault = "", self.fault
            try:
                await self.start()
            except (Problem, OSError):
                self.fault = self.fault or fault
            else:
                return


def decided_of(decision: Decision) -> Decided:
    """Return a decision as it is recorded: its digest names it, its text explains it, its terms bind."""
    body = msgspec.json.encode(decision)
    return Decided(hashlib.sha256(body).digest(), body.decode(), decision.terms)


def _interrupt(unsettled: _Unsettled) -> Finish:
    """Return the end of an exchange whose recorder ended before it was durable.

    Parts of its answer went with the recorder, so that nothing of it is told; the agent has not got its end.
    """
    finish = unsettled.finish
    if finish is not None and finish.state == State.REFUSED:
        return finish
    reason = "the recorder ended before the answer was on record"
    nothing = (None, None, None, None, None, None, b"", b"")
    if finish is None:
        return Finish(unsettled.begin.exchange, State.INTERRUPTED, reason, None, None, 0, 0, *nothing)
    return msgspec.structs.replace(finish, state=State.INTERRUPTED, reason=reason, headers=b"", data=b"")


def _notice(durable: "asyncio.Future[None]") -> None:
    """Take note of a failure that the recorder's own end reports too."""
    if not durable.cancelled():
        durable.exception()
