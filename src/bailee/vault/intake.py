"""What every receiver of operational data does: tell who sends, ask the policy, hold what is left, note the
rest.

A flow's receiver reads its own wire and decides what of it may be held; it has nothing else to do with keys
and records.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

from bailee.accounts.keys import KeyRing, Principal
from bailee.policy.decisions import Decision, decide
from bailee.policy.flows import Flow
from bailee.policy.plans import Provider
from bailee.policy.problems import Problem
from bailee.rates import Rates
from bailee.vault.frames import Begin, Finish
from bailee.vault.recording import RecorderGone, Recording, decided_of
from bailee.vault.tables import State

_NOTHING = (None, None, None, None, None, None, b"", b"")


class Refused(Exception):
    """A request is not taken.

    Attributes:
        status: HTTP's.
        seconds: when to come again; 0 where that would change nothing.
    """

    def __init__(self, status: int, message: str, *, seconds: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.seconds = seconds


class Sender(NamedTuple):
    """Who sends, and what the policy says of it."""

    principal: Principal
    decision: Decision


class Dropped(NamedTuple):
    """What was dropped is counted by these: who sent it, and what it was, is not among them."""

    flow: str
    path: str
    kind: str


class Intake:
    """The side of a flow's receiver that is turned to the house.

    Args:
        provider: where model traffic of this service goes; telemetry is off by default for some.
        rates: how often a key may come.
        wall_clock: seconds since 1970 UTC.
    """

    def __init__(
        self,
        *,
        flow: Flow,
        keys: KeyRing,
        provider: Provider,
        recording: Recording,
        rates: Rates,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._rates = rates
        self._flow = flow
        self._keys = keys
        self._provider = provider
        self._recording = recording
        self.wall_clock = wall_clock
        self._dropped: Counter[Dropped] = Counter()

    def count_dropped(self, path: str, kind: str, count: int) -> None:
        """Count what no entry of a catalogue names.

        Args:
            path: of the route that it came by.
            kind: what was dropped, in a word.
        """
        if count:
            self._dropped[Dropped(self._flow.id.value, path, kind)] += count

    @property
    def dropped(self) -> Mapping["Dropped", int]:
        """How much was dropped since the service began."""
        return self._dropped

    def admit(self, key: bytes) -> Sender:
        """Tell who presents a key, and what the policy says.

        Raises:
            Refused: nobody knows the key, it comes too often, or the accounts cannot be read.
        """
        try:
            principal = self._keys.authenticate(key)
        except Problem as problem:
            raise Refused(503, problem.what) from None
        if principal is None:
            raise Refused(401, "no valid key: see bailee keys create")
        # Not noted in the vault, where a flood of refusals would be one of records.
        if wait := self._rates.take(principal.key_id):
            seconds = math.ceil(wait)
            raise Refused(429, f"this key comes too often; come again in {seconds} s", seconds=seconds)
        return Sender(principal, decide(self._flow, principal.to_context(self._provider)))

    async def keep(
        self, sender: Sender, path: str, body: bytes, *, request_bytes: int, reason: str | None = None
    ) -> None:
        """Hold what is left of a request, and return when it is durable.

        Args:
            path: of the route, not of the request: one may have a key in it.
            reason: what was dropped, in words.

        Raises:
            Refused: nothing can be held just now.
        """
        if not self._recording.has_room:
            raise Refused(503, "too much is being recorded; try again")
        started_ms = int(self.wall_clock() * 1000)
        decided = decided_of(sender.decision)
        exchange = self._recording.new_exchange(started_ms)
        begin = Begin(
            exchange=exchange,
            account=sender.principal.account_id,
            session=_session(sender),
            key=sender.principal.key_id,
            decision=decided.digest,
            flow=self._flow.id.value,
            keep=True,
            started_ms=started_ms,
            upstream="bailee",
            path=path,
            request_bytes=request_bytes,
            headers=b"",
            body=body,
        )
        end = Finish(exchange, State.COMPLETE.value, reason, 200, None, 0, 0, *_NOTHING)
        try:
            self._recording.begin(begin, decided)
            await self._recording.finish(end)
        except RecorderGone:
            raise Refused(503, "nothing can be kept now; try again") from None

    def note(
        self, sender: Sender, path: str, *, state: State, status: int, reason: str, request_bytes: int = 0
    ) -> None:
        """Note that something came of which nothing is held."""
        started_ms = int(self.wall_clock() * 1000)
        self._recording.note(
            exchange=self._recording.new_exchange(started_ms),
            account=sender.principal.account_id,
            session=_session(sender),
            key=sender.principal.key_id,
            decided=decided_of(sender.decision),
            flow=self._flow.id.value,
            started_ms=started_ms,
            upstream="bailee",
            path=path,
            state=state.value,
            status=status,
            reason=reason,
            request_bytes=request_bytes,
        )


def _session(sender: Sender) -> str:
    return f"key-{sender.principal.key_id}"
