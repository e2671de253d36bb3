"""Rules against abuse: what a session does too often is slowed down, then stopped, then told. Pure.

Four kinds are counted, each within a window of its own: new connections, bytes sent, hosts and ports that
were refused or not reached, and refusals. What reaches `slow` is slowed down, and counted anew from there on;
what then reaches `stop` went on although it was slowed down.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from enum import StrEnum
from typing import Annotated, Literal

import msgspec

from bailee.policy.problems import Problem
from bailee.sizes import tell_size

# For how long each new connection of a session waits that is slowed down.
DELAY_SECONDS = 1.0
# What is kept of hosts and ports at a time: some 20 MB.
MOST_TARGETS = 100_000
# Refusals that nobody decided: the host is not there, or nothing was asked of it.
FAILURES = frozenset({"unreachable", "no_address", "nothing_said", "too_slow"})
# Refusals that say something of this machine or of the proxy's own limits, and nothing of the agent.
OURS = frozenset({"no_log", "no_authority", "too_many", "abuse"})


class Kind(StrEnum):
    """What is counted."""

    RATE = "rate"
    VOLUME = "volume"
    SCAN = "scan"
    DENIALS = "denials"


class Action(StrEnum):
    """What was done about it."""

    SLOWED = "slowed"
    STOPPED = "stopped"
    TOLD = "told"  # it would have been stopped, and is not to be


class Limit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much is too much.

    Attributes:
        slow: as much within the window is slowed down.
        stop: as much more within it, while slowed down, is stopped.
        seconds: the length of the window.
    """

    slow: Annotated[int, msgspec.Meta(ge=1)]
    stop: Annotated[int, msgspec.Meta(ge=1)]
    seconds: Annotated[int, msgspec.Meta(ge=1, le=86_400)]


Wanted = Limit | Literal["off"]


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The limits of a session; `off` for what is not counted.

    What installs packages stays below. Measured with npm 11 and 1,000 packages, on two cores: `npm ci` made
    1,000 connections in 17 s from a mirror without TLS, where each fetch is one, and 15 in 25 s over TLS.
    Where the registry is not allowed it tries each three times: slowed down, and not stopped.

    Attributes:
        stop: whether it is stopped; None as whoever runs it has it.
        rate: new connections.
        volume: bytes sent, those to the service (the model, Git) left out: it records them itself.
        scan: different hosts and ports that were refused or not reached, and names that do not exist.
        denials: refusals, of the same or of others.
    """

    stop: bool | None = None
    rate: Wanted = Limit(slow=3000, stop=6000, seconds=60)
    volume: Wanted = Limit(slow=500_000_000, stop=500_000_000, seconds=600)
    scan: Wanted = Limit(slow=100, stop=200, seconds=300)
    denials: Wanted = Limit(slow=1000, stop=5000, seconds=300)

    def get(self, kind: Kind) -> Limit | None:
        """Return the limit of a kind; None for one that is off."""
        found: Wanted = getattr(self, kind.value)
        return None if isinstance(found, str) else found


class Finding(msgspec.Struct, frozen=True):
    """Something was done about a session, or would have been.

    Attributes:
        count, seconds: how much there was within how long a time.
        reason: for people.
    """

    kind: Kind
    action: Action
    count: int
    seconds: int
    reason: str


class _Window:
    """Amounts of the last seconds, by what they are of; of the same again, only the last counts.

    Args:
        most: of how many things it knows at a time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: OrderedDict[Hashable, tuple[int, int]] = OrderedDict()
        self.total = 0

    def add(self, what: Hashable, second: int, amount: int) -> None:
        self.total += amount - self._held.pop(what, (0, 0))[1]
        self._held[what] = second, amount
        if len(self._held) > self._most:
            self._drop()

    def get(self, what: Hashable) -> int:
        return self._held.get(what, (0, 0))[1]

    def forget(self, before: int) -> None:
        """Leave out what is older."""
        while self._held and next(iter(self._held.values()))[0] <= before:
            self._drop()

    def clear(self) -> None:
        self._held.clear()
        self.total = 0

    def _drop(self) -> None:
        self.total -= self._held.popitem(last=False)[1][1]


class _Gauge:
    """One kind, and how far it has come."""

    def __init__(self, kind: Kind, limit: Limit, *, stops: bool) -> None:
        self._kind = kind
        self._limit = limit
        self._stops = stops
        self._window = _Window(max(limit.slow, limit.stop) if kind is Kind.SCAN else limit.seconds + 1)
        self._action: Action | None = None
        self._since = 0

    @property
    def is_slowed(self) -> bool:
        return self._action is not None

    def look(self, second: int) -> None:
        """Let go of what is over: it ends once a whole window was below the first limit."""
        self._window.forget(second - self._limit.seconds)
        is_calm = second - self._since >= self._limit.seconds and self._window.total < self._limit.slow
        if self._action in (Action.SLOWED, Action.TOLD) and is_calm:
            self._action = None

    def add(self, second: int, amount: int, what: Hashable = None) -> Finding | None:
        self.look(second)
        if what is None:
            self._window.add(second, second, self._window.get(second) + amount)
        else:
            self._window.add(what, second, amount)
        total = self._window.total
        if self._action is None and total >= self._limit.slow:
            return self._become(Action.SLOWED, second, total)
        if self._action is Action.SLOWED and total >= self._limit.stop:
            return self._become(Action.STOPPED if self._stops else Action.TOLD, second, total)
        return None

    def _become(self, action: Action, second: int, total: int) -> Finding:
        self._action, self._since = action, second
        self._window.clear()
        seconds = self._limit.seconds
        what = f"{_tell(self._kind, total)} within {seconds} s"
        if action is Action.SLOWED:
            reason = f"slowed down for {what}"
        else:
            reason = f"{'' if self._stops else 'not '}stopped for {what}, after it was slowed down"
        return Finding(self._kind, action, total, seconds, reason)


class Watch:
    """Counts what a session does, and says what is to be done about it.

    Each method returns a finding as something changes, and None else.

    Args:
        stops: whether a session is stopped where its limits do not say.
        clock: seconds; one that is set back stands still.
    """

    def __init__(self, limits: Limits, *, stops: bool, clock: Callable[[], float]) -> None:
        self._stops = stops
        self._clock = clock
        self._last = 0
        self._limits = limits
        self._gauges = self._make(limits)
        self.is_stopped = False

    def change(self, limits: Limits) -> None:
        """Put other limits in force, and count anew. What was stopped stays so."""
        if limits != self._limits:
            self._limits = limits
            self._gauges = self._make(limits)

    @property
    def delay(self) -> float:
        """For how many seconds a new connection is to wait."""
        now = self._now()
        for gauge in self._gauges.values():
            gauge.look(now)
        return DELAY_SECONDS if any(gauge.is_slowed for gauge in self._gauges.values()) else 0.0

    def note_connection(self) -> Finding | None:
        """Count a new connection."""
        return self._add(Kind.RATE, 1)

    def note_sent(self, count: int) -> Finding | None:
        """Count bytes that are about to be sent."""
        return self._add(Kind.VOLUME, count)

    def note_refused(self, host: str, port: int, rule: str) -> list[Finding]:
        """Count what was refused, by the short name of what refused it, or could not be reached."""
        if rule in OURS:
            return []
        found = [self._add(Kind.SCAN, 1, (host, port))]
        if rule not in FAILURES:
            found.append(self._add(Kind.DENIALS, 1))
        return [one for one in found if one is not None]

    def _add(self, kind: Kind, amount: int, what: Hashable = None) -> Finding | None:
        gauge = self._gauges.get(kind)
        if self.is_stopped or gauge is None:
            return None
        finding = gauge.add(self._now(), amount, what)
        if finding is not None and finding.action is Action.STOPPED:
            self.is_stopped = True
        return finding

    def _make(self, limits: Limits) -> dict[Kind, _Gauge]:
        stops = self._stops if limits.stop is None else limits.stop
        wanted = {kind: limit for kind in Kind if (limit := limits.get(kind)) is not None}
        return {kind: _Gauge(kind, limit, stops=stops) for kind, limit in wanted.items()}

    def _now(self) -> int:
        self._last = max(self._last, int(self._clock()))
        return self._last


def check_limits(limits: Limits, where: str) -> None:
    """Refuse limits that cannot be meant.

    Raises:
        Problem: a scan is to be counted beyond what is kept of it.
    """
    scan = limits.get(Kind.SCAN)
    if scan is not None and max(scan.slow, scan.stop) > MOST_TARGETS:
        raise Problem(
            f"more than {MOST_TARGETS:,} hosts and ports of a scan are not counted",
            where=f"{where}: abuse.scan",
            fix='lower its limits, or write scan = "off"',
        )


def _tell(kind: Kind, count: int) -> str:
    match kind:
        case Kind.RATE:
            return f"its rate: {count} new connections"
        case Kind.VOLUME:
            return f"its volume: {tell_size(count)} sent"
        case Kind.SCAN:
            return f"a scan: {count} hosts and ports that were refused or not reached"
        case Kind.DENIALS:
            return f"repeated denials: {count} refusals"
