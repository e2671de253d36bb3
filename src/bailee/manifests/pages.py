"""The data-usage page of a manifest as Markdown. Its tables are answers of `decide`, not a second telling."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from textwrap import wrap

from bailee.manifests.catalogues import OTHER, SIGNIFICANT_DIGITS, Catalogue, Field, FieldType
from bailee.manifests.loading import Manifest
from bailee.policy.consents import offers_dpp, offers_training, offers_zdr
from bailee.policy.contexts import Context
from bailee.policy.decisions import decide
from bailee.policy.flows import Flow, FlowId
from bailee.policy.plans import Location, Plan, Provider, is_consumer
from bailee.policy.retention import Holding
from bailee.policy.switches import SELECTORS, Reading

PROVIDER_NAMES = {
    Provider.ANTHROPIC: "Claude API",
    Provider.BEDROCK: "Bedrock",
    Provider.VERTEX: "Vertex",
}
PLAN_NAMES = {
    Plan.FREE: "Free",
    Plan.PRO: "Pro",
    Plan.MAX: "Max",
    Plan.TEAM: "Team",
    Plan.ENTERPRISE: "Enterprise",
    Plan.API: "API",
    Plan.THIRD_PARTY_PLATFORM: "Third-party platform",
    Plan.GOV: "Claude Gov",
}
READINGS = {
    Reading.ANY_VALUE: "any value but an empty one, even `0` or `false`",
    Reading.BOOLEAN: "a true value",
    Reading.FALSE_VALUE: "any value but a true one",
}
ENCRYPTION = {
    "none": "not encrypted",
    "tls": "TLS",
    "aes-256": "AES-256",
    "aes-256-gcm": "AES-256-GCM",
}


def page(manifest: Manifest, diagram: str) -> str:
    """Return the page; `diagram` is the file name of the diagram beside it."""
    sections = (
        _opening(manifest, diagram),
        _overview(manifest),
        _defaults(manifest),
        *((_training(manifest), _retention(manifest)) if manifest.is_specified else (_custody(manifest),)),
        _switches(manifest),
        _settings(manifest),
        _launch(manifest),
        _cloud(manifest),
        _details(manifest),
    )
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def _opening(manifest: Manifest, diagram: str) -> Iterator[str]:
    yield f"<!-- Drawn from src/bailee/manifests/{manifest.agent}.toml by `bailee manifests render`. -->"
    yield ""
    yield f"# Data usage: {manifest.title}"
    yield ""
    yield from _prose(
        f"{manifest.summary} This page says what data leaves or is kept, where it goes, for how long, "
        "whether it may train a model, and how to stop it. The program decides from the same file this page "
        f"is drawn from; for your own machine ask it: `bailee explain --agent {manifest.agent}`."
    )
    yield ""
    yield f"![Data flows of {manifest.title}; the table below says the same in words.]({diagram})"
    yield ""
    yield from _prose("Solid lines are required connections, dashed lines optional or started by the user.")
    pending = [flow for flow in manifest.flows if flow.pending]
    if pending:
        yield ""
        yield from _prose(
            "**Not built yet.** These flows are declared and decided, so that nothing is built without its "
            "rule:"
        )
        yield ""
        for flow in pending:
            yield f"- {flow.title}: {flow.pending}"


def _overview(manifest: Manifest) -> Iterator[str]:
    yield "## Every flow"
    yield ""
    rows = []
    for flow in manifest.flows:
        terms = decide(flow, Context()).terms
        rows.append(
            (
                f"[{flow.title}](#{_anchor(flow)})",
                flow.destinations[Provider.ANTHROPIC],
                tell_need(flow),
                f"{tell_encryption(flow.in_transit)} / {tell_at_rest(flow)}",
                tell_kept(flow, str(terms.retention)),
                _first_switch(flow),
            )
        )
    yield from _table(
        ("Flow", "Goes to", "Needed", "Encrypted in transit / at rest", "Kept (API plan)", "Stop it with"),
        rows,
    )


def _defaults(manifest: Manifest) -> Iterator[str]:
    if not manifest.is_specified:
        yield from _own_defaults(manifest)
        return
    yield "## Defaults by provider"
    yield ""
    yield from _prose(
        "All that is not needed to answer a prompt is non-essential traffic. It is off by default where the"
    )
    selectors = " or ".join(f"`{name}=1`" for name in SELECTORS)
    yield from _prose(
        f"model is reached through Bedrock or Vertex ({selectors}). "
        f"`{manifest.everything_off}=1` turns all of it off at once, on every provider."
    )
    yield ""
    rows = []
    for flow in manifest.flows:
        if flow.essential:
            continue
        cells = [f"**{flow.title}**"]
        for provider in Provider:
            if decide(flow, Context(provider=provider)).allowed:
                cells.append(f"Default on. `{flow.switches[0].name}=1` to disable.")
            else:
                cells.append("Default off.")
        rows.append(cells)
    yield from _table(("Flow", *PROVIDER_NAMES.values()), rows)


def _own_defaults(manifest: Manifest) -> Iterator[str]:
    yield "## Defaults"
    yield ""
    yield from _prose(
        "All that is not needed to answer a prompt is non-essential traffic. This agent has no one switch "
        "for all of it, and its defaults are the same whichever model answers."
    )
    yield ""
    rows = []
    for flow in manifest.flows:
        if not flow.essential:
            is_on = decide(flow, Context()).allowed
            rows.append((f"**{flow.title}**", "on" if is_on else "off", tell_switches(flow)))
    yield from _table(("Flow", "By default", "Stop it with"), rows)


def _custody(manifest: Manifest) -> Iterator[str]:
    yield "## Who keeps it, and for how long"
    yield ""
    if manifest.is_led:
        led = (
            f"Under `bailee run` {manifest.title} reaches the model through the Bailee service, which holds "
            "its records under the [terms of your account](data-usage.md#how-long-conversations-are-kept)."
        )
    else:
        led = (
            f"{manifest.title} speaks to its model in a protocol that the Bailee service does not: under "
            "`bailee run` its model traffic goes past the service to the hosts it declares, and Bailee holds "
            "the log of its connections alone."
        )
    yield from _prose(
        f"{led} What goes to other hosts is kept, and used, as their owners say; Bailee can stop it, and can "
        "say that it went, no more."
    )


def _training(manifest: Manifest) -> Iterator[str]:
    yield "## Who may allow training"
    yield ""
    yield from _prose(
        "Training is a consent, never a setting: no file and no variable can give it. It can be withdrawn at "
        "any time, and withdrawing applies at once to what is already held."
    )
    yield ""
    rows = []
    for plan in Plan:
        if offers_training(plan):
            answer = "The account holder, with the training switch."
        elif offers_dpp(plan):
            answer = "An organization admin, by joining the Development Partner Program."
        else:
            answer = "Nobody."
        rows.append((PLAN_NAMES[plan], answer, "No" if is_consumer(plan) else "Yes"))
    yield from _table(("Plan", "Who may allow training", "Zero data retention to be had"), rows)
    yield ""
    yield from _prose(
        "Through Bedrock or Vertex every plan is treated as a third-party platform: nobody may allow "
        "training. Under zero data retention nothing is held, so nothing can train. Survey ratings never "
        "train; a bug report improves products and services and is no consent to training."
    )


def _retention(manifest: Manifest) -> Iterator[str]:
    yield "## How long conversations are kept"
    yield ""
    messages = manifest.flow(FlowId.MESSAGES)
    rows = []
    for plan in Plan:
        for words, context in _consents(plan):
            terms = decide(messages, context).terms
            kept = "nothing is kept" if terms.retention.is_none else str(terms.retention)
            rows.append((PLAN_NAMES[plan], words, kept, "yes" if terms.trainable else "no"))
    yield from _table(("Plan", "Settings", "Kept", "May train"), rows)
    yield ""
    yield from _prose(
        "A period counts whole UTC days: what is written on day D with 30d is gone as day D+30 begins; 5y "
        "ends on the same date five years later. An organization or an account holder may ask for less, "
        "which applies at once. Bug reports are kept 5y, and are refused under zero data retention. "
        "Sessions cached on the machine are kept 30d unless its owner sets `cleanupPeriodDays` to a "
        "number of days of at least 1, `none` or `unlimited`; `0`, blank and negative values are errors "
        "and delete nothing."
    )


def _consents(plan: Plan) -> Iterator[tuple[str, Context]]:
    if offers_training(plan):
        yield "training off", Context(plan=plan)
        yield "training on", Context(plan=plan, training=True)
        return
    yield "standard", Context(plan=plan)
    if offers_dpp(plan):
        yield "partner program", Context(plan=plan, dpp=True)
    if offers_zdr(plan):
        yield "zero data retention", Context(plan=plan, zdr=True)


def _switches(manifest: Manifest) -> Iterator[str]:
    yield "## Switches"
    yield ""
    yield from _table(("Variable or key", "Stops", "When set to"), list_switches(manifest))
    if manifest.is_specified:
        yield ""
        yield from _prose("Each variable can stand in the environment or under `env` in a settings file.")


def _settings(manifest: Manifest) -> Iterator[str]:
    leads = (
        f"{manifest.title} itself lets a repository's file choose a destination and a provider: `bailee run` "
        "refuses to start with such a file, and `bailee explain` tells it."
        if manifest.repository_leads
        else "They cannot choose a destination or a provider."
    )
    yield "## Settings files, and who may loosen"
    yield ""
    yield from _table(("Layer", "File"), list_settings_files(manifest))
    yield ""
    longer = (
        "Only a managed file or the user's own file can keep the local session cache longer than 30 days. "
        if manifest.is_specified
        else ""
    )
    yield from _prose(
        "Layers only tighten: whichever asks for the flow to be off or for the shorter time prevails, so "
        "their order does not matter and none can undo another. A repository's files (project, local) can "
        f"switch collection off, never on. {leads} {longer}A file that "
        "cannot be read or understood is an error that names the file, the key and the fix; nothing is "
        "decided without it."
    )


def _launch(manifest: Manifest) -> Iterator[str]:
    yield "## Under `bailee run`"
    yield ""
    if not manifest.is_led:
        yield from _prose(
            "Nothing is taken out and nothing set: the agent cannot be led to the service. The boundary lets "
            "it reach the hosts of the flows above that are on, and no others."
        )
        return
    yield from _prose("A `*` stands for any ending.")
    yield ""
    yield from _table(("What is done", "Variables and keys"), list_launch(manifest))


def _names(names: Sequence[str]) -> str:
    return " ".join(f"`{name}`" for name in names)


def _assignments(table: Mapping[str, str]) -> str:
    return " ".join(f"`{name}={value}`" for name, value in table.items())


def _cloud(manifest: Manifest) -> Iterator[str]:
    yield "## Cloud sessions"
    yield ""
    yield from _prose(
        "In a cloud session the same rules hold for prompts, code and outputs. The repository is cloned "
        "to an isolated machine, so Git is required there; git credentials stay outside the sandbox, and "
        "all outbound traffic goes through the security proxy."
    )
    yield ""
    rows = []
    for flow in manifest.flows:
        cloud = decide(flow, Context(location=Location.CLOUD))
        rows.append((flow.title, "required" if cloud.required else "optional"))
    yield from _table(("Flow", "In the cloud"), rows)


def _details(manifest: Manifest) -> Iterator[str]:
    yield "## Each flow in full"
    for flow in manifest.flows:
        yield ""
        yield f"### {flow.title}"
        yield ""
        yield f"- **Id**: `{flow.id}`"
        yield f"- **Data**: {flow.what}"
        yield f"- **From**: {flow.origin}"
        yield from _destinations(flow)
        yield f"- **Needed**: {tell_need(flow)}"
        yield f"- **Encrypted**: in transit {tell_encryption(flow.in_transit)}; at rest {tell_at_rest(flow)}"
        yield f"- **Used to**: {flow.purpose}"
        yield f"- **Stop it with**: {tell_switches(flow)}"
        if flow.note:
            yield f"- **Note**: {flow.note}"
        if flow.pending:
            yield f"- **Not built yet**: {flow.pending}"
        yield f"- **Rests on**: “{flow.source}”"


def _destinations(flow: Flow) -> Iterator[str]:
    if len(set(flow.destinations.values())) == 1:
        yield f"- **To**: {flow.destinations[Provider.ANTHROPIC]}"
    else:
        places = "; ".join(f"{PROVIDER_NAMES[key]}: {flow.destinations[key]}" for key in Provider)
        yield f"- **To**: {places}".replace("<", "&lt;")
    if flow.moved_by:
        yield f"- **Moved by**: {', '.join(f'`{name}`' for name in flow.moved_by.values())}"


def list_switches(manifest: Manifest) -> list[tuple[str, str, str]]:
    """Return what stops flows: a variable or a key, the flows that it stops, and what it has to be."""
    stops: dict[str, list[str]] = {}
    readings: dict[str, Reading] = {}
    for flow in manifest.flows:
        for switch in flow.switches:
            stops.setdefault(switch.name, []).append(flow.title)
            readings[switch.name] = switch.reading
    rows = []
    for name, titles in stops.items():
        rows.append((f"`{name}`", ", ".join(titles), READINGS[readings[name]]))
    for flow in manifest.flows:
        for key, value in flow.settings_off.items():
            rows.append((f"`{key}` in a settings file", flow.title, f"`{_tell_value(value)}`"))
    return rows


def list_settings_files(manifest: Manifest) -> list[tuple[str, str]]:
    """Return where settings lie: the layer, and the file."""
    rows = []
    for file in manifest.settings_files:
        moved = f" (`{file.folder_variable}` replaces `{file.folder}`)" if file.folder else ""
        rows.append((file.layer.value, f"`{file.path}`{moved}"))
    return rows


def list_launch(manifest: Manifest) -> list[tuple[str, str]]:
    """Return what `bailee run` does to the environment: what is done, and to which variables and keys."""
    launch = manifest.launch
    rows = [("taken out of the environment", _names(launch.remove))]
    for provider, names in launch.remove_for.items():
        rows.append((f"taken out where the upstream is {PROVIDER_NAMES[provider]}", _names(names)))
    for provider, table in launch.environment.items():
        rows.append((f"set, for {PROVIDER_NAMES[provider]}", _assignments(table)))
    if launch.essential_only:
        rows.append(("set, unless `--nonessential` is given", _assignments(launch.essential_only)))
    if launch.telemetry:
        rows.append(("taken out, unless `--nonessential` is given", _names(launch.telemetry_removed)))
        rows.append(("set, unless `--nonessential` is given", _assignments(launch.telemetry)))
    refused = (*launch.leading, *launch.leading_keys, *launch.telemetry_keys)
    if refused:
        what = "refused in a settings file, as is all of the above that differs from what is set"
        rows.append((what, _names(refused)))
    return rows


def tell_need(flow: Flow) -> str:
    """Say whether a flow is needed, and who starts it."""
    if flow.is_required(Location.LOCAL):
        return "required"
    started = ", started by the user" if flow.initiated_by == "user" else ""
    return f"optional{started}" + ("; required in the cloud" if flow.required else "")


def tell_encryption(word: str) -> str:
    """Say how something is encrypted."""
    return ENCRYPTION.get(word, word)


def tell_at_rest(flow: Flow) -> str:
    """Say how what is kept of a flow is encrypted."""
    return "nothing is kept" if flow.holding is Holding.NOTHING else tell_encryption(flow.at_rest)


def tell_kept(flow: Flow, period: str) -> str:
    """Say how long what comes of a flow is kept; `period` is the answer of the policy."""
    if flow.holding is Holding.NOTHING:
        return "nothing is kept"
    if flow.holding is Holding.AGENT:
        return "as the agent sees fit"
    return f"{period}, the connection log" if flow.holding is Holding.AUDIT else period


def _first_switch(flow: Flow) -> str:
    if flow.is_required(Location.LOCAL):
        return "–"
    if flow.switches:
        return f"`{flow.switches[0].name}`"
    return next((f"`{key}`" for key in flow.settings_off), "not asking for it")


def _tell_value(value: bool | str) -> str:
    return str(value).lower() if isinstance(value, bool) else value


def tell_switches(flow: Flow) -> str:
    """Say everything that stops a flow."""
    ways = [f"`{switch.name}={switch.stopping_value}`" for switch in flow.switches]
    ways += [
        f"`{key}` = `{_tell_value(value)}` in a settings file" for key, value in flow.settings_off.items()
    ]
    ways += [f"`{key}` in a settings file" for key in flow.settings]
    if ways:
        return ", ".join(ways)
    return "nothing; it is required" if flow.is_required(Location.LOCAL) else "not asking for it"


def _anchor(flow: Flow) -> str:
    return flow.title.lower().replace(" ", "-")


def _prose(text: str) -> Iterator[str]:
    yield from wrap(text, 100, break_long_words=False, break_on_hyphens=False)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield from _prose("| " + " | ".join(heads) + " |")
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in row) + " |"


def catalogue_page(catalogues: Mapping[str, Catalogue]) -> str:
    """Write the page of what operational data may be, event by event."""
    lines = [
        "# Operational data",
        "",
        "What may be held of the metrics and errors that agents send. An event that is not here is dropped",
        "and counted, and so is a field that is not. A word is one of those named, a number is rounded",
        "to a few digits, a version is three numbers: no field holds free text. Sender and receiver go by",
        "it. It is drawn from `src/bailee/flows/*/catalogue.toml` by `bailee manifests render`.",
    ]
    for flow, catalogue in catalogues.items():
        lines += ["", f"## {flow.capitalize()}"]
        for entry in catalogue.entries.values():
            lines += [
                "",
                f"### `{entry.name}`",
                "",
                f"{entry.description} {entry.why} From {entry.sender}; owner: {entry.owner}; "
                f"expires {entry.expires.isoformat()}.",
                "",
                "| field | what it tells | what it may be |",
                "|---|---|---|",
            ]
            lines += [
                f"| `{field.name}` | {field.description} | {_allowed(field)} |" for field in entry.fields
            ]
    return "\n".join(lines) + "\n"


def _allowed(field: Field) -> str:
    match field.type:
        case FieldType.VERSION:
            return "three numbers with dots"
        case FieldType.NUMBER:
            digits = "two digits" if field.digits == SIGNIFICANT_DIGITS else f"{field.digits} digits"
            return f"{field.unit}, from {field.least:,.0f} to {field.most:,.0f}, {digits}"
        case FieldType.NAME:
            return "a name in " + ", ".join(f"`{word}`" for word in field.words)
        case FieldType.IDENTIFIER:
            return "an identifier that stands in the published source of that module"
        case FieldType.WORD:
            words = [f"`{word}`" for word in field.words] + [f"`{word}...`" for word in field.prefixes]
            return ", ".join(words) + (f", else `{OTHER}`" if field.is_open else "")
