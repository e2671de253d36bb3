"""What every entry of the ledger begins with."""

import msgspec


class Entry(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", forbid_unknown_fields=True):
    """What every entry says.

    Attributes:
        id: 32 hexadecimal digits, drawn; an entry told twice after a crash is known by it.
        at_ms: milliseconds since 1970 UTC.
    """

    id: str
    at_ms: int
