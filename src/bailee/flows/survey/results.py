"""The ratings that are held, counted."""

from collections import Counter
from datetime import UTC, date, datetime

import msgspec
import sqlalchemy as sa

from bailee.flows.survey.ratings import Answer
from bailee.flows.survey.receiver import NOBODY, SESSION
from bailee.vault.keystore import Keystore
from bailee.vault.reader import list_exchanges, read_session


class Count(msgspec.Struct, frozen=True):
    """How often a rating was given for a version on a UTC day."""

    day: date
    version: str
    rating: str
    count: int


def count_ratings(engine: sa.Engine, keystore: Keystore, today: date) -> list[Count]:
    """Return the counts, by day, version and rating; what has expired is not counted any more."""
    days = {
        exchange.id: datetime.fromtimestamp(exchange.started_ms / 1000, UTC).date()
        for exchange in list_exchanges(engine, account=NOBODY, session=SESSION)
    }
    counted: Counter[tuple[date, str, str]] = Counter()
    for transcript in read_session(engine, keystore, NOBODY, SESSION, today=today):
        answer = msgspec.json.decode(transcript.request.reveal(), type=Answer)
        counted[days[transcript.exchange], answer.version, answer.rating.value] += 1
    return [Count(*key, count) for key, count in sorted(counted.items())]
