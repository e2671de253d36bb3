"""Erases sessions and accounts: keys first, so that no copy of the vault opens any more; then what they
sealed.

An erasure marks what is to go and then does what the sweeper does (`vault.destruction`). Killed in between,
it is finished by the sweeper, or by erasing again.
"""

from datetime import UTC, datetime

import msgspec
import sqlalchemy as sa

from bailee.database.engines import is_overwriting, truncate_log
from bailee.ledger.entries import Erased
from bailee.ledger.outbox import put
from bailee.policy.problems import Problem
from bailee.vault import tables
from bailee.vault.ceilings import end
from bailee.vault.copies.cascade import Reached, Told
from bailee.vault.copies.registry import call_in_sessions, find_copies
from bailee.vault.destruction import destroy_batch, give_back_batch, reclaim_batch
from bailee.vault.holds import UnderHold, covering, list_holds, lock_holds
from bailee.vault.keystore import Keystore


class Erasure(msgspec.Struct, frozen=True):
    """What an erasure removed, or would remove: counts and sizes, no content.

    Attributes:
        session: None for everything of the account.
        is_overwritten: whether the destroyed keys' bytes are gone from the disk. They are not while a process
            reads the keystore as it was before; a running service sees to it once that process is done. With
            PostgreSQL they never are at once (docs/adr/0010).
        copies: copies outside the vault that hold some of it, and whether they do not any more. Those that an
            erasure would reach count as reached until it has tried.
    """

    account: str
    session: str | None
    segments: int
    records: int
    exchanges: int
    stored_bytes: int
    is_overwritten: bool = True
    copies: Reached = Reached()

    @property
    def is_something(self) -> bool:
        """Whether there was anything to remove."""
        return bool(self.segments or self.exchanges)

    def with_later(self, later: "Erasure") -> "Erasure":
        """Return this together with what was removed after it."""
        return msgspec.structs.replace(
            self,
            segments=self.segments + later.segments,
            records=self.records + later.records,
            exchanges=self.exchanges + later.exchanges,
            stored_bytes=self.stored_bytes + later.stored_bytes,
            is_overwritten=self.is_overwritten and later.is_overwritten,
        )


class NothingHeld(Problem):
    """Nothing is held of a session: there never was anything, or it is gone."""


def count_session(engine: sa.Engine, account: str, session: str) -> Erasure:
    """Return what erasing a session would remove.

    Raises:
        NothingHeld: erasing nothing is no success.
    """
    counted = _count(engine, account, session)
    if not counted.is_something:
        raise NothingHeld(f"there is no session {session!r}", fix="see: bailee sessions list")
    return counted


def count_account(engine: sa.Engine, account: str) -> Erasure:
    """Return what erasing everything that an account holds would remove; that may be nothing."""
    return _count(engine, account, None)


def erase(
    engine: sa.Engine,
    keystore: Keystore,
    account: str,
    session: str | None,
    *,
    entry: Erased,
    again: bool = False,
) -> tuple[Erasure, list[bytes]]:
    """Destroy the keys of a session, or of all that an account holds, and remove its records and facts.

    A running service notices with its next write and begins a new segment; of an account that is erased, what
    was still on its way is erased as it comes.

    Args:
        entry: what the ledger is told, with the counts of what is marked; its time is that of the erasure.
        again: only what came since it was erased before; the ledger is told if anything did.

    Returns:
        What went, and the ids of the segments.

    Raises:
        Problem: a legal hold covers it: nothing is marked.
    """
    with engine.begin() as connection:
        lock_holds(connection)
        _refuse_held(connection, account, session)
        marked, new, ids = _mark(connection, account, session, at_ms=entry.at_ms, again=again)
        if not again:
            # Of what comes later nothing is in a copy: none is written of an account that is being erased.
            marked = msgspec.structs.replace(marked, copies=_tell_copies(connection, account, session, ids))
        if not again or marked.is_something:
            # What another erasure marked before it, and is about to destroy, was told then.
            put(connection, tables.vault_outbox, [_tell(entry, new, marked.copies)])
    is_overwritten = _destroy_marked(engine, keystore, account, session, at_ms=entry.at_ms)
    return msgspec.structs.replace(marked, is_overwritten=is_overwritten), ids


def mark_remnants(engine: sa.Engine, account: str, *, at_ms: int) -> int:
    """Mark what is left, or came since, of an account whose erasure is decided; return how many segments.

    They go with all that is due.
    """
    with engine.connect() as connection:
        if not _has_remnants(connection, account):
            return 0
    with engine.begin() as connection:
        lock_holds(connection)
        if list_holds(connection, covering(account)):
            return 0
        return _mark(connection, account, None, at_ms=at_ms, again=True)[0].segments


def refuse_held(engine: sa.Engine, account: str, session: str | None) -> None:
    """Refuse to erase what somebody holds.

    Raises:
        Problem: naming the hold.
    """
    with engine.connect() as connection:
        _refuse_held(connection, account, session)


def _destroy_marked(
    engine: sa.Engine, keystore: Keystore, account: str, session: str | None, *, at_ms: int
) -> bool:
    """Destroy what is marked as erased; tell whether the bytes of its keys are off the disk already."""
    # Exactly what is marked: a segment that begins meanwhile has a key of its own, and stays.
    marked = sa.and_(_of(tables.segments, account, session), tables.segments.c.expires_on == tables.ERASED)
    today = datetime.fromtimestamp(at_ms / 1000, UTC).date()
    while destroy_batch(engine, keystore, today=today, at_ms=at_ms, which=marked):
        pass
    is_overwritten = keystore.truncate_log() and is_overwriting(keystore.engine)
    while reclaim_batch(engine).segments:
        give_back_batch(engine)
    truncate_log(engine)
    return is_overwritten


def _refuse_held(connection: sa.Connection, account: str, session: str | None) -> None:
    for hold in list_holds(connection, covering(account, session)):
        what = f"session {hold.session!r}" if hold.session else "all that the account holds"
        raise UnderHold(
            f"{what} is under legal hold {hold.id} since {_day(hold.placed_ms)}: {hold.reason}",
            where="holds",
            fix=f"when the hold has ended: bailee holds release {hold.id} --reason REASON",
        )


def _mark(
    connection: sa.Connection, account: str, session: str | None, *, at_ms: int, again: bool
) -> tuple[Erasure, Erasure, list[bytes]]:
    """Mark all that is to go, in a transaction in which the holds stay as they are.

    Returns:
        What goes, how much of that nobody had marked before, and the ids of the segments.
    """
    segments, exchanges, holds = tables.segments, tables.exchanges, tables.holds
    which, facts = _of(segments, account, session), _facts(account, session)
    of_exchanges = _of(exchanges, account, session)
    untouched = sa.and_(which, _is_untouched())
    begun = exchanges.c.segment.in_(sa.select(segments.c.number).where(untouched))
    of_untouched = sa.or_(facts, sa.and_(of_exchanges, begun))
    if again:
        which, of_exchanges = untouched, of_untouched
    counted = _measure(connection, account, session, which, of_exchanges)
    new = _measure(connection, account, session, untouched, of_untouched)
    mark = sa.update(segments).where(which).values(expires_on=tables.ERASED).returning(segments.c.id)
    ids = list(connection.execute(mark).scalars())
    if session is None:
        end(connection, account)
        # Released ones: they would keep the account's id, names and reasons.
        connection.execute(sa.delete(holds).where(holds.c.account == account))
    connection.execute(sa.delete(exchanges).where(facts))
    for table in tables.OF_REPORTS:
        of_report = sa.true() if session is None else table.c.report == session
        connection.execute(sa.delete(table).where(table.c.account == account, of_report))
    call_in_sessions(connection, account, session, at_ms=at_ms)
    return msgspec.structs.replace(counted, segments=len(ids)), new, ids


def _has_remnants(connection: sa.Connection, account: str) -> bool:
    segments, copies, holds = tables.segments, tables.copies, tables.holds
    queries = (
        sa.select(segments.c.number).where(segments.c.account == account, _is_untouched()),
        sa.select(tables.exchanges.c.id).where(_facts(account, None)),
        sa.select(copies.c.id).where(copies.c.account == account, copies.c.is_ended.is_(False)),
        sa.select(holds.c.id).where(holds.c.account == account),
    )
    return any(connection.execute(query.limit(1)).first() is not None for query in queries)


def _tell(entry: Erased, marked: Erasure, copies: Reached) -> Erased:
    return msgspec.structs.replace(
        entry,
        segments=marked.segments,
        records=marked.records,
        exchanges=marked.exchanges,
        stored_bytes=marked.stored_bytes,
        copies=len(copies.reached) + len(copies.holders),
    )


def _count(engine: sa.Engine, account: str, session: str | None) -> Erasure:
    segments = tables.segments
    held = _of(segments, account, session)
    with engine.connect() as connection:
        counted = _measure(connection, account, session, held, _of(tables.exchanges, account, session))
        ids = list(connection.execute(sa.select(segments.c.id).where(held)).scalars())
        copies = _tell_copies(connection, account, session, ids)
    return msgspec.structs.replace(counted, copies=copies)


def _measure(
    connection: sa.Connection,
    account: str,
    session: str | None,
    which: sa.ColumnElement[bool],
    of_exchanges: sa.ColumnElement[bool],
) -> Erasure:
    """Return how much some segments of an account and some exchanges are."""
    segments, records, exchanges = tables.segments, tables.records, tables.exchanges
    count = sa.select(sa.func.count())
    sizes = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(sa.func.length(records.c.sealed)), 0))
    sizes = sizes.select_from(records.join(segments, segments.c.number == records.c.segment)).where(which)
    record_count, stored = connection.execute(sizes).one()
    return Erasure(
        account,
        session,
        connection.execute(count.select_from(segments).where(which)).scalar_one(),
        record_count,
        connection.execute(count.select_from(exchanges).where(of_exchanges)).scalar_one(),
        stored,
    )


def _tell_copies(
    connection: sa.Connection, account: str, session: str | None, segments: list[bytes]
) -> Reached:
    """Return the copies that an erasure would reach, and those that it would leave to the account holder."""
    told = Reached()
    for copy in find_copies(connection, account, session, segments):
        (told.holders if copy.is_holders else told.reached).append(Told(copy.id, copy.kind, copy.folder))
    return told


def _of(table: sa.Table, account: str, session: str | None) -> sa.ColumnElement[bool]:
    of_account = table.c.account == account
    return of_account if session is None else sa.and_(of_account, table.c.session == session)


def _facts(account: str, session: str | None) -> sa.ColumnElement[bool]:
    """Match exchanges of which no content was kept: no segment takes them with it."""
    return sa.and_(_of(tables.exchanges, account, session), tables.exchanges.c.segment.is_(None))


def _is_untouched() -> sa.ColumnElement[bool]:
    """Match segments that are neither marked as erased nor destroyed."""
    expires_on = tables.segments.c.expires_on
    is_erased = sa.and_(expires_on.isnot(None), expires_on == tables.ERASED)
    return sa.and_(tables.segments.c.is_destroyed.is_(False), ~is_erased)


def _day(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).date().isoformat()
