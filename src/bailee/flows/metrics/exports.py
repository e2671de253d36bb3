"""OTLP export requests, in JSON or protobuf, as the samples that are in them.

Source: OpenTelemetry Protocol 1.x (opentelemetry-proto, docs/specification.md), "OTLP/HTTP". Of JSON: keys in
lowerCamelCase, 64-bit integers as strings or numbers, enumerations as numbers, unknown keys ignored.
"""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Any

import msgspec


class Signal(StrEnum):
    """What an export carries; the path it goes to ends with this word."""

    METRICS = "metrics"
    LOGS = "logs"
    TRACES = "traces"


class Malformed(Exception):
    """The bytes are not an export of that signal."""


class Temporality(StrEnum):
    """What a point counts: what came since the last one, or all since the start of its series."""

    DELTA = "delta"
    CUMULATIVE = "cumulative"
    NONE = ""


class Sample(msgspec.Struct, frozen=True):
    """A data point or a log record; nothing of it is checked yet.

    Attributes:
        name: of the metric or of the event; empty where it has none that can be read.
        fields: its attributes, and `value` of a point.
        temporality, start_ns: of a sum: what it counts, and since when its series does, nanoseconds since
            1970 UTC.
    """

    name: str
    fields: dict[str, object]
    temporality: Temporality = Temporality.NONE
    start_ns: int = 0


# A name is read up to here: what is longer is in no catalogue.
_LONGEST_NAME = 200
_TEMPORALITIES = {1: Temporality.DELTA, 2: Temporality.CUMULATIVE}


# An export has thousands of these, and no cycles to look for, which takes 10 us an event.
class _Value(msgspec.Struct, rename="camel", gc=False):
    string_value: str | None = None
    bool_value: bool | None = None
    int_value: str | int | None = None
    double_value: float | str | None = None

    def plain(self) -> object:
        if self.string_value is not None:
            return self.string_value
        if self.int_value is not None:
            return _integer(self.int_value)
        return self.double_value if self.bool_value is None else self.bool_value


class _Attribute(msgspec.Struct, rename="camel", gc=False):
    key: str = ""
    value: _Value | None = None


class _Point(msgspec.Struct, rename="camel", gc=False):
    attributes: list[_Attribute] = []
    as_double: float | str | None = None
    as_int: str | int | None = None
    start_time_unix_nano: str | int = 0

    def value(self) -> object:
        return self.as_double if self.as_int is None else _integer(self.as_int)


class _Numbers(msgspec.Struct, rename="camel"):
    data_points: list[_Point] = []
    aggregation_temporality: int | str = 0


class _Others(msgspec.Struct, rename="camel"):
    data_points: list[msgspec.Raw] = []


class _Metric(msgspec.Struct, rename="camel"):
    name: str = ""
    gauge: _Numbers | None = None
    sum: _Numbers | None = None
    histogram: _Others | None = None
    exponential_histogram: _Others | None = None
    summary: _Others | None = None


class _Log(msgspec.Struct, rename="camel"):
    event_name: str = ""
    body: _Value | None = None
    attributes: list[_Attribute] = []


class _Scope(msgspec.Struct, rename="camel"):
    metrics: list[_Metric] = []
    log_records: list[_Log] = []
    spans: list[msgspec.Raw] = []


class _Resource(msgspec.Struct, rename="camel"):
    scope_metrics: list[_Scope] = []
    scope_logs: list[_Scope] = []
    scope_spans: list[_Scope] = []


class _Export(msgspec.Struct, rename="camel"):
    resource_metrics: list[_Resource] = []
    resource_logs: list[_Resource] = []
    resource_spans: list[_Resource] = []


def read_json(body: bytes, signal: Signal) -> list[Sample]:
    """Return the samples of an export in JSON.

    Raises:
        Malformed: it is not JSON of that shape.
    """
    try:
        export = msgspec.json.decode(body, type=_Export)
        match signal:
            case Signal.METRICS:
                scopes = (scope for one in export.resource_metrics for scope in one.scope_metrics)
                return [sample for scope in scopes for one in scope.metrics for sample in _of_metric(one)]
            case Signal.LOGS:
                scopes = (scope for one in export.resource_logs for scope in one.scope_logs)
                return [_of_log(record) for scope in scopes for record in scope.log_records]
            case Signal.TRACES:
                scopes = (scope for one in export.resource_spans for scope in one.scope_spans)
                return [Sample("", {}) for scope in scopes for _ in scope.spans]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as fault:
        raise Malformed(str(fault)) from None


def read_protobuf(body: bytes, signal: Signal) -> list[Sample]:
    """Return the samples of an export in protobuf.

    Raises:
        Malformed: it is not a message of that shape.
    """
    # 8 MB and 60 ms, for those who send it.
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    try:
        match signal:
            case Signal.METRICS:
                metrics = ExportMetricsServiceRequest.FromString(body)
                return [
                    sample
                    for resource in metrics.resource_metrics
                    for scope in resource.scope_metrics
                    for metric in scope.metrics
                    for sample in _of_metric_message(metric)
                ]
            case Signal.LOGS:
                logs = ExportLogsServiceRequest.FromString(body)
                return [
                    _of_log_message(record)
                    for resource in logs.resource_logs
                    for scope in resource.scope_logs
                    for record in scope.log_records
                ]
            case Signal.TRACES:
                spans = ExportTraceServiceRequest.FromString(body)
                scopes = (scope for one in spans.resource_spans for scope in one.scope_spans)
                return [Sample("", {}) for scope in scopes for _ in scope.spans]
    except (DecodeError, RecursionError) as fault:
        raise Malformed(str(fault)) from None


def write_protobuf(signal: Signal, rejected: int, message: str) -> bytes:
    """Return the answer to an export in protobuf; `message` empty where all was taken."""
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    kinds: dict[Signal, Any] = {
        Signal.METRICS: ExportMetricsServiceResponse,
        Signal.LOGS: ExportLogsServiceResponse,
        Signal.TRACES: ExportTraceServiceResponse,
    }
    answer = kinds[signal]()
    if message:
        answer.partial_success.error_message = message
        setattr(answer.partial_success, _SNAKE[signal], rejected)
    data: bytes = answer.SerializeToString()
    return data


def write_json(signal: Signal, rejected: int, message: str) -> bytes:
    """Return the answer to an export in JSON; `message` empty where all was taken."""
    if not message:
        return b"{}"
    # A 64-bit integer, which JSON writes as a string.
    return msgspec.json.encode({"partialSuccess": {REJECTED[signal]: str(rejected), "errorMessage": message}})


REJECTED = {
    Signal.METRICS: "rejectedDataPoints",
    Signal.LOGS: "rejectedLogRecords",
    Signal.TRACES: "rejectedSpans",
}
_SNAKE = {
    Signal.METRICS: "rejected_data_points",
    Signal.LOGS: "rejected_log_records",
    Signal.TRACES: "rejected_spans",
}


def _of_metric(metric: _Metric) -> Iterator[Sample]:
    for numbers, is_sum in ((metric.gauge, False), (metric.sum, True)):
        if numbers is None:
            continue
        temporality = _read_temporality(numbers.aggregation_temporality) if is_sum else Temporality.NONE
        for point in numbers.data_points:
            fields = _fields(point.attributes)
            fields["value"] = point.value()
            start = _integer(point.start_time_unix_nano)
            yield Sample(metric.name[:_LONGEST_NAME], fields, temporality, start)
    for others in (metric.histogram, metric.exponential_histogram, metric.summary):
        for _ in others.data_points if others else ():
            yield Sample("", {})


def _of_log(record: _Log) -> Sample:
    fields = _fields(record.attributes)
    body = record.body.string_value if record.body else None
    return Sample(_name_event(record.event_name, body, fields), fields)


def _of_metric_message(metric: Any) -> Iterator[Sample]:
    kind = metric.WhichOneof("data")
    if kind not in ("gauge", "sum"):
        for _ in getattr(metric, kind).data_points if kind else ():
            yield Sample("", {})
        return
    numbers = getattr(metric, kind)
    temporality = Temporality.NONE
    if kind == "sum":
        temporality = _read_temporality(numbers.aggregation_temporality)
    for point in numbers.data_points:
        fields = _fields_of_message(point.attributes)
        value = point.WhichOneof("value")
        fields["value"] = getattr(point, value) if value else None
        yield Sample(metric.name[:_LONGEST_NAME], fields, temporality, point.start_time_unix_nano)


def _of_log_message(record: Any) -> Sample:
    fields = _fields_of_message(record.attributes)
    body = record.body.string_value if record.body.WhichOneof("value") == "string_value" else None
    # Older messages of the package have no such field.
    return Sample(_name_event(getattr(record, "event_name", ""), body, fields), fields)


def _name_event(name: str, body: str | None, fields: dict[str, object]) -> str:
    """Return an event's name: Claude Code writes it into the body, `event_name` came later."""
    beside = fields.pop("event.name", None)  # Claude Code's, the same name once more and no field
    if not name and isinstance(body, str):
        name = body
    if not name and isinstance(beside, str):
        name = beside
    return name[:_LONGEST_NAME]


def _fields(attributes: Iterable[_Attribute]) -> dict[str, object]:
    return {one.key: one.value.plain() for one in attributes if one.value is not None}


def _fields_of_message(attributes: Iterable[Any]) -> dict[str, object]:
    fields: dict[str, object] = {}
    for one in attributes:
        kind = one.value.WhichOneof("value")
        is_plain = kind in ("string_value", "bool_value", "int_value", "double_value")
        fields[one.key] = getattr(one.value, kind) if is_plain else None
    return fields


def _read_temporality(value: int | str) -> Temporality:
    if isinstance(value, str):
        return next((one for one in Temporality if one and value.lower().endswith(one)), Temporality.NONE)
    return _TEMPORALITIES.get(value, Temporality.NONE)


def _integer(value: str | int) -> int:
    """Read a 64-bit integer; raises ValueError."""
    if isinstance(value, str) and len(value) > 20:
        raise ValueError("an integer has more than 64 bits")
    return int(value)
