"""The service's end of the recorder."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from bailee.vault.recording import Recording


@given(st.lists(st.integers(0, 2**41), min_size=2, max_size=60), st.lists(st.integers(0, 3), min_size=60))
def test_no_exchange_gets_the_id_of_another(times: list[int], drawn: list[int]) -> None:
    """However many come in one millisecond, and wherever the clock jumps, ids differ and grow."""
    draws = iter(drawn)
    recording = Recording(Path("unused"), lambda bits: next(draws))
    ids = [recording.new_exchange(started_ms) for started_ms in times]
    assert ids == sorted(set(ids))
