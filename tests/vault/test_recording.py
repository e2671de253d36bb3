"""The service's end of the recorder, and the recorder's start."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from bailee.database.engines import watch_changes
from bailee.vault.recorder import prove_writing
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
