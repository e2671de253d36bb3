"""How much sessions send to hosts of Git, and how often they ask: counted, slowed down, stopped and told.

What is too much is not decided here: each session has a watch of the same rules that its other connections
are under, and may send so much to a host.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Protocol

from bailee.flows.git.access import Access
from bailee.flows.git.requests import GitRequest
from bailee.sizes import tell_size

ABUSE, TRAFFIC = "abuse", "traffic"
PORT = 443


class TooMuch(Exception):
    """More than a session may send; its text says so to whoever works in it.

    Attributes:
        rule: the short name of what refuses it.
    """

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(text)
        self.rule = rule


class Finding(Protocol):
    """Something was done about a session."""

    @property
    def kind(self) -> str:
        """What was counted."""

    @property
    def action(self) -> str:
        """What was done: `slowed`, `stopped` or `told`."""

    @property
    def reason(self) -> str:
        """For people."""


class Watch(Protocol):
    """Counts what a session does, and says what is to be done about it."""

    @property
    def is_stopped(self) -> bool:
        """Whether it may do nothing any more."""

    @property
    def delay(self) -> float:
        """For how many seconds something new is to wait."""

    def note_connection(self) -> Finding | None:
        """Count a request."""

    def note_sent(self, count: int) -> Finding | None:
        """Count bytes that are about to be sent."""

    def note_refused(self, host: str, port: int, rule: str) -> Iterable[Finding]:
        """Count what was refused, by the short name of what refused it, or could not be reached."""


class Counted:
    """Counts what streams to a host.

    Args:
        take: is told of each piece before it goes on.
    """

    def __init__(self, take: Callable[[int], None]) -> None:
        self.count = 0
        self._take = take

    async def over(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Give the pieces on.

        Raises:
            TooMuch: the next one may not go.
        """
        async for piece in pieces:
            self._take(len(piece))
            self.count += len(piece)
            yield piece


class _Meter:
    """One session's."""

    def __init__(self, watch: Watch | None) -> None:
        self.watch = watch
        self.sent: dict[str, int] = {}
        self.stopped_for = ""


class Meters:
    """Those of all sessions, by their keys.

    Args:
        make_watch: makes that of a session that is new; None for nobody who looks out.
        is_open: whether a session, by its key, goes on.
        note: takes what is logged.
        stop: called once with key and reason, when abuse stops a session. It is answered no more by then.
        wall_clock: seconds since 1970 UTC.
    """

    def __init__(
        self,
        *,
        make_watch: Callable[[], Watch | None],
        is_open: Callable[[str], bool],
        note: Callable[[Access, GitRequest], None],
        stop: Callable[[str, str], None],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._make_watch = make_watch
        self._is_open = is_open
        self._note = note
        self._stop = stop
        self._wall_clock = wall_clock
        self._meters: dict[str, _Meter] = {}

    async def admit(self, access: Access) -> None:
        """Count a request, and let it wait where its session is slowed down.

        Raises:
            TooMuch: the session is stopped.
        """
        meter = self._find(access)
        if meter.watch is not None:
            self._act(access, meter, meter.watch.note_connection())
            if not meter.stopped_for and (seconds := meter.watch.delay):
                await asyncio.sleep(seconds)
        self._refuse_stopped(meter)

    def count(self, access: Access, host: str) -> Counted:
        """Return what counts a body on its way to a host."""
        return Counted(lambda size: self.take(access, host, size))

    def take(self, access: Access, host: str, size: int) -> None:
        """Count bytes that are about to be sent to a host.

        Raises:
            TooMuch: they may not be.
        """
        meter = self._find(access)
        if meter.watch is not None:
            self._act(access, meter, meter.watch.note_sent(size))
        self._refuse_stopped(meter)
        sent = meter.sent[host] = meter.sent.get(host, 0) + size
        if access.most_sent and sent > access.most_sent:
            text = f"this session may send {tell_size(access.most_sent)} to {host} (--traffic), and no more"
            raise TooMuch(TRAFFIC, text)

    def note(self, access: Access, request: GitRequest) -> None:
        """Log a request, and count it if it was refused."""
        self._note(access, request)
        meter = self._find(access)
        if meter.watch is not None and (request.is_refused or request.is_failed):
            rule = "unreachable" if request.is_failed else request.outcome
            self._act(access, meter, *meter.watch.note_refused(request.repository, PORT, rule))

    def _find(self, access: Access) -> _Meter:
        found = self._meters.get(access.key)
        if found is None:
            # A session's key is of one turn: those of turns that are over are forgotten as new ones come.
            self._meters = {key: one for key, one in self._meters.items() if self._is_open(key)}
            found = self._meters[access.key] = _Meter(self._make_watch())
        return found

    def _refuse_stopped(self, meter: _Meter) -> None:
        if meter.stopped_for:
            raise TooMuch(ABUSE, f"this session was {meter.stopped_for}")

    def _act(self, access: Access, meter: _Meter, *findings: Finding | None) -> None:
        for found in findings:
            if found is None:
                continue
            at_ms = int(self._wall_clock() * 1000)
            told = GitRequest(
                at_ms,
                access.session,
                "",
                ABUSE,
                found.action,
                429,
                route=found.kind,
                reason=found.reason,
            )
            self._note(access, told)
            if meter.watch is not None and meter.watch.is_stopped:
                meter.stopped_for = found.reason
                self._stop(access.key, found.reason)
