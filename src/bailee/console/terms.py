"""What holds on this installation by where the model is reached: its terms, training, time, and why a flow is
on or off.
"""

from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from bailee.manifests import Manifest
from bailee.manifests.pages import PLAN_NAMES, PROVIDER_NAMES
from bailee.pages import Installation
from bailee.policy.consents import offers_dpp, offers_training, offers_zdr
from bailee.policy.decisions import Decision, Effect
from bailee.policy.flows import Flow, FlowId
from bailee.policy.layers import LayerName
from bailee.policy.plans import Plan, Provider, is_consumer, treated_as
from bailee.policy.retention import RETENTION, RetentionRule, retention_rule

UPSTREAM_NAMES = {
    "anthropic": "the Claude API",
    "bedrock": "Amazon Bedrock",
    "vertex": "Google Vertex AI",
    "rehearsal": "the rehearsal model, which runs in this service",
}
_PLATFORMS = {Provider.BEDROCK: "Bedrock", Provider.VERTEX: "Vertex"}


def tell_upstream(installation: Installation) -> str:
    """Say where the model is reached."""
    if installation.upstream == "compatible":
        return f"{installation.upstream_url}, which speaks as the Claude API does"
    place = f" at {installation.upstream_url}" if installation.upstream_url else ""
    return f"{UPSTREAM_NAMES.get(installation.upstream, installation.upstream)}{place}"


def tell_holding(installation: Installation) -> str:
    """Say under which terms this service holds what passes."""
    if installation.provider in _PLATFORMS:
        return "under the terms of a third-party platform, whatever the plan of an account"
    return "under the terms of each account's plan"


def tell_retained(installation: Installation) -> str:
    """Say how long what passes is kept where the model is."""
    if installation.upstream == "rehearsal":
        return "not at all: the model runs here and keeps nothing"
    if installation.retains_nothing:
        return "not at all, as the operator of this service declares"
    if installation.upstream == "compatible":
        return "as its own terms say; nothing on this page binds whoever runs it"
    return "as its own terms say"


def tell_issues(installation: Installation) -> str:
    """Say where issues are opened that people ask for with their reports."""
    if not installation.tracker:
        return "no repository: this service opens none"
    return f"{installation.tracker}, through {urlsplit(installation.tracker_url).netloc}"


def is_led_here(manifest: Manifest, installation: Installation) -> bool:
    """Tell whether an agent's model traffic can be led through this service."""
    return installation.provider in manifest.launch.environment


def can_run(manifest: Manifest, installation: Installation) -> bool:
    """Tell whether `bailee run` starts an agent here; not one that can be led, but to no such upstream."""
    return not manifest.is_led or is_led_here(manifest, installation)


def tell_model_traffic(manifest: Manifest, installation: Installation) -> str:
    """Say which way an agent's model traffic goes."""
    own = manifest.flow(FlowId.MESSAGES).destinations[installation.provider]
    if is_led_here(manifest, installation):
        here = f"through this service to {tell_upstream(installation)}"
        if installation.upstream == "rehearsal":
            here = "to this service, whose rehearsal model answers"
        return f"Under `bailee run`, or led here by hand, {here}. Else past it to {own}."
    if manifest.is_led:
        return (
            f"Past this service to {own}: it cannot be led here for {PROVIDER_NAMES[installation.provider]}, "
            "and `bailee run` does not start it."
        )
    return (
        f"Past this service, which does not speak its protocol, to {own}. Under `bailee run` Bailee holds "
        "the log of its connections alone."
    )


def tell_plans(installation: Installation) -> list[tuple[str, str, str]]:
    """Return each plan, who may allow training here, and whether zero data retention can be had here."""
    return [
        (PLAN_NAMES[plan], _tell_grantor(plan, installation), _tell_zdr(plan, installation)) for plan in Plan
    ]


def _tell_grantor(plan: Plan, installation: Installation) -> str:
    if offers_training(plan, installation.provider):
        return "the account holder"
    if offers_dpp(plan, installation.provider) and installation.is_first_party:
        return "an admin, by the partner program"
    return "nobody"


def _has_zdr(plan: Plan, installation: Installation) -> bool:
    # An admin switches it on, and a consumer has no organization, whatever the model is reached through.
    is_offered = offers_zdr(plan, installation.provider) and not is_consumer(plan)
    return is_offered and installation.retains_nothing


def _tell_zdr(plan: Plan, installation: Installation) -> str:
    if _has_zdr(plan, installation):
        return "yes, an admin switches it on"
    return "no" if is_consumer(plan) else "no: the upstream is not declared to retain nothing"


def tell_training_notes(installation: Installation) -> list[str]:
    """Return what is to be said of the plans besides."""
    notes = []
    if installation.provider in _PLATFORMS:
        name = _PLATFORMS[installation.provider]
        notes.append(
            f"Through {name} every plan is treated as a third-party platform: nobody may allow training."
        )
    elif not installation.is_first_party:
        notes.append(
            "No partner program reaches this upstream: it is for the Claude API itself, which this is not "
            "known to be."
        )
    if not installation.retains_nothing:
        notes.append(
            "Under zero data retention this service refuses requests to an upstream that is not declared to "
            "retain nothing (`bailee up --upstream-zero-data-retention`)."
        )
    return notes


def list_retention(flows: Iterable[Flow], installation: Installation) -> list[RetentionRule]:
    """Return the rules that may come to bear here on what is held of some flows."""
    found = {rule.id for flow in flows for rule in _find_rules(flow, installation)}
    return [rule for rule in RETENTION if rule.id in found]


def _find_rules(flow: Flow, installation: Installation) -> Iterator[RetentionRule]:
    for plan in Plan:
        treated = treated_as(plan, installation.provider)
        yield retention_rule(flow.holding, treated, training=False, zdr=False)
        if offers_training(plan, installation.provider):
            yield retention_rule(flow.holding, treated, training=True, zdr=False)
        if _has_zdr(plan, installation):
            yield retention_rule(flow.holding, treated, training=False, zdr=True)


def tell_reason(decision: Decision, installation: Installation) -> str:
    """Say why a flow is on or off here. What is so by default goes by the provider, which has other names."""
    first = decision.rules[0]
    if first.layer != LayerName.PROVIDER:
        return first.text
    if installation.provider in _PLATFORMS:
        place = f"where the model is reached through {_PLATFORMS[installation.provider]}"
    elif installation.upstream == "anthropic":
        place = "where the model is reached through the Claude API"
    else:
        place = "with this upstream, as with the Claude API"
    if first.effect == Effect.ALLOWS:
        return f"On by default {place}; nothing on this service switches it off."
    return f"Off by default {place}: not needed to answer a prompt."
