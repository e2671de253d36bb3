"""Whether what has to go does go: the sweepers' last success, and how long the oldest key waits."""

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
import sqlalchemy as sa

from bailee.accounts.tables import outbox as accounts_outbox
from bailee.database.engines import watch_changes
from bailee.moments import begin_of
from bailee.vault import tables
from bailee.vault.copies.registry import list_pending
from bailee.vault.keystore import Keystore
from bailee.vault.sweepers import CLOCK_TOLERANCE_MS, SweeperState, read_sweepers
from bailee.vault.sweeping import oldest_due

# Destroyed within 60 s of the deadline is the promise; a sweep begins within 5 s.
LAG_ALARM_SECONDS = 60.0
SILENCE_ALARM_SECONDS = 900.0


class RetentionHealth(msgspec.Struct, frozen=True):
    """How retention stands.

    Attributes:
        lag_seconds: how long the key that is due longest waits for its destruction; 0 if none is.
        silence_seconds: how long ago any node last swept with success; None if none ever did.
        copies_pending: copies outside the vault of which something is still to be taken out.
        copies_lag_seconds: how long the one that waits longest does; 0 if none does.
        alarms: what somebody has to look at, in words.
    """

    sweepers: list[SweeperState]
    lag_seconds: float
    silence_seconds: float | None
    copies_pending: int
    copies_lag_seconds: float
    alarms: list[str]


def check_retention(engine: sa.Engine, keystore: Keystore, now_ms: int) -> RetentionHealth:
    """Return how retention stands at a moment, in milliseconds since 1970 UTC."""
    states = read_sweepers(keystore.engine)
    today = datetime.fromtimestamp(now_ms / 1000, UTC).date()
    with engine.connect() as connection:
        day = oldest_due(connection, today)
    lag = 0.0
    if day is not None:
        # What somebody had erased has no deadline of its own: it waits since today began at most.
        lag = max(0.0, (now_ms - begin_of(today if day == tables.ERASED else day)) / 1000)
    succeeded = [state.succeeded_ms for state in states if state.succeeded_ms is not None]
    silence = (now_ms - max(succeeded)) / 1000 if succeeded else None
    alarms = [f"{state.node}: {state.fault}" for state in states if state.fault]
    if silence is not None and silence * 1000 < -CLOCK_TOLERANCE_MS:
        alarms.append(
            f"the clock is {-silence / 3600:.1f} hours behind the last sweep: what is due stays until it is "
            "right, and what is recorded is dated too early; set the clock"
        )
    # However lately somebody swept: a sweep that leaves what is due is none that anybody can rely on.
    if lag > LAG_ALARM_SECONDS:
        last = "nobody ever swept" if silence is None else f"the last sweep was {silence:.0f} s ago"
        alarms.append(
            f"a key is due for {lag:.0f} s and {last}; start the service, or run: bailee retention sweep"
        )
    pending = list_pending(engine)
    copies_lag = max((now_ms - (copy.due_ms or now_ms) for copy in pending), default=0) / 1000
    for copy in pending:
        waits = (now_ms - (copy.due_ms or now_ms)) / 1000
        if copy.fault or waits > SILENCE_ALARM_SECONDS:
            alarms.append(
                f"{copy.kind} {copy.id} in {copy.folder} on {copy.node} still holds what is to go, for "
                f"{waits:.0f} s: {copy.fault or 'nobody has reached it'}; see: bailee copies list"
            )
    return RetentionHealth(states, lag, silence, len(pending), copies_lag, alarms)


def has_due_work(vault: sa.Engine) -> bool:
    """Tell whether something is to go: keys that are due, rows whose keys are gone, copies that hold them."""
    segments, copies = tables.segments, tables.copies
    with vault.connect() as connection:
        if oldest_due(connection, datetime.now(UTC).date()) is not None:
            return True
        destroyed = sa.select(segments.c.number).where(segments.c.is_destroyed.is_(True)).limit(1)
        # One that could not be reached is tried again with the sweeps that come anyway.
        due = sa.select(copies.c.id).where(copies.c.due_ms.isnot(None), copies.c.fault == "").limit(1)
        return any(connection.execute(query).first() for query in (destroyed, due))


def watch_work(vault: sa.Engine, keystore: Keystore, accounts: sa.Engine) -> Callable[[], bool]:
    """Return a function that tells whether a sweep has anything to do; it takes 0.3 ms.

    That is: what is to go (`has_due_work`), entries that wait for the ledger, or accounts that changed since
    it was asked last: what they allow may have.
    """
    version = watch_changes(accounts)
    seen: int | None = None

    def has_work() -> bool:
        nonlocal seen
        before, seen = seen, version()
        if has_due_work(vault):
            return True
        for engine, outbox in ((vault, tables.vault_outbox), (accounts, accounts_outbox)):
            with engine.connect() as connection:
                if connection.execute(sa.select(outbox.c.number).limit(1)).first():
                    return True
        return before != seen or keystore.has_waiting()

    return has_work
