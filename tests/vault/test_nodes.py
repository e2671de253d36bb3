"""Several nodes on one PostgreSQL share the work: each key goes once, and a killed node leaves nothing."""

import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
import sqlalchemy as sa

from bailee.accounts.people import Kind
from bailee.database.locations import VARIABLE
from bailee.ledger.entries import KeysDestroyed, TermsTightened
from bailee.policy.plans import Plan
from bailee.vault import tables
from bailee.vault.custody import Custody, open_custody
from bailee.vault.destruction import destroy_batch, reclaim_batch
from bailee.vault.sweeping import Sweep, sweep
from counterparts.databases import Server
from counterparts.keeping import Keeping
from counterparts.services import clean_environment

SESSIONS = 60
LATER = date(2026, 6, 3)


@pytest.fixture
def keeping(
    tmp_path: Path, postgresql: Server, home_name: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Keeping]:
    """Give a home on PostgreSQL with many sessions, all of them due."""
    monkeypatch.setenv(VARIABLE, postgresql.url(home_name))
    opened = Keeping(tmp_path / "home")
    opened.custody.directory.add("ada", Plan.PRO)
    for number in range(SESSIONS):
        opened.record("ada", f"session-{number}")
    opened.custody.settle()
    opened.go_to(LATER)
    yield opened
    opened.close()
    postgresql.empty(home_name)


def destroyed(keeping: Keeping) -> Counter[str]:
    """Return how often the ledger tells of each key's destruction."""
    return Counter(
        segment
        for entry in keeping.entries()
        if isinstance(entry, KeysDestroyed)
        for segment in entry.segments
    )


def rows(custody: Custody) -> list[int]:
    """Return how many keys, segments and records there are."""
    counts = []
    for engine, table in (
        (custody.keystore.engine, tables.keys),
        (custody.vault, tables.segments),
        (custody.vault, tables.records),
    ):
        with engine.connect() as connection:
            counts.append(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())
    return counts


def test_nodes_share_the_work(keeping: Keeping) -> None:
    """Three nodes destroy in small batches at once: every key once, by more than one of them."""
    nodes = [open_custody(keeping.home, clock=lambda: keeping.now) for _ in range(3)]
    done: list[int] = []
    barrier = threading.Barrier(len(nodes))

    def work(node: Custody) -> None:
        barrier.wait()
        while count := destroy_batch(node.vault, node.keystore, today=LATER, at_ms=node.now_ms(), limit=3):
            done.append(count)
        while reclaim_batch(node.vault, limit=3).segments:
            pass

    threads = [threading.Thread(target=work, args=(node,)) for node in nodes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(done) == SESSIONS
    assert rows(keeping.custody) == [0, 0, 0]
    assert sorted(destroyed(keeping).values()) == [1] * SESSIONS
    for node in nodes:
        node.close()


def test_what_one_is_at_the_other_leaves(keeping: Keeping) -> None:
    """While a node holds some, the other takes the rest and does not wait; an erasure waits for all."""
    segments = tables.segments
    claimed = sa.select(segments.c.number).order_by(segments.c.number).limit(10).with_for_update()
    with keeping.custody.vault.begin() as connection:
        held = list(connection.execute(claimed).scalars())
        assert sweep(keeping.custody).keys_destroyed == SESSIONS - len(held)
        eraser = open_custody(keeping.home, clock=lambda: keeping.now)
        erasing = threading.Thread(
            target=eraser.erase_account,
            args=(keeping.custody.directory.get("ada"),),
            kwargs={"by": "operator"},
        )
        erasing.start()
        erasing.join(0.5)
        assert erasing.is_alive()
    erasing.join(20)
    assert not erasing.is_alive()
    eraser.close()
    assert rows(keeping.custody) == [0, 0, 0]
    assert sorted(destroyed(keeping).values()) == [1] * SESSIONS


def test_whole_sweeps_at_once(keeping: Keeping) -> None:
    """Two sweeps with all their steps, tightening and ledger included, end well and count each key once."""
    keeping.go_to(date(2026, 5, 10))
    directory = keeping.custody.directory
    directory.add("boss", Plan.TEAM, organization="acme")
    keeping.record("boss")
    directory.decide_for_organization("acme", Kind.ZDR, given=True, by="boss")
    keeping.go_to(LATER)
    nodes = [open_custody(keeping.home, clock=lambda: keeping.now) for _ in range(2)]
    done: list[Sweep] = []
    threads = [threading.Thread(target=lambda node=node: done.append(sweep(node))) for node in nodes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(one.keys_destroyed for one in done) == SESSIONS + 1
    assert sum(one.tightened for one in done) == 1
    tightened = [entry for entry in keeping.entries() if isinstance(entry, TermsTightened)]
    assert len(tightened) == 1
    assert sorted(destroyed(keeping).values()) == [1] * (SESSIONS + 1)
    assert len({entry.id for entry in keeping.entries()}) == len(keeping.entries())
    for node in nodes:
        node.close()


_KILLED = """
import os, signal, sys
from datetime import datetime, UTC
from pathlib import Path
from bailee.vault import {module} as module
from bailee.vault.custody import open_custody
from bailee.vault.sweeping import sweep
from bailee.vault import sweeping
before = {module_name}
calls = 0
def die(*arguments, **more):
    global calls
    calls += 1
    if {when} == "before" and calls == {calls}:
        os.kill(os.getpid(), signal.SIGKILL)
    done = before(*arguments, **more)
    if {when} == "after" and calls == {calls}:
        os.kill(os.getpid(), signal.SIGKILL)
    return done
{module_name} = die
custody = open_custody(Path(sys.argv[1]), clock=lambda: datetime(2026, 6, 3, 12, tzinfo=UTC).timestamp())
if {small}:
    destroy, reclaim = sweeping.destroy_due, sweeping.reclaim_batch
    sweeping.destroy_due = lambda *a, **m: destroy(*a, limit=7, **m)
    sweeping.reclaim_batch = lambda *a, **m: reclaim(*a, limit=7, **m)
sweep(custody)
"""


@pytest.mark.parametrize(
    ("what", "when", "calls"),
    [
        ("module.Keystore.destroy", "before", 3),
        ("module.Keystore.destroy", "after", 3),
        ("module.Keystore.truncate_log", "after", 1),
        ("module.Custody.settle", "before", 1),
        ("module.move", "after", 2),
        ("module.Log.append", "after", 3),
    ],
)
def test_a_killed_node_leaves_nothing_half_done(keeping: Keeping, what: str, when: str, calls: int) -> None:
    """kill -9 between its steps and within: another node finishes, and each key is told of once.

    Among them: keys destroyed and not yet marked so, entries in the ledger and still in the outbox, and the
    lease on settling held by who is no more.
    """
    module = "keystore" if "Keystore" in what else "custody"
    program = _KILLED.format(module=module, module_name=what, when=repr(when), calls=calls, small=True)
    command = [sys.executable, "-c", program, str(keeping.home)]
    killed = subprocess.run(command, env=clean_environment(keeping.home), check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    keeping.now += 20  # what the killed one had leased has run out
    sweep(keeping.custody)
    assert rows(keeping.custody) == [0, 0, 0]
    assert sorted(destroyed(keeping).values()) == [1] * SESSIONS
    entries = keeping.entries()
    assert len({entry.id for entry in entries}) == len(entries)
    assert keeping.read("ada") == set()
