"""How far each next hop has come: a row in the vault's database, and the exchanges done with of late.

The queue is what the vault holds. An exchange's id begins with the time, so that what came after a cursor is
what waits. As exchanges are written a moment after their ids are drawn, those of the last minute are looked
at again, and the ones that are done with are known by their ids.
"""

from collections.abc import Collection

import msgspec
import sqlalchemy as sa

from bailee.flows.forwarding.hops import Wire
from bailee.policy.flows import FlowId
from bailee.vault import tables
from bailee.vault.tables import State

# What goes to a next hop of each kind.
FLOWS = {Wire.OTLP: FlowId.METRICS, Wire.STATSIG: FlowId.METRICS, Wire.SENTRY: FlowId.ERRORS}
# An exchange's id is its time in milliseconds, and 21 bits of chance (`Recording.new_exchange`).
_BITS = 21
LOOK_BACK_MS = 60_000
# What waited longer is forwarded no more: a next hop that is down for days gets no flood when it is up.
LONGEST_WAIT_MS = 3 * 86_400_000
# A node that took a next hop and was killed leaves it to the others after this time.
CLAIM_MS = 120_000


class Progress(msgspec.Struct, frozen=True):
    """How far a next hop has come; times are milliseconds since 1970 UTC.

    Attributes:
        target: scheme, host and port.
        sent: exchanges that it took.
        refused: exchanges that it will not take at any time.
        overdue: exchanges that waited too long and were passed over.
        attempts: failures since it was last reached.
        succeeded_ms: None if it never was.
        fault: why it failed the last time; empty if it did not.
    """

    name: str
    target: str
    cursor: int
    sent: int
    refused: int
    overdue: int
    next_ms: int
    attempts: int
    succeeded_ms: int | None
    fault: str


class Waiting(msgspec.Struct, frozen=True):
    """An exchange that waits."""

    id: int
    account: str
    session: str
    segment: int
    started_ms: int


def list_progress(engine: sa.Engine) -> list[Progress]:
    """Return all next hops there were, by name."""
    table = tables.next_hops
    with engine.connect() as connection:
        return [
            Progress(**row._mapping) for row in connection.execute(sa.select(table).order_by(table.c.name))
        ]


def count_waiting(engine: sa.Engine, progress: Progress, flow: FlowId) -> int:
    """Return how many exchanges wait for a next hop."""
    query = _waiting(progress.name, flow, progress.cursor)
    with engine.connect() as connection:
        counted = connection.execute(sa.select(sa.func.count()).select_from(query.subquery()))
        return int(counted.scalar_one())


def begin(engine: sa.Engine, name: str, target: str, *, now_ms: int) -> None:
    """Note a next hop; one that is new gets what comes from now on."""
    table = tables.next_hops
    with engine.begin() as connection:
        known = sa.update(table).where(table.c.name == name).values(target=target, next_ms=now_ms)
        if connection.execute(known).rowcount:
            return
        connection.execute(
            sa.insert(table).values(
                name=name,
                target=target,
                cursor=(now_ms + LOOK_BACK_MS) << _BITS,
                sent=0,
                refused=0,
                overdue=0,
                next_ms=now_ms,
                attempts=0,
                succeeded_ms=None,
                fault="",
            )
        )


def claim(engine: sa.Engine, name: str, *, now_ms: int) -> Progress | None:
    """Take a next hop that is due; None if it is not, or another node has taken it."""
    table = tables.next_hops
    with engine.begin() as connection:
        taken = sa.update(table).where(table.c.name == name, table.c.next_ms <= now_ms)
        if not connection.execute(taken.values(next_ms=now_ms + CLAIM_MS)).rowcount:
            return None
        row = connection.execute(sa.select(table).where(table.c.name == name)).one()
    return Progress(**row._mapping)


def list_waiting(engine: sa.Engine, progress: Progress, flow: FlowId, limit: int) -> list[Waiting]:
    """Return the exchanges that wait for a next hop, the oldest first."""
    query = _waiting(progress.name, flow, progress.cursor).limit(limit)
    with engine.connect() as connection:
        return [Waiting(**row._mapping) for row in connection.execute(query)]


def pass_over(engine: sa.Engine, progress: Progress, flow: FlowId, *, now_ms: int) -> Progress:
    """Pass over what waited too long, count it, and return how far the next hop has come by that."""
    oldest = (now_ms - LONGEST_WAIT_MS) << _BITS
    if progress.cursor - (LOOK_BACK_MS << _BITS) >= oldest:
        return progress
    table = tables.next_hops
    waiting = _waiting(progress.name, flow, progress.cursor).subquery()
    counting = sa.select(sa.func.count()).select_from(waiting).where(waiting.c.id < oldest)
    with engine.begin() as connection:
        count = int(connection.execute(counting).scalar_one())
        cursor, overdue = oldest + (LOOK_BACK_MS << _BITS), progress.overdue + count
        changed = sa.update(table).where(table.c.name == progress.name).values(cursor=cursor, overdue=overdue)
        connection.execute(changed)
    return msgspec.structs.replace(progress, cursor=cursor, overdue=overdue)


def finish(
    engine: sa.Engine, name: str, done: Collection[int], *, sent: int, refused: int, now_ms: int
) -> None:
    """Note that exchanges are done with: sent, refused for ever, or nobody's any more."""
    table, of_late = tables.next_hops, tables.forwarded
    with engine.begin() as connection:
        if done:
            connection.execute(sa.insert(of_late), [{"hop": name, "exchange": one} for one in done])
        latest = max(done, default=0)
        cursor = sa.case((table.c.cursor < latest, latest), else_=table.c.cursor)
        values = {"cursor": cursor, "sent": table.c.sent + sent, "refused": table.c.refused + refused}
        if sent:
            values |= {"attempts": sa.literal(0), "fault": sa.literal(""), "succeeded_ms": sa.literal(now_ms)}
        connection.execute(sa.update(table).where(table.c.name == name).values(values))
        old = (
            sa.select(table.c.cursor - (LOOK_BACK_MS << _BITS)).where(table.c.name == name).scalar_subquery()
        )
        connection.execute(sa.delete(of_late).where(of_late.c.hop == name, of_late.c.exchange <= old))


def put_off(engine: sa.Engine, name: str, *, next_ms: int, fault: str | None = None) -> None:
    """Say when a next hop is looked at again, and why, if it failed."""
    table = tables.next_hops
    values: dict[str, object] = {"next_ms": next_ms}
    if fault is not None:
        values |= {"attempts": table.c.attempts + 1, "fault": fault}
    with engine.begin() as connection:
        connection.execute(sa.update(table).where(table.c.name == name).values(values))


def _waiting(name: str, flow: FlowId, cursor: int) -> "sa.Select[tuple[int, str, str, int, int]]":
    c, of_late = tables.exchanges.c, tables.forwarded
    is_done = sa.exists().where(of_late.c.hop == name, of_late.c.exchange == c.id)
    return (
        sa.select(c.id, c.account, c.session, c.segment, c.started_ms)
        .where(
            c.id > cursor - (LOOK_BACK_MS << _BITS),
            c.flow == flow.value,
            c.segment.is_not(None),
            c.state == State.COMPLETE.value,
            ~is_done,
        )
        .order_by(c.id)
    )
