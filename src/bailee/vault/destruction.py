"""Destroys segments whose time has come: first all keys, so that nothing opens, then the rows they leave.

Whoever wants something gone, a person or the calendar, only marks it; this does the rest, in steps that are
each safe to do again. So a crash leaves nothing half gone: what was marked is found and finished by whoever
comes next.
"""

import contextlib
from array import array
from collections.abc import Callable, Container, Iterator, Sequence
from datetime import date
from typing import Any, NamedTuple

import sqlalchemy as sa

from bailee.database.engines import give_back, is_shared
from bailee.database.statements import run_among
from bailee.vault import tables
from bailee.vault.copies.registry import call_in
from bailee.vault.holds import is_held, lock_holds, read_covered
from bailee.vault.keystore import Keystore

# How many segments a sweep keeps in mind between destroying their keys and marking them: 16 MB.
_MARKS = 2_000_000
_READ_AT_A_TIME = 20_000
# Large enough that a commit's sync is shared, small enough that a recorder waits for the write lock some 50
# ms.
BATCH = 2000
# What a batch frees takes a fraction of a second; more than this is left from an earlier program.
_GIVING_SECONDS = 2.0
_MARK_DESTROYED = "UPDATE segments SET is_destroyed = true WHERE number {among}"
_READ_MARKED = "SELECT id, expires_on FROM segments WHERE number {among}"
_REASONS = (("erased", True), ("expired", False))
_MEASURE_RECORDS = "SELECT COALESCE(SUM(LENGTH(sealed)), 0) FROM records WHERE segment {among}"
_DELETE_RECORDS = "DELETE FROM records WHERE segment {among}"
_DELETE_SEGMENTS = "DELETE FROM segments WHERE number {among}"


class Due(NamedTuple):
    """A segment whose time has come."""

    number: int
    id: bytes
    account: str
    session: str
    expires_on: date

    @property
    def is_erased(self) -> bool:
        """Whether somebody had it erased, before its day."""
        return self.expires_on == tables.ERASED

    def is_among(self, covered: Container[tuple[str, str | None]]) -> bool:
        """Tell whether it is among what holds cover (`holds.read_covered`)."""
        return (self.account, None) in covered or (self.account, self.session) in covered


class Reclaimed(NamedTuple):
    """Rows that went, and the bytes of content in them."""

    segments: int
    records: int
    exchanges: int
    stored_bytes: int


def is_due(today: date) -> sa.ColumnElement[bool]:
    """Match segments whose keys are to be destroyed: erased, or expired and under no hold.

    What is erased was under no hold as that was decided and ledgered; a later one comes too late for it.
    """
    segments = tables.segments
    is_free = sa.or_(segments.c.expires_on == tables.ERASED, ~is_held())
    return sa.and_(segments.c.is_destroyed.is_(False), segments.c.expires_on <= today, is_free)


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
    due_ones = is_due(today) if which is None else sa.and_(is_due(today), which)
    # A recorder that writes into a segment holds up its deletion, and not the destruction of its key.
    claiming = _claiming(engine, due_ones, limit, skip_locked=which is None, is_destroying=True)
    with claiming as (connection, due):
        if not due:
            return 0
        gone = _destroy(keystore, due, at_ms)
        run_among(connection, _MARK_DESTROYED, [segment.number for segment in due])
        for why, ids in gone.items():
            call_in(connection, why, ids, at_ms=at_ms)
        return len(due)


def destroy_due(
    engine: sa.Engine,
    keystore: Keystore,
    *,
    today: date,
    at_ms: int,
    report: Callable[[int], None],
    limit: int = BATCH,
) -> "array[int]":
    """Destroy the keys of all segments that are due; return the numbers of those still to be marked.

    In files, marking is left for later (`mark_destroyed`): a day's segments are all over the vault, a page of
    4 KB to each, and marking a million took longer than destroying their keys. Keys are taken in the order in
    which they lie, and holds are looked at again with each batch: what was read is seconds old by then.
    Killed in between, the next sweep finds the same segments due and their keys gone.

    Args:
        today: the UTC day that has begun.
        at_ms: milliseconds since 1970 UTC, for the ledger.
        report: told after each batch how many were in it.
    """
    numbers = array("q")
    if is_shared(engine):
        while count := destroy_batch(engine, keystore, today=today, at_ms=at_ms, limit=limit):
            report(count)
        return numbers
    segments = tables.segments
    place = sa.tuple_(segments.c.expires_on, segments.c.number)
    which = is_due(today)
    while len(numbers) < _MARKS:
        with engine.connect() as connection:
            due = [Due(*row) for row in connection.execute(_ask(which, _READ_AT_A_TIME)).all()]
        if not due:
            break
        last = due[-1]
        due.sort(key=lambda segment: segment.id)
        for start in range(0, len(due), limit):
            gone = _destroy_free(engine, keystore, due[start : start + limit], at_ms)
            numbers.extend(segment.number for segment in gone)
            report(len(gone))
        which = sa.and_(
            is_due(today), place > sa.tuple_(sa.literal(last.expires_on), sa.literal(last.number))
        )
    return numbers


def mark_destroyed(engine: sa.Engine, numbers: Sequence[int], *, at_ms: int, limit: int = BATCH) -> None:
    """Mark segments whose keys are destroyed, so that their rows are deleted next, and what copies hold of
    them.
    """
    ordered = sorted(numbers)
    for start in range(0, len(ordered), limit):
        some = ordered[start : start + limit]
        with engine.begin() as connection:
            # Writes first: in SQLite a transaction that reads first fails as soon as another has written.
            run_among(connection, _MARK_DESTROYED, some)
            marked = [(row.id, row.expires_on) for row in run_among(connection, _READ_MARKED, some)]
            for why, is_erased in _REASONS:
                ids = [id for id, day in marked if (day == str(tables.ERASED)) is is_erased]
                call_in(connection, why, ids, at_ms=at_ms)


def _destroy_free(engine: sa.Engine, keystore: Keystore, due: Sequence["Due"], at_ms: int) -> list["Due"]:
    """Destroy the keys of those segments that no hold covers by now, and return them."""
    with engine.begin() as connection:
        lock_holds(connection)
        covered = read_covered(connection)
        free = [segment for segment in due if segment.is_erased or not segment.is_among(covered)]
        _destroy(keystore, free, at_ms)
    return free


def _destroy(keystore: Keystore, due: Sequence["Due"], at_ms: int) -> dict[str, list[bytes]]:
    """Destroy keys, and return the segments' ids by the reason."""
    by_reason = {
        why: [segment.id for segment in due if segment.is_erased is is_erased] for why, is_erased in _REASONS
    }
    for why, ids in by_reason.items():
        if ids:
            keystore.destroy(ids, why=why, at_ms=at_ms)
    return by_reason


def reclaim_batch(engine: sa.Engine, *, limit: int = BATCH) -> Reclaimed:
    """Delete the rows of some segments whose keys are destroyed."""
    exchanges = tables.exchanges
    destroyed = tables.segments.c.is_destroyed.is_(True)
    with _claiming(engine, destroyed, limit, skip_locked=True, is_destroying=False) as (connection, gone):
        if not gone:
            return Reclaimed(0, 0, 0, 0)
        numbers = [segment.number for segment in gone]
        stored = run_among(connection, _MEASURE_RECORDS, numbers).scalar_one()
        record_count = run_among(connection, _DELETE_RECORDS, numbers).rowcount
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
        run_among(connection, _DELETE_SEGMENTS, numbers)
        return Reclaimed(len(gone), record_count, exchange_count, stored)


def give_back_batch(engine: sa.Engine) -> int:
    """Give back what a batch of rows has just freed; return how many bytes that were.

    Now, in SQLite, and not once all rows are gone: what giving a page back costs grows with the list of free
    pages. Those of 1 million segments took over a quarter of an hour, and a writer waited for seconds.
    """
    return 0 if is_shared(engine) else give_back(engine, _GIVING_SECONDS)


def forget_facts(engine: sa.Engine, *, before_ms: int, limit: int = 10 * BATCH) -> int:
    """Delete facts of exchanges of which no content was ever kept, begun before a moment; return how many."""
    table = tables.exchanges
    # Ids begin with the time (`Recording.new_exchange`), so that the primary key finds the oldest.
    old = sa.select(table.c.id).where(table.c.id < before_ms << 21, table.c.segment.is_(None))
    old = old.order_by(table.c.id).limit(limit)
    with engine.begin() as connection:
        return connection.execute(sa.delete(table).where(table.c.id.in_(old))).rowcount


def forget_reports(engine: sa.Engine) -> int:
    """Delete what is noted of reports of which nothing is held any more; return how many notes those are."""
    return sum(_forget_gone(engine, table) for table in tables.OF_REPORTS)


def _forget_gone(engine: sa.Engine, table: sa.Table) -> int:
    exchanges = tables.exchanges
    held = sa.select(sa.literal(1)).where(
        exchanges.c.account == table.c.account, exchanges.c.session == table.c.report
    )
    gone = sa.select(table.c.account, table.c.report).where(~held.correlate(table).exists())
    with engine.connect() as connection:
        rows = [{"of_account": row.account, "of_report": row.report} for row in connection.execute(gone)]
    if not rows:
        return 0
    delete = sa.delete(table).where(
        table.c.account == sa.bindparam("of_account"), table.c.report == sa.bindparam("of_report")
    )
    with engine.begin() as connection:
        return connection.execute(delete, rows).rowcount


@contextlib.contextmanager
def _claiming(
    engine: sa.Engine, which: sa.ColumnElement[bool], limit: int, *, skip_locked: bool, is_destroying: bool
) -> Iterator[tuple[sa.Connection, list[Due]]]:
    """Give some segments, the one due longest first, and a connection that commits at the end.

    Args:
        skip_locked: leave out those that somebody else has claimed, instead of waiting. Who waits is at
            what was erased: no hold that is placed meanwhile covers it.
        is_destroying: their keys are to be destroyed: nobody places a hold meanwhile, and others may write
            rows that refer to them.
    """
    query = _ask(which, limit)
    if engine.dialect.name == "postgresql":
        with engine.begin() as connection:
            if is_destroying and skip_locked:
                lock_holds(connection)
            locked = query.with_for_update(
                of=tables.segments, skip_locked=skip_locked, key_share=is_destroying
            )
            yield connection, [Due(*row) for row in connection.execute(locked).all()]
        return
    # A transaction that reads first and writes later fails in SQLite as soon as anybody else has written.
    # Files are swept by `destroy_due`: only what was erased is destroyed here.
    with engine.connect() as connection:
        due = [Due(*row) for row in connection.execute(query).all()]
    with engine.begin() as connection:
        yield connection, due


def _ask(which: sa.ColumnElement[bool], limit: int) -> "sa.Select[Any]":
    segments = tables.segments
    columns = [
        segments.c.number,
        segments.c.id,
        segments.c.account,
        segments.c.session,
        segments.c.expires_on,
    ]
    return sa.select(*columns).where(which).order_by(segments.c.expires_on, segments.c.number).limit(limit)
