"""How long a thing may be held: a period, its meet with another, and the day it ends."""

import re
from collections.abc import Iterable
from datetime import date, timedelta
from enum import StrEnum
from functools import lru_cache, reduce
from typing import Self

import msgspec

from bailee.policy.problems import Problem

LONGEST_DAYS = 999_999
LONGEST_YEARS = 100  # below 366 years `tighten` is exact: see there

_WRITTEN = re.compile(r"([1-9][0-9]{0,5})([dy])", re.ASCII)


class Unit(StrEnum):
    """What a period is counted in; `none` and `unlimited` are words and carry no number."""

    NONE = "none"
    DAYS = "d"
    YEARS = "y"
    UNLIMITED = "unlimited"


class Period(msgspec.Struct, frozen=True):
    """A retention period: nothing, a number of days, a number of calendar years, or no end.

    Build one with `Period.parse`, `Period.days` or `Period.years`, or take NONE or UNLIMITED.
    """

    unit: Unit
    count: int = 0

    @classmethod
    def parse(cls, text: str, *, where: str = "") -> Self:
        """Read `30d`, `5y`, `none` or `unlimited`.

        Raises:
            Problem: for anything else. `0d`, blank and negative numbers are refused, because nobody can
                tell whether they ask to delete at once or to keep for ever.
        """
        if text in (Unit.NONE, Unit.UNLIMITED):
            return cls(Unit(text))
        if found := _WRITTEN.fullmatch(text):
            return cls.years(int(found[1])) if found[2] == "y" else cls.days(int(found[1]))
        raise Problem(
            f"{text!r} is not a retention period",
            where=where,
            fix="write a number of days such as 30d, a number of years such as 5y, none, or unlimited",
        )

    @classmethod
    def days(cls, count: int) -> Self:
        """Return a period of whole days; raises Problem outside 1 to 999,999."""
        if not 1 <= count <= LONGEST_DAYS:
            raise Problem(
                f"{count} days is not a retention period",
                fix=f"give 1 to {LONGEST_DAYS} days, or the word none or unlimited",
            )
        return cls(Unit.DAYS, count)

    @classmethod
    def years(cls, count: int) -> Self:
        """Return a period of calendar years; raises Problem outside 1 to 100."""
        if not 1 <= count <= LONGEST_YEARS:
            raise Problem(
                f"{count} years is not a retention period",
                fix=f"give 1 to {LONGEST_YEARS} years, or the word none or unlimited",
            )
        return cls(Unit.YEARS, count)

    def __str__(self) -> str:
        return f"{self.count}{self.unit}" if self.count else str(self.unit)

    @property
    def is_none(self) -> bool:
        """Tell whether nothing may be held at all."""
        return self.unit is Unit.NONE

    @property
    def is_unlimited(self) -> bool:
        """Tell whether there is no end."""
        return self.unit is Unit.UNLIMITED

    def expires_on(self, written: date) -> date | None:
        """Return the UTC day at whose beginning a thing written on `written` is no longer held.

        `none` gives the day of writing itself: expired before it could be stored. `unlimited` gives None.
        A year ends on the same date; 29 February ends on 28 February, never a day longer than promised.
        """
        match self.unit:
            case Unit.NONE:
                return written
            case Unit.UNLIMITED:
                return None
            case Unit.DAYS:
                return _add_days(written, self.count)
            case Unit.YEARS:
                return _add_years(written, self.count)


def _add_days(day: date, count: int) -> date:
    try:
        return day + timedelta(days=count)
    except OverflowError:
        return date.max


def _add_years(day: date, count: int) -> date:
    if day.year + count > date.max.year:
        return date.max
    try:
        return day.replace(year=day.year + count)
    except ValueError:  # 29 February of a year that has none
        return day.replace(year=day.year + count, day=28)


NONE = Period(Unit.NONE)
UNLIMITED = Period(Unit.UNLIMITED)


def is_within(shorter: Period, longer: Period) -> bool:
    """Tell whether `shorter` ends no later than `longer` whatever the day of writing.

    A partial order: 5y and 1826d are not comparable, because five years hold 1825 to 1827 days.
    """
    if shorter == longer or shorter.is_none or longer.is_unlimited:
        return True
    if longer.is_none or shorter.is_unlimited:
        return False
    if shorter.unit is longer.unit:
        return shorter.count <= longer.count
    if shorter.unit is Unit.DAYS:
        return shorter.count <= 365 * longer.count
    return 366 * shorter.count <= longer.count


@lru_cache(maxsize=1024)
def tighten(one: Period, other: Period) -> Period:
    """Return the longest period that is within both: the meet of two limits.

    Of a comparable pair that is the shorter one. Of a pair that is not (5y and 1826d) it is the years
    at their shortest, in days (1825d), so that neither promise is broken on any date.
    """
    if is_within(one, other):
        return one
    if is_within(other, one):
        return other
    years = one if one.unit is Unit.YEARS else other
    return Period.days(365 * years.count)


def tightest(periods: Iterable[Period]) -> Period:
    """Return the meet of all periods given; of none, unlimited."""
    return reduce(tighten, periods, UNLIMITED)
