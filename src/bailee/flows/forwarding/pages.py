"""Where metrics and errors go on to, how far that has come, and what stands in the way."""

from pathlib import Path

from bailee.flows.forwarding.hops import Wire
from bailee.flows.forwarding.progress import FLOWS, count_waiting, list_progress
from bailee.pages import Answer, Installation, Page, Part, Section, View, Visit, tell_encryption_to
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
            leads=_tell_hops,
            carries=_tell_encryption,
        )
    ]


def _tell_hops(installation: Installation) -> str:
    return ", ".join(map(str, installation.hops))


def _tell_encryption(installation: Installation) -> str:
    """Say how what goes on is encrypted on the way; of each next hop by itself where they differ."""
    told = {hop.name: tell_encryption_to(hop.url) for hop in installation.hops}
    if len(set(told.values())) > 1:
        return ", ".join(f"{name} {words}" for name, words in told.items())
    return next(iter(told.values()), "")


def _show(visit: Visit) -> Answer:
    vault = visit.custody.vault
    found = [(one, count_waiting(vault, one, FLOWS[Wire(one.name)])) for one in list_progress(vault)]
    decision = visit.installation.decisions.get(FlowId.FORWARDING)
    stopped = decision.rules[0].text if decision is not None and not decision.allowed else ""
    facts = {"hops": found, "waiting": sum(count for _, count in found), "stopped": stopped}
    return View("forwarding.html", facts)
