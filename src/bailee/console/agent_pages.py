"""What agents of other makers send, a page for each: their declarations, as this installation has them."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from bailee.console.flow_pages import (
    PUBLISHED,
    Told,
    draw_flows,
    find_pages,
    list_agents,
    tell_flow,
    tell_state,
)
from bailee.console.rendering import TEMPLATES
from bailee.console.terms import can_run, is_led_here, tell_model_traffic
from bailee.manifests import Manifest, load_manifest
from bailee.manifests.formats import find_key, understand
from bailee.manifests.loading import OWN
from bailee.manifests.pages import (
    list_launch,
    list_settings_files,
    list_switches,
    tell_at_rest,
)
from bailee.pages import Answer, Installation, Moved, Page, Part, View, Visit
from bailee.policy.contexts import Context
from bailee.policy.decisions import Decision, decide
from bailee.policy.flows import Flow, FlowId
from bailee.policy.layers import Layer, LayerName
from bailee.policy.plans import Provider
from bailee.policy.problems import Problem
from bailee.policy.retention import Holding

PATH = PUBLISHED + "/{agent}"


def make_pages(others: Sequence[Page]) -> list[Page]:
    """Return the page, which is that of every agent.

    Args:
        others: all other pages, among them those that flows brought.
    """
    found = find_pages(others)

    def show(visit: Visit) -> Answer:
        return _show(visit, found)

    return [
        Page(
            path=PATH,
            title="Data usage of an agent",
            parts=frozenset({Part.ANYBODY}),
            templates=TEMPLATES,
            show=show,
        )
    ]


def _show(visit: Visit, pages: Mapping[str, Page]) -> Answer:
    name, installation = visit.path["agent"], visit.installation
    if name == OWN:
        return Moved(PUBLISHED)
    try:
        manifest = load_manifest(name)
    except Problem:
        # Whoever is not signed in would be led to sign in, which does not help.
        return View("nothing.html", {}, 404, "There is no such page")
    flows = tell_agent(manifest, installation, pages)
    facts = {
        "flows": flows,
        "agents": list_agents(installation),
        "agent": name,
        "manifest": manifest,
        "runs": can_run(manifest, installation),
        "is_led": is_led_here(manifest, installation),
        "model": tell_model_traffic(manifest, installation),
        "diagram": draw_flows(flows, f"Data flows of {manifest.title} on this installation"),
        "required": sum(one.decision.required for one in flows),
        "switches": list_switches(manifest),
        "launch": list_launch(manifest) if manifest.is_led else [],
        "files": list_settings_files(manifest),
    }
    return View("agent_data_usage.html", facts, heading=f"Data usage: {manifest.title}")


def tell_agent(manifest: Manifest, installation: Installation, pages: Mapping[str, Page]) -> list[Told]:
    """Return every flow of an agent under `bailee run` on this installation, and its state by itself."""
    # By itself it goes where it goes unless somebody leads it elsewhere.
    by_itself = Context(provider=Provider.ANTHROPIC, is_first_party=True)
    here = Context(provider=installation.provider, is_first_party=installation.is_first_party)
    runs = can_run(manifest, installation)
    layers = tuple(_find_layers(manifest, installation)) if runs else ()
    under_run = msgspec.structs.replace(here, layers=layers)
    told = []
    for flow in manifest.flows:
        is_led = flow.id is FlowId.MESSAGES and is_led_here(manifest, installation)
        decision = decide(flow, under_run)
        one = tell_flow(flow, decision, installation, pages.get(flow.id) if is_led else None)
        at_rest = tell_at_rest(load_manifest(OWN).flow(flow.id)) if is_led else one.at_rest
        is_held_elsewhere = not runs and flow.holding in (Holding.CONVERSATION, Holding.AUDIT)
        told.append(
            msgspec.structs.replace(
                one,
                at_rest=at_rest,
                kept="as its keeper says" if is_held_elsewhere and decision.allowed else one.kept,
                reason=_tell_reason(manifest, flow, decision, one.reason),
                by_itself=tell_state(decide(flow, by_itself)),
            )
        )
    return told


def _tell_reason(manifest: Manifest, flow: Flow, decision: Decision, reason: str) -> str:
    """Say why a flow is on or off; agents of other makers have the same defaults whichever model answers."""
    if decision.rules[0].layer != LayerName.PROVIDER or manifest.is_specified:
        return reason
    return "On by default, whichever model answers." if decision.allowed else "Off by default."


def _find_layers(manifest: Manifest, installation: Installation) -> Iterator[Layer]:
    """Return what `bailee run` sets, as the policy takes it: variables, and settings that stand in one."""
    origin = "the environment that `bailee run` makes"
    set_here = manifest.launch.environment.get(installation.provider, {})
    variables = {**set_here, **manifest.launch.essential_only}
    yield Layer(name=LayerName.ENVIRONMENT, origin=origin, variables=variables)
    for name, value in set_here.items():
        with contextlib.suppress(Problem):  # most are no settings, but an address or a key
            settings = understand(value, name)
            off = {
                flow.id.value: key
                for flow in manifest.flows
                for key, stops in flow.settings_off.items()
                if find_key(settings, key) == stops
            }
            yield Layer(name=LayerName.ENVIRONMENT, origin=origin, off=off)
