"""Buckets of tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bailee import rates
from bailee.rates import Rates


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_and_then_a_steady_pace() -> None:
    """As many at once as the bucket holds, then one whenever the pace allows; others have their own."""
    clock = Clock()
    buckets = Rates(2, 3, clock=clock)
    assert [buckets.take("ada") for _ in range(3)] == [0, 0, 0]
    assert buckets.take("ada") == pytest.approx(0.5)
    assert buckets.take("bob") == 0
    clock.now += 0.5
    assert buckets.take("ada") == 0
    assert buckets.take("ada") == pytest.approx(0.5)


@given(st.lists(st.floats(0, 5), max_size=200))
def test_never_more_than_the_pace_allows(pauses: list[float]) -> None:
    """However it is asked, what is taken in a time is at most the burst and what came in since."""
    clock = Clock()
    buckets = Rates(3, 5, clock=clock)
    taken = 0
    for pause in pauses:
        clock.now += pause
        taken += buckets.take("ada") == 0
    assert taken <= 5 + 3 * (clock.now - 1000.0) + 1e-6


def test_full_buckets_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many who came once take no memory for ever, and nobody gets more by it."""
    monkeypatch.setattr(rates, "_MOST_BUCKETS", 100)
    clock = Clock()
    buckets = Rates(1, 10, clock=clock)
    for number in range(1000):
        clock.now += 1
        buckets.take(f"somebody {number}")
    assert len(buckets._buckets) <= 101
