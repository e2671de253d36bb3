"""Tightens the terms of what is already held, at once; loosening never reaches back.

A ceiling is what the terms of an account are at most for a flow, from some moment on. It is kept, so that a
request admitted before that moment, whose segment is written after it, comes under it as well. Each flow has
its own: a report is held for its five years whatever becomes of the consent to train on conversations.
"""

from collections.abc import Iterable
from datetime import date

import msgspec
import sqlalchemy as sa

from bailee.policy.flows import FlowId
from bailee.policy.periods import NONE, Period, is_within, tighten
from bailee.vault import tables

# Later than any request is admitted: the year 9999, in milliseconds since 1970 UTC.
_FOR_EVER_MS = 253_370_764_800_000
# In place of a flow: all of them.
EVERY = "*"
# The flows of which something may be held under an account, so that its terms can be tightened. Ratings are
# nobody's; the recorder takes content of an account in no other flow.
HELD = (FlowId.MESSAGES, FlowId.METRICS, FlowId.ERRORS, FlowId.FEEDBACK, FlowId.WEB, FlowId.GIT)
# More of the latest ceilings than one tightening of all flows makes.
_LATEST = 4 * len(HELD)


class Ceiling(msgspec.Struct, frozen=True):
    """The longest retention and whether training is allowed at all."""

    retention: Period
    trainable: bool


def lower(connection: sa.Connection, account: str, flow: str, ceiling: Ceiling, *, at_ms: int) -> int:
    """Bring everything an account holds of a flow under a ceiling; return how many segments that changed.

    The caller's transaction holds the change and the ceiling together.

    Args:
        flow: a flow's id, or EVERY.
        at_ms: when the stricter terms were in force, milliseconds since 1970 UTC: read after they were.
    """
    table = tables.ceilings
    row = {
        "account": account,
        # Two changes of one millisecond keep their order, and their rows, of whatever flows.
        "at_ms": max(at_ms, _latest_ms(connection, table.c.account == account) + 1),
        "retention": str(ceiling.retention),
        "trainable": ceiling.trainable,
        "flow": flow,
    }
    connection.execute(sa.insert(table), row)
    segments = tables.segments
    of_flow = sa.true() if flow == EVERY else segments.c.flow == flow
    return bring_under(connection, sa.and_(segments.c.account == account, of_flow), ceiling)


def end(connection: sa.Connection, account: str) -> None:
    """Let nothing of an account stay, of any flow, whenever it comes: its erasure is decided.

    A ceiling of the moment would not do: requests go on until the account is gone, and a node whose clock is
    ahead dates them later. No account of that id ever comes again.
    """
    if not has_ended(connection, account):
        lower(connection, account, EVERY, Ceiling(NONE, trainable=False), at_ms=_FOR_EVER_MS)


def has_ended(connection: sa.Connection, account: str) -> bool:
    """Tell whether the erasure of an account is decided: it is gone, or is about to be."""
    table = tables.ceilings
    query = sa.select(table.c.account).where(table.c.account == account, table.c.at_ms >= _FOR_EVER_MS)
    return connection.execute(query.limit(1)).first() is not None


def list_ended(connection: sa.Connection) -> set[str]:
    """Return the accounts whose erasure is decided, those that are long gone included."""
    table = tables.ceilings
    return set(connection.execute(sa.select(table.c.account).where(table.c.at_ms >= _FOR_EVER_MS)).scalars())


def bring_under(connection: sa.Connection, which: sa.ColumnElement[bool], ceiling: Ceiling) -> int:
    """Tighten the terms of some segments; return how many that changed."""
    segments = tables.segments
    kinds = sa.select(segments.c.day, segments.c.retention).where(which).distinct()
    changed = 0
    for day, held in connection.execute(kinds).all():
        retention = tighten(Period.parse(held, where="vault.db"), ceiling.retention)
        expiry = retention.expires_on(day)
        of_kind = sa.and_(which, segments.c.day == day, segments.c.retention == held)
        if str(retention) != held:
            # Never later than it is: what is to be erased stays so.
            is_sooner = sa.or_(segments.c.expires_on.is_(None), segments.c.expires_on > expiry)
            change = sa.update(segments).values(retention=str(retention))
            change = change.values(expires_on=sa.case((is_sooner, expiry), else_=segments.c.expires_on))
            if not ceiling.trainable:
                change = change.values(trainable=False)
            changed += connection.execute(change.where(of_kind)).rowcount
        elif not ceiling.trainable:
            change = sa.update(segments).values(trainable=False).where(of_kind, segments.c.trainable)
            changed += connection.execute(change).rowcount
    return changed


def count_outlived(connection: sa.Connection, accounts: Iterable[str], limit: Period, today: date) -> int:
    """Return how many segments of some accounts are held beyond a limit, and go once it is in force."""
    table = tables.segments
    query = sa.select(table.c.day, sa.func.count()).group_by(table.c.day)
    query = query.where(
        table.c.account.in_(list(accounts)),
        table.c.is_destroyed.is_(False),
        sa.or_(table.c.expires_on.is_(None), table.c.expires_on > today),
    )
    rows = connection.execute(query).all()
    return sum(count for day, count in rows if (end := limit.expires_on(day)) is not None and end <= today)


def read_latest(connection: sa.Connection, account: str, flow: str) -> Ceiling | None:
    """Return the ceiling set last for a flow of an account, or None if it never had one."""
    table = tables.ceilings
    query = sa.select(table).where(_of(account, flow)).order_by(table.c.at_ms.desc()).limit(1)
    row = connection.execute(query).first()
    return None if row is None else Ceiling(Period.parse(row.retention, where="vault.db"), row.trainable)


def read_latest_each(connection: sa.Connection, account: str) -> dict[FlowId, Ceiling | None]:
    """Return the ceiling set last for each flow of which something may be held, in one look as a rule."""
    table = tables.ceilings
    query = sa.select(table).where(table.c.account == account).order_by(table.c.at_ms.desc()).limit(_LATEST)
    found: dict[FlowId, Ceiling | None] = {}
    rows = connection.execute(query).all()
    for row in rows:
        for flow in HELD:
            if flow not in found and row.flow in (flow, EVERY):
                found[flow] = Ceiling(Period.parse(row.retention, where="vault.db"), row.trainable)
    for flow in HELD:
        if flow not in found:
            found[flow] = read_latest(connection, account, flow) if len(rows) == _LATEST else None
    return found


def read_latest_ms(connection: sa.Connection, account: str, flow: str) -> int:
    """Return when the terms of a flow of an account were tightened last, in milliseconds; 0 for never."""
    return _latest_ms(connection, _of(account, flow))


def _latest_ms(connection: sa.Connection, which: sa.ColumnElement[bool]) -> int:
    latest = sa.select(sa.func.max(tables.ceilings.c.at_ms)).where(which)
    found: int | None = connection.execute(latest).scalar_one()
    return found or 0


def _of(account: str, flow: str) -> sa.ColumnElement[bool]:
    table = tables.ceilings
    return sa.and_(table.c.account == account, table.c.flow.in_([flow, EVERY]))


def cover_late(connection: sa.Connection, begun: Iterable[tuple[int, str, str, int]]) -> None:
    """Bring segments that are being written under the ceilings set since their requests were admitted.

    Args:
        begun: number, account, flow and admission (milliseconds since 1970 UTC) of each.
    """
    begun = list(begun)
    if not begun:
        return
    table = tables.ceilings
    accounts = {account for _, account, _, _ in begun}
    earliest = min(admitted for *_, admitted in begun)
    query = sa.select(table).where(table.c.account.in_(accounts), table.c.at_ms >= earliest)
    for row in connection.execute(query.order_by(table.c.at_ms)).all():
        late = [
            number
            for number, account, flow, admitted in begun
            if account == row.account and row.flow in (flow, EVERY) and admitted <= row.at_ms
        ]
        ceiling = Ceiling(Period.parse(row.retention, where="vault.db"), row.trainable)
        bring_under(connection, tables.segments.c.number.in_(late), ceiling)


def is_under(ceiling: Ceiling, other: Ceiling) -> bool:
    """Tell whether whatever is under `other` is under `ceiling` already."""
    return is_within(other.retention, ceiling.retention) and (ceiling.trainable or not other.trainable)
