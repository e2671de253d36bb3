"""Reading manifests. A manifest that says too little or contradicts the specification is refused whole."""

import tomllib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from bailee.manifests.formats import Format
from bailee.policy.flows import Flow, FlowId
from bailee.policy.layers import LayerName
from bailee.policy.plans import Location, Provider
from bailee.policy.problems import Problem
from bailee.policy.switches import SELECTORS

FOLDER = Path(__file__).parent
OWN = "bailee"  # the manifest of our own agent, and of the service


class SettingsFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One place where an agent's settings lie.

    Attributes:
        layer: the layer it makes.
        path: absolute, below `~`, or relative to the working folder; a `*` in its last part names several.
        folder: the leading part of `path` that a variable can move.
        folder_variable: the variable that moves it.
        format: how it is written; `dotenv` is variables alone, as if they stood under `env`.
    """

    layer: LayerName
    path: str
    folder: str = ""
    folder_variable: str = ""
    format: Format = Format.JSON


class Launch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How `bailee run` gives this agent an environment that points at the service, and what it refuses.

    In values, `{url}` stands for the service's URL, `{key}` for a key made for the run and `{account}` for
    the id of the account that it is of. In lists of names a `*` at the end stands for any ending.

    Attributes:
        commands: the file names by which the agent is known.
        remove: variables taken out of the environment: credentials, selectors and destinations that would
            lead past the service. In a settings file they are refused.
        remove_for: for each provider, the variables taken out where the service itself reaches the model
            through it: then these credentials are the operator's own.
        leading: variables that stay in the environment, where they are harmless beside what is set, and are
            refused in a settings file, which overrides what is set: proxies, their exemptions, certificates.
        leading_keys: keys of a settings file, besides `env`, that are refused: programs that give credentials
            or headers, and addresses to sign in at.
        settings_options: options of the agent that take settings, as JSON or as the name of a file.
        environment: for each provider, the variables set.
        telemetry: variables set so that exports, where the user switched them on, reach the service.
        telemetry_removed, telemetry_keys: variables and keys that would lead exports elsewhere, treated like
            `remove` and `leading_keys`.
        essential_only: variables set unless the user asks otherwise; they stop what the service cannot hold.
        prepare: for an agent that is led by a file and not by variables: what an attestation writes into its
            new home, by path below it.
    """

    commands: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    remove_for: dict[Provider, tuple[str, ...]] = {}
    leading: tuple[str, ...] = ()
    leading_keys: tuple[str, ...] = ()
    settings_options: tuple[str, ...] = ()
    environment: dict[Provider, dict[str, str]] = {}
    telemetry: dict[str, str] = {}
    telemetry_removed: tuple[str, ...] = ()
    telemetry_keys: tuple[str, ...] = ()
    essential_only: dict[str, str] = {}
    prepare: dict[str, str] = {}

    def is_telemetry(self, name: str) -> bool:
        """Tell whether a variable or a settings key leads the agent's telemetry, and nothing else."""
        return name in self.telemetry or name in self.telemetry_keys or is_among(name, self.telemetry_removed)

    def is_leading(self, name: str) -> bool:
        """Tell whether a variable in a settings file would lead data, or a credential, past the service."""
        set_here = {variable for table in self.environment.values() for variable in table}
        return name in set_here or is_among(name, (*self.remove, *self.leading)) or self.is_telemetry(name)


def is_among(name: str, listed: Iterable[str]) -> bool:
    """Tell whether a name is in a list, in which a `*` at the end stands for any ending."""
    return any(name.startswith(entry[:-1]) if entry.endswith("*") else name == entry for entry in listed)


def fill(value: str, *, url: str, key: str, account: str = "") -> str:
    """Return a value of `Launch` with what it stands for."""
    return value.replace("{url}", url).replace("{key}", key).replace("{account}", account)


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything one agent declares: its flows, and where its settings lie (highest precedence first).

    Attributes:
        everything_off: the variable that stops all non-essential traffic. An agent that has it keeps to the
            specification; empty for those of other makers.
        repository_leads: whether the agent lets a repository's settings file choose where data goes.
    """

    agent: str
    title: str
    summary: str
    everything_off: str = ""
    settings_files: tuple[SettingsFile, ...]
    repository_leads: bool = False
    launch: Launch = Launch()
    flows: tuple[Flow, ...]

    @property
    def is_specified(self) -> bool:
        """Whether the agent keeps to the specification: one switch for all, and off on Bedrock and Vertex."""
        return bool(self.everything_off)

    @property
    def is_led(self) -> bool:
        """Whether the agent can be led to the service; else its model traffic goes past it."""
        return bool(self.launch.environment)

    def flow(self, name: str) -> Flow:
        """Return a flow by its id; raises Problem for an unknown one."""
        for flow in self.flows:
            if flow.id == name:
                return flow
        raise Problem(f"unknown flow {name!r}", where="FLOW", fix=f"use one of {', '.join(FlowId)}")

    @property
    def variables(self) -> frozenset[str]:
        """Every environment variable that this agent's policy looks at."""
        switches = {switch.name for flow in self.flows for switch in flow.switches}
        selectors = SELECTORS if self.is_specified else ()
        return frozenset(switches) | frozenset(selectors) | self.destination_variables

    @property
    def destination_variables(self) -> frozenset[str]:
        """The variables that send a flow to another host."""
        return frozenset(name for flow in self.flows for name in flow.moved_by.values())

    @property
    def setting_keys(self) -> frozenset[str]:
        """The keys of settings files, besides `env`, that this agent's policy looks at."""
        return frozenset(key for flow in self.flows for key in flow.settings)


def agents() -> tuple[str, ...]:
    """Return the names of the agents that have a manifest."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


@lru_cache(maxsize=8)
def load_manifest(agent: str) -> Manifest:
    """Return the manifest of an agent; raises Problem for an unknown agent or a faulty file."""
    if agent not in agents():
        raise Problem(f"unknown agent {agent!r}", where="--agent", fix=f"use one of {', '.join(agents())}")
    return read_manifest(FOLDER / f"{agent}.toml")


def read_manifest(path: Path) -> Manifest:
    """Read and check one manifest.

    Raises:
        Problem: naming the file, the key and the fix, when it is not TOML, has an unknown or missing key or a
            value of another kind, or contradicts the specification.
    """
    try:
        text = path.read_text(encoding="utf-8")
        manifest = msgspec.convert(_for_every_provider(tomllib.loads(text)), Manifest)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as fault:
        raise Problem(
            f"the manifest cannot be read: {fault}", where=str(path), fix="mend it; it is UTF-8 TOML"
        ) from fault
    except msgspec.ValidationError as fault:
        what, _, key = str(fault).partition(" - at ")
        raise Problem(
            f"the manifest is refused: {what}",
            where=f"{path}: {key.strip('`').removeprefix('$.') or 'top level'}",
            fix="correct that key; docs/data-usage.md shows what each one means",
        ) from None
    for key, what, fix in _contradictions(manifest):
        raise Problem(what, where=f"{path}: {key}", fix=fix)
    return manifest


def _for_every_provider(content: dict[str, Any]) -> dict[str, Any]:
    """Write out what is said once because it is the same for every provider."""
    flows = content.get("flows")
    for flow in flows if isinstance(flows, list) else ():
        for key in ("to", "default", "hosts"):
            if isinstance(flow, dict) and key in flow and not isinstance(flow[key], dict):
                flow[key] = dict.fromkeys(map(str, Provider), flow[key])
    return content


def _contradictions(manifest: Manifest) -> Iterator[tuple[str, str, str]]:
    if manifest.agent == OWN and not manifest.is_specified:
        yield "everything_off", "our own agent has no switch for everything", "name it"
    declared = [flow.id for flow in manifest.flows]
    for name in FlowId:
        wanted = int(name is not FlowId.FORWARDING or manifest.agent == OWN)
        if declared.count(name) != wanted:
            fix = "declare each flow once" if wanted else "leave it out: it leaves the service, not an agent"
            yield "flows", f"{name} is declared {declared.count(name)} times", fix
    for place, flow in enumerate(manifest.flows):
        for key, what, fix in (*_flow_contradictions(flow), *_loosenings(flow, manifest.everything_off)):
            yield f"flows[{place}].{key}", f"{flow.id}: {what}", fix
    for place, file in enumerate(manifest.settings_files):
        if file.folder and not (file.folder_variable and file.path.startswith(file.folder)):
            yield (
                f"settings_files[{place}].folder",
                "the folder is not the beginning of the path",
                "repeat the beginning of the path and name the variable that moves it",
            )


def _flow_contradictions(flow: Flow) -> Iterator[tuple[str, str, str]]:
    for key, table in (("to", flow.destinations), ("default", flow.default)):
        if absent := [provider for provider in Provider if provider not in table]:
            yield key, f"nothing said for {absent[0]}", "say it for every provider"
    for key in ("title", "what", "origin", "in_transit", "at_rest", "purpose", "source"):
        if not str(getattr(flow, key)).strip():
            yield "from" if key == "origin" else key, "blank", "say it; the published page shows it"
    stops = {switch.name for switch in flow.switches}
    if flow.is_required(Location.LOCAL) and (stops or not all(flow.default.values())):
        yield "required", "a required flow can be switched off", "drop its switches, or do not require it"
    if flow.required and not flow.essential:
        yield "required", "a required flow is not essential", "set essential = true, or do not require it"


def _loosenings(flow: Flow, everything_off: str) -> Iterator[tuple[str, str, str]]:
    """Return in what a flow is looser than the specification, for an agent that keeps to it."""
    if flow.essential or not everything_off:
        return
    if flow.default.get(Provider.BEDROCK) or flow.default.get(Provider.VERTEX):
        yield "default", "non-essential traffic on Bedrock or Vertex", "set bedrock and vertex to false"
    if everything_off not in {switch.name for switch in flow.switches}:
        yield "switches", f"{everything_off} does not stop it", "add it: it stops all non-essential traffic"
