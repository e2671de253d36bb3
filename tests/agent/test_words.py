"""What a person is told where something small went another way than meant."""

import json
from pathlib import Path

import pytest

from bailee.cli.config import find_misspelt
from counterparts.programs import run_program
from counterparts.services import clean_environment


def code(folder: Path, project: str, *words: str) -> tuple[int, str, str]:
    """Run a command of the agent in a project."""
    (folder / project).mkdir(exist_ok=True)
    done = run_program(*words, environment=clean_environment(folder), folder=folder / project)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "options", [("--json",), ("--output", "stream"), ("--output=json",), ("-c",), ("--mode", "plan")]
)
def test_an_option_is_no_prompt(tmp_path: Path, options: tuple[str, ...]) -> None:
    """An option where `-p` has its prompt is answered with how it is written."""
    words = ("code", "--model", "rehearsal", "-p", *options, "rehearse greet")
    status, out, told = code(tmp_path, "one", *words)
    assert (status, out) == (2, "")
    assert f"{options[0]} is taken for the prompt" in told
    assert f"bailee code {options[0]} ... -p PROMPT" in told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--json", "-p", "rehearse greet"), '"Hello.'),
        (("-p", "rehearse greet", "--json"), '"Hello.'),
        (("-p", "--json is missing: rehearse greet"), "Hello."),
        (("-p", "-- rehearse greet"), "Hello."),
        (("-p", "- rehearse greet"), "Hello."),
    ],
)
def test_control_a_prompt_may_begin_with_dashes(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    """Control: options before and after it are taken, and a prompt that only begins like one is a prompt."""
    status, out, told = code(tmp_path, "one", "code", "--model", "rehearsal", *words)
    assert status == 0, told
    assert said in out


def test_a_session_of_another_project_is_told(tmp_path: Path) -> None:
    """Gone on with in another folder it says so; in its own it does not (control)."""
    code(tmp_path, "one", "code", "--model", "rehearsal", "-p", "rehearse greet")
    (session,) = json.loads(code(tmp_path, "one", "sessions", "--local", "list", "--json")[1])
    for project, is_told in (("two", True), ("one", False)):
        words = ("code", "--model", "rehearsal", "--resume", session["id"], "-p", "rehearse greet")
        status, _, told = code(tmp_path, project, *words)
        assert status == 0
        assert ("this session is of" in told) is is_told


def test_results_of_tools_are_not_what_you_said(tmp_path: Path) -> None:
    """In a session that is shown, results come under the tools, and prompts under you."""
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "calculator.py").write_text("def add(a, b):\n    return a - b\n")
    code(tmp_path, "one", "code", "--model", "rehearsal", "--mode", "all", "-p", "rehearse mend-the-test")
    (session,) = json.loads(code(tmp_path, "one", "sessions", "--local", "list", "--json")[1])
    shown = code(tmp_path, "one", "sessions", "--local", "show", session["id"])[1].splitlines()
    assert shown.count("You:") == 1
    assert shown.count("Tools:") >= 1


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("env.DISABLE_TELEMTRY", "DISABLE_TELEMETRY"),
        ("env.DISABLE_TELEMETRY", None),
        ("env.MY_OWN_VARIABLE", None),
        ("telemetry", None),
    ],
)
def test_a_misspelt_switch_is_told(key: str, near: str | None) -> None:
    """A variable that is nearly a switch is named with the switch; other variables are let alone."""
    assert find_misspelt(key) == near
