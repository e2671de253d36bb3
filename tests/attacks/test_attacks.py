"""Every attack, by an ordinary user and by root, and its control: without its protection it succeeds."""

import importlib
import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from attacks.holding import MACHINE, SECRET
from attacks.internet import ALLOWED_PLACES
from attacks.machines import AFTER_THE_END, LIMITS, WITHOUT_A_LOG
from attacks.probes.tools import ATTACKS, BREACH, Attack
from attacks.promises import tell
from bailee.sandbox.machines import Kind
from bailee.sandbox.virtual import VirtualMachines
from counterparts.clouds import CACHE

HERE = Path(__file__).parent
GROUPS = sorted(path.stem for path in (HERE / "probes").glob("[a-z]*.py") if path.stem != "tools")
for _group in GROUPS:
    importlib.import_module(f"attacks.probes.{_group}")
USERS = ("user", "root")
AS_USER = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]


@dataclass
class Result:
    """What came of a probe."""

    told: dict[str, Any]
    events: list[tuple[str, bytes]]

    def breaches(self, attack: Attack, canary: str) -> list[str]:
        """Return where the canary came, and must not have."""
        found = []
        for place, data in self.events:
            is_allowed = place.rpartition(":")[0] in ALLOWED_PLACES
            if canary.encode() in data and (attack.is_inside or not is_allowed):
                found.append(place)
            # To one host, of all that are allowed.
            if SECRET.encode() in data and b"bound.example" in data:
                found.append(f"the secret at {place}")
        said = self.told.get("said", "")
        if BREACH in said or SECRET in said:
            found.append(said)
        return found


class Network:
    """The stand-in internet, and the programs that hold probes in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("project/.git/hooks", "outside", "home", ".ssh"):
            (folder / name).mkdir(parents=True)
        (folder / "project/.git/config").write_text("[core]\n")
        (folder / "home/kek").write_text("the key of all keys")
        (folder / ".ssh/id").write_text("the key of a user")
        (folder / ".netrc").write_text("the password of a user")
        root = [] if os.geteuid() == 0 else ["--map-root-user"]
        self._process = subprocess.Popen(
            ["unshare", "--net", "--mount", *root, sys.executable, "-m", "attacks.internet", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(HERE.parent), "XDG_CACHE_HOME": str(CACHE)},
        )
        assert self._read()["ready"]

    def run(self, probe: str, user: str, *, off: str, patience: float) -> tuple[Result, str]:
        """Run a probe, and return what came of it and its canary."""
        canary = f"c{secrets.token_hex(8)}"
        start = [*(AS_USER if user == "user" else ()), sys.executable, "-m", "attacks.holding"]
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "CANARY": canary,
            "PROBE_PROXY": "http://127.0.0.1:3128",
            "PROBE_FOLDER": str(self.folder),
        }
        order = {"probe": probe, "off": off, "environment": environment, "folder": str(self.folder)}
        told, events = self._ask({"holder": user, "start": start, "order": order, "patience": patience})
        return Result(told, events), canary

    def run_in_machine(
        self, probes: list[str], kind: Kind, user: str
    ) -> tuple[dict[str, Result], dict[str, str]]:
        """Run probes in one machine, and return what came of each, and its canary."""
        canaries = {probe: f"c{secrets.token_hex(8)}" for probe in probes}
        start = [*(AS_USER if user == "user" else ()), sys.executable, "-m", "attacks.machines"]
        environment = {"PATH": os.environ["PATH"], "HOME": "/session", "PROBE_FOLDER": str(self.folder)}
        order = {"kind": kind, "probes": canaries, "environment": environment}
        asked = {"holder": f"{kind} {user}", "start": start, "order": order, "patience": 1.5}
        told, events = self._ask(asked)
        assert "fault" not in told, told
        said = {one["probe"]: one for one in map(json.loads, told["said"].splitlines())}
        assert said.keys() == canaries.keys(), told
        return {
            probe: Result({**said[probe], "verdict": told["verdict"]}, events) for probe in probes
        }, canaries

    def end(self) -> None:
        self._process.communicate(timeout=20)

    def _ask(self, asked: dict[str, Any]) -> tuple[dict[str, Any], list[tuple[str, bytes]]]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        told = self._read()
        return told["told"], [(place, data.encode("latin-1")) for place, data in told["events"]]

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        told: dict[str, Any] = json.loads(self._process.stdout.readline())
        return told


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Give the stand-in internet."""
    made = Network(tmp_path_factory.mktemp("attacks"))
    yield made
    made.end()


CASES = [
    (probe, user)
    for probe, attack in ATTACKS.items()
    for user in USERS
    if user == "root" or not attack.needs_root
]


@pytest.mark.parametrize(("probe", "user"), CASES)
def test_it_is_held(network: Network, probe: str, user: str) -> None:
    """Inside the boundary nothing comes where it must not."""
    attack = ATTACKS[probe]
    result, canary = network.run(probe, user, off="", patience=attack.patience)
    assert "fault" not in result.told, result.told
    assert result.breaches(attack, canary) == [], result.told
    # Whatever was tried, the two counts agree; but where the proxy could note nothing they must not.
    agreed = "disagreed" if probe == "lifetime.without_a_log" else "agreed"
    assert result.told["verdict"] == agreed, result.told


@pytest.mark.parametrize(("probe", "user"), CASES)
def test_it_is_held_in_a_machine(network: Network, probe: str, user: str) -> None:
    """Nor inside the machine of a cloud session, which stands in the boundary."""
    attack = ATTACKS[probe]
    result, canary = network.run(probe, user, off=MACHINE, patience=attack.patience)
    assert "fault" not in result.told, result.told
    assert result.breaches(attack, canary) == [], result.told


# Each of these ends a machine, or needs one of its own.
APART = (WITHOUT_A_LOG, AFTER_THE_END)
# Of what a machine answers itself, or its own kernel does, these get nothing out: what they make is its own.
ITS_OWN = {"sockets.ring", "sockets.machine", "sockets.typing"}
MACHINES = (
    pytest.param(Kind.CONTAINER, "user", marks=pytest.mark.soak),
    (Kind.CONTAINER, "root"),
    (Kind.VM, "root"),
)


@pytest.mark.parametrize(("kind", "user"), MACHINES)
def test_all_are_held_in_other_machines(network: Network, kind: Kind, user: str) -> None:
    """Nor inside a container of gVisor or a virtual machine; what is allowed gets out of it, as a control."""
    if kind is Kind.VM:
        os.environ["XDG_CACHE_HOME"] = str(CACHE)
        VirtualMachines().prepare("", LIMITS)  # the stand-in internet has no packages
    allowed = [f"legitimate.{way}" for way in ("allowed_host", "plain_host")]
    for probes in ([probe for probe in ATTACKS if probe not in APART] + allowed, *([one] for one in APART)):
        results, canaries = network.run_in_machine(probes, kind, user)
        for probe, result in results.items():
            if probe in allowed:
                assert [place for place, data in result.events if canaries[probe].encode() in data], (
                    result.told
                )
                continue
            if probe in ITS_OWN:
                result.told["said"] = ""
            assert result.breaches(ATTACKS[probe], canaries[probe]) == [], (probe, result.told)
            agreed = "disagreed" if WITHOUT_A_LOG in probes else "agreed"
            assert result.told["verdict"] == agreed, result.told


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("way", ["allowed_host", "plain_host"])
def test_what_is_allowed_gets_out_of_a_machine(network: Network, way: str, user: str) -> None:
    """Control of the above: the machine runs the probes, and what a rule allows arrives."""
    result, canary = network.run(f"legitimate.{way}", user, off=MACHINE, patience=0.1)
    assert [place for place, data in result.events if canary.encode() in data], result.told


@pytest.mark.parametrize(("probe", "user"), CASES)
def test_without_its_protection_it_succeeds(network: Network, probe: str, user: str) -> None:
    """Control: with one protection switched off the same attack does what it is for."""
    attack = ATTACKS[probe]
    result, canary = network.run(probe, user, off=attack.off, patience=max(attack.patience, 0.1))
    assert result.breaches(attack, canary) != [], result.told


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("way", ["allowed_host", "plain_host"])
def test_what_is_allowed_gets_through(network: Network, way: str, user: str) -> None:
    """Holding everything would be holding well: what a rule allows arrives."""
    result, canary = network.run(f"legitimate.{way}", user, off="", patience=0.1)
    assert [place for place, data in result.events if canary.encode() in data], result.told
    assert result.told["verdict"] == "agreed", result.told


def test_the_published_table_is_of_these_attacks() -> None:
    """The page names each attack with its promise, and says that Bailee held it."""
    assert len(ATTACKS) >= 60
    page = (HERE.parents[1] / "docs" / "attacks.md").read_text()
    for probe, attack in ATTACKS.items():
        by_user = "-" if attack.needs_root else "held"
        assert f"| {probe.replace('_', ' ')} | {tell(probe)} | {by_user} | held |" in page
    assert page.count("\n| ") == len(ATTACKS) + 1
    named = re.findall(r"`(test_\w+\.py)`", page)
    assert len(named) == 2
    assert all((HERE.parents[1] / "src/bailee/flows/git/tests" / name).exists() for name in named)
