"""Legal holds: what is under one neither expires nor is erased until somebody releases it, with a reason."""

import msgspec
import sqlalchemy as sa

from bailee.policy.problems import Problem
from bailee.vault import tables

REASON_CHARACTERS = 500


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


def place_hold(connection: sa.Connection, hold: Hold) -> Hold:
    """Place a hold.

    Raises:
        Problem: it names no reason.
    """
    check_reason(hold.reason)
    connection.execute(sa.insert(tables.holds), msgspec.to_builtins(hold))
    return hold


def release_hold(connection: sa.Connection, id: str, *, by: str, reason: str, at_ms: int) -> Hold:
    """Release a hold: what it covered goes its way by its own terms again.

    Raises:
        Problem: there is no such hold in force, or no reason is given.
    """
    check_reason(reason)
    table = tables.holds
    release = (
        sa.update(table)
        .where(table.c.id == id, table.c.released_ms.is_(None))
        .values(released_by=by, released_ms=at_ms, release_reason=reason)
    )
    if connection.execute(release).rowcount == 0:
        raise Problem(f"there is no hold {id!r} in force", where="HOLD_ID", fix="see: bailee holds list")
    (found,) = list_holds(connection, table.c.id == id)
    return found


def list_holds(connection: sa.Connection, *which: sa.ColumnElement[bool]) -> list[Hold]:
    """Return holds, the one placed last first; released ones included unless `which` leaves them out."""
    table = tables.holds
    query = sa.select(table).where(*which).order_by(table.c.placed_ms.desc(), table.c.id)
    return [Hold(**row._mapping) for row in connection.execute(query)]


def covering(account: str, session: str | None = None) -> sa.ColumnElement[bool]:
    """Match the holds in force that cover a session; without one, any hold of the account."""
    table = tables.holds
    match = sa.and_(table.c.account == account, table.c.released_ms.is_(None))
    if session is None:
        return match
    return sa.and_(match, sa.or_(table.c.session.is_(None), table.c.session == session))


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
