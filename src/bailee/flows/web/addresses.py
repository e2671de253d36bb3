"""Which addresses a name may lead to. The proxy dials the address it checked, and no other.

A name on the list of an agent's destinations can be pointed at the machine it runs on, at its network, or at
the address where clouds give out credentials. Checking the name alone does not see that.
"""

import array
import contextlib
import fcntl
import ipaddress
import socket
import struct
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path

from bailee.flows.web.targets import Address

# What carries an IPv4 address inside: RFC 6052, 8215, 3056, 4380.
_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))
_CARRYING = (*_NAT64, ipaddress.IPv6Network("2002::/16"), ipaddress.IPv6Network("2001::/32"))
# Not covered by the library's `is_global` in every version: shared address space, RFC 6598; documentation and
# benchmarks; IETF protocols; what used to be site-local; discard-only, RFC 6666; `::/96`, deprecated.
_NEVER = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "240.0.0.0/4",
        "::/96",
        "100::/64",
        "2001:db8::/32",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
    )
)

_SIOCGIFCONF, _IFREQ_BYTES = 0x8912, 40  # linux/sockios.h; struct ifreq of a machine of 64 bits
# Resolves a name; the addresses in the order in which to try them. Raises OSError.
Resolve = Callable[[str, int], Awaitable[list[Address]]]


def tell_forbidden(address: Address, own: Collection[Address] = ()) -> str:
    """Say why nobody may be led to an address; empty where it is a public one.

    Args:
        own: the addresses of this machine, public ones included.
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return tell_forbidden(address.ipv4_mapped, own) or "an IPv4 address written as an IPv6 one"
        if any(address in network for network in _CARRYING):
            return "an IPv4 address inside an IPv6 one (NAT64, 6to4 or Teredo)"
    if address in own:
        return "an address of this machine"
    if address.is_loopback:
        return "this machine itself"
    if address.is_link_local:
        return "a link-local address, where clouds keep credentials"
    if address.is_multicast or address.is_unspecified or address.is_reserved:
        return "no address of one machine"
    if address.is_private or any(
        address in network for network in _NEVER if network.version == address.version
    ):
        return "a private address"
    return "" if address.is_global else "no public address"


def list_own() -> frozenset[Address]:
    """Return the addresses of this machine's interfaces. No name is looked up for it."""
    found: set[Address] = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket, contextlib.suppress(OSError):
        size = 64 * 1024
        held = array.array("B", bytes(size))
        asked = struct.pack("iL", size, held.buffer_info()[0])
        answer: bytes = fcntl.ioctl(any_socket, _SIOCGIFCONF, asked)
        filled = held.tobytes()[: struct.unpack_from("i", answer)[0]]
        for at in range(0, len(filled), _IFREQ_BYTES):
            found.add(ipaddress.IPv4Address(filled[at + 20 : at + 24]))
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/if_inet6").read_text().splitlines():
            found.add(ipaddress.IPv6Address(bytes.fromhex(line.split()[0])))
    for family, far in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        # What a packet would come from, on systems that tell nothing else; nothing is sent.
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((far, 9))
            found.add(ipaddress.ip_address(str(probe.getsockname()[0]).partition("%")[0]))
    return frozenset(found)
