"""Entries that wait, in the database of what they tell of, until the ledger has them.

What happened and the entry that tells of it are one transaction; moving the entry on is another. A crash
between the two only delays it, and an entry that was moved and not yet taken out is known by its id and not
told twice.
"""

from collections.abc import Callable, Iterator, Sequence

import msgspec
import sqlalchemy as sa

from bailee.ledger.entries import AnyEntry, decode_entry, encode_entry
from bailee.ledger.log import Log

# An entry is 34 KB at most, so that a batch is some 4 MB.
BATCH = 128


def outbox_table(metadata: sa.MetaData) -> sa.Table:
    """Return the table of entries waiting in a database."""
    return sa.Table(
        "outbox",
        metadata,
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("entry", sa.LargeBinary, nullable=False),
    )


def put(connection: sa.Connection, outbox: sa.Table, entries: Sequence[AnyEntry]) -> None:
    """Leave entries for the ledger, in the transaction of what they tell of."""
    if entries:
        connection.execute(sa.insert(outbox), [{"entry": encode_entry(entry)} for entry in entries])


def move(engine: sa.Engine, outbox: sa.Table, append: Callable[[Sequence[bytes]], object]) -> int:
    """Move what waits on to the ledger, and return how many entries that were.

    Args:
        append: puts entries into the ledger durably, leaving out those whose id it has among its latest.
    """
    moved = 0
    while True:
        query = sa.select(outbox).order_by(outbox.c.number).limit(BATCH)
        with engine.connect() as connection:
            waiting = connection.execute(query).all()
        if not waiting:
            return moved
        append([row.entry for row in waiting])
        with engine.begin() as connection:
            connection.execute(sa.delete(outbox).where(outbox.c.number.in_([row.number for row in waiting])))
        moved += len(waiting)


def read_latest_ids(log: Log) -> Iterator[str]:
    """Give the ids of the ledger's latest entries: those that a mover who was killed may have left behind."""
    for data in log.read(max(0, log.size - 2 * BATCH)):
        try:
            yield decode_entry(data).id
        except msgspec.MsgspecError:
            continue
