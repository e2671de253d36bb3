"""A decision told to people and to programs: the words of `bailee explain` and of the agent's `/privacy`."""

import json
from collections.abc import Sequence
from textwrap import wrap

from bailee.manifests.loading import Manifest
from bailee.policy.contexts import Context, variable
from bailee.policy.decisions import Decision, Effect, Rule
from bailee.policy.flows import Flow
from bailee.policy.layers import REPOSITORY
from bailee.policy.retention import Holding

WIDTH = 100
LABEL = 13
ASSUMED = "assumed; of another: bailee explain --as plan=..."
MARKS = {True: ("\x1b[32m", "allowed"), False: ("\x1b[31m", "refused")}


def destination(manifest: Manifest, flow: Flow, context: Context) -> tuple[str, str]:
    """Return where a flow goes and how it is encrypted on the way.

    The place is the host its base URL variable names (never credentials), or as declared.
    """
    declared = flow.destinations[context.provider]
    name = flow.moved_by.get(context.provider, "")
    moved, origin = variable(context.layers, name, with_repository=manifest.repository_leads)
    if not (name and moved):
        return declared, flow.in_transit
    from urllib.parse import urlsplit  # 4 ms that most calls do not need

    try:
        parts = urlsplit(moved)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        host = port = ""
    is_repository = any(layer.origin == origin and layer.name in REPOSITORY for layer in context.layers)
    place = f"{name} in {origin}" if is_repository else name
    encryption = "none" if moved.strip().lower().startswith("http:") else flow.in_transit
    return (f"{host}{port} ({place})" if host else f"unreadable address in {place}"), encryption


def context_facts(manifest: Manifest, context: Context) -> dict[str, object]:
    """Return the context as JSON data."""
    return {
        "agent": manifest.agent,
        "plan": context.plan,
        "treated_as": context.terms_plan,
        "provider": context.provider,
        "location": context.location,
        "training": context.training,
        "dpp": context.dpp,
        "zdr": context.zdr,
        "layers": [
            {
                "layer": layer.name,
                "origin": layer.origin,
                "variables": sorted(layer.variables),
                "off": sorted(layer.off),
                "cache": str(layer.cache) if layer.cache else None,
            }
            for layer in context.layers
        ],
    }


def flow_facts(manifest: Manifest, flow: Flow, decision: Decision, context: Context) -> dict[str, object]:
    """Return one flow's answer as JSON data."""
    place, _ = destination(manifest, flow, context)
    return {
        "id": decision.flow,
        "allowed": decision.allowed,
        "required": decision.required,
        "destination": place,
        "retention": str(decision.terms.retention),
        "trainable": decision.terms.trainable,
        "at_rest": decision.terms.at_rest,
        "rules": [
            {
                "id": rule.id,
                "layer": rule.layer,
                "effect": rule.effect,
                "text": rule.text,
                "source": rule.source,
            }
            for rule in decision.rules
        ],
        "decided_by": decision.decided_by,
        "switches": [switch.name for switch in flow.switches],
    }


def context_line(manifest: Manifest, context: Context, *, described: bool, account: str = "") -> str:
    """Return the line that says what the answer holds for.

    Args:
        described: the context was described, and nothing of this machine was read.
        account: whose account it is, in words; empty where nothing tells, and the plan is assumed.
    """
    consents = [name for name in ("training", "dpp", "zdr") if getattr(context, name)]
    words = [
        manifest.title,
        f"plan {context.plan}" + ("" if described else f" ({account or ASSUMED})"),
        f"provider {context.provider}",
        f"location {context.location}",
        *(f"{name} on" for name in consents),
    ]
    if context.terms_plan is not context.plan:
        words.insert(2, f"treated as {context.terms_plan}")
    origins = ", ".join(layer.origin for layer in context.layers) or "nothing set"
    return ", ".join(words) + ("" if described else f"\nread: {origins}")


def brief_lines(answers: Sequence[tuple[Flow, Decision]], *, colour: bool) -> list[str]:
    """Return a table: one line for each flow, with what is held of it and what decided."""
    periods = [str(decision.terms.retention) if decision.allowed else "-" for _, decision in answers]
    width = max(len(text) for text in ("KEPT", *periods)) + 2
    lines = [f"{'FLOW':<{LABEL}}{'':<10}{'KEPT':<{width}}{'TRAINS':<8}DECIDED BY"]
    for (flow, decision), kept in zip(answers, periods, strict=True):
        start, word = MARKS[decision.allowed]
        mark = f"{start}{word}\x1b[0m" + " " * (10 - len(word)) if colour else f"{word:<10}"
        trains = ("yes" if decision.terms.trainable else "no") if decision.allowed else "-"
        lines.append(f"{flow.id:<{LABEL}}{mark}{kept:<{width}}{trains:<8}{decision.decided_by}")
    return lines


def block(
    manifest: Manifest, flow: Flow, decision: Decision, context: Context, *, colour: bool
) -> Sequence[str]:
    """Return the lines that tell one flow to a person."""
    place, in_transit = destination(manifest, flow, context)
    start, word = MARKS[decision.allowed]
    need = "required" if decision.required else "optional"
    mark = f"{start}{word}\x1b[0m" if colour else word
    lines = [f"{flow.id:<{LABEL}}{mark}, {need}: {flow.title}"]

    def row(label: str, text: str) -> None:
        body = wrap(text, WIDTH - LABEL - 2) or [""]
        lines.append(f"  {label:<{LABEL - 2}}{body[0]}")
        lines.extend(" " * LABEL + more for more in body[1:])

    row("data", flow.what)
    row("to", place if decision.allowed else f"nowhere; {place} if allowed")
    row("because", f"{decision.decided_by}: {decision.rules[0].text}")
    for rule in decision.rules[1:]:
        if rule.effect in (Effect.REFUSES, Effect.TREATS):
            row("and", f"{rule.layer}/{rule.id}: {rule.text}")
    row("encrypted", f"in transit {in_transit}; at rest {flow.at_rest}")
    if decision.allowed:
        row("kept", f"{decision.terms.retention}: {_texts(decision.rules, Effect.RETAINS)}")
        answer = "yes" if decision.terms.trainable else "no"
        row("trainable", f"{answer}: {_texts(decision.rules, Effect.TRAINS, Effect.FORBIDS_TRAINING)}")
    row("stop it", how_to_stop(flow, decision))
    if flow.note:
        row("note", flow.note)
    if flow.pending:
        row("not yet", flow.pending)
    return lines


def _texts(rules: Sequence[Rule], *effects: Effect) -> str:
    return " ".join(rule.text for rule in rules if rule.effect in effects)


def how_to_stop(flow: Flow, decision: Decision) -> str:
    """Return, in words, what a person does to stop a flow."""
    if decision.required:
        return "end the session; the agent cannot work without it"
    ways = [f"{switch.name}={switch.stopping_value}" for switch in flow.switches]
    ways += [f"{key} in a settings file" for key in flow.settings]
    ways += [f"{key} = {json.dumps(value)} in a settings file" for key, value in flow.settings_off.items()]
    if ways:
        return ", or ".join(ways)
    if flow.holding is Holding.AUDIT:
        return "it goes only where a command or tool asks; deny the command or tool"
    return "nothing stops it"
