"""Turns running totals into what came since: totals of two senders, or of one that began anew, never add up.

OpenTelemetry's SDKs send running totals unless they are told otherwise; Claude Code sends what came since.
"""

from collections import OrderedDict
from collections.abc import Mapping

from bailee.flows.metrics.exports import Sample, Temporality

MOST_SERIES = 10_000

_Series = tuple[str, int, str, tuple[tuple[str, str], ...]]


class Deltas:
    """Knows the last total of each series, in memory, for as long as the service runs.

    The first total of a series that began before this is no amount of anything; one that began since is.

    Args:
        since_ns: from when on this knows every series, nanoseconds since 1970 UTC.
    """

    def __init__(self, since_ns: int) -> None:
        self._since_ns = since_ns
        self._totals: OrderedDict[_Series, float] = OrderedDict()

    def take(self, sender: str, sample: Sample) -> Sample | None:
        """Return a sample that counts what came since; None where nobody can tell.

        Args:
            sender: a name for the key that it came with.
        """
        if sample.temporality is not Temporality.CUMULATIVE:
            return sample
        value = sample.fields.get("value")
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        series = (sender, sample.start_ns, sample.name, _identify(sample.fields))
        last = self._totals.pop(series, None)
        self._totals[series] = float(value)
        while len(self._totals) > MOST_SERIES:
            self._totals.popitem(last=False)
        if last is None:
            if sample.start_ns < self._since_ns:
                return None
            last = 0.0
        if value < last:
            return None  # it began anew and did not say so
        return Sample(sample.name, {**sample.fields, "value": value - last}, Temporality.DELTA)


def _identify(fields: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, repr(value)) for name, value in fields.items() if name != "value"))
