"""Where metrics and errors go on to, how far that has come, and what stands in the way."""

from pathlib import Path

from bailee.flows.forwarding.hops import Wire
from bailee.flows.forwarding.progress import FLOWS, count_waiting, list_progress
from bailee.pages import Answer, Page, Part, Section, View, Visit
from bailee.policy.flows import FlowId


def make_pages() -> list[Page]:
    """Return the page."""
    return [
        Page(
            path="/console/flows/forwarding",
            title="Forwarding",
            parts=frozenset({Part.OPERATOR}),
            templates=Path(__file__).parent / "templates",
            show=_show,
            section=Section.SERVICE,
            flow=FlowId.FORWARDING,
            leads=lambda installation: ", ".join(installation.hops),
        )
    ]


def _show(visit: Visit) -> Answer:
    vault = visit.custody.vault
    found = [(one, count_waiting(vault, one, FLOWS[Wire(one.name)])) for one in list_progress(vault)]
    return View("forwarding.html", {"hops": found, "waiting": sum(count for _, count in found)})
