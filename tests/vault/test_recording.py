"""The service's end of the recorder, and the recorder's start."""

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bailee.database.engines import watch_changes
from bailee.policy.problems import Problem
from bailee.vault.recorder import LOCK_NAME, alone, prove_writing
from bailee.vault.recording import Recording
from bailee.vault.store import open_vault


@given(st.lists(st.integers(0, 2**41), min_size=2, max_size=60), st.lists(st.integers(0, 3), min_size=60))
def test_no_exchange_gets_the_id_of_another(times: list[int], drawn: list[int]) -> None:
    """However many come in one millisecond, and wherever the clock jumps, ids differ and grow."""
    draws = iter(drawn)
    recording = Recording(Path("unused"), lambda bits: next(draws))
    ids = [recording.new_exchange(started_ms) for started_ms in times]
    assert ids == sorted(set(ids))


def test_a_recorder_writes_before_it_says_that_it_can(tmp_path: Path) -> None:
    """Opening a database proves nothing of its disk: something is committed first."""
    vault = open_vault(tmp_path)
    version = watch_changes(vault)
    before = version()
    prove_writing(vault)
    assert version() != before
    before = version()
    with vault.connect() as connection:
        connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    assert version() == before, "reading looks like writing"
    vault.dispose()


def test_a_recorder_waits_for_the_one_before(tmp_path: Path) -> None:
    """Of a home that another still writes nothing is touched; once that has ended, it begins."""
    with alone(tmp_path):
        with pytest.raises(Problem, match="an earlier recorder"), alone(tmp_path, patience=0.05):
            pass
        waiting = threading.Thread(target=hold, args=(tmp_path,))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
    waiting.join(10)
    assert not waiting.is_alive()
    assert (tmp_path / LOCK_NAME).stat().st_mode & 0o077 == 0


def hold(home: Path) -> None:
    """Hold a home for a moment."""
    with alone(home):
        pass
