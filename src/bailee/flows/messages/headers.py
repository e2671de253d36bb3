"""Which headers cross the gateway: all, in the sender's spelling and order, but for those named here."""

from bailee.accounts.credentials import CREDENTIALS
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


def to_lines(headers: Headers) -> bytes:
    """Write headers as they stand in a message, one `name: value` line each."""
    return b"".join([name + b": " + value + b"\r\n" for name, value in headers])


def _connection_options(headers: Headers) -> frozenset[bytes]:
    """Return the headers that `Connection` names; there may be several lines of it (RFC 9110 section 5.3)."""
    lines = [value for name, value in headers if name.lower() == b"connection"]
    return frozenset([option.strip().lower() for line in lines for option in line.split(b",")])
