"""Statsig's wire: the events that its clients log, and answers that keep them content.

Source: what statsig 0.72 (Python), statsig-python-core 0.24 and @statsig/js-client 3.33 send. Bodies are
JSON; the JavaScript client may send them as text, as gzip without saying so in a header (`gz=1`), or as
reversed base64 (`se=1`).
"""

import base64
import binascii
from typing import Any

import msgspec

from bailee.codings import Undecodable, open_decoder
from bailee.flows.metrics.exports import Malformed, Sample

# Servers' and clients' keys begin with these; its Python SDK insists on the first.
PREFIXES = (b"secret-", b"client-")
_LONGEST_NAME = 200


class _Event(msgspec.Struct, rename="camel"):
    event_name: str = ""
    value: float | str | None = None
    metadata: dict[str, Any] | None = None


class _Events(msgspec.Struct):
    events: list[_Event] = []


def read_key(given: bytes) -> bytes:
    """Return our key out of what is given as Statsig's: with or without the beginning that its SDKs want."""
    for prefix in PREFIXES:
        given = given.removeprefix(prefix)
    return given


def uncover(body: bytes, *, is_gzip: bool, is_reversed: bool, most: int) -> bytes:
    """Take off what the JavaScript client may put around a body.

    Raises:
        Malformed: it is not around it, or the body is longer than `most` bytes.
    """
    if is_reversed:
        try:
            body = base64.b64decode(body[::-1], validate=True)
        except (binascii.Error, ValueError):
            raise Malformed("the body is not reversed base64") from None
    if is_gzip:
        decode = open_decoder(b"gzip", most)
        assert decode is not None
        try:
            body = decode(body)
        except Undecodable:
            raise Malformed(f"the body is not gzip, or becomes more than {most} bytes") from None
    return body


def read_events(body: bytes) -> list[Sample]:
    """Return the events of a body.

    Raises:
        Malformed: it is not JSON of that shape.
    """
    try:
        found = msgspec.json.decode(body, type=_Events)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as fault:
        raise Malformed(str(fault)) from None
    return [
        Sample(one.event_name[:_LONGEST_NAME], {**(one.metadata or {}), "value": one.value})
        for one in found.events
    ]


# Without gates and experiments: none of ours is switched from afar.
SPECS_1 = {
    "has_updates": True,
    "time": 1,
    "feature_gates": [],
    "dynamic_configs": [],
    "layer_configs": [],
    "layers": {},
    "id_lists": {},
}
SPECS_2 = {
    "has_updates": True,
    "time": 1,
    "feature_gates": {},
    "dynamic_configs": {},
    "layer_configs": {},
    "layers": {},
    "id_lists": {},
    "condition_map": {},
    "experiment_to_layer": {},
}
INITIALIZED = {
    "feature_gates": {},
    "dynamic_configs": {},
    "layer_configs": {},
    "has_updates": True,
    "time": 1,
    "hash_used": "djb2",
}
TAKEN = {"success": True}
