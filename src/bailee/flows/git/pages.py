"""How Git traffic of sessions does, by the hour; what was asked of which repository is the session's own."""

from datetime import UTC, datetime
from pathlib import Path

from bailee.pages import Answer, Page, Part, Section, View, Visit
from bailee.policy.flows import FlowId
from bailee.vault.traffic import Hour, read_hours

HOUR_MS, HOURS = 3_600_000, 24


def make_pages() -> list[Page]:
    """Return the page."""
    return [
        Page(
            path="/console/flows/git",
            title="Git",
            parts=frozenset({Part.OPERATOR}),
            templates=Path(__file__).parent / "templates",
            show=_show,
            section=Section.SERVICE,
            flow=FlowId.GIT,
        )
    ]


def _show(visit: Visit) -> Answer:
    custody = visit.custody

    def read() -> list[Hour]:
        since = (custody.now_ms() // HOUR_MS - HOURS + 1) * HOUR_MS
        return read_hours(custody.vault, FlowId.GIT.value, since, hours=HOURS)

    hours = visit.kept.get("git", read)
    labels = [datetime.fromtimestamp(one.at_ms / 1000, UTC).strftime("%H:%M") for one in hours]
    counts = [one.done + one.failed + one.refused + one.other for one in hours]
    facts = {
        "hours": list(zip(labels, hours, counts, strict=True)),
        "counts": list(zip(labels, counts, strict=True)),
        "total": sum(counts),
        "refused": sum(one.refused for one in hours),
    }
    return View("git.html", facts)
