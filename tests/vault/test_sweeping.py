"""What has expired goes on its day, whatever happened meanwhile; what has not, stays."""

import os
import signal
import subprocess
import sys
import tempfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bailee.accounts.people import Kind
from bailee.ledger.entries import KeysDestroyed, Swept, commit_segment
from bailee.ledger.log import FOLDER
from bailee.ledger.storage import DirectoryTiles
from bailee.ledger.verification import verify_ledger
from bailee.policy.flows import FlowId
from bailee.policy.periods import Period, tighten
from bailee.policy.plans import Plan
from bailee.policy.problems import Problem
from bailee.vault import destruction, sweeping, tables
from bailee.vault.ceilings import Ceiling
from bailee.vault.custody import open_custody
from bailee.vault.store import VAULT
from bailee.vault.sweeping import preview, sweep
from bailee.vault.terms import terms_of
from counterparts.keeping import FIRST_DAY, Keeping

DUE = date(2026, 6, 3)  # thirty days after the first


@pytest.fixture
def keeping(tmp_path: Path) -> Iterator[Keeping]:
    """Give a home with a consumer."""
    opened = Keeping(tmp_path / "home")
    opened.custody.directory.add("ada", Plan.PRO)
    yield opened
    opened.close()


def count(keeping: Keeping) -> dict[str, int]:
    """Return how many rows there are of each kind, and how many keys."""
    kinds = (tables.segments, tables.records, tables.exchanges)
    with keeping.custody.vault.connect() as connection:
        rows = {
            table.name: connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
            for table in kinds
        }
    with keeping.custody.keystore.engine.connect() as connection:
        query = sa.select(sa.func.count()).select_from(tables.keys)
        return rows | {"keys": connection.execute(query).scalar_one()}


def is_verified(keeping: Keeping) -> bool:
    """Verify the whole ledger, as an auditor does."""
    return verify_ledger(DirectoryTiles(keeping.home / FOLDER), keeping.custody.log.verifier).verified


# --- To the day ---


def test_held_to_the_day(keeping: Keeping) -> None:
    """A segment of day D with 30 days is there on D+29 and gone on D+30, rows, key and all."""
    said = keeping.record("ada")
    keeping.go_to(DUE - timedelta(days=1))
    assert sweep(keeping.custody).keys_destroyed == 0
    assert keeping.read("ada") == {said}
    keeping.go_to(DUE)
    done = sweep(keeping.custody)
    assert (done.keys_destroyed, done.segments, done.exchanges) == (1, 1, 1)
    assert count(keeping) == {"segments": 0, "records": 0, "exchanges": 0, "keys": 0}


def test_control_without_destruction(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: a sweep that destroys no key leaves it all there, past its day."""
    keeping.record("ada")
    monkeypatch.setattr(sweeping, "destroy_due", lambda *arguments, **more: array("q"))
    keeping.go_to(DUE)
    sweep(keeping.custody)
    assert count(keeping)["keys"] == 1


def test_facts_without_content_go_too(keeping: Keeping) -> None:
    """What is known of an exchange whose content was not kept is held thirty days, as operational data."""
    keeping.custody.directory.add("team", Plan.TEAM)
    keeping.custody.directory.decide_for_organization("team", Kind.ZDR, given=True, by="team")
    keeping.record("team")
    keeping.go_to(DUE - timedelta(days=1))
    assert sweep(keeping.custody).facts == 0
    keeping.go_to(DUE)
    assert sweep(keeping.custody).facts == 1
    assert count(keeping)["exchanges"] == 0


def test_nothing_is_searched_for_what_is_deleted(keeping: Keeping) -> None:
    """Whatever a sweep deletes is found by an index, and so is whatever the database looks for then itself.

    A foreign key to a row that goes has it look for the rows that refer to it: without an index, through all
    that is held, for each row that goes.
    """
    for table in tables.vault.tables.values():
        indexes = [[column.name for column in index.columns] for index in table.indexes]
        indexes.append([column.name for column in table.primary_key])
        for key in table.foreign_keys:
            if key.column.table is not tables.decisions:  # which never go
                assert any(names[0] == key.parent.name for names in indexes), key
    with keeping.custody.vault.connect() as connection:
        query = "EXPLAIN QUERY PLAN SELECT id FROM exchanges WHERE id < 1 AND segment IS NULL ORDER BY id"
        plan = " ".join(str(row) for row in connection.exec_driver_sql(query))
    assert "exchanges_without_content" in plan


def test_a_look_ahead_changes_nothing(keeping: Keeping) -> None:
    """Counted for a day that lies ahead, what will go is what then goes."""
    keeping.record("ada")
    before = count(keeping)
    ahead = preview(keeping.custody, as_of=DUE)
    assert count(keeping) == before
    keeping.go_to(DUE)
    done = sweep(keeping.custody)
    for name in ("keys_destroyed", "segments", "records", "exchanges", "stored_bytes"):
        assert getattr(ahead, name) == getattr(done, name)


def test_nobody_sweeps_by_a_day_that_has_not_begun(keeping: Keeping) -> None:
    """A day ahead is refused: what is promised until then would be lost."""
    keeping.record("ada")
    with pytest.raises(Problem, match="has not begun"):
        sweep(keeping.custody, as_of=DUE)
    assert count(keeping)["keys"] == 1


@pytest.mark.parametrize("day", [date.min, date(1970, 1, 31), date(2109, 1, 2), date(2110, 1, 1), date.max])
def test_days_out_of_reach_are_refused(keeping: Keeping, day: date) -> None:
    """A day that no id of an exchange reaches is named, with the option it came by; nothing is changed."""
    keeping.record("ada")
    before = count(keeping)
    for look in (preview, sweep):
        with pytest.raises(Problem, match=r"out of reach|has not begun") as refused:
            look(keeping.custody, as_of=day)
        assert refused.value.where == "--as-of"
    assert count(keeping) == before


@pytest.mark.parametrize("day", [date(1970, 2, 1), date(2109, 1, 1)])
def test_the_farthest_days_are_counted(keeping: Keeping, day: date) -> None:
    """As far as ids of exchanges reach, a look ahead or back counts."""
    keeping.record("ada")
    assert preview(keeping.custody, as_of=day).keys_destroyed == int(day > DUE)


def test_unreadable_settings_pause_it(keeping: Keeping) -> None:
    """Where what an account allows cannot be read, nothing is destroyed, and the reason names the file."""
    keeping.record("ada")
    keeping.go_to(DUE)
    with keeping.custody.directory.engine.begin() as connection:
        connection.execute(sa.text("UPDATE accounts SET retention = 'soon'"))
    with pytest.raises(Problem, match="'soon' is not a retention period"):
        sweep(keeping.custody)
    assert count(keeping)["keys"] == 1
    with keeping.custody.directory.engine.begin() as connection:
        connection.execute(sa.text("UPDATE accounts SET retention = NULL"))
    assert sweep(keeping.custody).keys_destroyed == 1


# --- What is left ---


def test_an_old_copy_of_what_expired_does_not_open(keeping: Keeping) -> None:
    """The rows put back from a copy of before the sweep, nothing of them opens with the present keystore."""
    keeping.record("ada", body=b"what was said")
    keeping.writer.commit()
    copy = keeping.home.parent / "copy.db"
    with keeping.custody.vault.connect() as connection:
        connection.exec_driver_sql(f"VACUUM INTO '{copy}'")
    keeping.go_to(DUE)
    sweep(keeping.custody)
    engine = sa.create_engine(f"sqlite:///{copy}")
    with engine.connect() as connection:
        (id,) = connection.execute(sa.select(tables.segments.c.id)).scalars()
    engine.dispose()
    assert keeping.custody.keystore.get(id) is None


def test_its_space_is_given_back(keeping: Keeping) -> None:
    """The vault's file shrinks by most of what went."""
    random = Random(1)
    for number in range(20):
        keeping.record("ada", f"session-{number}", random.randbytes(50_000))
    keeping.custody.keystore.truncate_log()
    path = keeping.home / VAULT
    keeping.go_to(DUE)
    done = sweep(keeping.custody)
    assert done.bytes_given_back > 900_000
    assert path.stat().st_size < 100_000


def test_sweeps_are_in_the_ledger(keeping: Keeping) -> None:
    """Each destroyed key is told, by the commitment to its segment; a sweep of nothing tells nothing."""
    keeping.record("ada")
    with keeping.custody.vault.connect() as connection:
        ids = list(connection.execute(sa.select(tables.segments.c.id)).scalars())
    sweep(keeping.custody)
    assert not [one for one in keeping.entries() if isinstance(one, Swept)]
    keeping.go_to(DUE)
    sweep(keeping.custody)
    told = keeping.entries()
    (destroyed,) = [one for one in told if isinstance(one, KeysDestroyed)]
    assert (destroyed.why, destroyed.segments) == ("expired", tuple(map(commit_segment, ids)))
    (swept,) = [one for one in told if isinstance(one, Swept)]
    assert (swept.as_of, swept.keys_destroyed) == (DUE.isoformat(), 1)
    assert is_verified(keeping)


def test_more_than_one_batch(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many segments go in many steps, and all of them go."""
    for number in range(25):
        keeping.record("ada", f"session-{number}")
    small: dict[str, Any] = {"limit": 10}
    monkeypatch.setattr(destruction.destroy_due, "__kwdefaults__", small)
    monkeypatch.setattr(destruction.mark_destroyed, "__kwdefaults__", small)
    monkeypatch.setattr(destruction.reclaim_batch, "__kwdefaults__", small)
    keeping.go_to(DUE)
    seen: list[int] = []
    assert sweep(keeping.custody, report=lambda progress: seen.append(progress.keys)).keys_destroyed == 25
    assert seen[:3] == [10, 20, 25]
    assert count(keeping)["keys"] == 0


def test_keys_that_come_due_meanwhile_do_not_wait_for_rows(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Midnight passes while rows are deleted: what is due then goes before the next rows do."""
    for number in range(25):
        keeping.record("ada", f"session-{number}")
    keeping.go_to(date(2026, 5, 5))
    keeping.record("ada", "young")
    keeping.go_to(DUE)
    keys: list[int] = []

    def reclaim(engine: sa.Engine) -> destruction.Reclaimed:
        keys.append(count(keeping)["keys"])
        if len(keys) == 1:
            keeping.go_to(DUE + timedelta(days=1))
        return destruction.reclaim_batch(engine, limit=10)

    monkeypatch.setattr(sweeping, "reclaim_batch", reclaim)
    done = sweep(keeping.custody)
    assert keys[:2] == [1, 0]
    assert (done.keys_destroyed, done.segments, done.as_of) == (26, 26, DUE + timedelta(days=1))


@pytest.mark.sqlite
def test_space_is_given_back_batch_by_batch(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of free pages, which SQLite looks through for each page, never gets long."""
    for number in range(20):
        keeping.record("ada", f"session-{number}", body=os.urandom(20_000))
    keeping.go_to(DUE)
    free: list[int] = []

    def reclaim(engine: sa.Engine) -> destruction.Reclaimed:
        with engine.connect() as connection:
            free.append(connection.exec_driver_sql("PRAGMA freelist_count").scalar_one())
        return destruction.reclaim_batch(engine, limit=5)

    monkeypatch.setattr(sweeping, "reclaim_batch", reclaim)
    sweep(keeping.custody)
    assert len(free) == 5
    assert max(free) < 10


# --- As a property ---


@dataclass
class Said:
    """What a reference remembers of one exchange."""

    account: str
    session: str
    day: date
    retention: Period
    trainable: bool
    flow: FlowId

    @property
    def due(self) -> date | None:
        return self.retention.expires_on(self.day)


NAMES = ("consumer", "member")
STEPS = st.one_of(
    st.tuples(st.just("say"), st.sampled_from(NAMES), st.sampled_from(["s1", "s2"])),
    st.tuples(st.just("report"), st.sampled_from(NAMES), st.sampled_from(["r1", "s1"])),
    st.tuples(st.just("training"), st.booleans(), st.none()),
    st.tuples(st.just("dpp"), st.booleans(), st.none()),
    st.tuples(st.just("zdr"), st.booleans(), st.none()),
    st.tuples(st.just("limit"), st.sampled_from(NAMES), st.sampled_from(["3d", "20d", "1y", "unlimited"])),
    st.tuples(st.just("hold"), st.sampled_from(NAMES), st.sampled_from(["s1", None])),
    st.tuples(st.just("release"), st.none(), st.none()),
    st.tuples(st.just("wait"), st.sampled_from([1, 2, 10, 29, 30, 400, 1826]), st.none()),
    st.tuples(st.just("back"), st.sampled_from([1, 5]), st.none()),
    st.tuples(st.just("sweep"), st.none(), st.none()),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(STEPS, min_size=3, max_size=20))
def test_nothing_is_held_past_its_terms_or_lost_before_them(steps: list[tuple[str, Any, Any]]) -> None:
    """Whatever is said, consented, limited, held and waited for, clocks set back too: a reference agrees."""
    with tempfile.TemporaryDirectory() as folder:
        keeping = Keeping(Path(folder) / "home")
        try:
            _walk(keeping, [*steps, ("sweep", None, None)])
        finally:
            keeping.close()


def _walk(keeping: Keeping, steps: list[tuple[str, Any, Any]]) -> None:
    custody, directory = keeping.custody, keeping.custody.directory
    directory.add("consumer", Plan.MAX)
    directory.add("member", Plan.API, organization="acme")
    said: dict[int, Said] = {}
    holds: dict[str, tuple[str, str | None]] = {}
    # Whoever says something at an earlier moment, as after a clock was set back, comes under what was
    # tightened later: nothing tells it from what was admitted before and written after.
    tightened: list[tuple[float, str, dict[FlowId, Ceiling]]] = []

    def reach_back(name: str) -> None:
        keeping.now += 1
        custody.tighten(directory.get(name))
        flows = (FlowId.MESSAGES, FlowId.FEEDBACK)
        tightened.append((keeping.now, name, {flow: terms_of(directory.get(name), flow) for flow in flows}))
        for one in said.values():
            if one.account == name:
                ceiling = terms_of(directory.get(name), one.flow)
                one.retention = tighten(one.retention, ceiling.retention)
                one.trainable = one.trainable and ceiling.trainable

    def is_held(one: Said) -> bool:
        return any(name == one.account and session in (None, one.session) for name, session in holds.values())

    def check() -> None:
        for name in NAMES:
            readable = {
                exchange
                for exchange, one in said.items()
                if one.account == name and (one.due is None or one.due > keeping.today or is_held(one))
            }
            assert keeping.read(name) == readable

    for step, what, more in steps:
        keeping.now += 1
        if step in ("say", "report"):
            flow = FlowId.MESSAGES if step == "say" else FlowId.FEEDBACK
            terms = terms_of(directory.get(what), flow)
            exchange = keeping.record(what, more, b"said", flow=flow)
            retention, trainable = terms.retention, terms.trainable
            for moment, name, ceilings in tightened:
                if name == what and keeping.now < moment:
                    retention = tighten(retention, ceilings[flow].retention)
                    trainable = trainable and ceilings[flow].trainable
            if not retention.is_none:
                said[exchange] = Said(what, more, keeping.today, retention, trainable, flow)
        elif step == "training":
            directory.consent("consumer", given=what)
            reach_back("consumer")
        elif step in ("dpp", "zdr"):
            directory.decide_for_organization("acme", Kind(step), given=what, by="member")
            reach_back("member")
        elif step == "limit":
            directory.limit_account(what, Period.parse(more))
            reach_back(what)
        elif step == "hold":
            if more is None or any(one.account == what and one.session == more for one in said.values()):
                placed = custody.hold(directory.get(what), more, reason="case", by="counsel")
                holds[placed.id] = (what, more)
        elif step == "release" and holds:
            id = next(iter(holds))
            custody.release(id, reason="settled", by="counsel")
            del holds[id]
        elif step == "wait":
            keeping.go_to(keeping.today + timedelta(days=what))
        elif step == "back":
            keeping.go_to(max(FIRST_DAY, keeping.today - timedelta(days=what)))
        elif step == "sweep":
            sweep(custody)
            gone = [
                exchange
                for exchange, one in said.items()
                if one.due is not None and one.due <= keeping.today and not is_held(one)
            ]
            for exchange in gone:
                del said[exchange]
            kept = {(one.account, one.session, one.day, str(one.retention)) for one in said.values()}
            assert count(keeping)["keys"] == count(keeping)["segments"] >= len(kept)
        check()
    assert is_verified(keeping)


# --- Killed in the middle ---

_SWEEP_AND_DIE = """
import os, random, signal, sys, threading, time
from datetime import UTC, datetime
from pathlib import Path
import bailee.vault.destruction as destruction
from bailee.vault.custody import open_custody
from bailee.vault.sweeping import sweep
import bailee.vault.sweeping as sweeping
destruction.destroy_due.__kwdefaults__["limit"] = 7
destruction.mark_destroyed.__kwdefaults__["limit"] = 7
destruction.reclaim_batch.__kwdefaults__["limit"] = 7
now = float(sys.argv[3])
custody = open_custody(Path(sys.argv[1]), clock=lambda: now)
delay = float(sys.argv[2])
def die():
    time.sleep(delay)
    os.kill(os.getpid(), signal.SIGKILL)
threading.Thread(target=die, daemon=True).start()
sweep(custody)
"""


def test_killed_at_any_point_the_next_sweep_finishes(keeping: Keeping) -> None:
    """Sweeps that are killed at random lose nothing that is held, and leave nothing that is due."""
    for number in range(60):
        keeping.record("ada", f"old-{number}")
    keeping.go_to(DUE - timedelta(days=5))
    young = {keeping.record("ada", f"young-{number}") for number in range(20)}
    with keeping.custody.vault.connect() as connection:
        expired = sa.select(tables.segments.c.id).where(tables.segments.c.expires_on <= DUE)
        commitments = {commit_segment(id) for id in connection.execute(expired).scalars()}
    assert len(commitments) == 60
    keeping.go_to(DUE)
    random = Random(20261124)
    codes = []
    for _ in range(12):
        delay = str(random.uniform(0.0, 0.25))
        command = [sys.executable, "-c", _SWEEP_AND_DIE, str(keeping.home), delay, str(keeping.now)]
        codes.append(subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode)
        assert keeping.read("ada") == young
        with keeping.custody.vault.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []
    assert -signal.SIGKILL in codes
    sweep(keeping.custody)
    assert count(keeping) == {"segments": 20, "records": 40, "exchanges": 20, "keys": 20}
    told = [
        segment for one in keeping.entries() if isinstance(one, KeysDestroyed) for segment in one.segments
    ]
    assert set(told) == commitments
    assert is_verified(keeping)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="nothing tells what is open")
def test_nothing_stays_open_after_a_sweep(tmp_path: Path) -> None:
    """A process that swept and closed its home holds no descriptor of a database any more."""
    custody = open_custody(tmp_path / "home")
    sweep(custody)
    custody.close()
    opened = [str(entry.readlink()) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    assert [path for path in opened if path.startswith(str(custody.home))] == []
