"""Requests as the real clients send them: OTLP, Statsig's wire, Sentry's envelopes."""

import gzip
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from bench.ingest.load import PLACEHOLDER

# Different bodies to take turns: one repeated body would compress to nothing where it is kept.
BODIES = 64
# What OpenTelemetry's SDKs export at a time (`OTEL_BLRP_MAX_EXPORT_BATCH_SIZE`, its default).
BATCH = 512
_MODELS = ("claude-opus-4-5-20251101", "claude-sonnet-4-5-20250929", "claude-haiku-4-5-20251001")
_NUMBERS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens", "duration_ms")


@dataclass(frozen=True)
class Payload:
    """Requests of one kind.

    Attributes:
        flow: of Bailee's that takes them.
        path, headers: where they go, and their headers without a key.
        events: in each.
        aim: events/s on one core; 0 where none is set.
    """

    name: str
    about: str
    flow: str
    path: str
    headers: tuple[tuple[str, str], ...]
    bodies: tuple[bytes, ...]
    events: int
    aim: int = 0

    @property
    def size(self) -> float:
        """Bytes of a body, on average."""
        return sum(map(len, self.bodies)) / len(self.bodies)


def make_payloads() -> Iterator[Payload]:
    """Give all kinds; the same bytes in each run but for Sentry's, whose SDK dates and numbers its events."""
    protobuf, as_json = ("Content-Type", "application/x-protobuf"), ("Content-Type", "application/json")
    yield Payload(
        "points",
        f"{BATCH} points of a counter in protobuf, as Claude Code's exporter names them",
        "metrics",
        "/v1/metrics",
        (protobuf,),
        _make(lambda chance: _export_points(chance).SerializeToString()),
        BATCH,
        aim=20_000,
    )
    yield Payload(
        "events",
        f"{BATCH} log records of 14 attributes in protobuf: Claude Code's of a request to the model",
        "metrics",
        "/v1/logs",
        (protobuf,),
        _make(lambda chance: _export_logs(chance, BATCH).SerializeToString()),
        BATCH,
        aim=20_000,
    )
    yield Payload(
        "events, JSON",
        "the same in JSON",
        "metrics",
        "/v1/logs",
        (as_json,),
        _make(lambda chance: _write_json(_export_logs(chance, BATCH))),
        BATCH,
        aim=20_000,
    )
    yield Payload(
        "events, few",
        "10 log records in protobuf: what one busy agent exports in its 5 s",
        "metrics",
        "/v1/logs",
        (protobuf,),
        _make(lambda chance: _export_logs(chance, 10).SerializeToString()),
        10,
    )
    yield Payload(
        "statsig",
        "50 events of our own agent on Statsig's wire, gzip",
        "metrics",
        "/v1/log_event",
        (as_json, ("Content-Encoding", "gzip")),
        _make(lambda chance: gzip.compress(_write_statsig(chance, 50), 6)),
        50,
    )
    yield Payload(
        "errors",
        "an exception with 10 frames and 10 breadcrumbs, as sentry-sdk makes it, each with an id of its own",
        "errors",
        "/api/1/envelope/",
        (("Content-Type", "application/x-sentry-envelope"),),
        tuple(capture_envelopes(BODIES)),
        1,
        aim=1_500,
    )


def _make(write: Callable[[random.Random], bytes]) -> tuple[bytes, ...]:
    chance = random.Random(7)
    return tuple(write(chance) for _ in range(BODIES))


def _export_logs(chance: random.Random, count: int) -> Any:
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    export = ExportLogsServiceRequest()
    resource = export.resource_logs.add()
    _add(resource.resource, {"service.name": "claude-code", "service.version": "2.1.0", "os.type": "linux"})
    scope = resource.scope_logs.add()
    session = f"{chance.getrandbits(128):032x}"
    for _ in range(count):
        record = scope.log_records.add()
        record.time_unix_nano = 1_790_000_000_000_000_000 + chance.randrange(10**12)
        record.body.string_value = "claude_code.api_request"
        facts = {
            "user.id": "6f" * 32,
            "session.id": session,
            "organization.id": "0b7f4a0e-9a51-4d5f-8b3a-2d1f0f6a7c11",
            "user.email": "ada@example.com",
            "terminal.type": "xterm-256color",
            "event.name": "api_request",
            "event.timestamp": "2026-11-26T11:00:00.000Z",
            "model": chance.choice(_MODELS),
            "cost_usd": str(round(chance.random(), 6)),
        }
        _add(record, facts | {name: str(int(chance.lognormvariate(7, 2))) for name in _NUMBERS})
    return export


def _export_points(chance: random.Random) -> Any:
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    export = ExportMetricsServiceRequest()
    resource = export.resource_metrics.add()
    _add(resource.resource, {"service.name": "claude-code", "service.version": "2.1.0"})
    metric = resource.scope_metrics.add().metrics.add()
    metric.name, metric.unit = "claude_code.token.usage", "tokens"
    metric.sum.aggregation_temporality, metric.sum.is_monotonic = 1, True
    session = f"{chance.getrandbits(128):032x}"
    for _ in range(BATCH):
        point = metric.sum.data_points.add()
        point.as_double = int(chance.lognormvariate(7, 2))
        kind = chance.choice(("input", "output", "cacheRead", "cacheCreation"))
        _add(
            point,
            {"user.id": "6f" * 32, "session.id": session, "model": chance.choice(_MODELS), "type": kind},
        )
    return export


def _add(holder: Any, attributes: dict[str, str]) -> None:
    for key, text in attributes.items():
        attribute = holder.attributes.add()
        attribute.key, attribute.value.string_value = key, text


def _write_json(export: Any) -> bytes:
    from google.protobuf.json_format import MessageToJson

    text: str = MessageToJson(export, indent=None)
    return text.encode()


def _write_statsig(chance: random.Random, count: int) -> bytes:
    events = [
        {
            "eventName": "bailee.answer",
            "value": None,
            "time": 1_790_000_000_000,
            "user": {"userID": "someone", "statsigEnvironment": {"tier": "production"}},
            "metadata": {
                "version": "0.1.0",
                "model": chance.choice(_MODELS),
                "provider": "anthropic",
                "stop_reason": chance.choice(("end_turn", "tool_use")),
                "milliseconds": str(int(chance.lognormvariate(8, 1))),
                "input_tokens": str(int(chance.lognormvariate(7, 2))),
                "output_tokens": str(int(chance.lognormvariate(6, 1))),
            },
        }
        for _ in range(count)
    ]
    return json.dumps({"events": events, "statsigMetadata": {"sdkType": "py-server"}}).encode()


def capture_envelopes(count: int) -> list[bytes]:
    """Return envelopes that sentry-sdk makes of exceptions."""
    import sentry_sdk
    from sentry_sdk.envelope import Envelope
    from sentry_sdk.transport import Transport

    taken: list[bytes] = []

    class Taking(Transport):
        def capture_envelope(self, envelope: Envelope) -> None:
            id = str(envelope.headers["event_id"]).encode()
            taken.append(envelope.serialize().replace(id, PLACEHOLDER.encode()))

    with sentry_sdk.isolation_scope():
        sentry_sdk.init(
            dsn="http://key@127.0.0.1:1/1",
            transport=Taking,
            release="bailee@0.1.0",
            default_integrations=False,
        )
        for number in range(count):
            _fail(number)
        sentry_sdk.init()
    return taken


def _fail(number: int) -> None:
    # The SDK sends the variables of every frame; those of the caller hold all that was sent before.
    import sentry_sdk

    for crumb in range(10):
        sentry_sdk.add_breadcrumb(category="step", message=f"step {crumb} of {number}")
    try:
        json.dumps(_nest(8), indent=1)
    except TypeError as fault:
        sentry_sdk.capture_exception(fault)


def _nest(depth: int) -> dict[str, object]:
    # With an indent the encoder is the one in Python, so that its frames are in the trace.
    return {"next": _nest(depth - 1)} if depth else {"end": object()}
