"""Sentry's envelopes: a line of headers, then items, each a line of headers and a payload.

Source: Sentry developer documentation, "Envelopes". An item without a length ends with its line, or with the
body; with one, its payload may hold anything.
"""

from typing import Any, TypeVar

import msgspec


class Malformed(Exception):
    """The bytes are no envelope."""


class Item(msgspec.Struct, frozen=True):
    """One item; nothing of its payload is looked at yet."""

    type: str
    payload: bytes


class Envelope(msgspec.Struct, frozen=True):
    """An envelope.

    Attributes:
        event_id: 32 hexadecimal digits, or empty.
        dsn: as the headers have it; it holds a key.
    """

    event_id: str
    dsn: str
    items: list[Item]


class _Head(msgspec.Struct):
    event_id: str = ""
    dsn: str = ""


class _ItemHead(msgspec.Struct):
    type: str = ""
    length: int | None = None


MOST_ITEMS = 1000
_Kind = TypeVar("_Kind", _Head, _ItemHead)


def read_envelope(body: bytes) -> Envelope:
    """Read an envelope.

    Raises:
        Malformed: it is none.
    """
    line, at = _read_line(body, 0)
    head = _read(line, _Head)
    items: list[Item] = []
    while at < len(body):
        line, at = _read_line(body, at)
        if not line.strip():
            continue
        item = _read(line, _ItemHead)
        if item.length is None:
            payload, at = _read_line(body, at)
        else:
            end = at + item.length
            if item.length < 0 or end > len(body):
                raise Malformed("an item is shorter than it says")
            payload, at = body[at:end], end
            if body[at : at + 1] == b"\n":
                at += 1
        items.append(Item(item.type, payload))
        if len(items) > MOST_ITEMS:
            raise Malformed(f"an envelope has at most {MOST_ITEMS} items")
    return Envelope(head.event_id, head.dsn, items)


def read_event(payload: bytes) -> dict[str, Any]:
    """Read an event's payload, which is an object.

    Raises:
        Malformed: it is none.
    """
    try:
        return msgspec.json.decode(payload, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as fault:
        raise Malformed(str(fault)) from None


def _read_line(body: bytes, at: int) -> tuple[bytes, int]:
    end = body.find(b"\n", at)
    return (body[at:], len(body)) if end < 0 else (body[at:end], end + 1)


def _read(line: bytes, kind: type[_Kind]) -> _Kind:
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as fault:
        raise Malformed(str(fault)) from None
