"""What the sweepers of a home did last, and whether that is as it should be."""

import time
from pathlib import Path

import msgspec
import sqlalchemy as sa

from bailee.vault import tables
from bailee.vault.sweeping import Sweep

# How far the wall clock may run from the machine's own before nobody can say which day it is. Time servers
# correct by seconds; a wrong time zone in a wrongly set clock is 14 hours at most, and a day too much
# destroys a day early.
CLOCK_TOLERANCE_MS = 60 * 60 * 1000


class Clocks(msgspec.Struct, frozen=True):
    """The wall clock beside one that nobody sets.

    Attributes:
        wall_ms: milliseconds since 1970 UTC.
        boot_id: names the machine's boot.
        boot_ms: milliseconds since that boot, sleep included.
    """

    wall_ms: int
    boot_id: str
    boot_ms: int


class SweeperState(msgspec.Struct, frozen=True):
    """What is known of one node's sweeper; times are milliseconds since 1970 UTC.

    Attributes:
        fault: why it does not go on; empty if it does.
        keys_destroyed, bytes_reclaimed: in all its sweeps together.
    """

    node: str
    started_ms: int
    finished_ms: int | None
    succeeded_ms: int | None
    keys_destroyed: int
    bytes_reclaimed: int
    fault: str
    boot_id: str
    boot_ms: int


def read_clocks() -> Clocks:
    """Read both clocks; sources: clock_gettime(2), CLOCK_BOOTTIME; random(4), boot_id."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    try:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        clock = None
    now_ms = int(time.time() * 1000)
    if clock is None:  # another system than Linux: nothing to compare with
        return Clocks(now_ms, "", 0)
    return Clocks(now_ms, boot_id, int(time.clock_gettime(clock) * 1000))


def tell_jump(before: SweeperState | None, now: Clocks) -> str:
    """Say by how much the wall clock jumped ahead since the last sweep of this boot; empty if it did not."""
    if before is None or before.succeeded_ms is None or not now.boot_id or before.boot_id != now.boot_id:
        return ""
    ahead = (now.wall_ms - before.succeeded_ms) - (now.boot_ms - before.boot_ms)
    if ahead <= CLOCK_TOLERANCE_MS:
        return ""
    hours = ahead / 3_600_000
    return (
        f"the clock jumped ahead by {hours:.1f} hours, so that nothing is destroyed by it; if it is right "
        "now: bailee retention sweep"
    )


def read_sweepers(engine: sa.Engine) -> list[SweeperState]:
    """Return the state of every node's sweeper."""
    with engine.connect() as connection:
        return [SweeperState(**row._mapping) for row in connection.execute(sa.select(tables.sweepers))]


def read_sweeper(engine: sa.Engine, node: str) -> SweeperState | None:
    """Return the state of one node's sweeper, or None if it never ran."""
    return next((state for state in read_sweepers(engine) if state.node == node), None)


def note_start(engine: sa.Engine, node: str, clocks: Clocks) -> None:
    """Note that a sweep begins."""
    _write(engine, node, {"started_ms": clocks.wall_ms}, clocks)


def note_fault(engine: sa.Engine, node: str, clocks: Clocks, fault: str) -> None:
    """Note why a sweep did not come to its end."""
    _write(engine, node, {"finished_ms": clocks.wall_ms, "fault": fault}, clocks)


def note_success(engine: sa.Engine, node: str, clocks: Clocks, done: Sweep) -> None:
    """Note what a sweep did."""
    table = tables.sweepers
    values = {
        "finished_ms": clocks.wall_ms,
        "succeeded_ms": clocks.wall_ms,
        "fault": "",
        "boot_id": clocks.boot_id,
        "boot_ms": clocks.boot_ms,
        "keys_destroyed": table.c.keys_destroyed + done.keys_destroyed,
        "bytes_reclaimed": table.c.bytes_reclaimed + done.stored_bytes,
    }
    _write(engine, node, values, clocks)


def note_earlier(engine: sa.Engine, node: str, clocks: Clocks, done: Sweep) -> None:
    """Note what a sweep by an earlier day than today did.

    It is no success: what has come due since then waits still, and nobody has said that the clock is right.
    """
    table = tables.sweepers
    values = {
        "finished_ms": clocks.wall_ms,
        "keys_destroyed": table.c.keys_destroyed + done.keys_destroyed,
        "bytes_reclaimed": table.c.bytes_reclaimed + done.stored_bytes,
    }
    _write(engine, node, values, clocks)


def _write(engine: sa.Engine, node: str, values: dict[str, object], clocks: Clocks) -> None:
    table = tables.sweepers
    first = {
        "node": node,
        "started_ms": clocks.wall_ms,
        "keys_destroyed": 0,
        "bytes_reclaimed": 0,
        "fault": "",
        "boot_id": clocks.boot_id,
        "boot_ms": clocks.boot_ms,
    }
    with engine.begin() as connection:
        if connection.execute(sa.update(table).where(table.c.node == node).values(values)).rowcount == 0:
            connection.execute(sa.insert(table).values(first))
            connection.execute(sa.update(table).where(table.c.node == node).values(values))
