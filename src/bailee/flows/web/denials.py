"""How a refusal is told: apart from any answer of a host, with the rule and the way out.

A tunnel that is refused is answered before it is one, so that these headers are Bailee's: an answer of the
host itself comes inside the tunnel.
"""

import json

from bailee.characters import make_visible
from bailee.flows.web.rules import Refusal

HEADER, REASON_HEADER, FIX_HEADER = "x-bailee-denied", "x-bailee-reason", "x-bailee-allow"
_REASONS = {400: "Bad Request", 403: "Forbidden", 407: "Proxy Authentication Required", 502: "Bad Gateway"}
_REASONS |= {503: "Service Unavailable", 504: "Gateway Timeout", 429: "Too Many Requests"}


def list_headers(refusal: Refusal) -> list[tuple[str, str]]:
    """Return the headers of a refusal."""
    headers = [(HEADER, refusal.rule), (REASON_HEADER, _plain(refusal.reason))]
    return [*headers, (FIX_HEADER, _plain(refusal.fix))] if refusal.fix else headers


def write_body(refusal: Refusal) -> bytes:
    """Return the body of a refusal, for people and for programs."""
    told = {"denied_by": "bailee", "rule": refusal.rule, "reason": _plain(refusal.reason)}
    if refusal.fix:
        told["allow"] = _plain(refusal.fix)
    return json.dumps(told).encode() + b"\n"


def write_answer(refusal: Refusal, status: int = 403) -> bytes:
    """Return a whole answer of HTTP/1.1, after which the connection ends."""
    body = write_body(refusal)
    lines = [f"HTTP/1.1 {status} {_REASONS[status]}"]
    lines += [f"{name}: {value}" for name, value in list_headers(refusal)]
    lines += ["content-type: application/json", f"content-length: {len(body)}", "connection: close", "", ""]
    return "\r\n".join(lines).encode("ascii") + body


def _plain(text: str) -> str:
    """Return text that fits a header: what is no plain character of ASCII is shown as its number."""
    shown = make_visible(text)
    return shown.encode("ascii", "backslashreplace").decode()[:500]
