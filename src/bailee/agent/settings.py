"""The agent's settings: every layer read, checked against one structure, and composed.

What decides about data composes by tightening: no layer loosens what another asked. What is a matter of
taste, such as the model, is taken from the layer that is hardest to change. Files that travel with a
repository can only tighten: whoever wrote the repository may have written them.
"""

import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from bailee.agent.managed import Managed, find_managed, read_managed_source
from bailee.agent.repositories import list_above
from bailee.agent.state import state_folder
from bailee.flows.metrics.sender import Wire
from bailee.manifests import Manifest, load_manifest
from bailee.manifests.settings import Source, read_sources
from bailee.policy.contexts import Context, choose_provider
from bailee.policy.layers import REPOSITORY, Layer, LayerName
from bailee.policy.problems import Problem
from bailee.policy.switches import find_meant

AGENT = "bailee"
DEFAULT_MODEL = "claude-sonnet-5-5"
# How long sessions are kept on a machine where nobody says anything.
USUAL_DAYS = 30


class Mode(StrEnum):
    """What the agent does without asking, from the strictest on.

    `plan` only looks; `ask` asks before it changes or runs anything; `edits` changes files of the project
    without asking; `all` asks nothing.
    """

    PLAN = "plan"
    ASK = "ask"
    EDITS = "edits"
    ALL = "all"


class Telemetry(StrEnum):
    """Whether metrics and errors may leave the machine; `local` is for counting without sending."""

    OFF = "off"
    LOCAL = "local"
    ON = "on"


_STRICTNESS = {mode: place for place, mode in enumerate(Mode)}
_OPENNESS = {kind: place for place, kind in enumerate(Telemetry)}


class Permissions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What tools may do.

    Attributes:
        mode: what is done without asking. Default: ask.
        allow: rules of calls that are not asked about, such as `bash(pytest *)` or `edit(docs/**)`.
        deny: rules of calls that are refused, whatever the mode.
    """

    mode: Mode | None = None
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()


Tokens = Annotated[int, msgspec.Meta(ge=1000, le=10_000_000)]
Seconds = Annotated[int, msgspec.Meta(ge=1, le=86_400)]
Rate = Annotated[float, msgspec.Meta(ge=0, le=1)]
Days = Annotated[int, msgspec.Meta(ge=1, le=999_999)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """What one settings file may say. Every key is optional.

    Attributes:
        schema: the address of this schema, for editors.
        env: environment variables, those of the data-usage page in any file, others in your own files only.
        model: the model that answers.
        max_tokens: the longest answer, in tokens.
        context_tokens: how much of a conversation the model can hold; compaction begins at four fifths of it.
        command_seconds: how long a command may run unless the model asks for less.
        permissions: what tools may do.
        cleanup_period_days: how many days sessions are kept on this machine, or "none" or "unlimited".
        feedback_survey_rate: how often, from 0 to 1, a session may be asked how it goes; 0 never.
        telemetry: whether metrics and errors may be sent: on; local, which counts and sends nothing; off.
        telemetry_wire: how metrics are sent: otlp, which is OpenTelemetry's way, or statsig.
    """

    schema: str = msgspec.field(default="", name="$schema")
    env: dict[str, str | int | float | bool] = {}
    model: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] | None = None
    max_tokens: Tokens | None = None
    context_tokens: Tokens | None = None
    command_seconds: Seconds | None = None
    permissions: Permissions = Permissions()
    cleanup_period_days: Days | Literal["none", "unlimited"] | None = None
    feedback_survey_rate: Rate | None = None
    telemetry: Telemetry | None = None
    telemetry_wire: Wire | None = None


class Origin(msgspec.Struct, frozen=True):
    """Where a value comes from: a layer and the file or variable it was read from."""

    layer: str
    place: str


DEFAULT = Origin("default", "the default")


class Value(msgspec.Struct, frozen=True):
    """A value that is in force, and what decided it."""

    value: Any
    origin: Origin


class Effective(msgspec.Struct, frozen=True):
    """Everything that is in force.

    Attributes:
        values: by the key as a settings file writes it, dotted where it is nested.
        layers: what the policy decides from.
        environment: the variables of the owner's files, to be added to the process's own.
        notices: what was read and does not count, in words.
        mode_limit: the loosest mode that managed files and the repository allow; None for no limit.
    """

    values: Mapping[str, Value]
    layers: tuple[Layer, ...]
    environment: Mapping[str, str]
    notices: tuple[str, ...] = ()
    mode_limit: Value | None = None

    def __getitem__(self, key: str) -> Any:
        return self.values[key].value

    def context(self, known: Context | None = None) -> Context:
        """Return what the policy decides in.

        Args:
            known: what is known of the account; the plan is assumed to be api where nothing tells.
        """
        provider = choose_provider(self.layers)
        return msgspec.structs.replace(known or Context(), provider=provider, layers=self.layers)


def read_settings(
    *,
    directory: Path,
    environment: Mapping[str, str] = os.environ,
    arguments: Sequence[str] = (),
    given: Settings | None = None,
    managed: Managed | None = None,
    root: Path = Path("/"),
) -> Effective:
    """Read every layer and compose what is in force.

    Args:
        directory: the folder it is started in. The files of the repository's folders above count as well.
        environment: the environment variables of the process.
        arguments: the command line's `--settings`, as the manifest knows them.
        given: what options of the command line say.
        managed: what the service just told that the organization manages; else what was last kept counts.
        root: what absolute paths are below; `/` but in tests.

    Raises:
        Problem: naming file, key and fix, for the first layer that cannot be understood.
    """
    manifest = load_manifest(AGENT)
    sources = read_sources(
        manifest,
        environment=environment,
        directory=directory,
        above=list_above(directory),
        arguments=arguments,
        root=root,
    )
    stated = [(source.layer, source.origin, understand(source)) for source in sources if source.settings]
    if given is not None:
        stated.append((LayerName.COMMAND_LINE, "the command line", given))
    layers = tuple(source.decided for source in sources) + _given_layer(given)
    effective = compose(manifest, stated, layers, environment)
    if managed is None:
        # Whose traffic it is, and so whose settings count, is said by the layers of this machine alone.
        whole = {**effective.environment, **environment}
        managed = find_managed(state_folder(environment), whole, effective.context().provider)
    source = read_managed_source(managed, manifest) if managed else None
    if source is None:
        return effective
    stated.append((source.layer, source.origin, understand(source)))
    return compose(manifest, stated, (*layers, source.decided), environment)


def understand(source: Source) -> Settings:
    """Check what a settings file says.

    Raises:
        Problem: a key is unknown or has a value of another kind. An unknown key may be a misspelled refusal.
    """
    try:
        return msgspec.convert(source.settings, Settings)
    except msgspec.ValidationError as fault:
        what, _, path = str(fault).partition(" - at ")
        key = path.strip("`").removeprefix("$").removeprefix(".")
        fix = "correct it; docs/settings.md tells what it may be"
        if (unknown := _unknown(what)) is not None:
            known = [field.encode_name for field in msgspec.structs.fields(Settings)] + [
                "mode",
                "allow",
                "deny",
            ]
            near = difflib.get_close_matches(unknown, known, 1)
            fix = f"write {near[0]}" if near else "take it out: nobody can know what it meant to forbid"
            what, key = f"the key {unknown!r} is unknown", ".".join(part for part in (key, unknown) if part)
        raise Problem(what, where=f"{source.origin}: {key or 'top level'}", fix=fix) from None


def _unknown(fault: str) -> str | None:
    _, found, name = fault.partition("unknown field `")
    return name.rstrip("`") if found else None


def _given_layer(given: Settings | None) -> tuple[Layer, ...]:
    if given is None or given.telemetry is None or given.telemetry is Telemetry.ON:
        return ()
    off = {"metrics": "telemetry", "errors": "telemetry"}
    return (Layer(name=LayerName.COMMAND_LINE, origin="the command line", off=off),)


Stated = Sequence[tuple[LayerName, str, Settings]]
# They allow nothing, lengthen nothing and lead nowhere: whoever writes them does not own the machine.
_TIGHTENING = REPOSITORY | {LayerName.ORGANIZATION}
# Taste goes by the layer that is hardest to change; a repository's files come last.
_PRECEDENCE = (
    LayerName.MANAGED,
    LayerName.ORGANIZATION,
    LayerName.COMMAND_LINE,
    LayerName.USER,
    LayerName.LOCAL,
    LayerName.PROJECT,
)


def compose(
    manifest: Manifest, stated: Stated, layers: tuple[Layer, ...], environment: Mapping[str, str]
) -> Effective:
    """Compose what layers state into what is in force; pure."""
    notices = [doubt for name in environment for doubt in _doubt(manifest, name, f"the environment: {name}")]
    ordered = sorted(stated, key=lambda one: _PRECEDENCE.index(one[0]))
    model = _first(ordered, "model", None)
    if model.value is None:
        variable = environment.get("ANTHROPIC_MODEL", "")
        model = (
            Value(variable, Origin(LayerName.ENVIRONMENT, "ANTHROPIC_MODEL"))
            if variable
            else Value(DEFAULT_MODEL, DEFAULT)
        )
    allow, denied = _rules(ordered, notices)
    values = {
        "model": model,
        "maxTokens": _first(ordered, "max_tokens", 16_000),
        "contextTokens": _first(ordered, "context_tokens", 200_000),
        "commandSeconds": _first(ordered, "command_seconds", 120),
        "permissions.mode": _mode(ordered),
        "permissions.allow": allow,
        "permissions.deny": denied,
        "cleanupPeriodDays": _cleanup(ordered),
        "feedbackSurveyRate": _least(ordered, "feedback_survey_rate", 0.05),
        "telemetry": _telemetry(ordered),
        "telemetryWire": _first(ordered, "telemetry_wire", Wire.OTLP),
    }
    return Effective(
        values, layers, _variables(manifest, ordered, notices), tuple(notices), _mode_limit(ordered)
    )


def _first(ordered: Stated, name: str, default: object) -> Value:
    for layer, place, settings in ordered:
        if (value := getattr(settings, name)) is not None:
            return Value(value, Origin(layer, place))
    return Value(default, DEFAULT)


def _least(ordered: Stated, name: str, default: float) -> Value:
    """Return the least of what is asked; only the owner of the machine can ask for more than the default."""
    asked = [
        Value(value, Origin(layer, place))
        for layer, place, settings in ordered
        if (value := getattr(settings, name)) is not None
    ]
    if not any(value.origin.layer not in _TIGHTENING for value in asked):
        asked.append(Value(default, DEFAULT))
    return min(asked, key=lambda value: float(value.value))


_CHOOSERS = (LayerName.COMMAND_LINE, LayerName.USER)


def _modes(ordered: Stated) -> list[Value]:
    return [
        Value(settings.permissions.mode, Origin(layer, place))
        for layer, place, settings in ordered
        if settings.permissions.mode is not None
    ]


def _mode(ordered: Stated) -> Value:
    """Return what the owner chose, tightened by managed files and by those of the repository."""
    stated = _modes(ordered)
    chosen = next((value for name in _CHOOSERS for value in stated if value.origin.layer == name), None)
    limit = _mode_limit(ordered)
    chosen = chosen or Value(Mode.ASK, DEFAULT)
    return chosen if limit is None or not is_looser(chosen.value, limit.value) else limit


def _mode_limit(ordered: Stated) -> Value | None:
    limits = [value for value in _modes(ordered) if value.origin.layer not in _CHOOSERS]
    return min(limits, key=lambda value: _STRICTNESS[value.value], default=None)


def is_looser(mode: Mode, limit: Mode) -> bool:
    """Tell whether a mode does more without asking than a limit allows."""
    return _STRICTNESS[mode] > _STRICTNESS[limit]


def _telemetry(ordered: Stated) -> Value:
    stated = [
        Value(settings.telemetry, Origin(layer, place))
        for layer, place, settings in ordered
        if settings.telemetry is not None
    ]
    return min(stated, key=lambda value: _OPENNESS[value.value], default=Value(Telemetry.ON, DEFAULT))


def _cleanup(ordered: Stated) -> Value:
    """Return what the nearest layer says; the policy decides what comes of all of them."""
    return _first(ordered, "cleanup_period_days", USUAL_DAYS)


def _rules(ordered: Stated, notices: list[str]) -> tuple[Value, Value]:
    allow: dict[str, Origin] = {}
    deny: dict[str, Origin] = {}
    for layer, place, settings in ordered:
        for rule in settings.permissions.deny:
            deny.setdefault(rule, Origin(layer, place))
        for rule in settings.permissions.allow:
            if layer in _TIGHTENING:
                reason = "a repository cannot allow itself" if layer in REPOSITORY else "they only tighten"
                notices.append(f"{place}: permissions.allow {rule} is ignored: {reason}")
            else:
                allow.setdefault(rule, Origin(layer, place))
    return _merged(allow), _merged(deny)


def _merged(rules: Mapping[str, Origin]) -> Value:
    origins = sorted({(origin.layer, origin.place) for origin in rules.values()})
    if not origins:
        return Value((), DEFAULT)
    layer = ", ".join(dict.fromkeys(layer for layer, _ in origins))
    return Value(tuple(rules), Origin(layer, ", ".join(place for _, place in origins)))


def _variables(manifest: Manifest, ordered: Stated, notices: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for layer, place, settings in ordered:
        for name, value in settings.env.items():
            notices.extend(_doubt(manifest, name, f"{place}: env.{name}"))
            if layer in _TIGHTENING:
                whose = "a repository's file sets" if layer in REPOSITORY else "they set"
                if name not in manifest.variables:
                    notices.append(f"{place}: env.{name} is ignored: {whose} switches only")
                continue
            text = ("true" if value else "false") if isinstance(value, bool) else str(value)
            found.setdefault(name, text)
    return found


def _doubt(manifest: Manifest, name: str, place: str) -> Iterator[str]:
    """Give what is to be said of a variable that may be a misspelt switch: it stops nothing."""
    if meant := find_meant(name, manifest.variables):
        yield f"{place} is no switch and stops nothing; did you mean {meant}?"


def make_schema() -> dict[str, Any]:
    """Return the JSON Schema of a settings file, each key with what is said of it here."""
    schema = msgspec.json.schema(Settings)
    for kind in (Settings, Permissions):
        described = schema["$defs"][kind.__name__]
        summary, _, attributes = (kind.__doc__ or "").partition("Attributes:")
        described["description"] = summary.strip()
        told = dict(_ATTRIBUTE.findall(" ".join(attributes.split())))
        for field in msgspec.structs.fields(kind):
            described["properties"][field.encode_name]["description"] = told[field.name].strip()
    whole: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(schema))  # defaults are tuples else
    return {"title": "Settings of the Bailee agent", **whole}


_ATTRIBUTE = re.compile(r"(\w+): (.+?)(?=(?: \w+: )|$)")
