"""What a boundary saw, as a receipt tells it."""

from collections import Counter
from collections.abc import Sequence

import msgspec

from bailee.boundary.reconciliation import Reconciliation
from bailee.flows.web.abuse import Action, Kind
from bailee.flows.web.log import Abused, Closed, Opened, Refused, Row, Way
from bailee.flows.web.rules import Rules


class HostUse(msgspec.Struct, frozen=True):
    """What went to one host.

    Attributes:
        flow: the declared flow that it is part of.
        rule: what allowed it.
    """

    host: str
    port: int
    flow: str
    rule: str
    connections: int
    sent_bytes: int
    received_bytes: int


class HostRefused(msgspec.Struct, frozen=True):
    """What was tried and refused."""

    host: str
    port: int
    rule: str
    reason: str
    tries: int


class AbuseFound(msgspec.Struct, frozen=True):
    """Something that was done too often, and what was done about it; see `abuse.Finding`."""

    at_ms: int
    kind: Kind
    action: Action
    count: int
    seconds: int
    reason: str


# Without what is as ever: the digest of a receipt is of all that is in it, and older ones know no abuse.
class BoundaryReceipt(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a boundary saw.

    Attributes:
        enforcement: "namespaces", or "none" where only the environment led to the proxy.
        confined: whether the file system was confined as well.
        unused: declared flows that were allowed and not used.
        isolation: what kind of machine it was, if it was one: vm, container, namespace.
        log_rows, log_digest: how many rows the log has, and what its last is bound by.
        abuse: what was done too often; not there where nothing was.
    """

    enforcement: str
    confined: bool
    used: list[HostUse]
    refused: list[HostRefused]
    names_refused: list[str]
    unused: list[str]
    counts: Reconciliation
    log_rows: int
    log_digest: str
    isolation: str = ""
    abuse: list[AbuseFound] = []


def summarize(
    rows: Sequence[Row],
    rules: Rules,
    counts: Reconciliation,
    *,
    enforcement: str,
    confined: bool,
    digest: str,
    isolation: str = "",
) -> BoundaryReceipt:
    """Return the receipt of a log: what was used, what was refused, what was allowed and not used."""
    closed = {row.number: row for row in rows if isinstance(row, Closed)}
    used: dict[tuple[str, int, str, str], list[int]] = {}
    told: set[tuple[int, str]] = set()
    for row in rows:
        if isinstance(row, Opened) and row.way is not Way.NAME:
            sums = used.setdefault((row.host, row.port, row.flow, row.rule), [0, 0, 0])
            if (row.number, row.host) in told:
                continue
            told.add((row.number, row.host))
            end = closed.get(row.number)
            sums[0] += 1
            sums[1] += end.sent if end else 0
            sums[2] += end.received if end else 0
    tries: Counter[tuple[str, int, str, str]] = Counter()
    names: dict[str, None] = {}
    for row in rows:
        if isinstance(row, Refused):
            if row.way is Way.NAME:
                names[row.host] = None
            else:
                tries[row.host, row.port, row.rule, row.reason] += 1
    flows = dict.fromkeys(rule.flow for rule in (*rules.allowed, *(one.rule for one in rules.led)))
    taken = {flow for _, _, flow, _ in used}
    return BoundaryReceipt(
        enforcement=enforcement,
        confined=confined,
        used=[HostUse(*what, *sums) for what, sums in sorted(used.items())],
        refused=[HostRefused(*what, count) for what, count in sorted(tries.items())],
        names_refused=sorted(names),
        unused=[flow for flow in flows if flow not in taken],
        counts=counts,
        log_rows=len(rows),
        log_digest=digest,
        isolation=isolation,
        abuse=[
            AbuseFound(row.at_ms, row.kind, row.action, row.count, row.seconds, row.reason)
            for row in rows
            if isinstance(row, Abused)
        ],
    )
