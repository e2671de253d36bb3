"""Moments and days, for people and programs to read; inside, a moment is milliseconds since 1970 UTC."""

from datetime import UTC, date, datetime


def tell_moment(milliseconds: int) -> str:
    """Write a moment to the millisecond as RFC 3339 has it: `2026-11-24T18:05:13.000+00:00`."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


def tell_minute(milliseconds: int) -> str:
    """Write a moment to the minute, UTC: `2026-11-24 18:05`."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def begin_of(day: date) -> int:
    """Return when a UTC day begins."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)
