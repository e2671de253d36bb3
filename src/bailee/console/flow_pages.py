"""The published page of this very installation, and the operator's live diagram: both drawn from the
manifest of our own agent. Those of other agents are `agent_pages`.

Which pages flows brought is told by what they registered; no flow is known here by name.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from markupsafe import Markup

from bailee.console.diagrams import Arrow, draw
from bailee.console.rendering import TEMPLATES
from bailee.console.terms import (
    list_retention,
    tell_holding,
    tell_issues,
    tell_model_traffic,
    tell_plans,
    tell_reason,
    tell_retained,
    tell_training_notes,
    tell_upstream,
)
from bailee.manifests import load_manifest
from bailee.manifests.loading import OWN, agents
from bailee.manifests.pages import (
    tell_at_rest,
    tell_encryption,
    tell_kept,
    tell_need,
    tell_switches,
)
from bailee.pages import Answer, Installation, Page, Part, Section, View, Visit
from bailee.policy.contexts import Context
from bailee.policy.decisions import Decision, decide
from bailee.policy.flows import Flow
from bailee.policy.plans import Location
from bailee.sizes import tell_count, tell_size
from bailee.vault.traffic import Passed, count_since

PUBLISHED = "/data-usage"
PATH = "/console/flows"
HOUR_MS = 3_600_000


class Told(msgspec.Struct, frozen=True):
    """A flow as it is on this installation.

    Attributes:
        by_itself: its state where the agent is not started by `bailee run`; empty where that is no matter.
    """

    flow: Flow
    decision: Decision
    destination: str
    need: str
    in_transit: str
    at_rest: str
    kept: str
    switches: str
    state: str
    reason: str
    by_itself: str = ""


class Neighbour(msgspec.Struct, frozen=True):
    """An agent, as the pages of others tell of it.

    Attributes:
        model: which way its model traffic goes.
    """

    name: str
    title: str
    path: str
    model: str


def make_pages(others: Sequence[Page]) -> list[Page]:
    """Return the pages.

    Args:
        others: all other pages, among them those that flows brought.
    """
    found = find_pages(others)

    def show_live(visit: Visit) -> Answer:
        return _show_live(visit, found)

    def show_published(visit: Visit) -> Answer:
        return _show_published(visit, found)

    return [
        Page(
            path=PATH,
            title="Data flows",
            parts=frozenset({Part.OPERATOR}),
            templates=TEMPLATES,
            show=show_live,
            section=Section.SERVICE,
        ),
        Page(
            path=PUBLISHED,
            title="Data usage on this installation",
            parts=frozenset({Part.ANYBODY}),
            templates=TEMPLATES,
            show=show_published,
        ),
    ]


def find_pages(pages: Iterable[Page]) -> dict[str, Page]:
    """Return the pages that flows brought, by the flow."""
    return {page.flow.value: page for page in pages if page.flow is not None}


def list_agents(installation: Installation) -> list[Neighbour]:
    """Return the agents that have pages: our own first, whose page is that of the installation."""
    manifests = sorted(map(load_manifest, agents()), key=lambda one: (one.agent != OWN, one.title.lower()))
    return [
        Neighbour(
            one.agent,
            "bailee code" if one.agent == OWN else one.title,
            PUBLISHED if one.agent == OWN else f"{PUBLISHED}/{one.agent}",
            tell_model_traffic(one, installation),
        )
        for one in manifests
    ]


def tell_flows(installation: Installation, pages: Mapping[str, Page]) -> list[Told]:
    """Return every flow with what this installation makes of it."""
    manifest = load_manifest(OWN)
    context = Context(
        provider=installation.provider,
        is_first_party=installation.is_first_party,
        has_next_hop=bool(installation.hops),
    )
    told = []
    for flow in manifest.flows:
        # What leaves the service is switched by its own environment; of the rest agents decide.
        decision = installation.decisions.get(flow.id) or decide(flow, context)
        told.append(tell_flow(flow, decision, installation, pages.get(flow.id)))
    return told


def tell_flow(flow: Flow, decision: Decision, installation: Installation, page: Page | None) -> Told:
    """Return a flow with what this installation makes of it.

    Args:
        page: that of the flow, which knows where it leads and how; None where it does not come here.
    """
    leads = page.leads(installation) if page is not None and page.leads is not None else ""
    carries = page.carries(installation) if page is not None and page.carries is not None else ""
    return Told(
        flow,
        decision,
        leads or flow.destinations[installation.provider],
        tell_need(flow),
        carries or tell_encryption(flow.in_transit),
        tell_at_rest(flow),
        tell_kept(flow, str(decision.terms.retention)) if decision.allowed else "nothing: it is off",
        tell_switches(flow),
        tell_state(decision),
        tell_reason(decision, installation),
    )


def tell_state(decision: Decision) -> str:
    """Say in a word what a decision makes of a flow."""
    return "required" if decision.required else "on" if decision.allowed else "off"


def draw_flows(flows: Sequence[Told], title: str) -> Markup:
    """Draw flows as arrows, each of which leads to its full telling."""
    arrows = [
        Arrow(
            one.flow.id.value,
            one.flow.title,
            one.flow.origin,
            one.destination,
            f"#{one.flow.id.value}",
            one.decision.allowed,
            one.flow.is_required(Location.LOCAL),
            _is_ours(one.flow),
            one.state,
        )
        for one in flows
    ]
    return draw(arrows, title)


def _is_ours(flow: Flow) -> bool:
    """Tell whether a flow begins at the service, and not at a machine of somebody's."""
    return "service" in flow.origin


def _show_published(visit: Visit, pages: Mapping[str, Page]) -> Answer:
    installation = visit.installation
    flows = tell_flows(installation, pages)
    facts = {
        "flows": flows,
        "agents": list_agents(installation),
        "agent": OWN,
        "diagram": draw_flows(flows, "Data flows of this installation"),
        "required": sum(one.decision.required for one in flows),
        "reached": tell_upstream(installation),
        "holding": tell_holding(installation),
        "retained": tell_retained(installation),
        "going_on": [one for one in flows if _is_ours(one.flow)] if installation.hops else [],
        "issues": tell_issues(installation),
        "plans": tell_plans(installation),
        "notes": tell_training_notes(installation),
        "retention": list_retention([one.flow for one in flows], installation),
    }
    return View("data_usage.html", facts)


def _show_live(visit: Visit, pages: Mapping[str, Page]) -> Answer:
    now = visit.custody.now_ms()
    passed = visit.kept.get(
        "traffic", lambda: count_since(visit.custody.vault, visit.custody.now_ms() - HOUR_MS), seconds=5
    )
    flows = tell_flows(visit.installation, pages)
    arrows, rows = [], []
    for one in flows:
        id = one.flow.id.value
        page = pages.get(id)
        link = page.path if page is not None else f"{PUBLISHED}#{id}"
        is_counted = page is not None and page.is_hourly
        seen = passed.get(id, Passed(0, 0, 0, 0))
        # What never comes to this service cannot be counted by it.
        elsewhere = "counted by the day" if page is not None else "does not come here"
        counted = f"{tell_count(seen.count, 'time')}, {tell_size(seen.sent + seen.received)}"
        words = counted if is_counted else elsewhere
        arrows.append(
            Arrow(
                id,
                one.flow.title,
                one.flow.origin,
                one.destination,
                link,
                one.decision.allowed,
                one.flow.is_required(Location.LOCAL),
                _is_ours(one.flow),
                one.state,
                words,
            )
        )
        rows.append((one, link, seen, is_counted, page is not None))
    facts = {
        "diagram": draw(arrows, "Data flows of this installation, live"),
        "rows": rows,
        "count": sum(one.count for one in passed.values()),
        "since": now - HOUR_MS,
    }
    return View("flows.html", facts)
