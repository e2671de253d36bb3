"""The sessions of an account that were used last, page by page, at a cost that does not grow with the store.

An account with few exchanges is read through its index; one with many is walked from the latest exchange
back, which finds a page of sessions soon, or gives up where none of them lie. Exchange ids begin with the
moment, so that their order is that of time.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from bailee.policy.flows import FlowId
from bailee.vault import tables
from bailee.vault.reader import Session

# Up to so many exchanges of an account its index is faster than the walk: 10 ms for all of them.
FEW = 4000
_STEP = 4000
# So many steps are walked; 5 ms each. All of an account with 50,000 takes its index 50 ms.
_MOST_STEPS = 6


class Recent(msgspec.Struct, frozen=True):
    """A page of sessions, the one used last first.

    Attributes:
        next: what the next page begins before; None if this is the last one.
    """

    sessions: list[Session]
    next: int | None


def list_recent(
    engine: sa.Engine, account: str, *, limit: int, before: int | None = None, flow: FlowId = FlowId.MESSAGES
) -> Recent:
    """Return sessions of an account.

    Args:
        before: the `next` of the page before it.
    """
    table = tables.exchanges
    few = sa.select(sa.literal(1)).where(table.c.account == account).limit(FEW + 1).subquery()
    with engine.connect() as connection:
        is_small = connection.execute(sa.select(sa.func.count()).select_from(few)).scalar_one() <= FEW
        found = None if is_small else _find_by_walk(connection, account, flow, before, limit + 1)
        if found is None:
            found = _find_by_index(connection, account, flow, before, limit + 1)
        sessions = describe_sessions(connection, account, [id for _, id in found[:limit]], flow)
    more = found[limit - 1][0] if len(found) > limit else None
    return Recent(sessions, more)


def _find_by_index(
    connection: sa.Connection, account: str, flow: FlowId, before: int | None, limit: int
) -> list[tuple[int, str]]:
    table = tables.exchanges
    latest = sa.func.max(table.c.id)
    query = sa.select(latest, table.c.session).where(table.c.account == account, table.c.flow == flow.value)
    query = query.group_by(table.c.session).order_by(latest.desc()).limit(limit)
    if before is not None:
        query = query.having(latest < before)
    return [(row[0], row[1]) for row in connection.execute(query)]


def _find_by_walk(
    connection: sa.Connection, account: str, flow: FlowId, before: int | None, limit: int
) -> list[tuple[int, str]] | None:
    """Return the latest sessions; None where they are too far back."""
    table = tables.exchanges
    found: dict[str, int] = {}
    at = before
    for _ in range(_MOST_STEPS):
        step = sa.select(table.c.id, table.c.account, table.c.flow, table.c.session)
        if at is not None:
            step = step.where(table.c.id < at)
        rows = connection.execute(step.order_by(table.c.id.desc()).limit(_STEP)).all()
        new = {}
        for id, owner, kind, session in rows:
            if owner == account and kind == flow.value and session not in found and session not in new:
                new[session] = id
        if before is not None and new:
            # One that was used after that is on a page before this one.
            later = sa.select(table.c.session).where(
                table.c.account == account, table.c.session.in_(list(new)), table.c.id >= before
            )
            for session in connection.execute(later.distinct()).scalars():
                del new[session]
        found |= new
        if len(found) >= limit or len(rows) < _STEP:
            return [(id, session) for session, id in found.items()][:limit]
        at = rows[-1].id
    return None


def describe_sessions(
    connection: sa.Connection, account: str, ids: Sequence[str], flow: FlowId | None
) -> list[Session]:
    """Return sessions of an account by their facts, in the order of their ids; unknown ones are left out."""
    exchanges, segments, records = tables.exchanges, tables.segments, tables.records
    c = exchanges.c
    facts = sa.select(
        c.session,
        sa.func.min(c.started_ms).label("started_ms"),
        sa.func.max(c.started_ms).label("last_ms"),
        sa.func.count().label("exchanges"),
        sa.func.coalesce(sa.func.sum(c.request_bytes), 0).label("request_bytes"),
        sa.func.coalesce(sa.func.sum(c.response_bytes), 0).label("response_bytes"),
        sa.func.coalesce(sa.func.sum(c.input_tokens), 0).label("input_tokens"),
        sa.func.coalesce(sa.func.sum(c.output_tokens), 0).label("output_tokens"),
    ).where(c.account == account, c.session.in_(ids))
    if flow is not None:
        facts = facts.where(c.flow == flow.value)
    known = {row.session: row for row in connection.execute(facts.group_by(c.session))}
    held = sa.and_(segments.c.account == account, segments.c.session.in_(ids))
    columns = segments.c.session, segments.c.retention, segments.c.expires_on, segments.c.trainable
    terms: dict[str, list[Any]] = {}
    for row in connection.execute(sa.select(*columns).where(held).order_by(segments.c.day)):
        terms.setdefault(row.session, []).append(row)
    sizes = sa.select(segments.c.session, sa.func.sum(sa.func.length(records.c.sealed)).label("stored"))
    sizes = sizes.join(records, segments.c.number == records.c.segment).where(held)
    stored = {row.session: row.stored for row in connection.execute(sizes.group_by(segments.c.session))}
    found = []
    for id in ids:
        if id not in known:
            continue
        row, of_it = known[id], terms.get(id, [])
        ends = [term.expires_on for term in of_it]
        dated = [day for day in ends if day is not None]
        found.append(
            Session(
                account=account,
                id=id,
                started_ms=row.started_ms,
                last_ms=row.last_ms,
                exchanges=row.exchanges,
                request_bytes=row.request_bytes,
                response_bytes=row.response_bytes,
                stored_bytes=stored.get(id, 0),
                input_tokens=row.input_tokens,
                output_tokens=row.output_tokens,
                retention=" and ".join(dict.fromkeys(term.retention for term in of_it)) or "none",
                expires_on=max(dated) if dated and len(dated) == len(ends) else None,
                trainable=any(term.trainable for term in of_it),
            )
        )
    return found


def count_flows(connection: sa.Connection, account: str, session: str) -> dict[str, int]:
    """Return how many exchanges a session has of each flow: those of a key without a session share one."""
    table = tables.exchanges
    query = sa.select(table.c.flow, sa.func.count().label("many")).where(
        table.c.account == account, table.c.session == session
    )
    rows = connection.execute(query.group_by(table.c.flow).order_by(table.c.flow)).all()
    return {row.flow: row.many for row in rows}
