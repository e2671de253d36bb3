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
from bailee.policy.periods import NONE
from bailee.policy.problems import Problem
from bailee.vault import tables
from bailee.vault.ceilings import Ceiling, lower
from bailee.vault.copies.cascade import Reached, Told
from bailee.vault.copies.registry import call_in_sessions, find_copies
from bailee.vault.destruction import destroy_batch, reclaim_batch
from bailee.vault.holds import covering, is_held, list_holds
from bailee.vault.keystore import Keystore


class Erasure(msgspec.Struct, frozen=True):
    """What an erasure removed, or would remove: counts and sizes, no content.

    Attributes:
        session: None for everything of the account.
        is_overwritten: whether the destroyed keys' bytes are gone from the disk. They are not while a process
            reads the keystore as it was before; a running service sees to it once that process is done. With
            PostgreSQL they never are at once (docs/adr/0010).
        copies: copies outside the vault that hold some of it, and whether they do not any more.
    """

    account: str
    session: str | None
    segments: int
    records: int
    exchanges: int
    stored_bytes: int
    is_overwritten: bool = True
    copies: Reached = Reached()


def count_session(engine: sa.Engine, account: str, session: str) -> Erasure:
    """Return what erasing a session would remove.

    Raises:
        Problem: nothing is known of that session: erasing nothing is no success.
    """
    counted = _count(engine, account, session)
    if not (counted.segments or counted.exchanges):
        raise Problem(f"there is no session {session!r}", fix="see: bailee sessions list")
    return counted


def count_account(engine: sa.Engine, account: str) -> Erasure:
    """Return what erasing everything that an account holds would remove; that may be nothing."""
    return _count(engine, account, None)


def erase(
    engine: sa.Engine, keystore: Keystore, account: str, session: str | None, *, entry: Erased
) -> tuple[list[bytes], bool]:
    """Destroy the keys of a session, or of all that an account holds, and remove its records and facts.

    A running service notices with its next write and begins a new segment; of an account that is erased, what
    was still on its way is erased as it comes.

    Args:
        entry: what the ledger is told; its time is that of the erasure.

    Returns:
        The ids of the segments, and whether the bytes of their keys are off the disk already.

    Raises:
        Problem: a legal hold covers it.
    """
    refuse_held(engine, account, session)
    segments, exchanges = tables.segments, tables.exchanges
    of_segments, of_exchanges = _of(segments, account, session), _of(exchanges, account, session)
    # Exactly what is marked: a segment that begins meanwhile has a key of its own, and stays.
    marked = sa.and_(of_segments, segments.c.expires_on == tables.ERASED)
    with engine.begin() as connection:
        # A hold that was placed since is honoured: what it covers is not marked.
        mark = sa.update(segments).where(of_segments, ~is_held()).values(expires_on=tables.ERASED)
        connection.execute(mark)
        if session is None:
            lower(connection, account, Ceiling(NONE, trainable=False), at_ms=entry.at_ms)
        connection.execute(sa.delete(exchanges).where(of_exchanges, exchanges.c.segment.is_(None)))
        call_in_sessions(connection, account, session, at_ms=entry.at_ms)
        put(connection, tables.vault_outbox, [entry])
        ids = list(connection.execute(sa.select(segments.c.id).where(marked)).scalars())
    today = datetime.fromtimestamp(entry.at_ms / 1000, UTC).date()
    while destroy_batch(engine, keystore, today=today, at_ms=entry.at_ms, which=marked):
        pass
    is_overwritten = keystore.truncate_log() and is_overwriting(keystore.engine)
    while reclaim_batch(engine).segments:
        pass
    truncate_log(engine)
    return ids, is_overwritten


def refuse_held(engine: sa.Engine, account: str, session: str | None) -> None:
    """Refuse to erase what somebody holds.

    Raises:
        Problem: naming the hold.
    """
    with engine.connect() as connection:
        for hold in list_holds(connection, covering(account, session)):
            what = f"session {hold.session!r}" if hold.session else "all that the account holds"
            raise Problem(
                f"{what} is under legal hold {hold.id} since {_day(hold.placed_ms)}: {hold.reason}",
                where="holds",
                fix=f"when the hold has ended: bailee holds release {hold.id} --reason REASON",
            )


def _count(engine: sa.Engine, account: str, session: str | None) -> Erasure:
    segments, records, exchanges = tables.segments, tables.records, tables.exchanges
    held = _of(segments, account, session)
    sizes = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(sa.func.length(records.c.sealed)), 0))
    sizes = sizes.select_from(records.join(segments, segments.c.number == records.c.segment)).where(held)
    with engine.connect() as connection:
        ids = list(connection.execute(sa.select(segments.c.id).where(held)).scalars())
        record_count, stored = connection.execute(sizes).one()
        exchange_count = connection.execute(
            sa.select(sa.func.count()).select_from(exchanges).where(_of(exchanges, account, session))
        ).scalar_one()
    copies = _tell_copies(engine, account, session, ids)
    return Erasure(account, session, len(ids), record_count, exchange_count, stored, copies=copies)


def _tell_copies(engine: sa.Engine, account: str, session: str | None, segments: list[bytes]) -> Reached:
    """Return the copies that an erasure would reach, and those that it would leave to the account holder."""
    told = Reached()
    for copy in find_copies(engine, account, session, segments):
        (told.holders if copy.is_holders else told.reached).append(Told(copy.id, copy.kind, copy.folder))
    return told


def _of(table: sa.Table, account: str, session: str | None) -> sa.ColumnElement[bool]:
    of_account = table.c.account == account
    return of_account if session is None else sa.and_(of_account, table.c.session == session)


def _day(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).date().isoformat()
