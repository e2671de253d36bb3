"""What the kernel knows of a connection: where it was going, and how many bytes it carried."""

import asyncio
import socket
import struct
from ipaddress import ip_address

_SO_ORIGINAL_DST = 80  # linux/netfilter_ipv4.h, and IP6T_SO_ORIGINAL_DST
_TCP_INFO = 11  # linux/tcp.h; the module of other systems has no such name
_TCP_INFO_BYTES, _ACKED_AT, _RECEIVED_AT = 136, 120, 128  # struct tcp_info


def count_kernel(transport: asyncio.BaseTransport) -> tuple[int, int] | None:
    """Return how many bytes the kernel took from the agent, and how many the agent's side acknowledged."""
    taken: socket.socket | None = transport.get_extra_info("socket")
    try:
        info = taken.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _TCP_INFO_BYTES) if taken else b""
    except OSError:
        return None
    if len(info) < _TCP_INFO_BYTES:
        return None
    received, acked = struct.unpack_from("=Q", info, _RECEIVED_AT), struct.unpack_from("=Q", info, _ACKED_AT)
    return received[0], acked[0]


def find_destination(transport: asyncio.BaseTransport) -> tuple[str, int]:
    """Return the address and port that a redirected connection was for; raises OSError if it was not."""
    taken: socket.socket = transport.get_extra_info("socket")
    if taken.family == socket.AF_INET:
        found = taken.getsockopt(socket.SOL_IP, _SO_ORIGINAL_DST, 16)
        return str(ip_address(found[4:8])), int.from_bytes(found[2:4], "big")
    found = taken.getsockopt(socket.IPPROTO_IPV6, _SO_ORIGINAL_DST, 28)
    return str(ip_address(found[8:24])), int.from_bytes(found[2:4], "big")
