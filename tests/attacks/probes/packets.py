"""Packets that ask no proxy: each kind of them goes nowhere."""

import contextlib
import socket
import struct

from attacks.probes.tools import (
    CANARY,
    FORBIDDEN,
    FORBIDDEN_6,
    METADATA,
    OWN,
    attack,
    send_datagram,
    send_stream,
)


@attack("boundary")
def datagram() -> None:
    """UDP reaches nobody."""
    send_datagram(FORBIDDEN, 9999)


@attack("boundary")
def datagram_over_ipv6() -> None:
    """Nor over IPv6."""
    send_datagram(FORBIDDEN_6, 9999)


@attack("boundary")
def quic() -> None:
    """HTTP/3 reaches nobody: it would pass a proxy by."""
    send_datagram(FORBIDDEN, 443)


@attack("boundary")
def dns_over_quic() -> None:
    """Nor does DNS over QUIC (RFC 9250)."""
    send_datagram(FORBIDDEN, 853)


@attack("boundary")
def time() -> None:
    """Nor a question for the time."""
    send_datagram(FORBIDDEN, 123)


@attack("boundary")
def ping() -> None:
    """An echo request carries nothing out."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as out:
        out.sendto(b"\x08\0\0\0\0\0\0\x01" + CANARY.encode(), (FORBIDDEN, 0))


@attack("boundary")
def ping_over_ipv6() -> None:
    """Nor over IPv6."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_ICMPV6) as out:
        out.sendto(b"\x80\0\0\0\0\0\0\x01" + CANARY.encode(), (FORBIDDEN_6, 0))


@attack("boundary", needs_root=True)
def raw() -> None:
    """Root makes no packets of its own."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as out:
        head = struct.pack("!BBHHH", 8, 0, 0, 1, 1)
        out.sendto(head + CANARY.encode(), (FORBIDDEN, 0))


@attack("boundary")
def stream_to_an_address() -> None:
    """TCP to an address ends at the proxy, which knows no name for it."""
    send_stream(FORBIDDEN, 80)


@attack("boundary")
def stream_over_ipv6() -> None:
    """Over IPv6 as well."""
    send_stream(FORBIDDEN_6, 80)


@attack("boundary")
def mail() -> None:
    """On any port."""
    send_stream(FORBIDDEN, 25)


@attack("boundary")
def first_data() -> None:
    """Data in the first packet of a connection goes no further than the rest (RFC 7413)."""
    with socket.socket() as out:
        data = f"GET /{CANARY} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        out.sendto(data, socket.MSG_FASTOPEN, (FORBIDDEN, 80))
        with contextlib.suppress(OSError):
            out.recv(100)


@attack("boundary")
def metadata() -> None:
    """The address where clouds give out credentials is out of reach."""
    send_stream(METADATA, 80)


@attack("boundary")
def loopback_of_the_machine() -> None:
    """What listens on loopback outside is out of reach: a database, another tool's control port."""
    send_stream("127.0.0.1", 5432)


@attack("boundary")
def address_of_the_machine() -> None:
    """So is the machine's own address."""
    send_stream(OWN, 80)
