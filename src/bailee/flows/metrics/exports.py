"""An OTLP export request, read as far as it must be to count what is in it.

Source: OpenTelemetry Protocol 1.x, "OTLP/HTTP" with the JSON encoding: what a receiver does not take is
counted in `partialSuccess`, and a client does not send it again.
"""

from enum import StrEnum

import msgspec


class Signal(StrEnum):
    """What an export carries; the path it goes to ends with this word."""

    METRICS = "metrics"
    LOGS = "logs"
    TRACES = "traces"


class Malformed(Exception):
    """The bytes are not an export of that signal."""


class _Points(msgspec.Struct, rename="camel"):
    data_points: list[msgspec.Raw] = []


class _Metric(msgspec.Struct, rename="camel"):
    gauge: _Points | None = None
    sum: _Points | None = None
    histogram: _Points | None = None
    exponential_histogram: _Points | None = None
    summary: _Points | None = None


class _Scope(msgspec.Struct, rename="camel"):
    metrics: list[_Metric] = []
    log_records: list[msgspec.Raw] = []
    spans: list[msgspec.Raw] = []


class _Resource(msgspec.Struct, rename="camel"):
    scope_metrics: list[_Scope] = []
    scope_logs: list[_Scope] = []
    scope_spans: list[_Scope] = []


class _Export(msgspec.Struct, rename="camel"):
    resource_metrics: list[_Resource] = []
    resource_logs: list[_Resource] = []
    resource_spans: list[_Resource] = []


def count(body: bytes, signal: Signal) -> int:
    """Return how many data points, log records or spans an export holds.

    Raises:
        Malformed: it is not JSON of that shape.
    """
    try:
        export = msgspec.json.decode(body, type=_Export)
    except msgspec.MsgspecError as error:
        raise Malformed(str(error)) from None
    match signal:
        case Signal.METRICS:
            return sum(
                len(points.data_points)
                for resource in export.resource_metrics
                for scope in resource.scope_metrics
                for metric in scope.metrics
                for points in (
                    metric.gauge,
                    metric.sum,
                    metric.histogram,
                    metric.exponential_histogram,
                    metric.summary,
                )
                if points is not None
            )
        case Signal.LOGS:
            return sum(len(scope.log_records) for one in export.resource_logs for scope in one.scope_logs)
        case Signal.TRACES:
            return sum(len(scope.spans) for one in export.resource_spans for scope in one.scope_spans)


REJECTED = {
    Signal.METRICS: "rejectedDataPoints",
    Signal.LOGS: "rejectedLogRecords",
    Signal.TRACES: "rejectedSpans",
}
