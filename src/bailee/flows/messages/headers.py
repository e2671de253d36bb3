"""Which headers cross the gateway: all, in the sender's spelling and order, but for those named here."""

from bailee.flows.messages.upstreams import Headers

# RFC 9110 section 7.6.1 and RFC 9112: they describe one connection, not the message.
HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# The key is ours and stops here; the upstream gets credentials of its own from its module.
CREDENTIALS = frozenset({b"authorization", b"x-api-key", b"x-bailee-key"})
# How a key begins (`accounts.keys`).
_KEY_START = b"bailee_"
_REPLACED = frozenset({b"host", b"content-length", b"expect"})
_OURS = frozenset({b"x-bailee-session"})
_NOT_FORWARDED = HOP_BY_HOP | CREDENTIALS | _REPLACED | _OURS


def select_request_headers(headers: Headers) -> Headers:
    """Return the end-to-end headers of a request, our key taken off."""
    dropped = _NOT_FORWARDED | _connection_options(headers)
    return [(name, value) for name, value in headers if name.lower() not in dropped]


def select_response_headers(headers: Headers) -> Headers:
    """Return the end-to-end headers of an answer; Content-Length stays, it describes the message."""
    dropped = HOP_BY_HOP | _connection_options(headers)
    return [(name, value) for name, value in headers if name.lower() not in dropped]


def find(headers: Headers, name: bytes) -> bytes:
    """Return the value of a header by its lower-case name, or nothing."""
    for candidate, value in headers:
        if candidate.lower() == name:
            return value
    return b""


def read_key(headers: Headers) -> bytes:
    """Return the key an agent presents: `x-bailee-key`, `x-api-key` or `Authorization: Bearer`.

    The first is for agents that fill the other two themselves, as for Bedrock. Of several the one that has
    the form of ours counts: an SDK may add a key of its user's own. Nothing if none is given.
    """
    found = {name.lower(): value for name, value in headers if name.lower() in CREDENTIALS}
    scheme, _, token = found.get(b"authorization", b"").partition(b" ")
    bearer = token.strip() if scheme.lower() == b"bearer" else b""
    keys = [key for key in (found.get(b"x-bailee-key"), found.get(b"x-api-key"), bearer) if key]
    return next((key for key in keys if key.startswith(_KEY_START)), keys[0] if keys else b"")


def to_lines(headers: Headers) -> bytes:
    """Write headers as they stand in a message, one `name: value` line each."""
    return b"".join([name + b": " + value + b"\r\n" for name, value in headers])


def _connection_options(headers: Headers) -> frozenset[bytes]:
    """Return the headers that `Connection` names; there may be several lines of it (RFC 9110 section 5.3)."""
    lines = [value for name, value in headers if name.lower() == b"connection"]
    return frozenset([option.strip().lower() for line in lines for option in line.split(b",")])
