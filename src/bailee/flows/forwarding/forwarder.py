"""Sends what waits to the next hops, for as long as a service runs.

What waits is what the vault holds: no copy is made for the way, and what was erased, expired or refused
before its turn is not sent. After a kill, or an answer that got lost, a record may be sent twice; none is
left out.
"""

import asyncio
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from http.client import HTTPException
from typing import IO, Any

import msgspec
import sqlalchemy as sa
import sqlalchemy.exc

from bailee.flows.forwarding.hops import NextHop
from bailee.flows.forwarding.progress import (
    Progress,
    Waiting,
    begin,
    claim,
    finish,
    list_waiting,
    pass_over,
    put_off,
)
from bailee.policy.problems import Problem

POLL_SECONDS = 5.0
# Opening and sending take at most this share of the time, however much there is, and so long at a stretch.
_SHARE, _STRETCH_SECONDS = 0.2, 10.0
FIRST_PAUSE_MS, LONGEST_PAUSE_MS = 5_000, 600_000
_AT_A_TIME = 500
_SECONDS = 20.0
# It will not be otherwise another time: the next hop takes no such thing.
_NEVER = frozenset({400, 405, 413, 414, 415, 422, 431})


class Record(msgspec.Struct, frozen=True):
    """What is held of an exchange.

    Attributes:
        exchange: its id; from it the time can be read to the millisecond, so that it does not leave.
        hour_ms: the beginning of the hour in which it came, milliseconds since 1970 UTC.
    """

    exchange: int
    hour_ms: int
    body: bytes


class Request(msgspec.Struct, frozen=True):
    """What is sent to a next hop: a path after its URL, and a body."""

    path: str
    content_type: str
    body: bytes


# Writes records for a wire, in as many requests as it takes.
Write = Callable[[Sequence[Record]], Sequence[Request]]
# Tells which of some accounts' records may be forwarded, by their ids.
Choose = Callable[[], Callable[[str], bool]]
# Opens a segment of a session of an account: its exchanges' ids, and what their requests held.
Open = Callable[[str, str, int], Iterable[tuple[int, bytes]]]
HOUR_MS = 3_600_000


class _NotTaken(Exception):
    """A next hop did not take a request.

    Attributes:
        is_final: it will not at any time.
        seconds: how long it wants to be left alone.
    """

    def __init__(self, what: str, *, is_final: bool = False, seconds: float = 0.0) -> None:
        super().__init__(what)
        self.is_final = is_final
        self.seconds = seconds


class Forwarder:
    """Sends to the next hops of a service.

    Args:
        writers: by next hop, how records are written for it.
        open_segment: see `Open`; of one that is gone it gives nothing.
        choose: looks up, each time anew, whose records may be forwarded.
        clock: seconds since 1970 UTC.
    """

    def __init__(
        self,
        writers: Mapping[NextHop, Write],
        vault: sa.Engine,
        open_segment: Open,
        choose: Choose,
        *,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._writers = writers
        self._vault = vault
        self._open = open_segment
        self._choose = choose
        self._clock = clock
        self._chance = chance
        # No redirect is followed: nobody but the operator says where this goes.
        self._opener = urllib.request.build_opener(_NoRedirect())

    async def run(self) -> None:
        """Send, for ever."""
        while True:
            await asyncio.to_thread(self.send_due)
            await asyncio.sleep(POLL_SECONDS)

    def begin(self) -> None:
        """Note the next hops, so that what comes from now on waits for them."""
        for hop in self._writers:
            begin(self._vault, hop.name, hop.target, now_ms=self._now_ms())

    def send_due(self) -> int:
        """Send once to each next hop that is due, and return how many exchanges they took."""
        sent = 0
        for hop, write in self._writers.items():
            try:
                progress = claim(self._vault, hop.name, now_ms=self._now_ms())
                if progress is not None:
                    sent += self._serve(hop, write, progress)
            except (sqlalchemy.exc.SQLAlchemyError, Problem):
                continue  # as long as the database or the keystore cannot be used it waits
        return sent

    def _serve(self, hop: NextHop, write: Write, progress: Progress) -> int:
        began = time.monotonic()
        progress = pass_over(self._vault, progress, hop.flow, now_ms=self._now_ms())
        sent, is_full = 0, True
        try:
            while is_full and time.monotonic() - began < _STRETCH_SECONDS:
                waiting = list_waiting(self._vault, progress, hop.flow, _AT_A_TIME)
                sent += self._send(hop, write, waiting)
                is_full = len(waiting) == _AT_A_TIME
                latest = max((one.id for one in waiting), default=progress.cursor)
                progress = msgspec.structs.replace(progress, cursor=max(progress.cursor, latest))
        except _NotTaken as fault:
            pause = min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS << min(progress.attempts, 20))
            # Spread, so that many services do not come back at the same moment.
            pause = max(int(pause * (0.5 + self._chance() / 2)), int(fault.seconds * 1000))
            put_off(self._vault, hop.name, next_ms=self._now_ms() + pause, fault=str(fault))
            return sent
        spent = time.monotonic() - began
        pause = max(0 if is_full else int(POLL_SECONDS * 1000), int(spent / _SHARE * 1000))
        put_off(self._vault, hop.name, next_ms=self._now_ms() + pause)
        return sent

    def _send(self, hop: NextHop, write: Write, waiting: Sequence[Waiting]) -> int:
        if not waiting:
            return 0
        may = self._choose()
        owners = {one.id: one.account for one in waiting}
        chosen = [record for record in self._read(waiting) if may(owners[record.exchange])]
        ids = [one.id for one in waiting]
        try:
            if chosen:
                for request in write(chosen):
                    self._post(hop, request)
        except _NotTaken as fault:
            if not fault.is_final:
                raise
            if len(waiting) > 1:
                # One that it does not take must not take others with it.
                return sum(self._send(hop, write, [one]) for one in waiting)
            finish(self._vault, hop.name, ids, sent=0, refused=1, now_ms=self._now_ms())
            return 0
        finish(self._vault, hop.name, ids, sent=len(chosen), refused=0, now_ms=self._now_ms())
        return len(chosen)

    def _read(self, waiting: Sequence[Waiting]) -> Iterator[Record]:
        """Open what is held of exchanges; of what is gone by now nothing."""
        wanted = {one.id: one for one in waiting}
        places = dict.fromkeys((one.account, one.session, one.segment) for one in waiting)
        for account, session, segment in places:
            for exchange, body in self._open(account, session, segment):
                if (one := wanted.get(exchange)) is not None:
                    yield Record(exchange, one.started_ms // HOUR_MS * HOUR_MS, body)

    def _post(self, hop: NextHop, request: Request) -> None:
        headers = {"Content-Type": request.content_type, "User-Agent": "bailee", **dict(hop.headers)}
        # Its scheme was checked when it was read (`hops.read_hops`).
        asked = urllib.request.Request(  # noqa: S310
            f"{hop.url}{request.path}", request.body, headers, method="POST"
        )
        try:
            with self._opener.open(asked, timeout=_SECONDS) as answer:
                answer.read(1024)
        except urllib.error.HTTPError as error:
            with error:
                seconds = error.headers.get("Retry-After", "")
            raise _NotTaken(
                f"{hop.target} answers {error.code}",
                is_final=error.code in _NEVER,
                seconds=min(float(seconds), 3600.0) if seconds.isdigit() else 0.0,
            ) from None
        except (OSError, HTTPException) as fault:
            reason = getattr(fault, "reason", fault)
            what = getattr(reason, "strerror", None) or type(reason).__name__
            raise _NotTaken(f"{hop.target} is not reached: {what}") from None

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> None:
        return None
