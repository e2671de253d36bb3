"""Legal holds: what is under one neither expires nor is erased until somebody releases it, with a reason."""

from datetime import date

import msgspec
import sqlalchemy as sa

from bailee.policy.periods import Period
from bailee.policy.problems import Problem
from bailee.vault import ceilings, tables
from bailee.vault.keystore import Keystore

REASON_CHARACTERS = 500
# Drawn once: whoever places a hold has this lock alone, whoever acts on what no hold covers shares it.
_HOLDS = 6_048_213_977_150_446


class Hold(msgspec.Struct, frozen=True):
    """A legal hold; times are milliseconds since 1970 UTC.

    Attributes:
        session: the session it covers; None covers all that the account holds, now and later.
    """

    id: str
    account: str
    session: str | None
    reason: str
    placed_by: str
    placed_ms: int
    released_by: str | None = None
    released_ms: int | None = None
    release_reason: str | None = None


class UnderHold(Problem):
    """What is to go is under a legal hold; it is told with its reason, which is not for everybody."""

    def without_reason(self) -> Problem:
        """Return what the account holder is told, who may not know why."""
        return Problem(
            "a legal hold keeps it: it is neither erased nor withdrawn until the hold is released",
            fix="ask whoever placed it, who can tell you why; when that was is in the ledger",
        )


class PlacedHold(Hold, frozen=True):
    """A hold that was just placed.

    Attributes:
        gone: segments that it would cover if their keys were not gone already: expired or erased before.
    """

    gone: int = 0


def lock_holds(connection: sa.Connection, *, placing: bool = False) -> None:
    """Let the holds stay as they are until the transaction ends, of which this is the first statement.

    Keys lie in another database than holds: without it a hold could be placed between the look at holds and
    the destruction of what it covers. In SQLite it is the vault's write lock, in PostgreSQL a lock of its
    own, so that nodes destroy at once and recorders write meanwhile.

    Args:
        placing: to place a hold: nobody destroys or marks anything meanwhile.
    """
    if connection.dialect.name == "postgresql":
        kind = "" if placing else "_shared"
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock{kind}(%s)", (_HOLDS,))
    else:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def place_hold(connection: sa.Connection, hold: Hold) -> Hold:
    """Place a hold, in a transaction that has done nothing yet.

    Raises:
        Problem: it names no reason, or the account's erasure is decided.
    """
    check_reason(hold.reason)
    lock_holds(connection, placing=True)
    if ceilings.has_ended(connection, hold.account):
        raise Problem("the account is being erased, and nothing of it is left to hold", where="--account")
    connection.execute(sa.insert(tables.holds), msgspec.to_builtins(hold))
    return hold


def count_gone(connection: sa.Connection, keystore: Keystore, hold: Hold, today: date) -> int:
    """Return of how many segments that a hold covers the keys are gone, in the transaction that places it.

    Raises:
        Problem: nothing is left of the session that it is on.
    """
    segments = tables.segments
    covered = segments.c.account == hold.account
    if hold.session is not None:
        covered = sa.and_(covered, segments.c.session == hold.session)
    has_ended = sa.or_(segments.c.is_destroyed, segments.c.expires_on <= today)
    due = connection.execute(sa.select(segments.c.id, segments.c.expires_on).where(covered, has_ended)).all()
    # What is marked as erased goes in any case: the ledger has been told that it is gone.
    kept = [row.id for row in due if row.expires_on != tables.ERASED]
    gone = len(due) - keystore.count_held(kept)
    count = sa.select(sa.func.count()).select_from(segments).where(covered)
    if hold.session is not None and gone and gone == connection.execute(count).scalar_one():
        raise Problem(
            f"session {hold.session!r} has expired or was erased: its keys are destroyed, and nothing of it "
            "opens any more",
            where="--session",
        )
    return gone


def release_hold(connection: sa.Connection, id: str, *, by: str, reason: str, at_ms: int) -> Hold:
    """Release a hold: what it covered goes its way by its own terms again.

    Raises:
        NotInForce: there is no such hold, or not any more.
        Problem: no reason is given.
    """
    check_reason(reason)
    table = tables.holds
    release = (
        sa.update(table)
        .where(table.c.id == id, table.c.released_ms.is_(None))
        .values(released_by=by, released_ms=at_ms, release_reason=reason)
    )
    if connection.execute(release).rowcount == 0:
        raise NotInForce(f"there is no hold {id!r} in force", where="HOLD_ID", fix="see: bailee holds list")
    (found,) = list_holds(connection, table.c.id == id)
    return found


def list_holds(connection: sa.Connection, *which: sa.ColumnElement[bool]) -> list[Hold]:
    """Return holds, the one placed last first; released ones included unless `which` leaves them out."""
    table = tables.holds
    query = sa.select(table).where(*which).order_by(table.c.placed_ms.desc(), table.c.id)
    return [Hold(**row._mapping) for row in connection.execute(query)]


class NotInForce(Problem):
    """There is no such hold, or it was released already."""


def count_freed(connection: sa.Connection, hold: Hold, today: date) -> tuple[int, int]:
    """Return how many segments the release of a hold would free, and how many of them would go at once.

    What another hold covers as well stays. Any hold of an account keeps all disks of its cloud sessions, and
    these have no day meanwhile.
    """
    table, segments = tables.holds, tables.segments
    others = sa.and_(
        table.c.id != hold.id,
        table.c.account == hold.account,
        table.c.released_ms.is_(None),
        sa.or_(table.c.session.is_(None), table.c.session == segments.c.session),
    )
    of_account = sa.and_(segments.c.account == hold.account, segments.c.is_destroyed.is_(False))
    covered = [of_account, segments.c.flow != tables.DISKS]
    if hold.session is not None:
        covered.append(segments.c.session == hold.session)
    is_due = sa.case((segments.c.expires_on <= today, 1), else_=0)
    counts = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(is_due), 0)).where(
        *covered, ~sa.select(sa.literal(1)).where(others).correlate(segments).exists()
    )
    freed, due = connection.execute(counts).one()
    if not list_holds(connection, covering(hold.account), table.c.id != hold.id):
        disks = sa.select(segments).where(of_account, segments.c.flow == tables.DISKS)
        for row in connection.execute(disks).all():
            ends = Period.parse(row.retention, where="vault.db").expires_on(row.day)
            freed += 1
            due += ends is not None and ends <= today
    return freed, due


def covering(account: str, session: str | None = None) -> sa.ColumnElement[bool]:
    """Match the holds in force that cover a session; without one, any hold of the account."""
    table = tables.holds
    match = sa.and_(table.c.account == account, table.c.released_ms.is_(None))
    if session is None:
        return match
    return sa.and_(match, sa.or_(table.c.session.is_(None), table.c.session == session))


def read_covered(connection: sa.Connection) -> set[tuple[str, str | None]]:
    """Return what holds in force cover: accounts and sessions, None for every session of the account."""
    table = tables.holds
    query = sa.select(table.c.account, table.c.session).where(table.c.released_ms.is_(None))
    return {(row.account, row.session) for row in connection.execute(query)}


def is_held() -> sa.ColumnElement[bool]:
    """Match the segments that a hold in force covers."""
    table, segments = tables.holds, tables.segments
    return (
        sa.select(sa.literal(1))
        .where(
            table.c.account == segments.c.account,
            table.c.released_ms.is_(None),
            sa.or_(table.c.session.is_(None), table.c.session == segments.c.session),
        )
        .correlate(segments)
        .exists()
    )


def check_reason(reason: str) -> str:
    """Return a reason unchanged.

    Raises:
        Problem: it is empty, long, or not one line.
    """
    if not reason.strip() or len(reason) > REASON_CHARACTERS or not reason.isprintable():
        raise Problem(
            "a reason is one printable line",
            where="--reason",
            fix=f"say why in up to {REASON_CHARACTERS} characters, such as a case number",
        )
    return reason
