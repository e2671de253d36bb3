"""How often somebody may do something: a bucket that fills at a steady pace, for each."""

import time
from collections.abc import Callable

_MOST_BUCKETS = 10_000


class Rates:
    """Buckets of tokens, by name.

    Args:
        per_second: how fast a bucket fills.
        burst: how much it holds; a new one is full.
        clock: seconds, never set back.
    """

    def __init__(
        self, per_second: float, burst: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, who: str) -> float:
        """Take one token and return 0; where there is none, return in how many seconds there will be."""
        now = self._clock()
        left, since = self._buckets.get(who, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._per_second)
        if left < 1:
            self._buckets[who] = left, now
            return (1 - left) / self._per_second
        self._buckets[who] = left - 1, now
        if len(self._buckets) > _MOST_BUCKETS:
            self._forget(now)
        return 0.0

    def _forget(self, now: float) -> None:
        """Forget buckets that are full by now: a new one is no different."""
        full_after = self._burst / self._per_second
        self._buckets = {who: one for who, one in self._buckets.items() if now - one[1] < full_after}
