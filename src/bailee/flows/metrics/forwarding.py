"""Writes what is held of metrics for a next hop: nothing in it is whoever's, and its time is the hour."""

from collections.abc import Iterable, Iterator

import msgspec

from bailee.flows.metrics.points import unpack
from bailee.flows.metrics.sender import HOUR_MS, Event, Request, Wire, write_request
from bailee.manifests.catalogues import Kept

METRICS = "/v1/metrics"
MOST_IN_A_REQUEST = 1000
_DELTA = 1  # AggregationTemporality (opentelemetry-proto, metrics/v1)
_Series = tuple[str, int, tuple[tuple[str, Kept], ...]]


def write_held(held: Iterable[tuple[int, bytes]], wire: Wire) -> Iterator[Request]:
    """Give requests that hold all of it.

    Args:
        held: for each exchange the beginning of its hour, milliseconds since 1970 UTC, and what is held.
    """
    events = [Event(point.name, point.fields, hour_ms) for hour_ms, body in held for point in unpack(body)]
    counted = [event for event in events if "value" in event.fields]
    if wire is Wire.OTLP:
        for some in _take(_add_up(counted)):
            yield Request(METRICS, msgspec.json.encode(_write_sums(some)))
        events = [event for event in events if "value" not in event.fields]
    for start in range(0, len(events), MOST_IN_A_REQUEST):
        yield write_request(events[start : start + MOST_IN_A_REQUEST], wire)


def _add_up(events: Iterable[Event]) -> dict[_Series, float]:
    """Add counts of one name, hour and attributes: a store may keep only one point of such."""
    sums: dict[_Series, float] = {}
    for event in events:
        attributes = tuple(sorted((key, value) for key, value in event.fields.items() if key != "value"))
        series = (event.name, event.hour_ms, attributes)
        sums[series] = sums.get(series, 0.0) + float(event.fields["value"])
    return sums


def _take(sums: dict[_Series, float]) -> Iterator[list[tuple[_Series, float]]]:
    items = list(sums.items())
    for start in range(0, len(items), MOST_IN_A_REQUEST):
        yield items[start : start + MOST_IN_A_REQUEST]


def _write_sums(items: Iterable[tuple[_Series, float]]) -> dict[str, object]:
    points: dict[str, list[dict[str, object]]] = {}
    for (name, hour_ms, attributes), value in items:
        point = {
            "startTimeUnixNano": str(hour_ms * 1_000_000),
            "timeUnixNano": str((hour_ms + HOUR_MS) * 1_000_000),
            "asDouble": value,
            "attributes": [
                {"key": key, "value": {"stringValue" if isinstance(kept, str) else "doubleValue": kept}}
                for key, kept in attributes
            ],
        }
        points.setdefault(name, []).append(point)
    metrics = [
        {
            "name": name,
            "sum": {"aggregationTemporality": _DELTA, "isMonotonic": True, "dataPoints": of_name},
        }
        for name, of_name in points.items()
    ]
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "bailee"}}]}
    scopes = [{"scope": {"name": "bailee"}, "metrics": metrics}]
    return {"resourceMetrics": [{"resource": resource, "scopeMetrics": scopes}]}
