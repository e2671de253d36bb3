"""What the agent connects to, in a network of its own: exactly what the policy says, with each switch and
provider; nothing when all is off."""

import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from bailee.agent.announcements import FILE, Told
from bailee.agent.settings import read_settings
from bailee.manifests import load_manifest
from bailee.policy.decisions import decide
from bailee.policy.flows import FlowId
from counterparts.networks import PORT, URL, Run, Tried, run_alone

INDEX = "index.invalid"
SERVICE = f"tcp {PORT}"
SWITCHES = (
    "",
    "DISABLE_TELEMETRY",
    "DISABLE_ERROR_REPORTING",
    "DO_NOT_TRACK",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
)
PROVIDERS = {
    "anthropic": ({"ANTHROPIC_API_KEY": "sk-made-up"}, "api.anthropic.com"),
    "bedrock": (
        {
            "CLAUDE_CODE_USE_BEDROCK": "1",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "AKIAMADEUP",
            "AWS_SECRET_ACCESS_KEY": "made-up",
        },
        "bedrock-runtime.us-east-1.amazonaws.com",
    ),
    "vertex": (
        {
            "CLAUDE_CODE_USE_VERTEX": "1",
            "CLOUD_ML_REGION": "us-east5",
            "ANTHROPIC_VERTEX_PROJECT_ID": "made-up",
            "CLAUDE_CODE_SKIP_VERTEX_AUTH": "1",
            "ANTHROPIC_VERTEX_BASE_URL": "https://us-east5-aiplatform.googleapis.com/v1",
        },
        "us-east5-aiplatform.googleapis.com",
    ),
}
LEVELS = ("telemetry=local", "telemetry=off")
# With other providers all is off from the beginning, so that a switch has nothing to stop there.
CASES = [
    *(("anthropic", switch) for switch in (*SWITCHES, *LEVELS)),
    *((provider, "") for provider in ("bedrock", "vertex")),
    *(
        pytest.param(provider, switch, marks=pytest.mark.soak)
        for provider in ("bedrock", "vertex")
        for switch in SWITCHES[1:]
    ),
]
# A fault of the agent's own, where its answer would be.
BREAK = """
import sys
import bailee.agent.work as work
def broken(self, prompt):
    raise RuntimeError("canary")
work.Work.answer = broken
from bailee.cli import main
sys.exit(main())
"""
PROGRAM = str(Path(sys.executable).with_name("bailee"))


def name(provider: str, switch: str, what: str) -> str:
    return f"{provider} {switch} {what}"


def is_update_tried(provider: str, switch: str) -> bool:
    """Tell whether the update check runs too: with each switch on one provider, with none on all."""
    return provider == "anthropic" or not switch


def make_runs(folder: Path, rules: Path, provider: str, switch: str) -> Iterator[Run]:
    """Give the runs of one case: an answer of the model, a fault, and a look at the index."""
    place = folder / f"{provider}-{switch or 'none'}"
    (state := place / "state").mkdir(parents=True, mode=0o700)
    shutil.copytree(rules, state / "cache")
    (place / "project").mkdir()
    # The run in which the user is told sends nothing yet.
    (state / FILE).write_bytes(msgspec.json.encode(Told(True, "")))
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(place),
        "LANG": "C.UTF-8",
        "BAILEE_STATE": str(state),
        "BAILEE_SERVICE": URL,
        "PIP_INDEX_URL": f"https://{INDEX}/simple",
        **PROVIDERS[provider][0],
    }
    settings: list[str] = []
    if switch.startswith("telemetry="):
        settings = ["--settings", f'{{"telemetry": "{switch.partition("=")[2]}"}}']
    elif switch:
        environment[switch] = "1"
    prompt = ["code", *settings, "-p", "hello"]
    commands = {"answer": [PROGRAM, *prompt], "fault": [sys.executable, "-c", BREAK, *prompt]}
    if is_update_tried(provider, switch):
        commands["update"] = [PROGRAM, "update", "--check"]
    for what, command in commands.items():
        yield Run(name(provider, switch, what), command, environment, str(place / "project"))


@pytest.fixture(scope="module")
def tried(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, scanner_rules: Path
) -> dict[str, Tried]:
    """Give what each run of each case tried that tests were asked for; those of one provider always."""
    folder = tmp_path_factory.mktemp("connections")
    asked = {("anthropic", switch) for switch in (*SWITCHES, *LEVELS)} | {
        (str(item.callspec.params["provider"]), str(item.callspec.params["switch"]))
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.originalname == "test_exactly_what_is_declared"
    }
    cases = [list(make_runs(folder, scanner_rules, provider, switch)) for provider, switch in sorted(asked)]
    # Most of the time goes into waiting until an SDK tries again.
    with ThreadPoolExecutor(6) as pool:
        return {name: one for found in pool.map(run_alone, cases) for name, one in found.items()}


def allowed(provider: str, switch: str, flow: FlowId, tmp_path: Path) -> bool:
    """Tell what the policy says of a flow in a case."""
    environment = dict(PROVIDERS[provider][0])
    arguments: tuple[str, ...] = ()
    if switch.startswith("telemetry="):
        arguments = ("--settings", f'{{"telemetry": "{switch.partition("=")[2]}"}}')
    elif switch:
        environment[switch] = "1"
    environment["HOME"] = str(tmp_path)
    settings = read_settings(directory=tmp_path, environment=environment, arguments=arguments, root=tmp_path)
    return decide(load_manifest("bailee").flow(flow), settings.context()).allowed


@pytest.mark.parametrize(("provider", "switch"), CASES)
def test_exactly_what_is_declared(
    tried: dict[str, Tried], tmp_path: Path, provider: str, switch: str
) -> None:
    """The provider's host for an answer; the service for counts and faults, and the index, where allowed."""
    has_metrics = allowed(provider, switch, FlowId.METRICS, tmp_path)
    has_errors = allowed(provider, switch, FlowId.ERRORS, tmp_path)
    answer, fault = (tried[name(provider, switch, what)] for what in ("answer", "fault"))
    assert answer.asked == {PROVIDERS[provider][1]}, answer.stderr
    assert answer.opened == {"tcp 443"} | ({SERVICE} if has_metrics else set())
    assert answer.requests == (["POST /v1/logs"] if has_metrics else [])
    assert "a fault of its own" in fault.stderr
    assert fault.asked == set()
    assert fault.opened == ({SERVICE} if has_errors else set())
    assert fault.requests == (["POST /api/1/envelope/"] if has_errors else [])
    if not is_update_tried(provider, switch):
        return
    update = tried[name(provider, switch, "update")]
    has_update = allowed(provider, switch, FlowId.UPDATE, tmp_path)
    assert update.asked == ({INDEX} if has_update else set()), update.stderr
    assert update.opened == ({"tcp 443"} if has_update else set())


def test_the_cases_differ(tried: dict[str, Tried], tmp_path: Path) -> None:
    """Control: with nothing switched off each flow is seen, and each switch stops what it says."""
    seen = {
        switch: (
            tried[name("anthropic", switch, "answer")].requests,
            tried[name("anthropic", switch, "fault")].requests,
            bool(tried[name("anthropic", switch, "update")].asked),
        )
        for switch in (*SWITCHES, *LEVELS)
    }
    logs, envelope = ["POST /v1/logs"], ["POST /api/1/envelope/"]
    assert seen[""] == (logs, envelope, True)
    assert seen["DISABLE_TELEMETRY"] == ([], envelope, True)
    assert seen["DISABLE_ERROR_REPORTING"] == (logs, [], True)
    assert seen["DO_NOT_TRACK"] == ([], [], True)
    assert seen["CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"] == ([], [], False)
    assert seen["telemetry=local"] == seen["telemetry=off"] == ([], [], True)
