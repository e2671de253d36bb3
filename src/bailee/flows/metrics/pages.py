"""Latency, reliability and usage as charts, with a table beside each; who sent what is not in them."""

from datetime import date, timedelta
from pathlib import Path

from bailee.flows.metrics.drops import Drops
from bailee.flows.metrics.results import Summary, count_dropped, read_points, summarize
from bailee.pages import Answer, Installation, Page, Part, Section, View, Visit, read_number
from bailee.policy.flows import FlowId

TEMPLATES = Path(__file__).parent / "templates"
SPANS = (7, 14, 30)


def make_pages() -> list[Page]:
    """Return the page."""
    return [
        Page(
            path="/console/flows/metrics",
            title="Metrics",
            parts=frozenset({Part.OPERATOR}),
            templates=TEMPLATES,
            show=_show,
            section=Section.SERVICE,
            flow=FlowId.METRICS,
            carries=Installation.tell_way,
        )
    ]


def _show(visit: Visit) -> Answer:
    days = read_number(visit.query.get("days", ""), 14)
    days = days if days in SPANS else 14
    home, first = visit.custody.home, visit.custody.today() - timedelta(days=days - 1)

    def read() -> tuple[Summary, dict[str, Drops]]:
        return summarize(read_points(home, since=first)), count_dropped(home, since=first)

    found, dropped = visit.kept.get(f"metrics {first}", read, seconds=20)
    all_days = [first + timedelta(days=place) for place in range(days)]
    answers = sum(one.answers for one in found.latency)
    facts = {
        "days": days,
        "spans": SPANS,
        "labels": [day.isoformat() for day in all_days],
        "found": found,
        "answers": answers,
        "latency": _latency(found, all_days),
        "reliability": _reliability(found, all_days),
        "usage": _usage(found, all_days),
        "dropped": dropped,
        "base": visit.base_of_programs,
    }
    return View("metrics.html", facts)


def _latency(found: Summary, days: list[date]) -> dict[str, list[float | None]]:
    """Return the quantiles of the model that answered most."""
    counts: dict[str, int] = {}
    for one in found.latency:
        counts[one.model] = counts.get(one.model, 0) + one.answers
    if not counts:
        return {}
    model = max(counts, key=lambda name: counts[name])
    by_day = {one.day: one for one in found.latency if one.model == model}
    return {
        f"{model} p50": [by_day[day].p50 if day in by_day else None for day in days],
        f"{model} p95": [by_day[day].p95 if day in by_day else None for day in days],
    }


def _reliability(found: Summary, days: list[date]) -> dict[str, list[float | None]]:
    """Return how many of a hundred came to their end, for what there was most of."""
    counts: dict[str, int] = {}
    for one in found.reliability:
        counts[one.what] = counts.get(one.what, 0) + one.done + one.failed
    most = sorted(counts, key=lambda name: -counts[name])[:3]
    by_day = {(one.what, one.day): one for one in found.reliability}
    return {
        what: [
            100 * by_day[what, day].done / max(1, by_day[what, day].done + by_day[what, day].failed)
            if (what, day) in by_day
            else None
            for day in days
        ]
        for what in most
    }


def _usage(found: Summary, days: list[date]) -> list[tuple[str, str, float, list[tuple[str, float]]]]:
    """Return name, kind, the sum and the days of what is counted."""
    amounts = {(one.name, one.kind, one.day): one.amount for one in found.usage}
    kinds = sorted({(one.name, one.kind) for one in found.usage})
    rows = []
    for name, kind in kinds:
        by_day = [(day.isoformat(), amounts.get((name, kind, day), 0.0)) for day in days]
        rows.append((name, kind, sum(value for _, value in by_day), by_day))
    return rows
