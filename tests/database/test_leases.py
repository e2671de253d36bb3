"""Leases: one holder at a time, until it lets go, or is no more."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from bailee.database.leases import Lease, holding
from bailee.policy.problems import Problem
from bailee.vault import tables
from bailee.vault.store import open_keys


@pytest.fixture
def engine(tmp_path: Path, database: str) -> Iterator[sa.Engine]:
    """Give the keystore of a home, where the leases are."""
    keystore = open_keys(tmp_path / "home")
    yield keystore.engine
    keystore.close()


class Clock:
    """A clock that a test sets; seconds since 1970 UTC."""

    now = 1000.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Give the time of all nodes."""
    return Clock()


@pytest.fixture
def pair(engine: sa.Engine, clock: Clock) -> tuple[Lease, Lease]:
    """Give two nodes that want the same work."""
    one, other = (Lease(engine, tables.leases, "work", node, clock, 10) for node in ("one", "other"))
    return one, other


def test_one_holds_it_at_a_time(pair: tuple[Lease, Lease]) -> None:
    """The second waits until the first lets go; letting go of another's lease does nothing."""
    one, other = pair
    assert one.take()
    assert one.take()
    assert not other.take()
    other.release()
    assert not other.take()
    one.release()
    assert other.take()
    assert not one.take()


def test_another_work_is_another_lease(engine: sa.Engine, pair: tuple[Lease, Lease], clock: Clock) -> None:
    """Who settles does not keep others from tightening."""
    assert pair[0].take()
    assert Lease(engine, tables.leases, "other work", "other", clock, 10).take()


def test_it_runs_out(pair: tuple[Lease, Lease], clock: Clock) -> None:
    """To the millisecond; then another takes it over, and the first is told before it does anything."""
    one, other = pair
    assert one.take()
    clock.now += 9.999
    assert not other.take()
    clock.now += 0.001
    assert other.take()
    assert not one.renew()
    with pytest.raises(Problem, match="stood still"):
        one.keep()
    one.release()
    assert not one.take(), "the lease of the other is still there"


def test_renewed_it_goes_on(pair: tuple[Lease, Lease], clock: Clock) -> None:
    """Each renewal counts from then on; one that ran out and that nobody took is still the holder's."""
    one, other = pair
    assert one.take()
    for _ in range(5):
        clock.now += 9
        assert one.renew()
        assert not other.take()
    clock.now += 60
    one.keep()
    assert not other.take()


def test_of_many_that_ask_at_once_one_gets_it(engine: sa.Engine, clock: Clock) -> None:
    """However they meet, in an empty table and over one that ran out."""
    for turn in range(3):
        barrier = threading.Barrier(6)
        got: list[bool] = []

        def ask(node: str, barrier: threading.Barrier = barrier, got: list[bool] = got) -> None:
            lease = Lease(engine, tables.leases, "work", node, clock, 10)
            barrier.wait()
            got.append(lease.take())

        threads = [threading.Thread(target=ask, args=(f"{turn} {number}",)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(got) == [False] * 5 + [True]
        clock.now += 60


def test_it_is_renewed_while_the_work_goes_on(engine: sa.Engine) -> None:
    """Work that takes longer than the lease keeps it; afterwards it is free at once."""
    one, other = (Lease(engine, tables.leases, "work", node, time.time, 1.5) for node in ("one", "other"))
    with holding(one):
        deadline = time.monotonic() + 4
        while time.monotonic() < deadline:
            assert not other.take()
            time.sleep(0.02)
    assert other.take()
    with pytest.raises(Problem, match="busy with the work"), holding(one, patience=0.1):
        pass


_HOLDER = """
import sys, time
from pathlib import Path
from bailee.database.leases import Lease, holding
from bailee.vault import tables
from bailee.vault.store import open_keys
engine = open_keys(Path(sys.argv[1])).engine
with holding(Lease(engine, tables.leases, "work", "killed", time.time, 1)):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_killed_holder_holds_up_nobody(engine: sa.Engine, tmp_path: Path) -> None:
    """kill -9: while it lives, longer than its lease, nobody gets it; afterwards the next one soon does."""
    command = [sys.executable, "-c", _HOLDER, str(tmp_path / "home")]
    lease = Lease(engine, tables.leases, "work", "next", time.time, 1)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        time.sleep(1.5)
        assert not lease.take()
        holder.send_signal(signal.SIGKILL)
        assert holder.wait() == -signal.SIGKILL
        killed = time.monotonic()
        with holding(lease):
            assert time.monotonic() - killed < 3
