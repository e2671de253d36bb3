"""Whether what has to go does go: the sweepers' last success, and how long the oldest key waits."""

from datetime import UTC, datetime

import msgspec
import sqlalchemy as sa

from bailee.vault.sweepers import SweeperState, read_sweepers
from bailee.vault.sweeping import oldest_due

# Destroyed within 60 s of the deadline is the promise; a sweep begins every 20 s.
LAG_ALARM_SECONDS = 60.0
SILENCE_ALARM_SECONDS = 300.0


class RetentionHealth(msgspec.Struct, frozen=True):
    """How retention stands.

    Attributes:
        lag_seconds: how long the key that is due longest waits for its destruction; 0 if none is.
        silence_seconds: how long ago any node last swept with success; None if none ever did.
        alarms: what somebody has to look at, in words.
    """

    sweepers: list[SweeperState]
    lag_seconds: float
    silence_seconds: float | None
    alarms: list[str]


def check_retention(engine: sa.Engine, *, now_ms: int) -> RetentionHealth:
    """Return how retention stands at a moment, in milliseconds since 1970 UTC."""
    states = read_sweepers(engine)
    today = datetime.fromtimestamp(now_ms / 1000, UTC).date()
    with engine.connect() as connection:
        day = oldest_due(connection, today)
    lag = 0.0
    if day is not None:
        # What somebody had erased has no deadline of its own: it waits since today began at most.
        begun = datetime(*max(day, datetime(1970, 1, 2).date()).timetuple()[:3], tzinfo=UTC)
        lag = max(0.0, now_ms / 1000 - begun.timestamp())
    succeeded = [state.succeeded_ms for state in states if state.succeeded_ms is not None]
    silence = (now_ms - max(succeeded)) / 1000 if succeeded else None
    alarms = [f"{state.node}: {state.fault}" for state in states if state.fault]
    if lag > LAG_ALARM_SECONDS and (silence is None or silence > SILENCE_ALARM_SECONDS):
        since = "ever" if silence is None else f"for {silence:.0f} s"
        alarms.append(
            f"a key is due for {lag:.0f} s and nobody swept {since}; start the service, or: bailee retention sweep"
        )
    return RetentionHealth(states, lag, silence, alarms)
