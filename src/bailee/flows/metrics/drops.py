"""How much of metrics was dropped, as the exchange that it came by notes it: how much, and never what."""

import re

import msgspec

# As `tell_drops` writes it; programs before it noted samples alone.
_NOTED = re.compile(r"(\d+) dropped(?:, (\d+) fields dropped)?")


class Drops(msgspec.Struct, frozen=True):
    """What no entry of the catalogue names.

    Attributes:
        samples: events and points that were dropped whole.
        fields: fields that were dropped of those that were held.
    """

    samples: int = 0
    fields: int = 0

    def __add__(self, other: "Drops") -> "Drops":
        return Drops(self.samples + other.samples, self.fields + other.fields)


def tell_drops(drops: Drops) -> str | None:
    """Write what was dropped of a request; None for nothing."""
    if not (drops.samples or drops.fields):
        return None
    return f"{drops.samples} dropped" + (f", {drops.fields} fields dropped" if drops.fields else "")


def read_drops(noted: str | None) -> Drops:
    """Reverse `tell_drops`; nothing where it is another note."""
    found = _NOTED.match(noted or "")
    return Drops(int(found[1]), int(found[2] or 0)) if found else Drops()
