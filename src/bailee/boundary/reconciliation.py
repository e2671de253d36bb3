"""The proxy's count beside the kernel's: whether what left is what the proxy says that left.

The kernel counts packets with their headers, and the proxy what was said inside. Headers of TCP and IP have
from 40 to 80 bytes over IPv4, and 20 more over IPv6, so that packets and bytes together say between which
two figures the contents lie (RFC 791, 8200, 9293). What was sent again, as happens on loopback where a
machine is busy, it counts again, and says how many segments that were.
"""

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from bailee.boundary.firewall import KernelCount, Traffic
from bailee.flows.web.log import Closed, Opened, Refused, Requested, Row, Way

_LEAST_HEADER, _MOST_HEADER, _MORE_FOR_IPV6 = 40, 80, 20
# The end of a stream takes a number of its own in a kernel's count of what was acknowledged (RFC 9293, 3.4).
_PER_CONNECTION = 2
# What is under way as the proxy ends a connection: some packets of loopback's 64 KiB, of which it reads none.
_IN_FLIGHT = 256 * 1024
_LARGEST_SEGMENT = 64 * 1024


class Verdict(StrEnum):
    """What the two counts say of each other."""

    AGREED = "agreed"
    DISAGREED = "disagreed"
    UNKNOWN = "unknown"


class Side(msgspec.Struct, frozen=True):
    """One direction.

    Attributes:
        proxy: bytes the proxy read from the agent, or wrote to it.
        sockets: the same as the kernel counts it for the proxy's own sockets.
        least, most: between which two figures the firewall's count puts it.
    """

    proxy: int
    sockets: int
    least: int
    most: int


class Reconciliation(msgspec.Struct, frozen=True):
    """Both counts, and the verdict.

    Attributes:
        connections: that the proxy took.
        kernel_connections: that were begun, as the firewall counts.
        unclosed: connections whose end is not in the log.
        abrupt: connections that ended otherwise than by both sides having said all.
        refused_packets: by kind, what went to no proxy and was dropped.
        differences: in words, each thing that does not agree.
    """

    verdict: Verdict
    connections: int
    kernel_connections: int
    unclosed: int
    abrupt: int
    sent: Side
    received: Side
    refused_packets: dict[str, int]
    differences: list[str]


def reconcile(rows: Iterable[Row], count: KernelCount | None) -> Reconciliation:
    """Compare a log with what the kernel counted.

    Args:
        count: None where the kernel's count was lost.
    """
    begun: set[int] = set()
    closed: dict[int, Closed] = {}
    for row in rows:
        if isinstance(row, Closed):
            closed[row.number] = row
        elif isinstance(row, Opened | Requested | Refused) and row.number:
            begun.add(row.number)
    unclosed = len(begun - set(closed))
    sent = [row.sent for row in closed.values()]
    received = [row.received for row in closed.values()]
    kernel_sent = sum(row.sent if row.kernel_sent is None else row.kernel_sent for row in closed.values())
    kernel_received = sum(
        row.received if row.kernel_received is None else row.kernel_received for row in closed.values()
    )
    told = count or KernelCount(is_known=False)
    least_sent, most_sent = _bound(told.sent, told.sent6)
    least_received, most_received = _bound(told.received, told.received6)
    both = Reconciliation(
        verdict=Verdict.UNKNOWN,
        connections=len(closed),
        kernel_connections=told.connections,
        unclosed=unclosed,
        abrupt=sum(row.outcome != "done" for row in closed.values()),
        sent=Side(sum(sent), kernel_sent, least_sent, most_sent),
        received=Side(sum(received), kernel_received, least_received, most_received),
        refused_packets={kind: packets for kind, packets in told.refused.items() if packets},
        differences=[],
    )
    if not told.is_known:
        return msgspec.structs.replace(both, differences=["the kernel's count was lost"])
    differences = list(_compare(both, told))
    verdict = Verdict.DISAGREED if differences else Verdict.AGREED
    return msgspec.structs.replace(both, verdict=verdict, differences=differences)


def _compare(both: Reconciliation, told: KernelCount) -> Iterable[str]:
    slack = _PER_CONNECTION * max(both.connections, told.connections) + _LARGEST_SEGMENT * told.resent
    if told.elsewhere:
        yield f"{told.elsewhere} bytes went over an interface that the boundary does not have"
    if told.connections != both.connections:
        yield f"the kernel saw {told.connections} connections begin, and the proxy took {both.connections}"
    if both.unclosed:
        yield f"{both.unclosed} connections have no end in the log"
    for name, side in (("sent", both.sent), ("received", both.received)):
        # What was in a buffer as the other side went away is in one of the two alone.
        known = max(side.sockets, side.proxy) + slack + _IN_FLIGHT * both.abrupt
        if known < side.least:
            more = side.least - known
            yield f"the kernel counted at least {more} bytes more {name} than the proxy's sockets had"
        if min(side.proxy, side.sockets) > side.most + slack:
            more = min(side.proxy, side.sockets) - side.most
            yield f"the proxy tells of {more} bytes more {name} than the kernel can have seen"


def _bound(four: Traffic, six: Traffic) -> tuple[int, int]:
    more = _MORE_FOR_IPV6 * six.packets
    packets, total = four.packets + six.packets, four.bytes + six.bytes
    return max(0, total - _MOST_HEADER * packets - more), max(0, total - _LEAST_HEADER * packets - more)


def list_names(rows: Iterable[Row]) -> list[str]:
    """Return the names that were asked for, each once."""
    asked = (row.host for row in rows if isinstance(row, Opened | Refused) and row.way is Way.NAME)
    return list(dict.fromkeys(asked))
