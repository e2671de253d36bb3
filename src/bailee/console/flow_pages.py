"""The published page of this very installation, and the operator's live diagram: both drawn from the
manifest.

Which pages flows brought is told by what they registered; no flow is known here by name.
"""

from collections.abc import Mapping, Sequence

import msgspec

from bailee.console.diagrams import Arrow, draw
from bailee.console.rendering import TEMPLATES
from bailee.manifests import load_manifest
from bailee.manifests.pages import (
    PLAN_NAMES,
    PROVIDER_NAMES,
    tell_at_rest,
    tell_encryption,
    tell_kept,
    tell_need,
    tell_switches,
)
from bailee.pages import Answer, Installation, Page, Part, Section, View, Visit
from bailee.policy.consents import offers_dpp, offers_training, offers_zdr
from bailee.policy.contexts import Context
from bailee.policy.decisions import Decision, decide
from bailee.policy.flows import Flow
from bailee.policy.plans import Location, Plan
from bailee.policy.retention import RETENTION
from bailee.sizes import tell_count, tell_size
from bailee.vault.traffic import Passed, count_since

PUBLISHED = "/data-usage"
PATH = "/console/flows"
HOUR_MS = 3_600_000


class Told(msgspec.Struct, frozen=True):
    """A flow as it is on this installation."""

    flow: Flow
    decision: Decision
    destination: str
    need: str
    in_transit: str
    at_rest: str
    kept: str
    switches: str
    state: str


def make_pages(others: Sequence[Page]) -> list[Page]:
    """Return the pages.

    Args:
        others: all other pages, among them those that flows brought.
    """
    found = {page.flow.value: page for page in others if page.flow is not None}

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


def tell_flows(installation: Installation, pages: Mapping[str, Page]) -> list[Told]:
    """Return every flow with what this installation makes of it."""
    manifest = load_manifest("bailee")
    context = Context(
        provider=installation.provider,
        is_first_party=installation.is_first_party,
        has_next_hop=bool(installation.hops),
    )
    told = []
    for flow in manifest.flows:
        decision = decide(flow, context)
        state = "required" if decision.required else "on" if decision.allowed else "off"
        page = pages.get(flow.id.value)
        leads = page.leads(installation) if page is not None and page.leads is not None else ""
        told.append(
            Told(
                flow,
                decision,
                leads or flow.destinations[installation.provider],
                tell_need(flow),
                tell_encryption(flow.in_transit),
                tell_at_rest(flow),
                tell_kept(flow, str(decision.terms.retention)),
                tell_switches(flow),
                state,
            )
        )
    return told


def _show_published(visit: Visit, pages: Mapping[str, Page]) -> Answer:
    flows = tell_flows(visit.installation, pages)
    arrows = [
        Arrow(
            one.flow.id.value,
            one.flow.title,
            one.flow.origin,
            one.destination,
            f"#{one.flow.id.value}",
            one.decision.allowed,
            one.flow.is_required(Location.LOCAL),
            "service" in one.flow.origin,
            one.state,
        )
        for one in flows
    ]
    plans = [
        (
            PLAN_NAMES[plan],
            "the account holder" if offers_training(plan) else "an admin" if offers_dpp(plan) else "nobody",
            "yes" if offers_zdr(plan) else "no",
        )
        for plan in Plan
    ]
    facts = {
        "flows": flows,
        "diagram": draw(arrows, "Data flows of this installation"),
        "plans": plans,
        "retention": RETENTION,
        "provider": PROVIDER_NAMES[visit.installation.provider],
        "required": sum(one.decision.required for one in flows),
        "specification": load_manifest("bailee"),
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
                "service" in one.flow.origin,
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
