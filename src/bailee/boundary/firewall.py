"""The firewall inside a boundary: it leads TCP to the proxy, drops all else, and counts both.

What it counts is the second of the two counts in a receipt. The agent has no right to change it, and the
proxy never sees it: it is read from the kernel when the command has ended.
"""

import json
import re
from typing import Any

import msgspec

TABLE = "bailee"
PROXY_PORT, REDIRECT_PORT, NAMES_PORT = 3128, 15001, 15053
# What is refused is told at once instead of timing out.
_KINDS = ("udp", "icmp", "other")


class Traffic(msgspec.Struct, frozen=True):
    """Packets and their bytes, headers included."""

    packets: int = 0
    bytes: int = 0


class KernelCount(msgspec.Struct, frozen=True):
    """What the kernel counted.

    Attributes:
        connections: connections to the proxy that were begun.
        sent, sent6, received, received6: to the proxy and from it, over IPv4 and IPv6.
        refused: packets that were let nowhere, by kind.
        elsewhere: bytes on interfaces that the boundary does not have.
        resent: segments of TCP that were sent again, as on a machine that is busy.
        is_known: whether the kernel could be asked.
    """

    connections: int = 0
    sent: Traffic = Traffic()
    sent6: Traffic = Traffic()
    received: Traffic = Traffic()
    received6: Traffic = Traffic()
    refused: dict[str, int] = {}
    elsewhere: int = 0
    resent: int = 0
    is_known: bool = True


def write_firewall(
    ports: tuple[int, ...],
    *,
    led_to: int = REDIRECT_PORT,
    names_to: int = NAMES_PORT,
    redirect: bool = True,
    refuse: bool = True,
) -> str:
    """Return the rules, as `nft -f` reads them.

    Args:
        ports: where the proxy listens, on loopback.
        led_to, names_to: where TCP to anywhere and questions for names are led.
        redirect: whether TCP to anywhere is led to the proxy.
        refuse: whether what is not TCP is refused (a negative control's only).
    """
    listed = ", ".join(map(str, ports))
    counters = [
        "connections",
        "sent",
        "sent6",
        "received",
        "received6",
        *(f"refused_{kind}" for kind in _KINDS),
    ]
    lines = [f"table inet {TABLE} {{"]
    for name in counters:
        lines += [f"  counter {name} {{", "  }"]
    if redirect:
        lines += [
            "  chain lead {",
            "    type nat hook output priority -100; policy accept;",
            # Before what is loopback's: a machine may look names up there.
            f"    udp dport 53 redirect to :{names_to}",
            "    ip daddr 127.0.0.0/8 return",
            "    ip6 daddr ::1 return",
            f"    meta l4proto tcp redirect to :{led_to}",
            "  }",
        ]
    lines += [
        "  chain out {",
        f"    type filter hook output priority 0; policy {'drop' if refuse else 'accept'};",
        f"    tcp dport {{ {listed} }} tcp flags & (syn | ack) == syn counter name connections",
        f"    meta nfproto ipv4 tcp dport {{ {listed} }} counter name sent accept",
        f"    meta nfproto ipv6 tcp dport {{ {listed} }} counter name sent6 accept",
        f"    meta nfproto ipv4 tcp sport {{ {listed} }} counter name received accept",
        f"    meta nfproto ipv6 tcp sport {{ {listed} }} counter name received6 accept",
        "    ip daddr 127.0.0.0/8 accept",
        "    ip6 daddr ::1 accept",
        # An answer on loopback to somebody who took one of its other addresses.
        "    ct state established,related accept",
    ]
    if refuse:
        lines += [
            "    meta l4proto udp counter name refused_udp reject",
            "    meta l4proto { icmp, ipv6-icmp } counter name refused_icmp drop",
            "    meta l4proto tcp counter name refused_other reject with tcp reset",
            "    counter name refused_other drop",
        ]
    lines += ["  }", "}", ""]
    return "\n".join(lines)


def read_count(counters: str, interfaces: str, protocols: str) -> KernelCount:
    """Read what `nft -j list counters`, /proc/net/dev and /proc/net/snmp say."""
    try:
        listed = [one["counter"] for one in json.loads(counters)["nftables"] if "counter" in one]
    except (ValueError, KeyError, TypeError):
        return KernelCount(is_known=False)
    by_name: dict[str, Any] = {one["name"]: one for one in listed if one.get("table") == TABLE}
    if not by_name:
        return KernelCount(is_known=False)

    def traffic(name: str) -> Traffic:
        return Traffic(by_name[name]["packets"], by_name[name]["bytes"])

    return KernelCount(
        connections=traffic("connections").packets,
        sent=traffic("sent"),
        sent6=traffic("sent6"),
        received=traffic("received"),
        received6=traffic("received6"),
        refused={kind: traffic(f"refused_{kind}").packets for kind in _KINDS},
        elsewhere=_count_elsewhere(interfaces),
        resent=_count_resent(protocols),
    )


def _count_resent(protocols: str) -> int:
    """Return RetransSegs (RFC 1213, tcpRetransSegs) of a network: two lines, names and values."""
    lines = [line.split()[1:] for line in protocols.splitlines() if line.startswith("Tcp:")]
    if len(lines) != 2:
        return 0
    value = dict(zip(*lines, strict=False)).get("RetransSegs", "0")
    return int(value) if value.isdigit() else 0


def _count_elsewhere(interfaces: str) -> int:
    """Return the bytes on all interfaces but loopback; see proc(5), /proc/net/dev."""
    total = 0
    for line in interfaces.splitlines():
        if found := re.match(r"\s*([^:]+):\s*(.*)", line):
            numbers = found[2].split()
            if found[1] != "lo" and len(numbers) >= 9 and numbers[0].isdigit():
                total += int(numbers[0]) + int(numbers[8])
    return total
