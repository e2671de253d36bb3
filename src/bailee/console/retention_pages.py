"""Whether what has to go does go: the sweepers of every node, what is due, and what copies still hold."""

from bailee.console.rendering import TEMPLATES
from bailee.pages import Answer, Page, Part, Section, View, Visit
from bailee.vault.health import LAG_ALARM_SECONDS, check_retention


def make_pages() -> list[Page]:
    """Return the page."""
    return [
        Page(
            path="/console/retention",
            title="Retention",
            parts=frozenset({Part.OPERATOR}),
            templates=TEMPLATES,
            show=_show,
            section=Section.SERVICE,
        )
    ]


def _show(visit: Visit) -> Answer:
    custody = visit.custody
    health = check_retention(custody.vault, custody.keystore, custody.now_ms())
    return View("retention.html", {"health": health, "promise": LAG_ALARM_SECONDS})
