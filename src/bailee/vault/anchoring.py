"""Receipts of runs in the ledger: that one of them says now what it said then."""

from bailee.ledger.entries import FlowsReceipted
from bailee.ledger.outbox import put
from bailee.ledger.receipts import find_entries, make_receipt
from bailee.vault import tables
from bailee.vault.custody import Custody


def record_flows(
    custody: Custody,
    account: str,
    digest: str,
    *,
    enforced: bool,
    verdict: str,
    connections: int,
    refused: int,
) -> bytes:
    """Record what a run's receipt says, and return the proof that the ledger has it.

    Raises:
        Problem: the ledger cannot be written.
    """
    entry = FlowsReceipted(
        id=custody.draw(),
        at_ms=custody.now_ms(),
        subject=custody.pseudonyms.name(account),
        digest=digest,
        enforced=enforced,
        verdict=verdict,
        connections=connections,
        refused=refused,
    )
    start = custody.log.size
    with custody.vault.begin() as connection:
        put(connection, tables.vault_outbox, [entry])
    custody.settle()
    return make_receipt(custody.log, find_entries(custody.log, start, [entry.id], []))
