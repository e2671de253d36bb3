"""`bailee code -p` as scripts use it: a process of its own, with the rehearsal model."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bailee.agent.privacy import tell_privacy
from bailee.agent.settings import read_settings
from bailee.agent.work import Work
from counterparts.programs import run_program
from counterparts.projects import git, make_project


class Machine:
    """A user's machine: a home, a state folder, a project."""

    def __init__(self, folder: Path, rules: Path) -> None:
        self.folder = folder
        self.project = folder / "project"
        make_project(self.project)
        self.state = folder / "state"
        self.state.mkdir(mode=0o700)
        shutil.copytree(rules, self.state / "cache")
        (folder / "user").mkdir()

    def run(self, *arguments: str, given: str = "", **environment: str) -> "subprocess.CompletedProcess[str]":
        whole = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder / "user"),
            "BAILEE_STATE": str(self.state),
            "LANG": "C.UTF-8",
            **environment,
        }
        return run_program(*arguments, environment=whole, folder=self.project, given=given)

    def code(self, prompt: str, *options: str, **more: Any) -> "subprocess.CompletedProcess[str]":
        return self.run("code", "--model", "rehearsal", "-p", prompt, *options, **more)

    def set(self, **settings: Any) -> None:
        path = self.folder / "user" / ".config" / "bailee" / "settings.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings))


@pytest.fixture
def machine(tmp_path: Path, scanner_rules: Path) -> Machine:
    return Machine(tmp_path, scanner_rules)


def test_it_mends_a_project(machine: Machine) -> None:
    """On a real repository it reads, edits, runs the tests and commits; the answer alone is on stdout."""
    done = machine.code("Please fix the failing test", "--mode", "all")
    assert done.returncode == 0, done.stderr
    assert "committed the change" in done.stdout
    assert "[bash]" in done.stderr
    assert "[bash]" not in done.stdout
    assert git(machine.project, "log", "--format=%s").splitlines()[0] == "Make add add"


def test_without_permission_nothing_is_changed(machine: Machine) -> None:
    """Nobody is there to ask, so what is not allowed beforehand is refused, and the model is told how."""
    done = machine.code("Please fix the failing test")
    assert done.returncode == 0
    assert "--allow" in done.stderr
    assert git(machine.project, "status", "--porcelain") == ""


def test_rules_allow_by_name(machine: Machine) -> None:
    """What is allowed on the command line is done; what is denied is not, whatever the mode."""
    done = machine.code(
        "Please fix the failing test", "--mode", "all", "--deny", "bash(git commit*)", "--json"
    )
    told = json.loads(done.stdout)
    assert told["failed_calls"] == 2  # the test that is to fail, and the commit
    assert len(git(machine.project, "log", "--format=%s").splitlines()) == 1
    assert "return a + b" in (machine.project / "calculator.py").read_text()


def test_json_tells_the_turn(machine: Machine) -> None:
    """One object: the answer, the session, what it took."""
    told = json.loads(machine.code("rehearse greet", "--json").stdout)
    assert told["text"].startswith("Hello.")
    assert told["reason"] == "done"
    assert told["usage"]["input_tokens"] > 0
    assert told["is_kept"] is True


def test_a_stream_tells_each_event(machine: Machine) -> None:
    """A line of JSON for each event, in order."""
    lines = [
        json.loads(line) for line in machine.code("fix the test", "--output", "stream").stdout.splitlines()
    ]
    kinds = [line["type"] for line in lines]
    assert kinds[-1] == "ended"
    assert kinds.index("called") < kinds.index("result")
    assert {"text", "answered"} <= set(kinds)


def test_a_session_is_gone_on_with(machine: Machine) -> None:
    """`--continue` and `--resume` send what was said before, and the same session is written on."""
    first = json.loads(machine.code("rehearse greet", "--json").stdout)
    second = json.loads(machine.code("rehearse greet", "--continue", "--json").stdout)
    third = json.loads(machine.code("rehearse greet", "--resume", first["session"][:8], "--json").stdout)
    assert first["session"] == second["session"] == third["session"]
    assert first["usage"]["input_tokens"] < second["usage"]["input_tokens"] < third["usage"]["input_tokens"]
    listed = json.loads(machine.run("sessions", "--local", "list", "--json").stdout)
    assert [session["messages"] for session in listed] == [6]


def test_incognito_writes_nothing(machine: Machine) -> None:
    """With `--incognito` no file is made or changed on the machine."""
    before = {path: path.stat().st_mtime_ns for path in machine.folder.rglob("*")}
    done = machine.code("rehearse greet", "--incognito")
    assert done.stdout.startswith("Hello.")
    assert {path: path.stat().st_mtime_ns for path in machine.folder.rglob("*")} == before
    machine.code("rehearse greet")  # control: else something is written
    assert {path: path.stat().st_mtime_ns for path in machine.folder.rglob("*")} != before


@pytest.mark.parametrize(
    ("settings", "environment"),
    [({"cleanupPeriodDays": "none"}, {}), ({}, {"CLAUDE_CODE_SKIP_PROMPT_HISTORY": "1"})],
)
def test_what_is_not_to_be_kept_is_not(
    machine: Machine, settings: dict[str, Any], environment: dict[str, str]
) -> None:
    """A period of none, or the variable, keeps the session off the disk."""
    machine.set(**settings)
    assert json.loads(machine.code("rehearse greet", "--json", **environment).stdout)["is_kept"] is False
    assert json.loads(machine.run("sessions", "--local", "list", "--json").stdout) == []


def test_the_first_start_tells_how_long_once(machine: Machine) -> None:
    """How long sessions are kept, and how to change it, is told at the first start and not again."""
    machine.set(cleanupPeriodDays=11)
    assert "kept on this machine for 11d" in machine.code("rehearse greet").stderr
    assert machine.code("rehearse greet").stderr == ""


def test_what_is_piped_in_is_context(machine: Machine) -> None:
    """Standard input goes to the model before the prompt."""
    done = machine.code("rehearse greet", "--json", given="PIPED")
    id = json.loads(done.stdout)["session"]
    said = json.loads(machine.run("sessions", "--local", "show", id, "--json").stdout)["said"]
    assert said[0]["content"][0]["text"] == "<input>\nPIPED\n</input>"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("code",), "for scripts: bailee code -p"),
        (("code", "-p", "x"), "ANTHROPIC_API_KEY"),
        (("code", "-p", "x", "--resume", "nothing", "--model", "rehearsal"), "there is no session"),
        (("code", "-p", "x", "--continue", "--model", "rehearsal"), "no session of this folder"),
        (("code", "-p", "x", "--allow", "Bash"), "is no rule"),
        (("code", "-p", "x", "--settings", "{"), "not JSON"),
        (("sessions", "--local", "delete"), "no session is named"),
        (("sessions", "--local", "show", "zzz"), "there is no session"),
        (("config", "get", "telemtry"), "did you mean telemetry"),
        (("config", "set", "telemetry", "no"), "on, local or off"),
    ],
)
def test_a_wrong_call_is_told(machine: Machine, arguments: tuple[str, ...], told: str) -> None:
    """What is wrong ends with 2 and says so, without a traceback."""
    done = machine.run(*arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_settings_are_written_checked(machine: Machine) -> None:
    """`config set` writes what can be understood, leaves the rest of the file, and tells what is in force."""
    machine.run("config", "set", "cleanupPeriodDays", "7")
    machine.run("config", "set", "env.DISABLE_TELEMETRY", "1")
    assert machine.run("config", "set", "permissions.mode", "yolo").returncode == 2
    path = machine.folder / "user" / ".config" / "bailee" / "settings.json"
    assert json.loads(path.read_text()) == {"cleanupPeriodDays": 7, "env": {"DISABLE_TELEMETRY": "1"}}
    told = machine.run("config", "get", "cleanupPeriodDays", "--show-origin").stdout
    assert told == f"7  (user: {path})\n"
    machine.run("config", "unset", "env.DISABLE_TELEMETRY")
    assert json.loads(path.read_text()) == {"cleanupPeriodDays": 7}
    listed = json.loads(machine.run("config", "list", "--json").stdout)
    assert {"key": "cleanupPeriodDays", "value": 7, "layer": "user", "origin": str(path)} in listed


def test_local_sessions_are_shown_pinned_exported_deleted(machine: Machine) -> None:
    """Each command on the machine's sessions does what it says; a deletion is counted first."""
    id = json.loads(machine.code("rehearse greet", "--json").stdout)["session"]
    sessions = ("sessions", "--local")
    assert "Hello." in machine.run(*sessions, "show", id[:6]).stdout
    machine.run(*sessions, "pin", id)
    assert json.loads(machine.run(*sessions, "list", "--json").stdout)[0]["goes_on"] is None
    machine.run(*sessions, "unpin", id)
    assert json.loads(machine.run(*sessions, "list", "--json").stdout)[0]["goes_on"]
    out = machine.folder / "out.json"
    assert machine.run(*sessions, "export", id, "--format", "json", "--out", str(out)).returncode == 0
    assert json.loads(out.read_text())["said"][0]["content"][0]["text"] == "rehearse greet"
    assert out.stat().st_mode & 0o777 == 0o600
    assert machine.run(*sessions, "export", id, "--out", str(out)).returncode == 2
    assert "would delete 1 session" in machine.run(*sessions, "delete", id, "--dry-run").stdout
    assert machine.run(*sessions, "delete", id).returncode == 2
    assert machine.run(*sessions, "delete", id, "--yes").returncode == 0
    assert not list((machine.state / "sessions").iterdir())


def test_without_its_libraries_it_says_how_to_get_them(machine: Machine) -> None:
    """Installed without the extra, the agent names what to install, and shows no traceback."""
    (machine.folder / "sitecustomize.py").write_text("import sys\nsys.modules['prompt_toolkit'] = None\n")
    done = subprocess.run(
        [sys.executable, "-m", "bailee", "code", "-p", "x", "--model", "rehearsal"],
        env={"PATH": os.environ["PATH"], "HOME": str(machine.folder), "PYTHONPATH": str(machine.folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "pip install '.[agent]'" in done.stderr


@pytest.mark.parametrize("flow", ["", "survey", "local_cache"])
def test_privacy_in_the_agent_is_what_explain_says(machine: Machine, flow: str) -> None:
    """`/privacy` and `bailee explain` say the same, to the letter, of this machine's settings."""
    machine.set(cleanupPeriodDays=9, feedbackSurveyRate=0, env={"DISABLE_TELEMETRY": "1"})
    explained = machine.run("explain", *([flow] if flow else ["--brief"])).stdout
    environment = {"HOME": str(machine.folder / "user"), "BAILEE_STATE": str(machine.state)}
    settings = read_settings(directory=machine.project, environment=environment)
    with Work(settings, environment=environment, folder=machine.project) as work:
        assert "\n".join(tell_privacy(work, flow)) + "\n" == explained
