"""Answers that the gateway gives itself, in the words and the shape an agent's client understands.

Source of the shapes: Messages API reference, "Errors"; Amazon Bedrock Runtime error responses.
"""

from enum import Enum

import msgspec

from bailee.flows.messages.wires import Wire


class RefusalKind(Enum):
    """Status and error type of a refusal; clients retry 429, 5xx and 529, and no other."""

    MALFORMED = (400, "invalid_request_error")
    UNAUTHENTICATED = (401, "authentication_error")
    FORBIDDEN = (403, "permission_error")
    TOO_LARGE = (413, "request_too_large")
    HEAD_TOO_LARGE = (431, "invalid_request_error")
    UPSTREAM = (502, "api_error")
    UNAVAILABLE = (503, "api_error")
    OVERLOADED = (529, "overloaded_error")


class Refusal(msgspec.Struct, frozen=True):
    """Why the gateway does not forward a request; `message` names the fix."""

    kind: RefusalKind
    message: str

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.kind.value[0]


# Tells our answer from an upstream's with the same status.
REFUSED_HEADER = "x-bailee-refused"
_REASONS = {
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    413: b"Content Too Large",
    431: b"Request Header Fields Too Large",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    529: b"Overloaded",
}


def render(refusal: Refusal, wire: Wire, *, keep_alive: bool) -> bytes:
    """Return the whole HTTP/1.1 response."""
    status, error_type = refusal.kind.value
    message = f"Bailee: {refusal.message}"
    error: dict[str, object] = {"type": "error", "error": {"type": error_type, "message": message}}
    if wire is Wire.BEDROCK:
        error["message"] = message
    body = msgspec.json.encode(error)
    lines = [
        b"HTTP/1.1 %d %s" % (status, _REASONS[status]),
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        REFUSED_HEADER.encode() + b": " + error_type.encode(),
    ]
    if refusal.kind in (RefusalKind.OVERLOADED, RefusalKind.UNAVAILABLE):
        lines.append(b"retry-after: 1")
    lines.append(b"connection: " + (b"keep-alive" if keep_alive else b"close"))
    return b"\r\n".join([*lines, b"", body])
