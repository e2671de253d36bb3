"""The headers in which whoever talks to the service presents a key."""

from collections.abc import Iterable

# The key is ours and stops here; an upstream gets credentials of its own.
CREDENTIALS = frozenset({b"authorization", b"x-api-key", b"x-bailee-key"})
# How a key begins (`keys`).
_KEY_START = b"bailee_"


def read_key(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the key that is presented: `x-bailee-key`, `x-api-key` or `Authorization: Bearer`.

    The first is for agents that fill the other two themselves, as for Bedrock. Of several the one that has
    the form of ours counts: an SDK may add a key of its user's own. Nothing if none is given.
    """
    found = {name.lower(): value for name, value in headers if name.lower() in CREDENTIALS}
    scheme, _, token = found.get(b"authorization", b"").partition(b" ")
    bearer = token.strip() if scheme.lower() == b"bearer" else b""
    keys = [key for key in (found.get(b"x-bailee-key"), found.get(b"x-api-key"), bearer) if key]
    return next((key for key in keys if key.startswith(_KEY_START)), keys[0] if keys else b"")
