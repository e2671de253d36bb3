"""Periods: how they are written, how they tighten, when they end."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bailee.policy.periods import NONE, UNLIMITED, Period, is_within, tighten, tightest
from bailee.policy.problems import Problem

periods = st.one_of(
    st.just(NONE),
    st.just(UNLIMITED),
    st.integers(1, 40_000).map(Period.days),
    st.integers(1, 100).map(Period.years),
    # near a whole number of years, where days and years cannot be compared
    st.builds(
        lambda years, by: Period.days(max(1, 365 * years + by)), st.integers(1, 100), st.integers(-2, 110)
    ),
)
days = st.dates(date(1970, 1, 1), date(2200, 12, 31))


@pytest.mark.parametrize("text", ["30d", "1d", "5y", "none", "unlimited", "999999d"])
def test_written_and_read(text: str) -> None:
    """A period is written as it was read."""
    assert str(Period.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", " ", "0", "0d", "0y", "-3d", "30", "d", "18m", "1.5y", "30D", "٣d", "None", "1000000d", "101y"],
)
def test_unclear_periods_are_refused(text: str) -> None:
    """Nought, blank, negative and unknown units are errors that say what to write."""
    with pytest.raises(Problem) as refused:
        Period.parse(text, where="settings.json: retention")
    assert refused.value.fix


@pytest.mark.parametrize(
    ("text", "written", "expires"),
    [
        ("30d", date(2026, 1, 1), date(2026, 1, 31)),
        ("1d", date(2026, 12, 31), date(2027, 1, 1)),
        ("5y", date(2026, 3, 1), date(2031, 3, 1)),
        ("5y", date(2024, 2, 29), date(2029, 2, 28)),
        ("4y", date(2024, 2, 29), date(2028, 2, 29)),
        ("none", date(2026, 1, 1), date(2026, 1, 1)),
        ("unlimited", date(2026, 1, 1), None),
        ("999999d", date(9000, 1, 1), date.max),
        ("100y", date(9950, 1, 1), date.max),
    ],
)
def test_expiry_day(text: str, written: date, expires: date | None) -> None:
    """A period of N days ends as day D+N begins; years are calendar years, 29 February ends on the 28th."""
    assert Period.parse(text).expires_on(written) == expires


@given(periods, periods, days)
def test_tightening_ends_no_later_than_either(one: Period, other: Period, written: date) -> None:
    """Whatever the day of writing, what two limits agree on breaks neither."""
    ends = tighten(one, other).expires_on(written)
    for limit in (one.expires_on(written), other.expires_on(written)):
        assert limit is None or (ends is not None and ends <= limit)


@given(periods, periods)
def test_commutative(one: Period, other: Period) -> None:
    """Order does not matter."""
    assert tighten(one, other) == tighten(other, one)


@given(periods, periods, periods)
def test_associative(one: Period, two: Period, three: Period) -> None:
    """Grouping does not matter."""
    assert tighten(tighten(one, two), three) == tighten(one, tighten(two, three))


@given(periods)
def test_idempotent_with_neutral_and_absorbing(one: Period) -> None:
    """Saying it twice changes nothing, unlimited changes nothing, none settles it."""
    assert tighten(one, one) == one
    assert tighten(one, UNLIMITED) == one
    assert tighten(one, NONE) == NONE


@given(periods, periods)
def test_meet_is_the_greatest_lower_bound(one: Period, other: Period) -> None:
    """The meet is within both, and a period that is within both is within the meet."""
    both = tighten(one, other)
    assert is_within(both, one)
    assert is_within(both, other)
    if is_within(one, other):
        assert both == one


@given(periods, periods, days)
def test_within_means_never_later(one: Period, other: Period, written: date) -> None:
    """The order says the truth on every date."""
    if is_within(one, other):
        limit = other.expires_on(written)
        ends = one.expires_on(written)
        assert limit is None or (ends is not None and ends <= limit)


@given(st.lists(periods), st.randoms())
def test_tightest_of_many_is_independent_of_order(many: list[Period], random: object) -> None:
    """The tightest of a list is the same in any order."""
    shuffled = list(many)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert tightest(many) == tightest(shuffled)


def test_average_length_would_break_the_promise() -> None:
    """Control: the naive order, by average length, keeps 1826 days where five years were 1825."""
    written = date(2097, 3, 1)
    promised = Period.years(5).expires_on(written)
    kept = tighten(Period.years(5), Period.days(1826)).expires_on(written)
    assert promised == date(2102, 3, 1)
    assert written + timedelta(days=1826) > promised
    assert kept is not None
    assert kept <= promised
