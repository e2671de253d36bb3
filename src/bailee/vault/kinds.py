"""What is held under an account, so many segments of each kind: what pages and previews count from.

A kind is what segments have in common: flow, day, period, expiry, whether they may train. There are few of
them, however many segments there are; to count them takes 0.1 s for 50,000.
"""

from collections.abc import Sequence
from datetime import date

import msgspec
import sqlalchemy as sa

from bailee.vault import tables
from bailee.vault.holds import covering, is_held

# Up to so many segments are counted anew whenever somebody asks.
FEW = 3000


class Kind(msgspec.Struct, frozen=True):
    """Segments that are held alike, and how many.

    Attributes:
        expires_on: the day that they go on; None without end.
        is_kept: whether a legal hold keeps them, so that they stay whatever their day.
    """

    flow: str
    day: date
    retention: str
    expires_on: date | None
    trainable: bool
    count: int
    is_kept: bool = False


class Holdings(msgspec.Struct, frozen=True):
    """What is held of a flow under an account.

    Attributes:
        next_expiry, last_expiry: the days on which the first and the last of it go, but for what is kept;
            None without end.
        trainable: segments that may train models.
        kept: segments that a legal hold keeps.
    """

    flow: str
    sessions: int
    segments: int
    trainable: int
    next_expiry: date | None
    last_expiry: date | None
    kept: int = 0


class Held(msgspec.Struct, frozen=True):
    """All kinds of an account, and how many sessions of each flow there are."""

    kinds: list[Kind]
    sessions: dict[str, int]


def has_many(engine: sa.Engine, account: str) -> bool:
    """Tell whether an account holds so much that it takes long to count."""
    table = tables.segments
    some = sa.select(sa.literal(1)).where(table.c.account == account).limit(FEW + 1).subquery()
    with engine.connect() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(some)).scalar_one() > FEW


def read_held(engine: sa.Engine, account: str) -> Held:
    """Count what is held under an account and not destroyed or about to be."""
    table = tables.segments
    # What tells these apart is asked of each row and not of the index of what is due, which holds
    # everybody's.
    names = ("flow", "day", "retention", "expires_on", "trainable", "is_destroyed")
    columns = [table.c[name] for name in names]
    sessions = sa.select(table.c.flow, sa.func.count(sa.distinct(table.c.session)).label("many"))
    held = sa.select(sa.literal(1)).where(covering(account)).limit(1)
    with engine.connect() as connection:
        # Hardly ever is there one, and to ask it of each row doubles the time.
        is_any = connection.execute(held).first() is not None
        # Any of them keeps all disks of the account's cloud sessions.
        kept = sa.or_(is_held(), table.c.flow == tables.DISKS) if is_any else sa.false()
        each = sa.select(*columns, kept.label("is_kept")).where(table.c.account == account).subquery()
        kinds = sa.select(*each.c, sa.func.count().label("many")).group_by(*each.c)
        rows = connection.execute(kinds).all()
        counted = connection.execute(sessions.where(table.c.account == account).group_by(table.c.flow)).all()
    found = [
        Kind(
            row.flow, row.day, row.retention, row.expires_on, bool(row.trainable), row.many, bool(row.is_kept)
        )
        for row in rows
        if not row.is_destroyed and row.expires_on != tables.ERASED
    ]
    return Held(found, {row.flow: row.many for row in counted})


def sum_up(held: Held) -> list[Holdings]:
    """Return what is held, flow by flow."""
    return [
        _sum_up(flow, held.sessions.get(flow, 0), [kind for kind in held.kinds if kind.flow == flow])
        for flow in sorted({kind.flow for kind in held.kinds})
    ]


def _sum_up(flow: str, sessions: int, kinds: Sequence[Kind]) -> Holdings:
    free = [kind for kind in kinds if not kind.is_kept]
    days = [kind.expires_on for kind in free if kind.expires_on is not None]
    return Holdings(
        flow,
        sessions,
        sum(kind.count for kind in kinds),
        sum(kind.count for kind in kinds if kind.trainable),
        min(days, default=None),
        max(days) if days and all(kind.expires_on is not None for kind in free) else None,
        sum(kind.count for kind in kinds if kind.is_kept),
    )
