"""What is held of an error: its classes, numbers and frames, as far as the catalogue names them.

Made anew from an event, and not cut out of it: what this does not look for is not there.
"""

from collections.abc import Iterator, Mapping
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from bailee.flows.errors.published import is_published
from bailee.manifests.catalogues import Catalogue, Kept, read_catalogue

CATALOGUE = Path(__file__).with_name("catalogue.toml")
MOST_EXCEPTIONS, MOST_FRAMES = 5, 50

Fields = dict[str, Kept]


class Raised(msgspec.Struct, frozen=True):
    """An exception: its fields, and those of its frames, the innermost last."""

    fields: Fields
    frames: list[Fields]

    @property
    def name(self) -> str:
        """Its class, as far as it may be told."""
        return str(self.fields.get("package_class") or self.fields.get("class") or "unknown")


class Fault(msgspec.Struct, frozen=True):
    """An error: its fields, and its exceptions, the one that was raised last."""

    fields: Fields
    exceptions: list[Raised]


@lru_cache(maxsize=1)
def load_catalogue() -> Catalogue:
    """Return the catalogue of errors."""
    return read_catalogue(CATALOGUE)


def admit_event(event: Mapping[str, Any], *, today: date) -> Fault | None:
    """Return what of a Sentry event may be held; None where it has no exception, or the catalogue expired.

    Source of the event's form: Sentry developer documentation, "Event Payloads". It may be anything.
    """
    catalogue = load_catalogue()
    error = catalogue.admit("error", _describe(event), today=today)
    if error is None:
        return None
    values = _get(event, "exception", "values")
    exceptions = [
        raised
        for value in (values if isinstance(values, list) else [])[-MOST_EXCEPTIONS:]
        if isinstance(value, Mapping) and (raised := _admit_exception(value, catalogue, today)) is not None
    ]
    return Fault(error.fields, exceptions) if exceptions else None


def _admit_exception(value: Mapping[str, Any], catalogue: Catalogue, today: date) -> Raised | None:
    kind, module = value.get("type"), value.get("module")
    is_own = not isinstance(module, str) or module in ("", "builtins")
    is_known = not is_own and is_published(str(module), str(kind))
    described = {
        # Of a class that is no published one nothing is told but that it is another.
        "package_class" if is_known else "class": f"{module}.{kind}" if is_known else kind,
        "errno": _get(value, "mechanism", "meta", "errno", "number"),
    }
    exception = catalogue.admit("exception", described, today=today)
    if exception is None or exception.fields.keys().isdisjoint(("class", "package_class")):
        return None  # a message that is sent as if it were one has no class
    frames = _get(value, "stacktrace", "frames")
    admitted = (
        catalogue.admit("frame", _describe_frame(frame), today=today)
        for frame in (frames if isinstance(frames, list) else [])[-MOST_FRAMES:]
        if isinstance(frame, Mapping)
    )
    return Raised(
        exception.fields, [frame.fields for frame in admitted if frame and _is_published(frame.fields)]
    )


def _is_published(frame: Fields) -> bool:
    return is_published(str(frame["module"]), str(frame["function"]))


def _describe(event: Mapping[str, Any]) -> dict[str, object]:
    release = event.get("release")
    agent, _, version = release.partition("@") if isinstance(release, str) else ("", "", "")
    system = _get(event, "contexts", "os", "name")
    return {
        "agent": agent,
        "version": version,
        "system": system.lower() if isinstance(system, str) else None,
        "level": event.get("level", "error"),
    }


def _describe_frame(frame: Mapping[str, Any]) -> dict[str, object]:
    return {
        "module": frame.get("module"),
        "function": frame.get("function"),
        "line": frame.get("lineno"),
    }


def _get(value: object, *path: str) -> object:
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def pack(faults: list[Fault]) -> bytes:
    """Return faults as they are held."""
    return msgspec.json.encode(faults)


def unpack(data: bytes) -> Iterator[Fault]:
    """Reverse `pack`; raises msgspec.MsgspecError."""
    yield from msgspec.json.decode(data, type=list[Fault])


def write_event(fault: Fault) -> dict[str, Any]:
    """Return a fault as a Sentry event that holds nothing else."""
    values = []
    for raised in fault.exceptions:
        module, _, kind = str(raised.fields.get("package_class", "")).rpartition(".")
        value: dict[str, Any] = {"type": kind or str(raised.fields.get("class", "other"))}
        if module:
            value["module"] = module
        if "errno" in raised.fields:
            value["mechanism"] = {
                "type": "generic",
                "meta": {"errno": {"number": int(raised.fields["errno"])}},
            }
        if raised.frames:
            value["stacktrace"] = {"frames": [_write_frame(frame) for frame in raised.frames]}
        values.append(value)
    agent, version = fault.fields.get("agent", "other"), fault.fields.get("version")
    event: dict[str, Any] = {
        "level": fault.fields.get("level", "error"),
        "platform": "python",
        "exception": {"values": values},
    }
    if version is not None:
        event["release"] = f"{agent}@{version}"
    if "system" in fault.fields:
        event["contexts"] = {"os": {"name": fault.fields["system"]}}
    return event


def _write_frame(frame: Fields) -> dict[str, Any]:
    written: dict[str, Any] = {"module": frame["module"], "function": frame["function"]}
    if "line" in frame:
        written["lineno"] = int(frame["line"])
    return written
