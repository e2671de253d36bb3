"""Writes what is held of errors for a next hop, an envelope to each: nothing of it is whoever's."""

import hmac
from collections.abc import Iterator

import msgspec

from bailee.flows.errors.faults import unpack, write_event

PATH = "/envelope/"
TYPE = "application/x-sentry-envelope"


def write_held(exchange: int, hour_ms: int, body: bytes, *, secret: bytes) -> Iterator[bytes]:
    """Give the envelopes that hold what is held of an exchange.

    An event's id follows from where it is held, so that a next hop knows one that comes twice, and from a
    secret: without that the millisecond in which it came could be found by trying.

    Args:
        secret: the same as long as an event may come twice.
        hour_ms: the beginning of the hour in which it came, milliseconds since 1970 UTC.
    """
    for place, fault in enumerate(unpack(body)):
        id = hmac.digest(secret, f"{exchange} {place}".encode(), "sha256").hex()[:32]
        event = {"event_id": id, "timestamp": hour_ms / 1000, **write_event(fault)}
        payload = msgspec.json.encode(event)
        head = msgspec.json.encode({"event_id": id})
        item = msgspec.json.encode({"type": "event", "length": len(payload)})
        yield b"\n".join((head, item, payload, b""))
