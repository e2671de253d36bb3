"""Erases sessions: the key first, so that no copy of the vault opens any more; then what the key sealed.

The order makes a crash harmless: after the first step nothing can be read, after the second nothing is left,
and erasing again finishes what was begun.
"""

import msgspec
import sqlalchemy as sa

from bailee.database.engines import truncate_log
from bailee.policy.problems import Problem
from bailee.vault import tables
from bailee.vault.keystore import Keystore


class Erasure(msgspec.Struct, frozen=True):
    """What an erasure removed, or would remove: counts and sizes, no content.

    Attributes:
        is_overwritten: whether the destroyed keys' bytes are gone from the disk. They are not while a process
            reads the keystore as it was before; a running service sees to it once that process is done.
    """

    account: str
    session: str
    segments: int
    records: int
    exchanges: int
    stored_bytes: int
    is_overwritten: bool = True


def count_session(engine: sa.Engine, account: str, session: str) -> Erasure:
    """Return what erasing a session would remove.

    Raises:
        Problem: nothing is known of that session: erasing nothing is no success.
    """
    segments, records, exchanges = tables.segments, tables.records, tables.exchanges
    held = sa.and_(segments.c.account == account, segments.c.session == session)
    with engine.connect() as connection:
        (segment_count,) = connection.execute(
            sa.select(sa.func.count()).where(held).select_from(segments)
        ).one()
        sizes = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(sa.func.length(records.c.sealed)), 0))
        record_count, stored = connection.execute(
            sizes.select_from(records.join(segments, segments.c.number == records.c.segment)).where(held)
        ).one()
        (exchange_count,) = connection.execute(
            sa.select(sa.func.count())
            .select_from(exchanges)
            .where(exchanges.c.account == account, exchanges.c.session == session)
        ).one()
    if not (segment_count or exchange_count):
        raise Problem(f"there is no session {session!r}", fix="see: bailee sessions list")
    return Erasure(account, session, segment_count, record_count, exchange_count, stored)


def erase_session(engine: sa.Engine, keystore: Keystore, account: str, session: str) -> Erasure:
    """Destroy a session's keys and remove its records and facts; return what was removed.

    A running service notices with its next write and begins a new segment.

    Raises:
        Problem: nothing is known of that session.
    """
    erased = count_session(engine, account, session)
    segments, records, exchanges = tables.segments, tables.records, tables.exchanges
    held = sa.and_(segments.c.account == account, segments.c.session == session)
    with engine.connect() as connection:
        begun = connection.execute(sa.select(segments.c.number, segments.c.id).where(held)).all()
    is_overwritten = keystore.destroy([segment.id for segment in begun])
    # Exactly these: a segment that begins meanwhile has a key of its own, and stays.
    numbers = [segment.number for segment in begun]
    of_session = sa.and_(exchanges.c.account == account, exchanges.c.session == session)
    without_content = sa.or_(exchanges.c.segment.is_(None), exchanges.c.segment.in_(numbers))
    with engine.begin() as connection:
        connection.execute(sa.delete(records).where(records.c.segment.in_(numbers)))
        connection.execute(sa.delete(exchanges).where(of_session, without_content))
        connection.execute(sa.delete(segments).where(segments.c.number.in_(numbers)))
    truncate_log(engine)
    return msgspec.structs.replace(erased, is_overwritten=is_overwritten)
