"""What passed of late, flow by flow: numbers for whoever sees to the service, and nobody's name."""

import msgspec
import sqlalchemy as sa

from bailee.vault import tables
from bailee.vault.tables import State

# Exchange ids begin with the millisecond, before so many random bits (`recording.Recording.new_exchange`).
ID_BITS = 21


class Passed(msgspec.Struct, frozen=True):
    """How much passed: exchanges, those refused among them, and bytes each way."""

    count: int
    refused: int
    sent: int
    received: int


class Hour(msgspec.Struct, frozen=True):
    """What of a flow passed in an hour; times are milliseconds.

    Attributes:
        at_ms: when it began, since 1970 UTC.
        done, failed, refused, other: how exchanges ended: whole, by the upstream's fault, refused, or hung
            up. first_bytes, durations: of those that were answered, ordered.
    """

    at_ms: int
    done: int
    failed: int
    refused: int
    other: int
    first_bytes: list[int]
    durations: list[int]

    def quantile(self, share: float, *, first: bool = False) -> int | None:
        """Return the duration that so many of a hundred do not exceed; None where nothing was answered."""
        values = self.first_bytes if first else self.durations
        return values[min(len(values) - 1, int(len(values) * share))] if values else None


class Failure(msgspec.Struct, frozen=True):
    """An exchange that the upstream did not answer; why, as the service saw it."""

    at_ms: int
    upstream: str
    status: int | None
    reason: str


def count_since(engine: sa.Engine, since_ms: int) -> dict[str, Passed]:
    """Return what passed of each flow since a moment, milliseconds since 1970 UTC."""
    c = tables.exchanges.c
    query = sa.select(
        c.flow,
        sa.func.count().label("count"),
        sa.func.sum(sa.case((c.state == State.REFUSED.value, 1), else_=0)).label("refused"),
        sa.func.coalesce(sa.func.sum(c.request_bytes), 0).label("sent"),
        sa.func.coalesce(sa.func.sum(c.response_bytes), 0).label("received"),
    ).where(c.id >= since_ms << ID_BITS)
    with engine.connect() as connection:
        rows = connection.execute(query.group_by(c.flow)).all()
    return {row[0]: Passed(row[1], int(row[2]), int(row[3]), int(row[4])) for row in rows}


def read_hours(engine: sa.Engine, flow: str, since_ms: int, *, hours: int) -> list[Hour]:
    """Return the hours since a moment, those included in which nothing passed.

    Args:
        since_ms: a whole hour, milliseconds since 1970 UTC.
    """
    c = tables.exchanges.c
    query = sa.select(c.started_ms, c.state, c.status, c.first_byte_ms, c.duration_ms)
    query = query.where(c.id >= since_ms << ID_BITS, c.flow == flow)
    found = [Hour(since_ms + place * 3_600_000, 0, 0, 0, 0, [], []) for place in range(hours)]
    counts = [[0, 0, 0, 0] for _ in found]
    with engine.connect() as connection:
        for started, state, status, first, duration in connection.execute(query):
            place = (started - since_ms) // 3_600_000
            if not 0 <= place < hours:
                continue
            is_failed = state == State.UPSTREAM_FAILED or (status or 0) >= 500
            kind = 1 if is_failed else 0 if state == State.COMPLETE else 2 if state == State.REFUSED else 3
            counts[place][kind] += 1
            if kind == 0 and duration is not None:
                found[place].durations.append(duration)
                found[place].first_bytes.append(first or 0)
    for hour in found:
        hour.durations.sort()
        hour.first_bytes.sort()
    return [
        msgspec.structs.replace(hour, done=done, failed=failed, refused=refused, other=other)
        for hour, (done, failed, refused, other) in zip(found, counts, strict=True)
    ]


def list_failures(engine: sa.Engine, flow: str, since_ms: int, *, limit: int) -> list[Failure]:
    """Return the latest exchanges of a flow that the upstream failed or refused, the latest first."""
    c = tables.exchanges.c
    query = sa.select(c.started_ms, c.upstream, c.status, c.reason).where(
        c.id >= since_ms << ID_BITS,
        c.flow == flow,
        sa.or_(c.state == State.UPSTREAM_FAILED.value, c.status >= 400),
    )
    with engine.connect() as connection:
        rows = connection.execute(query.order_by(c.id.desc()).limit(limit)).all()
    return [Failure(row[0], row[1], row[2], row[3] or "") for row in rows]
