"""`bailee survey`: how sessions were rated."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bailee.cli.options import echo_json, echo_table, with_home, with_json

if TYPE_CHECKING:
    from bailee.flows.survey.results import Count


@click.group()
def survey() -> None:
    """How sessions were rated. Who rated which is not held."""


@survey.command()
@with_home
@with_json
def summary(home: Path, as_json: bool) -> None:
    """Count ratings by version: how many of each, and the mean of those who gave a number (1 to 3)."""
    import msgspec

    from bailee.flows.survey.ratings import Rating
    from bailee.flows.survey.results import summarize

    found = summarize(_count(home))
    if as_json:
        echo_json(msgspec.to_builtins(found))
        return
    rows = [
        (
            one.version,
            *(str(one.counts[rating]) for rating in Rating),
            "-" if one.mean is None else f"{one.mean:.2f}",
        )
        for one in found
    ]
    heads = ("VERSION", *(rating.value.upper() for rating in Rating), "MEAN")
    echo_table(heads, rows, empty="No ratings are held.")


@survey.command()
@with_home
@with_json
def days(home: Path, as_json: bool) -> None:
    """Count ratings by UTC day and version."""
    import msgspec

    from bailee.flows.survey.ratings import Rating

    counts = _count(home)
    if as_json:
        echo_json(msgspec.to_builtins(counts))
        return
    by_day: dict[tuple[str, str], dict[str, int]] = {}
    for count in counts:
        by_day.setdefault((count.day.isoformat(), count.version), {})[count.rating] = count.count
    rows = [(*key, *(str(found.get(rating.value, 0)) for rating in Rating)) for key, found in by_day.items()]
    heads = ("DAY", "VERSION", *(rating.value.upper() for rating in Rating))
    echo_table(heads, rows, empty="No ratings are held.")


def _count(home: Path) -> "list[Count]":
    from bailee.flows.survey.receiver import NOBODY, SESSION
    from bailee.flows.survey.results import count_ratings
    from bailee.vault.reader import list_exchanges, read_session
    from bailee.vault.store import open_keys, open_vault

    vault, keys, today = open_vault(home), open_keys(home), datetime.now(UTC).date()
    try:
        exchanges = list_exchanges(vault, account=NOBODY, session=SESSION)
        return count_ratings(exchanges, read_session(vault, keys, NOBODY, SESSION, today=today))
    finally:
        keys.close()
        vault.dispose()
