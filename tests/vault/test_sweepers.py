"""Whether sweeping is done is to be seen: the last success, what waits, why it does not go on."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
import sqlalchemy as sa

from bailee.database.leases import node_name
from bailee.policy.plans import Plan
from bailee.service.sweeping import Sweeping
from bailee.vault import sweeper, tables
from bailee.vault.health import check_retention, has_due_work, watch_work
from bailee.vault.sweeper import sweep_once
from bailee.vault.sweepers import (
    CLOCK_TOLERANCE_MS,
    Clocks,
    note_earlier,
    note_success,
    read_sweeper,
    tell_jump,
)
from bailee.vault.sweeping import Sweep, sweep
from counterparts.keeping import Keeping

HOUR = 3_600_000
NOW = Clocks(1_000_000 * HOUR, "boot-1", 10 * HOUR)


@pytest.fixture
def keeping(tmp_path: Path) -> Iterator[Keeping]:
    """Give a home with a consumer."""
    opened = Keeping(tmp_path / "home")
    opened.custody.directory.add("ada", Plan.PRO)
    yield opened
    opened.close()


def later(hours: float, *, wall: float = 0.0, boot: str = "boot-1") -> Clocks:
    """Return both clocks so many hours later, the wall clock that much further."""
    passed = int(hours * HOUR)
    return Clocks(NOW.wall_ms + passed + int(wall * HOUR), boot, NOW.boot_ms + passed)


@pytest.mark.parametrize(
    ("clocks", "jumps"),
    [
        (later(0.01), False),
        (later(24 * 40), False),  # asleep for forty days: both clocks went on
        (later(1, wall=0.9), False),
        (later(1, wall=1.1), True),
        (later(1, wall=24 * 365), True),
        (later(1, wall=-24 * 365), False),  # set back, nothing is destroyed too early
        (later(1, wall=24 * 40, boot="boot-2"), False),  # off for forty days: nothing to compare with
        (Clocks(NOW.wall_ms + 999 * HOUR, "", 0), False),  # a system without such a clock
    ],
)
def test_a_clock_that_jumps_ahead_is_noticed(keeping: Keeping, clocks: Clocks, jumps: bool) -> None:
    """Compared with the clock of the machine's boot, an hour too much pauses sweeping; sleep does not."""
    engine = keeping.custody.keystore.engine
    note_success(engine, "here", NOW, Sweep(date(2026, 5, 4)))
    assert bool(tell_jump(read_sweeper(engine, "here"), clocks)) is jumps
    assert CLOCK_TOLERANCE_MS == HOUR


@pytest.mark.parametrize(("hours", "is_told"), [(-24 * 365, True), (-1.1, True), (-0.9, False), (1, False)])
def test_a_clock_that_is_behind_is_an_alarm(keeping: Keeping, hours: float, is_told: bool) -> None:
    """Also after a reboot: nothing goes early by it, but what is due would stay, and nobody would know."""
    note_success(keeping.custody.keystore.engine, "here", NOW, Sweep(date(2026, 5, 4)))
    now_ms = NOW.wall_ms + int(hours * HOUR)
    health = check_retention(keeping.custody.vault, keeping.custody.keystore, now_ms)
    assert any("behind the last sweep" in alarm for alarm in health.alarms) is is_told


def test_a_jump_pauses_until_somebody_says_it_is_right(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is destroyed by a clock that jumped a month; a sweep by hand makes its time the new measure."""
    keeping.record("ada")
    engine = keeping.custody.keystore.engine
    clocks = Clocks(int(keeping.now * 1000), "boot-1", HOUR)
    monkeypatch.setattr(sweeper, "read_clocks", lambda: clocks)
    assert sweep_once(keeping.custody, "here") is not None
    keeping.go_to(date(2026, 7, 1))
    clocks = Clocks(int(keeping.now * 1000), "boot-1", 2 * HOUR)
    assert sweep_once(keeping.custody, "here") is None
    state = read_sweeper(engine, "here")
    assert state is not None
    assert "jumped ahead by" in state.fault
    health = check_retention(keeping.custody.vault, keeping.custody.keystore, clocks.wall_ms)
    assert any("jumped" in alarm for alarm in health.alarms)
    assert health.lag_seconds > 0
    note_success(engine, "here", clocks, Sweep(date(2026, 7, 1)))
    done = sweep_once(keeping.custody, "here")
    assert done is not None
    assert done.keys_destroyed == 1


def test_an_unreadable_setting_is_an_alarm(keeping: Keeping) -> None:
    """The sweeper pauses, says why, and goes on once it can be read again."""
    with keeping.custody.directory.engine.begin() as connection:
        connection.execute(sa.text("UPDATE accounts SET retention = ''"))
    command = [sys.executable, "-m", "bailee.vault.sweeper", "--home", str(keeping.home)]
    first = subprocess.run(command, capture_output=True, text=True, check=False)
    assert first.returncode == 1
    assert first.stderr.startswith("bailee: nothing was swept: paused: '' is not a retention period")
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stderr) == (1, "")  # said once
    with keeping.custody.directory.engine.begin() as connection:
        connection.execute(sa.text("UPDATE accounts SET retention = NULL"))
    assert subprocess.run(command, check=False).returncode == 0
    state = read_sweeper(keeping.custody.keystore.engine, node_name())
    assert state is not None
    assert state.fault == ""
    assert state.succeeded_ms


def test_lag_and_silence_are_told(keeping: Keeping) -> None:
    """A key that waits is seen by how long it waits; nobody sweeping for a quarter of an hour is an alarm."""
    keeping.record("ada")
    custody = keeping.custody

    def look() -> tuple[float, int]:
        health = check_retention(custody.vault, custody.keystore, custody.now_ms())
        return health.lag_seconds, len(health.alarms)

    assert look() == (0.0, 0)
    keeping.go_to(date(2026, 6, 3))
    assert look() == (12 * 3600, 1)  # due since midnight, and it is noon
    assert sweep_once(custody, "here") is not None
    assert look()[0] == 0.0


def test_a_sweep_by_an_earlier_day_is_no_success(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaves what has come due since, and the alarm on, however lately anybody swept."""
    keeping.record("ada")
    custody = keeping.custody
    keeping.go_to(date(2026, 6, 3))
    clocks = Clocks(custody.now_ms(), "boot-1", HOUR)
    monkeypatch.setattr(sweeper, "read_clocks", lambda: clocks)
    done = sweep(custody, as_of=date(2026, 6, 2))
    assert done.keys_destroyed == 0
    note_earlier(custody.keystore.engine, "here", clocks, done)
    state = read_sweeper(custody.keystore.engine, "here")
    assert state is not None
    assert (state.succeeded_ms, state.finished_ms) == (None, clocks.wall_ms)
    note_success(custody.keystore.engine, "there", clocks, done)  # at this very moment
    health = check_retention(custody.vault, custody.keystore, custody.now_ms())
    assert health.silence_seconds == 0.0
    assert [alarm for alarm in health.alarms if "a key is due for 43200 s" in alarm]
    assert sweep_once(custody, "here") is not None
    assert check_retention(custody.vault, custody.keystore, custody.now_ms()).alarms == []


def test_what_was_erased_waits_since_today_began(keeping: Keeping) -> None:
    """It has no deadline of its own, and does not wait since the year 1970."""
    keeping.record("ada")
    custody = keeping.custody
    with custody.vault.begin() as connection:
        connection.execute(sa.update(tables.segments).values(expires_on=tables.ERASED))
    lag = check_retention(custody.vault, custody.keystore, custody.now_ms()).lag_seconds
    assert 12 * 3600 <= lag < 12 * 3600 + 1


@pytest.mark.parametrize("is_due", [True, False])
def test_a_service_that_begins_sweeps_what_is_due_alone(tmp_path: Path, is_due: bool) -> None:
    """What is due goes at once; whatever else waits for a sweep does not keep the first seconds busy."""
    swept = []

    class Noted(Sweeping):
        async def _sweep(self) -> None:
            swept.append(1)

    async def begin() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await Noted(tmp_path, lambda: is_due, lambda: True).run()

    asyncio.run(begin())
    assert len(swept) == is_due


def test_work_is_noticed(keeping: Keeping) -> None:
    """What is due, what waits for the ledger and what changed about accounts is work; nothing else is."""
    custody = keeping.custody
    has_work = watch_work(custody.vault, custody.keystore, custody.directory.engine)
    custody.settle()
    has_work()
    assert not has_work()
    custody.directory.consent("ada", given=True)
    assert not has_due_work(custody.vault)
    assert has_work()
    custody.settle()
    assert has_work()  # the account changed
    assert not has_work()
    with custody.vault.begin() as connection:
        keeping.record("ada")
        connection.rollback()
    custody.settle()
    assert not has_work()
    with custody.vault.begin() as connection:
        connection.execute(sa.text("UPDATE segments SET expires_on = '2026-01-01'"))
    assert has_due_work(custody.vault)
    assert has_work()
