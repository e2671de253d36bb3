"""The ratings that are held, counted."""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, date, datetime

import msgspec

from bailee.flows.survey.ratings import Answer
from bailee.vault.reader import Exchange, Transcript


class Count(msgspec.Struct, frozen=True):
    """How often a rating was given for a version on a UTC day."""

    day: date
    version: str
    rating: str
    count: int


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
