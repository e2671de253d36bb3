"""How sessions were rated, by version and day; who rated which is not held."""

from pathlib import Path

from bailee.flows.survey.ratings import Rating
from bailee.flows.survey.receiver import NOBODY, SESSION
from bailee.flows.survey.results import Count, count_ratings, summarize
from bailee.pages import Answer, Installation, Page, Part, Section, View, Visit
from bailee.policy.flows import FlowId
from bailee.vault.reader import list_exchanges, read_session

TEMPLATES = Path(__file__).parent / "templates"


def make_pages() -> list[Page]:
    """Return the page."""
    return [
        Page(
            path="/console/flows/survey",
            title="Session survey",
            parts=frozenset({Part.OPERATOR}),
            templates=TEMPLATES,
            show=_show,
            section=Section.SERVICE,
            flow=FlowId.SURVEY,
            carries=Installation.tell_way,
            is_hourly=False,
        )
    ]


def _show(visit: Visit) -> Answer:
    custody = visit.custody

    def read() -> list[Count]:
        exchanges = list_exchanges(custody.vault, account=NOBODY, session=SESSION)
        opened = read_session(custody.vault, custody.keystore, NOBODY, SESSION, today=custody.today())
        return count_ratings(exchanges, opened)

    counts = visit.kept.get("survey", read)
    by_day: dict[str, dict[str, int]] = {}
    for one in counts:
        of_day = by_day.setdefault(one.day.isoformat(), {})
        of_day[one.rating] = of_day.get(one.rating, 0) + one.count
    found = summarize(counts)
    given = [(one.mean, sum(one.counts[str(n)] for n in (1, 2, 3))) for one in found if one.mean is not None]
    total = sum(count for _, count in given)
    facts = {
        "found": found,
        "ratings": [one.value for one in Rating],
        "days": sorted(by_day.items(), reverse=True),
        "mean": sum(mean * count for mean, count in given) / total if total else None,
        "total": total,
        "chart": [(day, float(sum(of_day.values()))) for day, of_day in sorted(by_day.items())],
    }
    return View("survey.html", facts)
