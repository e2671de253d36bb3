"""The ratings that are held, counted."""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, date, datetime

import msgspec

from bailee.flows.survey.ratings import Answer, Rating
from bailee.vault.reader import Exchange, Transcript


class Count(msgspec.Struct, frozen=True):
    """How often a rating was given for a version on a UTC day."""

    day: date
    version: str
    rating: str
    count: int


class Summary(msgspec.Struct, frozen=True):
    """All ratings of a version.

    Attributes:
        counts: by rating.
        mean: of those who gave a number, from 1 to 3; None where nobody did.
    """

    version: str
    counts: dict[str, int]
    mean: float | None


def summarize(counts: Iterable[Count]) -> list[Summary]:
    """Add counts up by version."""
    by_version: dict[str, Counter[str]] = {}
    for count in counts:
        by_version.setdefault(count.version, Counter())[count.rating] += count.count
    found = []
    for version, counted in sorted(by_version.items()):
        rated = {int(rating): count for rating, count in counted.items() if rating != Rating.DISMISS}
        given = sum(rated.values())
        mean = sum(rating * count for rating, count in rated.items()) / given if given else None
        counts_of = {rating.value: counted.get(rating.value, 0) for rating in Rating}
        found.append(Summary(version, counts_of, round(mean, 2) if mean is not None else None))
    return found


def count_ratings(exchanges: Iterable[Exchange], transcripts: Iterable[Transcript]) -> list[Count]:
    """Return the counts, by day, version and rating.

    Args:
        exchanges, transcripts: what the vault holds of `receiver.SESSION` of `receiver.NOBODY`.
    """
    days = {
        exchange.id: datetime.fromtimestamp(exchange.started_ms / 1000, UTC).date() for exchange in exchanges
    }
    counted: Counter[tuple[date, str, str]] = Counter()
    for transcript in transcripts:
        answer = msgspec.json.decode(transcript.request.reveal(), type=Answer)
        counted[days[transcript.exchange], answer.version, answer.rating.value] += 1
    return [Count(*key, count) for key, count in sorted(counted.items())]
