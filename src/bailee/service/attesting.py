"""Attestations: an agent is run where all that it tries is seen, and compared with what it declares."""

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import IO
from urllib.parse import urlsplit

import msgspec

from bailee.boundary.declarations import make_rules
from bailee.boundary.enclosure import Enclosure, Ended, make_layout
from bailee.boundary.exits import Exit
from bailee.boundary.means import Means
from bailee.boundary.reconciliation import Verdict, list_names, reconcile
from bailee.boundary.standin import Asked, StandIn
from bailee.characters import make_visible
from bailee.flows.web.authorities import Authority
from bailee.flows.web.log import Closed, ConnectionLog, Opened, Refused, Row, Way, read_log
from bailee.flows.web.rules import Rule, Rules
from bailee.flows.web.targets import read_target
from bailee.manifests import Manifest
from bailee.manifests.formats import write_key
from bailee.manifests.loading import fill, is_among
from bailee.manifests.settings import read_layers
from bailee.policy.contexts import Context
from bailee.policy.flows import FlowId
from bailee.policy.plans import Provider
from bailee.service.boundaries import AUTHORITY_VARIABLES, LOOPBACK, PROXY_URL, PROXY_VARIABLES, free_ports
from bailee.service.scratch import Scratch
from bailee.sizes import tell_size

BASELINE = "no switch"
DECLARED, SWITCHED_OFF, UNDECLARED = "declared", "switched off", "undeclared"


_ORDER = (DECLARED, SWITCHED_OFF, UNDECLARED)


class RequestSeen(msgspec.Struct, frozen=True):
    """A request that the stand-in for a host got.

    Attributes:
        what: its method and path.
        flows, standing, decided_by: see `Destination`.
    """

    what: str
    count: int
    flows: tuple[str, ...]
    standing: str
    decided_by: str


class Destination(msgspec.Struct, frozen=True):
    """Where a command wanted to go.

    Attributes:
        flows: the flows that declare it; empty if none does.
        standing: "declared"; "switched off", declared for flows alone that are off here; or "undeclared".
        decided_by: what switched it off.
        requests: what was asked there, where that was seen; the worst of them is the standing.
    """

    host: str
    port: int
    flows: tuple[str, ...]
    standing: str
    decided_by: str
    connections: int
    sent_bytes: int
    received_bytes: int
    requests: list[RequestSeen] = []


class Trial(msgspec.Struct, frozen=True):
    """One run under one setting.

    Attributes:
        setting: the switch that was set, or BASELINE.
        status: the command's own.
        service_connections: how many went to the service, which stands in for the model's API.
        packets: of other kinds than TCP, which went nowhere, by kind.
        counts: what the proxy's count and the kernel's say of each other.
        differences: in which they differ, in words.
    """

    setting: str
    environment: dict[str, str]
    status: int
    service_connections: int
    destinations: list[Destination]
    names: list[str]
    packets: dict[str, int]
    counts: str
    differences: list[str] = []

    @property
    def is_consistent(self) -> bool:
        """Whether all that was tried is declared, and on."""
        return all(one.standing == DECLARED for one in self.destinations) and self.counts == Verdict.AGREED


class Attestation(msgspec.Struct, frozen=True):
    """All runs of one command.

    Attributes:
        version: as the command tells it.
        network: "stand-in" or "live".
    """

    agent: str
    version: str
    command: list[str]
    provider: str
    network: str
    trials: list[Trial]

    @property
    def is_consistent(self) -> bool:
        """Whether all runs are."""
        return all(trial.is_consistent for trial in self.trials)


class Setting(msgspec.Struct, frozen=True):
    """One way to set up a run.

    Attributes:
        name: what the page calls it.
        variables: set for the run.
        files: written into its new home, by path below it.
    """

    name: str
    variables: dict[str, str] = {}
    files: dict[str, str] = {}


class Attesting:
    """Runs a command in boundaries that note everything and, but for `live`, let nothing out.

    Args:
        manifest: what the command declares.
        service_url, key: the service that stands in for the model's API.
        output: where the command's own output goes.
        is_live: whether the real network is used.
        own_home: whether the command has the user's own home; else a new one each time.
    """

    def __init__(
        self,
        manifest: Manifest,
        means: Means,
        *,
        service_url: str,
        key: str,
        provider: Provider,
        output: IO[bytes],
        is_live: bool = False,
        own_home: bool = False,
    ) -> None:
        self._manifest = manifest
        self._means = means
        self._key = key
        self._provider = provider
        self._output = output
        self._is_live = is_live
        self._own_home = own_home
        self._url = service_url
        parts = urlsplit(service_url)
        self._service = (parts.hostname or "127.0.0.1", parts.port or 80)

    def run(self, command: Sequence[str], setting: Setting, environment: Mapping[str, str]) -> Trial:
        """Run a command under a setting.

        Args:
            environment: to which the setting adds.

        Raises:
            Problem: the boundary cannot be made, or the settings of the agent cannot be read.
        """
        with Scratch() as scratch:
            folder = scratch.path
            inside = self._prepare({**environment, **setting.variables}, folder, setting.files)
            layers = read_layers(
                self._manifest, environment=inside, directory=Path.cwd(), arguments=command[1:]
            )
            context = Context(provider=self._provider, layers=layers)
            passed = (FlowId.MESSAGES,) if self._manifest.is_led else ()
            declared = make_rules([self._manifest], context, environment=inside, passed=passed)
            rows, ended, asked = self._hold(command, inside, folder)
        counts = reconcile(rows, ended.count)
        return Trial(
            setting=setting.name,
            environment={name: inside[name] for name in sorted(self._manifest.variables) if inside.get(name)},
            status=ended.status,
            service_connections=sum(isinstance(row, Opened) and row.way is Way.SERVICE for row in rows),
            destinations=_classify(rows, asked, declared),
            names=[name for name in list_names(rows) if name != self._service[0]],
            packets=counts.refused_packets,
            counts=counts.verdict.value,
            differences=counts.differences,
        )

    def ask_version(self, command: str) -> str:
        """Return what a command says of its version, in one line."""
        with Scratch() as scratch, tempfile.TemporaryFile() as said:
            kept, self._output = self._output, said
            try:
                folder = scratch.path
                self._hold([command, "--version"], self._prepare(os.environ, folder), folder)
            finally:
                self._output = kept
            said.seek(0)
            lines = said.read(10_000).decode("utf-8", "replace").strip().splitlines()
        return lines[-1].strip()[:100] if lines else ""

    # --- Parts ---

    def _prepare(
        self, environment: Mapping[str, str], folder: Path, files: Mapping[str, str] = MappingProxyType({})
    ) -> dict[str, str]:
        """Return the environment: led to the service, as `bailee run` does, but for what stops anything."""
        launch = self._manifest.launch
        removed = [*launch.remove, *launch.remove_for.get(self._provider, ()), "BAILEE_*"]
        inside = {name: value for name, value in environment.items() if not is_among(name, removed)}
        for name, value in launch.environment.get(self._provider, {}).items():
            inside[name] = fill(value, url=self._url, key=self._key)
        inside |= dict.fromkeys(
            PROXY_VARIABLES, PROXY_URL.format(address="127.0.0.1", port=free_ports(self._service[1])[0])
        )
        inside["NO_PROXY"] = inside["no_proxy"] = LOOPBACK
        inside["NODE_USE_ENV_PROXY"] = "1"
        if not self._own_home:
            (folder / "home").mkdir()
            inside["HOME"] = str(folder / "home")
            for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
                inside.pop(name, None)
        for place, content in (*launch.prepare.items(), *files.items()):
            path = Path(inside.get("HOME", "/")) / place
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(fill(content, url=self._url, key=self._key))
        if not self._is_live:
            inside |= dict.fromkeys(AUTHORITY_VARIABLES, str(folder / "authority.pem"))
        return inside

    def _hold(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path
    ) -> tuple[list[Row], Ended, list[Asked]]:
        ports = free_ports(self._service[1])
        layout = make_layout(self._means, service_port=self._service[1], ports=ports)
        key = os.urandom(32)
        log = ConnectionLog(folder / "log", key, "attestation")
        authority = Authority()
        (folder / "authority.pem").write_bytes(authority.certificate)
        stand_in = None if self._is_live else StandIn(authority)
        way_out = Exit(
            Rules(is_observing=True),
            log,
            service=self._service,
            dial_instead=stand_in.find if stand_in else None,
        )
        enclosure = Enclosure(self._means, layout)
        listeners = enclosure.prepare(command, environment, Path.cwd(), output=self._output)
        if stand_in:
            stand_in.start()
        try:
            way_out.start(listeners)
            enclosure.go()
            ended = enclosure.wait()
        except BaseException:
            enclosure.abandon()
            raise
        finally:
            way_out.end()
            if stand_in:
                stand_in.end()
        rows = list(read_log((folder / "log").read_bytes(), key, "attestation"))
        return rows, ended, stand_in.asked if stand_in else []


def list_settings(manifest: Manifest, *, own_home: bool = False) -> list[Setting]:
    """Return every switch of an agent's flows, each once, in the order of the manifest.

    Args:
        own_home: whether runs have the user's home, so that no settings file can be written.
    """
    found = {}
    for flow in manifest.flows:
        for switch in flow.switches:
            name = switch.name if switch.stopping_value == "1" else f"{switch.name}={switch.stopping_value}"
            found[name] = Setting(name, {switch.name: switch.stopping_value})
        for key, value in flow.settings_off.items() if not own_home else ():
            file = next(one for one in manifest.settings_files if one.path.startswith("~/"))
            content = write_key(key, value, file.format)
            name = f"{key} = {str(value).lower()}"
            found[name] = Setting(name, files={file.path.removeprefix("~/"): content})
    return list(found.values())


def _classify(rows: Sequence[Row], asked: Sequence[Asked], declared: Rules) -> list[Destination]:
    """Say of each destination what declares it, and whether that is on."""
    closed = {row.number: row for row in rows if isinstance(row, Closed)}
    sums: dict[tuple[str, int], list[int]] = {}
    for row in rows:
        if isinstance(row, Opened | Refused) and row.way not in (Way.NAME, Way.SERVICE) and row.port:
            one = sums.setdefault((row.host, row.port), [0, 0, 0])
            end = closed.get(row.number)
            one[0] += 1
            one[1] += end.sent if end else 0
            one[2] += end.received if end else 0
    return [
        _stand(host, port, tuple(sums[host, port]), [one for one in asked if one.host == host], declared)
        for host, port in sorted(sums)
    ]


def _stand(
    host: str, port: int, sums: tuple[int, ...], asked: Sequence[Asked], declared: Rules
) -> Destination:
    """Judge a destination: by its requests where they were seen, else by its host."""
    target = read_target(f"[{host}]" if ":" in host else host, port)
    on = [rule for rule in declared.allowed if rule.covers(target)]
    off = [(rule, by) for rule, by in declared.stopped if rule.covers(target)]
    requests = Counter((one.method, one.path) for one in asked)
    judged = [
        _judge(on, off, f"{method} {path}", count, partial(_takes, method, path))
        for (method, path), count in sorted(requests.items())
    ] or [_judge(on, off, "", 0, lambda rule: True)]
    flows = dict.fromkeys(flow for one in judged for flow in one.flows)
    worst = max((one.standing for one in judged), key=_ORDER.index)
    by = dict.fromkeys(one.decided_by for one in judged if one.decided_by)
    return Destination(
        host=host,
        port=port,
        flows=tuple(flows),
        standing=worst,
        decided_by=", ".join(by),
        connections=sums[0],
        sent_bytes=sums[1],
        received_bytes=sums[2],
        requests=judged if requests else [],
    )


def _takes(method: str, path: str, rule: Rule) -> bool:
    return not rule.tell_refused(method, path, {})


def _judge(
    on: Sequence[Rule],
    off: Sequence[tuple[Rule, str]],
    what: str,
    count: int,
    fits: Callable[[Rule], bool],
) -> RequestSeen:
    if flows := tuple(dict.fromkeys(rule.flow for rule in on if fits(rule))):
        return RequestSeen(what, count, flows, DECLARED, "")
    if stopped := [(rule.flow, by) for rule, by in off if fits(rule)]:
        by = ", ".join(dict.fromkeys(by for _, by in stopped))
        return RequestSeen(what, count, tuple(dict.fromkeys(flow for flow, _ in stopped)), SWITCHED_OFF, by)
    return RequestSeen(what, count, (), UNDECLARED, "")


def tell_markdown(attestation: Attestation) -> str:
    """Write an attestation as a page."""
    made = attestation
    lines = [
        f"# What {made.agent} sends, as seen",
        "",
        f"Made by `bailee attest`; {made.network} network, provider {made.provider}, "
        f"{made.version or made.agent}:",
        "",
        f"    {' '.join(made.command)}",
        "",
        "Each row is what a run tried in a boundary that lets nothing out; the service plays the model.",
        "`declared`: the manifest names the host, and the path where it names one, for a flow that is on.",
        "",
        "| setting | destination | what | flows | standing | times |",
        "|---|---|---|---|---|---:|",
    ]
    for trial in made.trials:
        if not trial.destinations:
            lines.append(f"| {trial.setting} | none but the service | | | | |")
        for one in trial.destinations:
            where = f"{make_visible(one.host)}:{one.port}"
            seen = one.requests or [
                RequestSeen("not looked into", one.connections, one.flows, one.standing, one.decided_by)
            ]
            for request in seen:
                by = f" by {request.decided_by}" if request.decided_by else ""
                flows = ", ".join(request.flows) or "-"
                what = make_visible(request.what).replace("|", "\\|")
                row = (trial.setting, where, what, flows, request.standing + by, str(request.count))
                lines.append(f"| {' | '.join(row)} |")
    lines += ["", "| setting | exit | to the service | elsewhere | sent there | other packets | counts |"]
    lines.append("|---|---:|---:|---:|---:|---|---|")
    for trial in made.trials:
        packets = ", ".join(f"{count} {kind}" for kind, count in trial.packets.items()) or "none"
        elsewhere = sum(one.connections for one in trial.destinations)
        sent = tell_size(sum(one.sent_bytes for one in trial.destinations))
        numbers = (
            trial.setting,
            trial.status,
            trial.service_connections,
            elsewhere,
            sent,
            packets,
            trial.counts,
        )
        lines.append(f"| {' | '.join(map(str, numbers))} |")
    for trial in made.trials:
        lines += [f"\n{trial.setting}: {one}." for one in trial.differences]
    verdict = "All that was tried is declared, and on."
    if not made.is_consistent:
        verdict = "**Not all that was tried is declared and on: see the rows above.**"
    return "\n".join([*lines, "", verdict, ""])
