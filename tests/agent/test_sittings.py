"""What leaves the agent of each plan while a user asks, reports, rates and quits: what the policy says of
their account, and nothing else; and with each switch.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from bailee.accounts.directory import Directory, open_directory
from bailee.accounts.keys import create_key
from bailee.accounts.people import Kind
from bailee.agent.announcements import FILE, Told
from bailee.agent.settings import read_settings
from bailee.manifests import load_manifest
from bailee.policy.decisions import decide
from bailee.policy.flows import FlowId
from bailee.policy.plans import Plan, Provider
from counterparts.holdings import read_exchanges
from counterparts.networks import Tried, run_alone
from counterparts.projects import make_project
from counterparts.sittings import MODEL_PORT, SERVICE_PORT, URL, Sitting

FLOWS = (FlowId.METRICS, FlowId.FEEDBACK, FlowId.SURVEY)
EVERYTHING = "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"


def leave(directory: Directory) -> None:
    """Change nothing."""


def train(directory: Directory) -> None:
    directory.consent("ada", given=True)


def retain_nothing(directory: Directory) -> None:
    directory.decide_for_organization("ada", Kind.ZDR, given=True, by="ada")


def join_program(directory: Directory) -> None:
    directory.decide_for_organization("ada", Kind.DPP, given=True, by="ada")


def refuse_all(directory: Directory) -> None:
    for flow in FLOWS:
        directory.refuse("ada", flow, given=True)


@dataclass(frozen=True)
class Case:
    """An account, and what is set on its user's machine."""

    plan: Plan
    choose: Callable[[Directory], None] = leave
    variables: Mapping[str, str] = field(default_factory=dict)


CASES = {
    **{plan.value: Case(plan) for plan in (Plan.FREE, Plan.MAX, Plan.API)},
    "pro, training": Case(Plan.PRO, train),
    "team, dpp": Case(Plan.TEAM, join_program),
    "enterprise, zdr": Case(Plan.ENTERPRISE, retain_nothing),
    "pro, all refused": Case(Plan.PRO, refuse_all),
    **{
        name: Case(Plan.PRO, variables={name: "1"})
        for name in (
            "DISABLE_TELEMETRY",
            "DISABLE_BUG_COMMAND",
            "DISABLE_FEEDBACK_COMMAND",
            "CLAUDE_CODE_DISABLE_FEEDBACK_SURVEY",
            EVERYTHING,
        )
    },
}


@dataclass(frozen=True)
class Seen:
    """What the policy says, and what was seen."""

    allowed: frozenset[FlowId]
    sent: frozenset[FlowId]
    tried: Tried


def sit_down(folder: Path, rules: Path, case: Case) -> Seen:
    """Make an account and a machine, have a user sit down, and return what was seen."""
    home = folder / "home"
    directory = open_directory(home)
    directory.add("ada", case.plan)
    case.choose(directory)
    key = create_key(directory, "ada")[1]
    account = directory.get("ada")
    directory.close()
    make_project(folder / "project")
    (folder / "user").mkdir()
    (state := folder / "state").mkdir(mode=0o700)
    # The run in which the user is told sends nothing yet.
    (state / FILE).write_bytes(msgspec.json.encode(Told(True, "")))
    shutil.copytree(rules, state / "cache")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder / "user"),
        "LANG": "C.UTF-8",
        "BAILEE_STATE": str(state),
        "BAILEE_SERVICE": URL,
        "ANTHROPIC_BASE_URL": URL,
        "ANTHROPIC_AUTH_TOKEN": key,
        **case.variables,
    }
    settings = read_settings(directory=folder / "project", environment=environment, root=folder)
    context = settings.context(account.to_context(Provider.ANTHROPIC))
    manifest = load_manifest("bailee")
    allowed = frozenset(flow for flow in FLOWS if decide(manifest.flow(flow), context).allowed)
    sitting = Sitting(
        str(home), str(folder), environment, FlowId.FEEDBACK in allowed, FlowId.SURVEY in allowed
    )
    run = sitting.to_run("sitting", {"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8"})
    tried = run_alone([run])["sitting"]
    sent = frozenset(FlowId(one.flow) for one in read_exchanges(home))
    return Seen(allowed, sent, tried)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, scanner_rules: Path) -> dict[str, Seen]:
    """Give what was seen of each case."""
    folder = tmp_path_factory.mktemp("sittings")
    for number in range(len(CASES)):
        (folder / str(number)).mkdir()
    with ThreadPoolExecutor(3) as pool:
        found = pool.map(
            lambda numbered: sit_down(folder / str(numbered[0]), scanner_rules, numbered[1]),
            enumerate(CASES.values()),
        )
        return dict(zip(CASES, found, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_exactly_what_the_policy_says(seen: dict[str, Seen], name: str) -> None:
    """The service, and the model behind it, are all that is reached; no name is asked for."""
    one = seen[name]
    assert one.tried.status == 0, one.tried.stderr
    assert one.sent - {FlowId.MESSAGES} == one.allowed
    assert FlowId.MESSAGES in one.sent
    assert one.tried.asked == set()
    assert one.tried.opened == {f"tcp {SERVICE_PORT}", f"tcp {MODEL_PORT}"}


def test_the_cases_differ(seen: dict[str, Seen]) -> None:
    """Control: with nothing switched off all is seen; each switch and choice stops what it says."""
    every = frozenset(FLOWS)
    stopped = {name: every - one.sent for name, one in seen.items()}
    everything = {name for name, gone in stopped.items() if not gone}
    assert everything == {"free", "max", "api", "pro, training", "team, dpp"}
    assert stopped["enterprise, zdr"] == {FlowId.FEEDBACK}
    assert stopped["DISABLE_TELEMETRY"] >= {FlowId.METRICS}
    assert stopped["DISABLE_BUG_COMMAND"] == stopped["DISABLE_FEEDBACK_COMMAND"] == {FlowId.FEEDBACK}
    assert stopped["CLAUDE_CODE_DISABLE_FEEDBACK_SURVEY"] == {FlowId.SURVEY}
    assert stopped[EVERYTHING] == stopped["pro, all refused"] == every
