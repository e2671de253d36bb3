"""Coding agents of other makers, the real ones, inside the boundary: what they try, and what holds of it."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from counterparts.foreign import AGENTS, ANSWER, Foreign
from counterparts.programs import run_program
from counterparts.sinks import run_with_sink

LED = [name for name, agent in AGENTS.items() if not agent.host]
NOT_LED = [name for name, agent in AGENTS.items() if agent.host]


def make_folders(agent: Foreign, folder: Path) -> tuple[Path, dict[str, str]]:
    """Return a project and an environment, both new."""
    project = folder / "project"
    project.mkdir()
    return project, agent.make_environment(folder / "user")


def attest(name: str, folder: Path, *words: str, status: int = 0) -> dict[str, Any]:
    """Attest one of them with its own words, or others; return the first trial and what it said."""
    agent = AGENTS[name]
    project, environment = make_folders(agent, folder)
    environment["BAILEE_HOME"] = str(folder / "state")
    command = words or agent.command
    done = run_program(
        *("attest", "--own-home", "--agent", name, "--json", "--", *command),
        environment=environment,
        folder=project,
    )
    assert done.returncode == status, done.stdout + done.stderr
    trial: dict[str, Any] = json.loads(done.stdout)["trials"][0]
    return trial | {"said": done.stderr}


@pytest.mark.parametrize("name", AGENTS)
def test_all_that_it_tries_is_declared(tmp_path: Path, name: str) -> None:
    """The real agent, where all that it tries is seen: each request has its flow in the manifest."""
    trial = attest(name, tmp_path)
    assert trial["counts"] == "agreed"
    assert {one["standing"] for one in trial["destinations"]} <= {"declared"}
    if name in LED:
        assert trial["status"] == 0
        assert trial["service_connections"] >= 1
        assert ANSWER in trial["said"]
    else:
        # The stand-in for its model's host answers nothing that it understands.
        assert trial["status"] != 0
        assert AGENTS[name].host in {one["host"] for one in trial["destinations"]}


@pytest.mark.parametrize("name", AGENTS)
def test_a_flow_behind_its_back_is_told(tmp_path: Path, name: str) -> None:
    """The same agent with something beside it that sends elsewhere: that host is not declared."""
    program = str(AGENTS[name].program)
    script = f"curl -s https://behind.example/collect >&2; exec {program} --version >&2"
    trial = attest(name, tmp_path, "sh", "-c", script, status=1)
    standings = {one["host"]: one["standing"] for one in trial["destinations"]}
    assert standings["behind.example"] == "undeclared"
    assert set(standings.values()) - {"declared"} == {"undeclared"}


@pytest.mark.parametrize(
    ("name", "words", "host"),
    [("aider", {"AIDER_CHECK_UPDATE": "false"}, "pypi.org"), ("gemini-cli", {}, "play.googleapis.com")],
)
def test_its_switch_stops_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: dict[str, str], host: str
) -> None:
    """A variable or a key of its settings file stops the request that is there without it (control)."""
    agent = AGENTS[name]
    files = {
        place: text.replace("{", '{"privacy": {"usageStatisticsEnabled": false}, ', 1)
        for place, text in agent.files.items()
    }
    changed = Foreign(agent.program, agent.words, agent.variables | words, files, agent.host)
    with_it, without = tmp_path / "with", tmp_path / "without"
    without.mkdir()
    with_it.mkdir()
    assert host in {one["host"] for one in attest(name, without)["destinations"]}
    monkeypatch.setitem(AGENTS, name, changed)
    assert host not in {one["host"] for one in attest(name, with_it)["destinations"]}


def run(name: str, folder: Path, *options: str, limit: bool = False) -> tuple[int, str, str, dict[str, Any]]:
    """Let `bailee run` hold it where there is no network; return its status, output, errors and receipt."""
    agent = AGENTS[name]
    project, environment = make_folders(agent, folder)
    words = [
        sys.executable,
        "-m",
        "bailee",
        "run",
        "--home",
        str(folder / "state"),
        "--upstream",
        "rehearsal",
    ]
    words += ["--agent", name, "--receipt", str(folder / "receipt.json"), *options, "--"]
    # Codex waits for ever for a network.
    words += ["timeout", "12"] if limit else []
    seen = run_with_sink([*words, *agent.command], project, environment)
    return seen.status, seen.stdout, seen.stderr, json.loads((folder / "receipt.json").read_text())


@pytest.mark.parametrize("name", LED)
def test_it_completes_a_session_inside(tmp_path: Path, name: str) -> None:
    """Led to the service it gets its answer, and the receipt has the conversation and the enforcement."""
    status, stdout, stderr, receipt = run(name, tmp_path)
    assert status == 0, stderr
    assert ANSWER in stdout
    assert receipt["enforced"] is True
    assert receipt["boundary"]["counts"]["verdict"] == "agreed"
    (messages,) = [flow for flow in receipt["flows"] if flow["flow"] == "messages"]
    assert messages["exchanges"] >= 1
    assert "update" in {flow["flow"] for flow in receipt["other_flows"] if not flow["allowed"]}


@pytest.mark.parametrize("name", NOT_LED)
def test_it_fails_inside_for_a_reason_of_its_own(tmp_path: Path, name: str) -> None:
    """It speaks to its maker's host alone; the receipt names the host, and no conversation is held."""
    status, _, stderr, receipt = run(name, tmp_path, limit=True)
    assert status != 0
    assert "cannot be led to the service" in stderr
    assert "messages" not in {flow["flow"] for flow in receipt["flows"]}
    boundary = receipt["boundary"]
    tried = {one["host"] for one in (*boundary["used"], *boundary["refused"])} | set(
        boundary["names_refused"]
    )
    assert any(AGENTS[name].host in one for one in tried), boundary
    assert receipt["enforced"] is True
    assert boundary["counts"]["verdict"] == "agreed"


def test_a_project_does_not_lead_it_past(tmp_path: Path) -> None:
    """Aider's `.env` overrides the environment: one that names another host is refused before it starts."""
    agent = AGENTS["aider"]
    project, environment = make_folders(agent, tmp_path)
    (project / ".env").write_text("ANTHROPIC_API_BASE=https://elsewhere.example\n")
    done = run_program(
        *("run", "--home", str(tmp_path / "state"), "--upstream", "rehearsal", "--", *agent.command),
        environment=environment,
        folder=project,
    )
    assert done.returncode == 2
    assert "ANTHROPIC_API_BASE" in done.stderr
    assert ".env" in done.stderr
