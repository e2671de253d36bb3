"""The decision: whether a flow is allowed in a context, under which terms, and every rule that says so.

Pure functions over the tables of this package and the flow a manifest declares. Nothing here can fail: a
context that asks for what does not exist is decided as if it had not asked (`contexts.check` tells people).
"""

from collections.abc import Iterator
from enum import StrEnum

import msgspec

from bailee.policy.consents import offers_dpp, offers_training
from bailee.policy.contexts import Context
from bailee.policy.flows import Flow, FlowId
from bailee.policy.layers import OWNER, RANK, Layer, LayerName
from bailee.policy.periods import NONE, Period, tighten, tightest
from bailee.policy.retention import Holding, retention_rule
from bailee.policy.sources import SOURCES


class Effect(StrEnum):
    """What a rule does to the decision."""

    ALLOWS = "allows"
    REFUSES = "refuses"
    RETAINS = "retains"
    TRAINS = "trains"
    FORBIDS_TRAINING = "forbids_training"
    TREATS = "treats"


class Rule(msgspec.Struct, frozen=True):
    """One reason for a decision.

    Attributes:
        id: a stable name, such as `retention.consumer` or `switch.DISABLE_TELEMETRY`.
        layer: where it comes from, a LayerName.
        effect: what it does, an Effect.
        text: the rule in words, for this case.
        source: the sentence of the specification it rests on.
    """

    id: str
    layer: str
    effect: str
    text: str
    source: str


class Terms(msgspec.Struct, frozen=True):
    """What binds the holder of the data: purpose, time, whether it may train, how it is encrypted."""

    purpose: str
    retention: Period
    trainable: bool
    at_rest: str


class Decision(msgspec.Struct, frozen=True):
    """The answer of the policy for one flow in one context.

    Attributes:
        flow: the flow's id.
        allowed: whether the data may go.
        required: whether the agent cannot work without it here.
        rules: every rule that had a part in it.
        decided_by: `layer/rule` of the rule that settled whether it is allowed.
        terms: what binds the data; of a refused flow, to hold nothing.
    """

    flow: str
    allowed: bool
    required: bool
    rules: tuple[Rule, ...]
    decided_by: str
    terms: Terms


def decide(flow: Flow, context: Context) -> Decision:
    """Decide one flow in one context. Total and pure: the same arguments give the same answer."""
    required = flow.is_required(context.location)
    refusals = () if required else tuple(sorted(_refusals(flow, context), key=_rank))
    if refusals:
        return Decision(
            flow=flow.id,
            allowed=False,
            required=False,
            rules=refusals,
            decided_by=_name(refusals[0]),
            terms=Terms(flow.purpose, NONE, False, flow.at_rest),
        )
    admission = _admission(flow, context, required)
    retention, periods = _retention(flow, context)
    trainable, training = _training(flow, context, retention)
    return Decision(
        flow=flow.id,
        allowed=True,
        required=required,
        rules=(admission, *_treatment(context), *periods, training),
        decided_by=_name(admission),
        terms=Terms(flow.purpose, retention, trainable, flow.at_rest),
    )


def _name(rule: Rule) -> str:
    return f"{rule.layer}/{rule.id}"


def _rank(rule: Rule) -> tuple[int, str, str]:
    return RANK[rule.layer], rule.id, rule.text


def _place(layer: Layer) -> str:
    return layer.origin or layer.name.replace("_", " ")


def _refusals(flow: Flow, context: Context) -> Iterator[Rule]:
    if context.zdr and flow.holding is Holding.FEEDBACK:
        yield Rule(
            "zdr.feedback",
            LayerName.ACCOUNT,
            Effect.REFUSES,
            "Zero data retention: a report would be a transcript held for 5 years.",
            SOURCES["zdr"],
        )
    if flow.id == FlowId.FORWARDING:
        if not context.has_next_hop:
            yield Rule(
                "default.service",
                LayerName.SERVICE,
                Effect.REFUSES,
                "Off by default: the operator of the service named no next hop.",
                flow.source,
            )
    elif not flow.default[context.provider]:
        yield Rule(
            f"default.{context.provider}",
            LayerName.PROVIDER,
            Effect.REFUSES,
            f"Off by default on {context.provider}: not needed to answer a prompt.",
            SOURCES["provider_default"],
        )
    for layer_name, who, refused in (
        (LayerName.ACCOUNT, "The account holder", context.account_refuses),
        (LayerName.ORGANIZATION, "The organization", context.organization_refuses),
    ):
        if flow.id in refused:
            yield Rule(
                f"refused.{flow.id}", layer_name, Effect.REFUSES, f"{who} refuses it.", SOURCES["preferences"]
            )
    for layer in context.layers:
        yield from _stops(flow, layer)


def _stops(flow: Flow, layer: Layer) -> Iterator[Rule]:
    for switch in flow.switches:
        if switch.is_thrown(layer.variables):
            yield Rule(
                f"switch.{switch.name}",
                layer.name,
                Effect.REFUSES,
                f"{switch.name} is set in {_place(layer)}.",
                SOURCES["nonessential"] if "NONESSENTIAL" in switch.name else flow.source,
            )
    if flow.id in layer.off:
        yield Rule(
            f"setting.{layer.off[flow.id]}",
            layer.name,
            Effect.REFUSES,
            f"{layer.off[flow.id]} in {_place(layer)} stops it.",
            SOURCES["settings"],
        )
    if flow.holding is Holding.CACHE and layer.cache == NONE:
        yield Rule(
            "setting.cleanupPeriodDays",
            layer.name,
            Effect.REFUSES,
            f"cleanupPeriodDays in {_place(layer)} is none: nothing is kept on the machine.",
            SOURCES["cache"],
        )


def _admission(flow: Flow, context: Context, required: bool) -> Rule:
    if required:
        return Rule(
            "required",
            LayerName.SPECIFICATION,
            Effect.ALLOWS,
            "Required: the agent cannot work without it.",
            flow.source,
        )
    if flow.id == FlowId.FORWARDING:
        text = "The operator of the service named a next hop; nothing switches it off."
        return Rule("next_hop", LayerName.SERVICE, Effect.ALLOWS, text, flow.source)
    return Rule(
        f"default.{context.provider}",
        LayerName.PROVIDER,
        Effect.ALLOWS,
        f"On by default on {context.provider}; nothing switches it off.",
        flow.source if flow.essential else SOURCES["provider_default"],
    )


def _treatment(context: Context) -> Iterator[Rule]:
    if context.terms_plan is not context.plan:
        yield Rule(
            "plan.third_party_platform",
            LayerName.PROVIDER,
            Effect.TREATS,
            f"The {context.plan} plan reaches the model through {context.provider}: treated as "
            "third_party_platform.",
            SOURCES["commercial"],
        )


def _retention(flow: Flow, context: Context) -> tuple[Period, tuple[Rule, ...]]:
    base = retention_rule(flow.holding, context.terms_plan, training=context.training, zdr=context.zdr)
    rules = [
        Rule(
            base.id,
            LayerName.ACCOUNT if context.zdr and base.period.is_none else LayerName.SPECIFICATION,
            Effect.RETAINS,
            base.text,
            base.source,
        )
    ]
    if flow.holding is Holding.NOTHING:
        return base.period, tuple(rules)
    asked = sorted(_asked(flow, context), key=lambda ask: (RANK[ask[0].name], ask[0].origin, str(ask[1])))
    period = tightest(limit for _, limit in asked)
    if flow.holding is not Holding.CACHE or not any(layer.name in OWNER for layer, _ in asked):
        # Only the owner of a machine, by naming a period, frees its cache from the default.
        period = tighten(base.period, period)
    rules += [
        Rule(
            f"limit.{layer.name}",
            layer.name,
            Effect.RETAINS,
            f"At most {limit}, asked in {_place(layer)}.",
            SOURCES["cache"] if flow.holding is Holding.CACHE else SOURCES["preferences"],
        )
        for layer, limit in asked
    ]
    return period, tuple(rules)


def _asked(flow: Flow, context: Context) -> Iterator[tuple[Layer, Period]]:
    for layer in context.every_layer():
        limit = layer.cache if flow.holding is Holding.CACHE else layer.retention
        if limit is not None:
            yield layer, limit


def _training(flow: Flow, context: Context, retention: Period) -> tuple[bool, Rule]:
    def rule(name: str, layer: LayerName, effect: Effect, text: str, source: str) -> Rule:
        return Rule(f"training.{name}", layer, effect, text, SOURCES[source])

    no = Effect.FORBIDS_TRAINING
    law = LayerName.SPECIFICATION
    plan, provider = context.plan, context.provider
    if flow.id == "survey":
        return False, rule("survey", law, no, "A rating never trains models.", "survey")
    if flow.holding is Holding.FEEDBACK:
        text = "A report is used to improve products and services; sending one is no consent to training."
        return False, rule("feedback", law, no, text, "feedback")
    if flow.holding is not Holding.CONVERSATION:
        return False, rule(
            "no_content", law, no, "Consent to training covers conversations only.", "training"
        )
    if retention.is_none:
        return False, rule("nothing_held", law, no, "Nothing is held, so nothing can train.", "zdr")
    if context.training and offers_training(plan, provider):
        text = "The account holder allows use for model improvement."
        return True, rule("consent", LayerName.ACCOUNT, Effect.TRAINS, text, "training")
    if context.dpp and context.is_first_party and offers_dpp(plan, provider):
        text = "An organization admin joined the development partner program."
        return True, rule("dpp", LayerName.ORGANIZATION, Effect.TRAINS, text, "dpp")
    if context.dpp:
        is_other = offers_dpp(plan, provider)  # and only the place keeps it out
        place = "to what is not known to be the first-party API" if is_other else f"on {provider}"
        text = f"The partner program does not reach {context.terms_plan} traffic {place}."
        return False, rule("dpp_not_offered", law, no, text, "dpp_first_party")
    if offers_training(plan, provider):
        text = "The account holder does not allow use for model improvement."
        return False, rule("no_consent", LayerName.ACCOUNT, no, text, "training")
    return False, rule(
        "commercial", law, no, "Commercial terms: no training on code or prompts.", "commercial"
    )
