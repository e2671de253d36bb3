"""How long the ledger was when it was last added to, kept beside the keys.

By it a ledger that was put back to an older state, which verifies by itself, is not taken for the newest.
"""

import sqlalchemy as sa

from bailee.ledger.log import Log
from bailee.ledger.merkle import is_consistent
from bailee.policy.problems import Problem
from bailee.vault import tables


def tell_rollback(engine: sa.Engine, log: Log) -> str:
    """Say how a ledger is not the one that was last added to; empty if it is, or goes on from it.

    Raises:
        Problem: what is needed of the ledger is damaged.
    """
    table = tables.anchors
    with engine.connect() as connection:
        known = connection.execute(sa.select(table).where(table.c.origin == log.checkpoint().origin)).first()
    if known is None:
        return ""
    held = log.checkpoint()
    if held.size < known.size:
        return f"it has {held.size} entries, and had {known.size}: it was put back to an older state"
    path = log.prove_consistency(known.size)
    if not is_consistent(known.size, held.size, known.root, held.root, path):
        return f"it does not go on from the {known.size} entries that it had: it was put back and added to"
    return ""


def check_anchor(engine: sa.Engine, log: Log) -> None:
    """Refuse a ledger that was put back: adding to it would make two histories.

    Raises:
        Problem: it was, or is damaged.
    """
    if rollback := tell_rollback(engine, log):
        raise Problem(
            f"the ledger is not the one that was last added to: {rollback}",
            where="ledger",
            fix="put the newest copy of the folder back; if there is none, restore from a backup, which "
            "is ledgered: bailee backup restore",
        )


def keep_anchor(engine: sa.Engine, log: Log) -> None:
    """Note how long the ledger is now."""
    table = tables.anchors
    held = log.checkpoint()
    values = {"size": held.size, "root": held.root}
    with engine.begin() as connection:
        change = sa.update(table).where(table.c.origin == held.origin).values(values)
        if connection.execute(change).rowcount == 0:
            connection.execute(sa.insert(table).values(origin=held.origin, **values))
