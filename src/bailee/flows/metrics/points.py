"""What is held of metrics: the points that the catalogue lets through, as they lie sealed in the vault."""

from collections import Counter
from collections.abc import Iterable
from datetime import date
from functools import lru_cache
from pathlib import Path

import msgspec

from bailee.flows.metrics.deltas import Deltas
from bailee.flows.metrics.exports import Sample, Temporality
from bailee.manifests.catalogues import Catalogue, Kept, name_plainly, read_catalogue

CATALOGUE = Path(__file__).with_name("catalogue.toml")
_NAMES_TOLD = 10


class Point(msgspec.Struct, frozen=True, array_like=True):
    """An event, or what came since the last point of a counter; its hour is that of its exchange."""

    name: str
    fields: dict[str, Kept]


class Taken(msgspec.Struct, frozen=True):
    """What became of samples.

    Attributes:
        points: what may be held.
        rejected: how many samples were dropped whole.
        fields: how many fields were dropped of the others.
        message: what was dropped, in words; empty where nothing was.
    """

    points: list[Point]
    rejected: int
    fields: int
    message: str


@lru_cache(maxsize=1)
def load_catalogue() -> Catalogue:
    """Return the catalogue of metrics."""
    return read_catalogue(CATALOGUE)


def take(samples: Iterable[Sample], deltas: Deltas, sender: str, *, today: date) -> Taken:
    """Let through what the catalogue names.

    Args:
        sender: a name for the key that they came with.
        today: the UTC day.
    """
    catalogue = load_catalogue()
    points: list[Point] = []
    dropped: Counter[str] = Counter()
    fields: set[str] = set()
    totals = fields_dropped = 0
    for sample in samples:
        counted = deltas.take(sender, sample) if sample.name in catalogue.entries else sample
        if counted is None:
            totals += 1
            continue
        if sample.temporality is Temporality.CUMULATIVE and not counted.fields["value"]:
            continue  # the same total again: nothing came since
        admitted = catalogue.admit(sample.name, counted.fields, today=today)
        if admitted is None:
            dropped[name_plainly(sample.name)] += 1
        else:
            points.append(Point(admitted.name, admitted.fields))
            # An event's `value` that no entry names is Statsig's, which always sends one.
            unnamed = admitted.dropped - {"value"}
            fields.update(unnamed)
            fields_dropped += len(unnamed)
    return Taken(points, totals + dropped.total(), fields_dropped, _tell(dropped, fields, totals))


def _tell(dropped: Counter[str], fields: Iterable[str], totals: int) -> str:
    parts = []
    if dropped:
        parts.append(f"not in the catalogue: {_list(sorted(dropped))}")
    if totals:
        parts.append(f"running totals that began before this service did: {totals}")
    if names := sorted({name_plainly(one) for one in fields}):
        parts.append(f"fields dropped: {_list(names)}")
    return f"Bailee holds only what its catalogue names; {'; '.join(parts)}" if parts else ""


def _list(names: list[str]) -> str:
    told = ", ".join(names[:_NAMES_TOLD])
    return told if len(names) <= _NAMES_TOLD else f"{told} and {len(names) - _NAMES_TOLD} more"


def pack(points: Iterable[Point]) -> bytes:
    """Return points as they are held."""
    return msgspec.json.encode(list(points))


def unpack(data: bytes) -> list[Point]:
    """Reverse `pack`; raises msgspec.MsgspecError."""
    return msgspec.json.decode(data, type=list[Point])
