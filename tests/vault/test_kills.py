"""kill -9 of any process at any moment: nothing acknowledged is lost, nothing erased comes back.

A short soak with the tests; `make soak` is the long one.
"""

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from bailee.database.locations import VARIABLE
from counterparts.databases import Server, draw_name, sharing_server
from soak.audits import Auditor
from soak.faults import Victim, erase, inflict
from soak.soaks import settle_and_audit, soak
from soak.worlds import World, opening

SEED = 20261124
EVERYWHERE = (Victim.BOTH, Victim.ERASER, Victim.SWEEPER_OF_TWO, Victim.RECORDER)

# The end of an answer does not wait for its record.
TOO_EARLY = """
import asyncio
from bailee.vault.recording import Recording
finish = Recording.finish
def finish_at_once(self, frame):
    finish(self, frame).add_done_callback(lambda done: done.cancelled() or done.exception())
    done = asyncio.get_running_loop().create_future()
    done.set_result(None)
    return done
Recording.finish = finish_at_once
"""
NO_KEY_DESTROYED = """
from bailee.vault.keystore import Keystore
Keystore.destroy = lambda *arguments, **more: 0
"""
NO_ROW_DELETED = """
from bailee.vault import destruction
nothing = lambda *arguments, **more: destruction.Reclaimed(0, 0, 0, 0)
destruction.reclaim_batch = nothing
"""
NOTHING_DUE = """
from array import array
from bailee.vault import destruction
destruction.destroy_batch = lambda *arguments, **more: 0
destruction.destroy_due = lambda *arguments, **more: array("q")
"""
# The service's own sweepers would do the other half.
RARE_SWEEPS = "sweeping.LOOK_SECONDS = 10_000.0\n"


@pytest.fixture
def own_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Give a PostgreSQL server of this test's own, to be harmed."""
    with sharing_server(f"kills-{secrets.token_hex(4)}") as server:
        monkeypatch.setenv(VARIABLE, server.url(draw_name()))
        yield server


def test_kills_with_sqlite(tmp_path: Path) -> None:
    """Service, recorder, sweeper and eraser are killed in turn; the home stays as clients were told."""
    victims = (Victim.SERVICE, Victim.STALLED, *EVERYWHERE)
    soaked = soak(tmp_path / "world", seed=SEED, kills=len(victims), server=None, victims=victims)
    assert soaked.violations == []
    assert soaked.kills.total() == len(victims)
    assert soaked.gone > 0


def test_kills_with_postgresql(tmp_path: Path, own_server: Server) -> None:
    """The same, and the database server itself: one of its processes, and all of it."""
    victims = (Victim.BACKEND, Victim.SERVER, *EVERYWHERE)
    soaked = soak(tmp_path / "world", seed=SEED, kills=len(victims), server=own_server, victims=victims)
    assert soaked.violations == []
    assert soaked.kills.total() == len(victims)
    assert soaked.gone > 0


def test_control_answers_that_end_too_early(tmp_path: Path) -> None:
    """Negative control: where answers do not wait for their record, the audit misses some."""
    with opening(tmp_path / "world", Random(SEED), None, TOO_EARLY) as world:
        auditor = Auditor(world.home, world.journal, world.clock)
        inflict(world, Victim.STALLED, Random(SEED))
        assert any("was acknowledged, and is lost" in what for what in settle_and_audit(world, auditor))


def sweep_and_audit(world: World, auditor: Auditor) -> str:
    """Audit after a sweep by the command, as it is changed."""
    world.pause()
    assert world.start_sweep().wait() == 0
    found = auditor.audit()
    world.resume()
    return "\n".join(found)


def test_control_commands_that_do_half_of_it(tmp_path: Path) -> None:
    """Negative control: keys, rows or due segments that stay, and an old ledger: each is told."""
    with opening(tmp_path / "world", Random(SEED), None, RARE_SWEEPS) as world:
        auditor = Auditor(world.home, world.journal, world.clock)
        assert settle_and_audit(world, auditor) == []
        shutil.copytree(world.home / "ledger", tmp_path / "ledger")
        world.change_commands(NO_ROW_DELETED)
        erase(world, world.journal.list_sessions()[0])
        told = sweep_and_audit(world, auditor)
        assert "is there and its key is not" in told
        assert "is held, and was erased" not in told
        world.change_commands(NO_KEY_DESTROYED)
        command = world.start("sessions", "erase", world.journal.list_sessions()[0], "--yes")
        assert command.wait() == 2, "it misses the word of it in the ledger"
        assert "is there and the segment is not" in sweep_and_audit(world, auditor)
        world.change_commands(NOTHING_DUE)
        world.clock.advance(1)
        assert "was due on" in sweep_and_audit(world, auditor)
        world.pause()
        shutil.rmtree(world.home / "ledger")
        shutil.copytree(tmp_path / "ledger", world.home / "ledger")
        assert any(what.startswith("ledger, ") for what in auditor.audit())
