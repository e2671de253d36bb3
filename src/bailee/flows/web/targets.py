"""Where a connection is asked to go: a host and a port, in the one spelling that rules are written in.

A host that can be read in two ways is refused, not mended: what a check and what a library make of
`127.1`, a NUL, a zone or a letter outside ASCII has been two things before.
"""

import ipaddress
import re

import msgspec

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# RFC 1035 section 2.3.4.
LONGEST_NAME, LONGEST_LABEL = 253, 63
# With the underscore, which names of services have and RFC 952 does not.
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?", re.ASCII)
# What the URL standard's "ends in a number" takes for an address: `127.1`, `0x7f000001`, `017700000001`.
_NUMBER = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)", re.ASCII)


class Target(msgspec.Struct, frozen=True):
    """A host and a port.

    Attributes:
        host: a name in lower case without a dot at its end, or an address in its shortest form.
        address: None where the host is a name.
    """

    host: str
    port: int
    address: Address | None = None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Unreadable(ValueError):
    """There is no such host or port, or more than one way to read it."""


def read_target(text: str, port: int | None = None) -> Target:
    """Return what `host:port`, `[address]:port`, or either without a port says.

    Args:
        port: where the text names none; None demands that it names one.

    Raises:
        Unreadable: it is malformed or ambiguous; the message holds nothing of the text.
    """
    if text.startswith("["):
        inside, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise Unreadable("the brackets of the address are not closed")
        return _address_target(inside, _read_port(rest[1:] if rest else None, port), version=6)
    host, colon, tail = text.partition(":")
    number = _read_port(tail if colon else None, port)
    return _read_host(host, number)


def _read_host(host: str, port: int) -> Target:
    name = host.lower() if host.isascii() else ""
    if not name:
        raise Unreadable("the host is empty, or not in ASCII: write its xn-- form")
    name = name.removesuffix(".")
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return _address_target(name, port, version=4)
    if len(name) > LONGEST_NAME:
        raise Unreadable("the host is too long")
    for label in labels:
        if len(label) > LONGEST_LABEL or not _LABEL.fullmatch(label):
            raise Unreadable("the host is no name")
    return Target(name, port)


def _address_target(text: str, port: int, *, version: int) -> Target:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        address = None
    # The library takes zones (`fe80::1%eth0`), which no address on a wire has.
    if address is None or address.version != version or "%" in text:
        raise Unreadable("the host is no address, though it looks like one")
    return Target(str(address), port, address)


def _read_port(text: str | None, default: int | None) -> int:
    if text is None:
        if default is None:
            raise Unreadable("there is no port")
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536):
        raise Unreadable("the port is no number from 1 to 65535")
    return int(text)
