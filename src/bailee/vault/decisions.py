"""The decisions that what is held rests on, each written down once."""

from collections.abc import Callable

import sqlalchemy as sa

from bailee.ledger.entries import DecisionMade
from bailee.ledger.outbox import put
from bailee.vault import tables
from bailee.vault.frames import Decided


def number_decision(
    connection: sa.Connection, decided: Decided, *, at_ms: int, random: Callable[[int], bytes]
) -> int:
    """Return the number of a decision in the vault; one that is new is told to the ledger.

    Args:
        connection: in a transaction.
        at_ms: milliseconds since 1970 UTC.
    """
    table = tables.decisions
    query = sa.select(table.c.number).where(table.c.digest == decided.digest)
    number: int | None = connection.execute(query).scalar_one_or_none()
    if number is None:
        row = {"digest": decided.digest, "body": decided.body}
        number = connection.execute(sa.insert(table).returning(table.c.number), row).scalar_one()
        made = DecisionMade(id=random(16).hex(), at_ms=at_ms, digest=decided.digest.hex())
        put(connection, tables.vault_outbox, [made])
    return number
