"""Where the gateway sends model traffic: one small protocol, one module per kind of upstream."""

from typing import Protocol
from urllib.parse import urlsplit

import msgspec

from bailee.flows.messages.wires import Wire
from bailee.policy.plans import Provider
from bailee.policy.problems import Problem

Headers = list[tuple[bytes, bytes]]


class Origin(msgspec.Struct, frozen=True):
    """Scheme, host and port of a server (RFC 9110 section 4.3.1).

    Attributes:
        base: a path that `Upstream.authorize` puts before every target.
    """

    scheme: str
    host: str
    port: int
    base: str = ""

    @property
    def authority(self) -> str:
        """The value of the Host header: the port is named only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == {"http": 80, "https": 443}[self.scheme] else f"{host}:{self.port}"


class Request(msgspec.Struct, frozen=True):
    """A request as it came from the agent, hop-by-hop headers and the agent's own credentials taken off.

    Attributes:
        target: path and query in origin form, as received.
        headers: names in the client's own spelling and order; no Host, no credentials.
    """

    method: bytes
    target: bytes
    headers: Headers
    body: bytes
    wire: Wire


class Upstream(Protocol):
    """A place where the model is reached, and what it promises about the data sent there.

    Attributes:
        name: the word of the configuration: anthropic, bedrock, vertex, compatible, rehearsal.
        provider: whose terms hold there.
        is_first_party: whether it is the Claude API itself, by the word of the configuration.
        zero_data_retention: the operator's declaration that this upstream, as configured, retains nothing.
        wires: the request formats it understands; the gateway never translates one into another.
    """

    name: str
    provider: Provider
    is_first_party: bool
    origin: Origin
    zero_data_retention: bool
    wires: frozenset[Wire]

    async def authorize(self, request: Request) -> tuple[bytes, Headers]:
        """Return the target, below the origin's base path, and the headers to send.

        Credentials are included, Host and framing are not.

        Raises:
            Problem: our own credentials for the upstream are missing or were refused by their issuer.
        """
        ...


def is_written(url: str) -> bool:
    """Tell whether a URL holds only what may stand in a request's head.

    RFC 3986 knows no other characters; names beyond ASCII are written in punycode and percent signs.
    """
    return url.isascii() and url.isprintable() and not set(url) & set(' "<>\\^`{|}')


def parse_origin(url: str, *, where: str) -> Origin:
    """Read an `http://` or `https://` URL into an Origin.

    Raises:
        Problem: another scheme, no host, user information or a query in the URL.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # brackets that do not close, or a port that is no number
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or not is_written(url):
        raise Problem(f"{url!r} is not an http:// or https:// URL", where=where, fix="give scheme and host")
    if parts.username is not None or parts.query or parts.fragment:
        raise Problem(
            "an upstream URL may not carry credentials, a query or a fragment",
            where=where,
            fix="give only scheme, host, port and path; keys have settings of their own",
        )
    default = 443 if parts.scheme == "https" else 80
    return Origin(parts.scheme, parts.hostname, port or default, parts.path.rstrip("/"))
