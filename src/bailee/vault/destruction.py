"""Destroys segments whose time has come: first all keys, so that nothing opens, then the rows they leave.

Whoever wants something gone, a person or the calendar, only marks it; this does the rest, in steps that are
each safe to do again. So a crash leaves nothing half gone: what was marked is found and finished by whoever
comes next.
"""

import contextlib
from collections.abc import Iterator
from datetime import date
from typing import NamedTuple

import sqlalchemy as sa

from bailee.vault import tables
from bailee.vault.copies.registry import call_in
from bailee.vault.holds import is_held
from bailee.vault.keystore import Keystore

# Large enough that a commit's sync is shared, small enough that a recorder waits for the write lock some 20
# ms.
BATCH = 1000


class Due(NamedTuple):
    """A segment whose time has come."""

    number: int
    id: bytes
    account: str
    session: str
    is_erased: bool


class Reclaimed(NamedTuple):
    """Rows that went, and the bytes of content in them."""

    segments: int
    records: int
    exchanges: int
    stored_bytes: int


def is_due(today: date) -> sa.ColumnElement[bool]:
    """Match segments whose keys are to be destroyed: expired or erased, and under no hold."""
    segments = tables.segments
    return sa.and_(segments.c.is_destroyed.is_(False), segments.c.expires_on <= today, ~is_held())


def destroy_batch(
    engine: sa.Engine,
    keystore: Keystore,
    *,
    today: date,
    at_ms: int,
    which: sa.ColumnElement[bool] | None = None,
    limit: int = BATCH,
) -> int:
    """Destroy the keys of some segments that are due; return how many segments that were, 0 when none is
    left.

    Nodes that do this at once take different ones where the database can lock rows (PostgreSQL); with SQLite
    they may meet, and the second finds the keys gone.

    Args:
        today: the UTC day that has begun.
        at_ms: milliseconds since 1970 UTC, for the ledger.
        which: only these segments, and all of them: those that another node is at are waited for.
    """
    segments = tables.segments
    due_ones = is_due(today) if which is None else sa.and_(is_due(today), which)
    # A recorder that writes into a segment holds up its deletion, and not the destruction of its key.
    claiming = _claiming(engine, due_ones, limit, skip_locked=which is None, key_share=True)
    with claiming as (connection, due):
        if not due:
            return 0
        by_reason = {
            why: [segment.id for segment in due if segment.is_erased is is_erased]
            for why, is_erased in (("erased", True), ("expired", False))
        }
        for why, ids in by_reason.items():
            if ids:
                keystore.destroy(ids, why=why, at_ms=at_ms)
        for why, ids in by_reason.items():
            call_in(connection, why, ids, at_ms=at_ms)
        numbers = [segment.number for segment in due]
        mark = sa.update(segments).where(segments.c.number.in_(numbers)).values(is_destroyed=True)
        connection.execute(mark)
        return len(due)


def reclaim_batch(engine: sa.Engine, *, limit: int = BATCH) -> Reclaimed:
    """Delete the rows of some segments whose keys are destroyed."""
    segments, exchanges, records = tables.segments, tables.exchanges, tables.records
    destroyed = segments.c.is_destroyed.is_(True)
    with _claiming(engine, destroyed, limit, skip_locked=True, key_share=False) as (connection, gone):
        if not gone:
            return Reclaimed(0, 0, 0, 0)
        numbers = [segment.number for segment in gone]
        of_them = records.c.segment.in_(numbers)
        size = sa.select(sa.func.coalesce(sa.func.sum(sa.func.length(records.c.sealed)), 0)).where(of_them)
        stored = connection.execute(size).scalar_one()
        record_count = connection.execute(sa.delete(records).where(of_them)).rowcount
        # By session, which is indexed; an index by segment would cost every exchange that is recorded.
        delete = sa.delete(exchanges).where(
            exchanges.c.account == sa.bindparam("of_account"),
            exchanges.c.session == sa.bindparam("of_session"),
            exchanges.c.segment == sa.bindparam("of_segment"),
        )
        rows = [
            {"of_account": one.account, "of_session": one.session, "of_segment": one.number} for one in gone
        ]
        exchange_count = connection.execute(delete, rows).rowcount
        connection.execute(sa.delete(segments).where(segments.c.number.in_(numbers)))
        return Reclaimed(len(gone), record_count, exchange_count, stored)


def forget_facts(engine: sa.Engine, *, before_ms: int, limit: int = 10 * BATCH) -> int:
    """Delete facts of exchanges of which no content was ever kept, begun before a moment; return how many."""
    table = tables.exchanges
    # Ids begin with the time (`Recording.new_exchange`), so that the primary key finds the oldest.
    old = sa.select(table.c.id).where(table.c.id < before_ms << 21, table.c.segment.is_(None))
    old = old.order_by(table.c.id).limit(limit)
    with engine.begin() as connection:
        return connection.execute(sa.delete(table).where(table.c.id.in_(old))).rowcount


@contextlib.contextmanager
def _claiming(
    engine: sa.Engine, which: sa.ColumnElement[bool], limit: int, *, skip_locked: bool, key_share: bool
) -> Iterator[tuple[sa.Connection, list[Due]]]:
    """Give some segments, the one due longest first, and a connection that commits at the end.

    Args:
        skip_locked: leave out those that somebody else has claimed, instead of waiting.
        key_share: let others write rows that refer to them meanwhile.
    """
    segments = tables.segments
    is_erased = segments.c.expires_on == tables.ERASED
    columns = [segments.c.number, segments.c.id, segments.c.account, segments.c.session, is_erased]
    query = sa.select(*columns).where(which).order_by(segments.c.expires_on, segments.c.number).limit(limit)
    if engine.dialect.name == "postgresql":
        with engine.begin() as connection:
            locked = query.with_for_update(of=segments, skip_locked=skip_locked, key_share=key_share)
            yield connection, [Due(*row) for row in connection.execute(locked)]
        return
    # A transaction that reads first and writes later fails in SQLite as soon as anybody else has written.
    with engine.connect() as connection:
        due = [Due(*row) for row in connection.execute(query)]
    with engine.begin() as connection:
        yield connection, due
