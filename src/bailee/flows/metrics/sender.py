"""Writes what the agent counted for the wire: OpenTelemetry's, or Statsig's.

Written by hand, in the few forms that are needed: importing OpenTelemetry's SDK and exporter takes a third of
a second, and what a command sends at its end has to be readable as it is (`bailee telemetry log`).
"""

from collections.abc import Iterable, Sequence
from datetime import date
from enum import StrEnum

import msgspec

from bailee.flows.metrics.points import load_catalogue
from bailee.manifests.catalogues import Admitted, Kept

LOGS, LOG_EVENT = "/v1/logs", "/v1/log_event"
# Severity INFO (opentelemetry-proto, logs/v1).
_INFO = 9


class Wire(StrEnum):
    """Which protocol metrics are sent by."""

    OTLP = "otlp"
    STATSIG = "statsig"


class Event(msgspec.Struct, frozen=True):
    """Something that the agent counted, cut to its entry in the catalogue.

    Attributes:
        hour_ms: the beginning of the hour in which it was, milliseconds since 1970 UTC.
    """

    name: str
    fields: dict[str, Kept]
    hour_ms: int


class Request(msgspec.Struct, frozen=True):
    """What is sent: a path, and a body in JSON."""

    path: str
    body: bytes


HOUR_MS = 3_600_000


def make_event(name: str, fields: dict[str, object], *, now_ms: int, today: date) -> Event | None:
    """Return an event as it may be sent; None where the catalogue does not name it."""
    admitted: Admitted | None = load_catalogue().admit(name, fields, today=today)
    if admitted is None:
        return None
    return Event(admitted.name, admitted.fields, now_ms // HOUR_MS * HOUR_MS)


def write_request(events: Sequence[Event], wire: Wire) -> Request:
    """Write events for a wire."""
    if wire is Wire.STATSIG:
        return Request(LOG_EVENT, msgspec.json.encode(_for_statsig(events)))
    return Request(LOGS, msgspec.json.encode(_for_opentelemetry(events)))


def is_taken(status: int) -> bool:
    """Tell whether a request was taken in, or will not be at any time: then it is not sent again.

    Source: OTLP/HTTP, "Failures": 429, 502, 503 and 504 alone are tried again.
    """
    return status not in (429, 502, 503, 504)


def _for_opentelemetry(events: Iterable[Event]) -> dict[str, object]:
    records = [
        {
            "timeUnixNano": str(event.hour_ms * 1_000_000),
            "severityNumber": _INFO,
            "eventName": event.name,
            "body": {"stringValue": event.name},
            "attributes": [
                {"key": key, "value": {"stringValue" if isinstance(value, str) else "doubleValue": value}}
                for key, value in event.fields.items()
            ],
        }
        for event in events
    ]
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "bailee"}}]}
    scopes = [{"scope": {"name": "bailee"}, "logRecords": records}]
    return {"resourceLogs": [{"resource": resource, "scopeLogs": scopes}]}


def _for_statsig(events: Iterable[Event]) -> dict[str, object]:
    # Statsig's metadata are texts. Every event has a user in it there: this one is nobody.
    rows = [
        {
            "eventName": event.name,
            "value": event.fields.get("value"),
            "metadata": {key: str(value) for key, value in event.fields.items() if key != "value"},
            "user": {"userID": ""},
            "time": event.hour_ms,
        }
        for event in events
    ]
    return {"events": rows, "statsigMetadata": {"sdkType": "bailee"}}
