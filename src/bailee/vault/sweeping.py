"""One sweep: tightens what consents tightened, destroys what is due, and gives its space back.

Every step is safe to do again, so that a sweep killed anywhere is finished by the next one. Keys go first,
all of them: what a peer's retention job does last, to make nothing readable, is done before a row is deleted.
"""

import time
from collections.abc import Callable
from datetime import date, timedelta
from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from bailee.database.engines import checkpointing_rarely, give_back, truncate_log
from bailee.ledger.entries import Swept
from bailee.ledger.outbox import put
from bailee.moments import begin_of
from bailee.policy.plans import Plan
from bailee.policy.problems import Problem
from bailee.policy.retention import Holding, retention_rule
from bailee.vault import tables
from bailee.vault.copies import registry
from bailee.vault.custody import Custody
from bailee.vault.destruction import (
    destroy_due,
    forget_facts,
    forget_reports,
    give_back_batch,
    is_due,
    mark_destroyed,
    reclaim_batch,
)
from bailee.vault.holds import is_held
from bailee.vault.strays import mark_strays

# For free pages that an earlier program left; what is left over is for the next sweep.
LEFT_SECONDS = 10.0
# Ids of exchanges begin with 42 bits of milliseconds since 1970 (`Recording.new_exchange`): until May 2109.
_EARLIEST, _LATEST = date(1970, 2, 1), date(2109, 1, 1)


class Sweep(msgspec.Struct, frozen=True):
    """What a sweep did, or would do.

    Attributes:
        as_of: the UTC day it went by.
        tightened: segments whose terms were tightened.
        keys_destroyed: segments whose keys it destroyed.
        held_back: segments that are due and under a legal hold.
        segments, records, exchanges, stored_bytes: what it deleted.
        facts: exchanges without content whose facts it deleted.
        bytes_given_back: bytes that the vault's file became smaller by.
        copies, copies_pending: copies outside the vault that hold nothing of it any more, or still do.
        seconds_to_keys, seconds: how long it took until the last key was destroyed, and in all.
    """

    as_of: date
    tightened: int = 0
    keys_destroyed: int = 0
    held_back: int = 0
    segments: int = 0
    records: int = 0
    exchanges: int = 0
    stored_bytes: int = 0
    facts: int = 0
    bytes_given_back: int = 0
    seconds_to_keys: float = 0.0
    seconds: float = 0.0
    copies: int = 0
    copies_pending: int = 0


class Progress(NamedTuple):
    """How far a sweep has come."""

    keys: int
    rows: int


def sweep(
    custody: Custody,
    *,
    as_of: date | None = None,
    is_thorough: bool = True,
    report: Callable[[Progress], None] = lambda progress: None,
    give_way: Callable[[], object] = lambda: None,
    stopwatch: Callable[[], float] = time.monotonic,
) -> Sweep:
    """Do one sweep.

    Args:
        as_of: the UTC day to go by; today if it is left out.
        is_thorough: see `Custody.tighten`.
        report: told how far it is, after every batch.
        give_way: called once the keys are destroyed.

    Raises:
        Problem: settings cannot be read, so that nobody can say what they allow: nothing is destroyed; or the
            day lies ahead, and what is promised until then would be lost, or out of reach.
    """
    today = custody.today()
    day = _check_day(as_of) if as_of else today
    if day > today:
        raise Problem(
            f"{day} has not begun: what is held until then would be lost",
            where="--as-of",
            fix="give today or an earlier day, or look ahead with --dry-run",
        )
    began = stopwatch()
    vault, keystore = custody.vault, custody.keystore
    # Read first, all of it: an unreadable setting stops the sweep before anything is destroyed.
    accounts = custody.finish_erasures()
    tightened = sum(custody.tighten(account, is_thorough=is_thorough) for account in accounts)
    mark_strays(vault, keystore, at_ms=custody.now_ms())
    keys = rows = records = exchanges = stored = facts = given = 0

    def count_keys(count: int) -> None:
        nonlocal keys
        keys += count
        report(Progress(keys, rows))

    with checkpointing_rarely(vault):
        _destroy_keys(custody, day, count_keys)
        to_keys = stopwatch() - began
        give_way()
        # Each step is short, and keys that come due meanwhile go before the next one.
        while True:
            if as_of is None:
                day = custody.today()
            _destroy_keys(custody, day, count_keys)
            if (gone := reclaim_batch(vault)).segments:
                rows, records = rows + gone.segments, records + gone.records
                exchanges, stored = exchanges + gone.exchanges, stored + gone.stored_bytes
                given += give_back_batch(vault)
                report(Progress(keys, rows))
            elif count := forget_facts(vault, before_ms=begin_of(facts_from(day))):
                facts += count
                given += give_back_batch(vault)
            else:
                break
        forget_reports(vault)
        given += give_back(vault, LEFT_SECONDS)
    copies = custody.follow_copies()
    truncate_log(vault)
    with vault.begin() as connection:
        held_back = count_held_back(connection, day)
        if keys or tightened:
            entry = Swept(
                id=custody.draw(),
                at_ms=custody.now_ms(),
                as_of=day.isoformat(),
                keys_destroyed=keys,
                segments_held_back=held_back,
            )
            put(connection, tables.vault_outbox, [entry])
    custody.settle()
    return Sweep(
        day,
        tightened=tightened,
        keys_destroyed=keys,
        held_back=held_back,
        segments=rows,
        records=records,
        exchanges=exchanges,
        stored_bytes=stored,
        facts=facts,
        bytes_given_back=given,
        seconds_to_keys=round(to_keys, 3),
        seconds=round(stopwatch() - began, 3),
        copies=len(copies.reached),
        copies_pending=len(copies.pending),
    )


def _destroy_keys(custody: Custody, day: date, report: Callable[[int], None]) -> None:
    """Destroy the keys of all that is due on a day, and mark its segments."""
    vault, keystore = custody.vault, custody.keystore
    while True:
        with vault.connect() as connection:
            if oldest_due(connection, day) is None:
                return
        with checkpointing_rarely(keystore.engine):
            numbers = destroy_due(vault, keystore, today=day, at_ms=custody.now_ms(), report=report)
        keystore.truncate_log()
        if not numbers:
            return
        mark_destroyed(vault, numbers, at_ms=custody.now_ms())


def preview(custody: Custody, *, as_of: date | None = None) -> Sweep:
    """Count what a sweep would do on a day, which may lie ahead; nothing is changed.

    Raises:
        Problem: the day is out of reach.
    """
    day = _check_day(as_of) if as_of else custody.today()
    segments, records, exchanges = tables.segments, tables.records, tables.exchanges
    sizes = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(sa.func.length(records.c.sealed)), 0))
    sizes = sizes.select_from(records.join(segments, segments.c.number == records.c.segment))
    with custody.vault.connect() as connection:
        count = connection.execute(
            sa.select(sa.func.count()).select_from(segments).where(is_due(day))
        ).scalar_one()
        record_count, stored = connection.execute(sizes.where(is_due(day))).one()
        exchange_count = connection.execute(
            sa.select(sa.func.count())
            .select_from(exchanges.join(segments, segments.c.number == exchanges.c.segment))
            .where(is_due(day))
        ).scalar_one()
        facts = connection.execute(
            sa.select(sa.func.count())
            .select_from(exchanges)
            .where(exchanges.c.id < begin_of(facts_from(day)) << 21, exchanges.c.segment.is_(None))
        ).scalar_one()
        held_back = count_held_back(connection, day)
        copies = registry.count_due(connection, is_due(day))
    return Sweep(
        day,
        keys_destroyed=count,
        held_back=held_back,
        segments=count,
        records=record_count,
        exchanges=exchange_count,
        stored_bytes=stored,
        facts=facts,
        copies=copies,
    )


def count_held_back(connection: sa.Connection, day: date) -> int:
    """Return how many segments are due and stay because of a legal hold."""
    segments = tables.segments
    held = sa.and_(segments.c.is_destroyed.is_(False), segments.c.expires_on <= day, is_held())
    found: int = connection.execute(sa.select(sa.func.count()).select_from(segments).where(held)).scalar_one()
    return found


def oldest_due(connection: sa.Connection, day: date) -> date | None:
    """Return the day since which the key that is due longest waits for its end; None if none does."""
    segments = tables.segments
    query = sa.select(segments.c.expires_on).where(is_due(day)).order_by(segments.c.expires_on).limit(1)
    found: date | None = connection.execute(query).scalar_one_or_none()
    return found


def facts_from(day: date) -> date:
    """Return the first day whose facts are still kept: they are operational data, the standard 30 days.

    Facts of an exchange whose content is held go with the content.
    """
    period = retention_rule(Holding.OPERATIONAL, Plan.API, training=False, zdr=False).period
    return day - timedelta(days=period.count - 1)


def _check_day(day: date) -> date:
    """Return a day unchanged.

    Raises:
        Problem: ids of exchanges do not reach that far.
    """
    if not _EARLIEST <= day <= _LATEST:
        raise Problem(
            f"{day} is out of reach",
            where="--as-of",
            fix=f"give a day from {_EARLIEST} to {_LATEST}",
        )
    return day
