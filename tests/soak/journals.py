"""What clients were told, against which the home is held: acknowledged exchanges and erasures."""

import threading
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from hashlib import sha256
from typing import NamedTuple


class Content(NamedTuple):
    """What was said in an exchange, by its digests."""

    request: bytes
    response: bytes


def digest(request: bytes, response: bytes) -> Content:
    """Return what was said by its digests: a soak says more than memory holds."""
    return Content(sha256(request).digest(), sha256(response).digest())


@dataclass(frozen=True)
class Said:
    """An exchange that must be held: its client has the whole answer, or it was found held before.

    Attributes:
        day: the UTC day as its client asked. Its id begins with its time, but is that of a later exchange and
            one where the clock is set ahead in the same moment.
        begun, ended: seconds of this machine's monotonic clock.
        days: for how many days it is held.
    """

    exchange: int
    session: str
    day: date
    days: int
    content: Content
    begun: float
    ended: float

    @property
    def may_go_on(self) -> date:
        """The first UTC day on which it may be due."""
        return date.fromordinal(self.day.toordinal() + self.days)

    @property
    def must_go_on(self) -> date:
        """The UTC day on which it is due at the latest."""
        begun = datetime.fromtimestamp((self.exchange >> 21) / 1000, UTC).date()
        return date.fromordinal(max(self.day, begun).toordinal() + self.days)


@dataclass(frozen=True)
class Erasure:
    """An erasure that was asked for.

    Attributes:
        is_acknowledged: the command said that it is done; else it was killed, or refused.
    """

    session: str
    begun: float
    ended: float
    is_acknowledged: bool

    def must_take(self, said: Said) -> bool:
        """Tell whether this was all over before the erasure began."""
        return said.session == self.session and said.ended < self.begun

    def may_take(self, said: Said) -> bool:
        """Tell whether this had begun before the erasure ended."""
        return said.session == self.session and said.begun <= self.ended


@dataclass
class Journal:
    """What clients were told so far, and is not yet known to be gone."""

    said: dict[int, Said] = field(default_factory=dict)
    erasures: list[Erasure] = field(default_factory=list)
    acknowledged: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, said: Said) -> None:
        """Note an exchange of which a client has the whole answer."""
        with self._lock:
            self.said[said.exchange] = said
            self.acknowledged += 1

    def list_sessions(self) -> list[str]:
        """Return the sessions of which something is held, the one begun last at the end."""
        with self._lock:
            return list(dict.fromkeys(said.session for said in self.said.values()))
