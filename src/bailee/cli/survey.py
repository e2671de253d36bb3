"""`bailee survey`: how sessions were rated."""

from datetime import UTC, datetime
from pathlib import Path

import click

from bailee.cli.options import echo_json, echo_table, with_home, with_json


@click.command()
@with_home
@with_json
def survey(home: Path, as_json: bool) -> None:
    """Count how sessions were rated, by day and version. Who rated which is not held."""
    import msgspec

    from bailee.flows.survey.ratings import Rating
    from bailee.flows.survey.receiver import NOBODY, SESSION
    from bailee.flows.survey.results import count_ratings
    from bailee.vault.reader import list_exchanges, read_session
    from bailee.vault.store import open_keys, open_vault

    vault, keys, today = open_vault(home), open_keys(home), datetime.now(UTC).date()
    exchanges = list_exchanges(vault, account=NOBODY, session=SESSION)
    counts = count_ratings(exchanges, read_session(vault, keys, NOBODY, SESSION, today=today))
    if as_json:
        echo_json(msgspec.to_builtins(counts))
        return
    by_version: dict[tuple[str, str], dict[str, int]] = {}
    for count in counts:
        by_version.setdefault((count.day.isoformat(), count.version), {})[count.rating] = count.count
    rows = [
        (*key, *(str(found.get(rating.value, 0)) for rating in Rating)) for key, found in by_version.items()
    ]
    heads = ("DAY", "VERSION", *(rating.value.upper() for rating in Rating))
    echo_table(heads, rows, empty="No ratings are held.")
