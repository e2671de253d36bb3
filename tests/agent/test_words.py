"""What a person is told where something small went another way than meant."""

import json
import shutil
from io import StringIO
from pathlib import Path

import click
import pytest
from rich.console import Console

from bailee.agent.clients import REHEARSAL
from bailee.agent.events import Result
from bailee.agent.indicator import tell_indicator
from bailee.agent.privacy import OFFLINE, tell_privacy
from bailee.agent.settings import read_settings
from bailee.agent.terminal.screen import Screen
from bailee.agent.work import Work
from bailee.cli.explain import explain
from bailee.manifests import load_manifest
from bailee.policy.contexts import KEYS
from bailee.policy.flows import FlowId
from bailee.policy.switches import Switch, find_meant
from counterparts.programs import run_program
from counterparts.services import clean_environment

ROOT = Path(__file__).resolve().parents[2]


def code(folder: Path, project: str, *words: str, **more: str) -> tuple[int, str, str]:
    """Run a command of the agent in a project."""
    (folder / project).mkdir(exist_ok=True)
    done = run_program(*words, environment=clean_environment(folder, **more), folder=folder / project)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(autouse=True)
def _compiled(tmp_path: Path, scanner_rules: Path) -> None:
    """Put the rules of the masker where a command finds them: to compile them takes 3 s."""
    (state := tmp_path / ".local" / "state" / "bailee").mkdir(mode=0o700, parents=True)
    shutil.copytree(scanner_rules, state / "cache")


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
    """Gone on with in another folder it says so, also by `/resume`; in its own it does not (control)."""
    code(tmp_path, "one", "code", "--model", "rehearsal", "-p", "rehearse greet")
    (session,) = json.loads(code(tmp_path, "one", "sessions", "--local", "list", "--json")[1])
    for project, is_told in (("two", True), ("one", False)):
        words = ("code", "--model", "rehearsal", "--resume", session["id"], "-p", "rehearse greet")
        status, _, told = code(tmp_path, project, *words)
        assert status == 0
        assert (f"this session is of {tmp_path / 'one'}; tools work in {tmp_path / 'two'}" in told) is is_told
        warned: list[str] = []
        with open_work(tmp_path, project, warned) as work:
            work.resume_session(session["id"])
        assert any("this session is of" in one for one in warned) is is_told


def open_work(folder: Path, project: str, warned: list[str]) -> Work:
    """Return the agent at work in a project, as the terminal has it."""
    # The state is named: `~` would lead to that of whoever runs the tests.
    environment = clean_environment(folder, BAILEE_STATE=str(folder / ".local" / "state" / "bailee"))
    settings = read_settings(directory=folder / project, environment=environment)
    return Work(settings, environment=environment, folder=folder / project, warn=warned.append)


def test_a_rehearsal_is_shown_as_one(tmp_path: Path) -> None:
    """In the line at the bottom and in `/privacy` it is offline; with another model it is the provider
    (control)."""
    (tmp_path / "one").mkdir()
    with open_work(tmp_path, "one", []) as work:
        work.choose_model(REHEARSAL)
        line = tell_indicator(work)
        assert "| rehearsal (offline) | the conversation goes nowhere | kept here 30d |" in line
        assert "anthropic" not in line
        assert OFFLINE in tell_privacy(work)
        work.choose_model("claude-sonnet-5-5")
        assert "| anthropic | training off | ZDR off | kept 30d, here 30d |" in tell_indicator(work)
        assert OFFLINE not in tell_privacy(work)
        assert "bailee explain --as plan=..." in "\n".join(tell_privacy(work))


def test_a_tab_is_shown_as_one() -> None:
    """In a result on the screen and in a session that is shown; another control character is made visible
    (control)."""
    screen = Screen(console := Console(file=StringIO(), width=80), plain=True)
    screen.show(Result("1", "read", "1\tdef add():\x1b[2J", is_error=False))
    assert isinstance(console.file, StringIO)
    shown = console.file.getvalue()
    assert "\\t" not in shown
    assert "\\x1b" in shown


def test_results_of_tools_are_not_what_you_said(tmp_path: Path) -> None:
    """In a session that is shown, results come under the tools, and prompts under you."""
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "calculator.py").write_text("def add(a, b):\n    return a - b\n")
    code(tmp_path, "one", "code", "--model", "rehearsal", "--mode", "all", "-p", "rehearse mend-the-test")
    (session,) = json.loads(code(tmp_path, "one", "sessions", "--local", "list", "--json")[1])
    shown = code(tmp_path, "one", "sessions", "--local", "show", session["id"])[1].splitlines()
    assert shown.count("You:") == 1
    assert shown.count("Tools:") >= 1
    assert "[result] 1\tdef add(a, b):" in shown


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("DISABLE_TELEMTRY", "DISABLE_TELEMETRY"),
        ("disable_telemetry", "DISABLE_TELEMETRY"),
        ("DO_NOT_TRAK", "DO_NOT_TRACK"),
        ("CLAUDE_CODE_DISABLE_NON_ESSENTIAL_TRAFFIC", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"),
        ("DISABLE_TELEMETRY", None),
        ("DISABLE_UPGRADE_COMMAND", None),
        ("NX_DISABLE_TELEMETRY", None),
        ("MY_OWN_VARIABLE", None),
    ],
)
def test_a_misspelt_switch_is_known(name: str, meant: str | None) -> None:
    """A variable that is nearly a switch is named with the switch; other variables are let alone."""
    assert find_meant(name, load_manifest("bailee").variables) == meant


@pytest.mark.parametrize(
    "words",
    [("telemetry", "status"), ("config", "list"), ("explain",), ("code", "--model", "rehearsal", "-p", "hi")],
)
def test_a_misspelt_switch_is_told(tmp_path: Path, words: tuple[str, ...]) -> None:
    """In the environment, and in a settings file when it is written and from then on; spelt rightly nothing
    is said (control)."""
    told = code(tmp_path, "one", *words, DISABLE_TELEMTRY="1")[2]
    assert "the environment: DISABLE_TELEMTRY is no switch and stops nothing; did you mean" in told
    assert "no switch" not in code(tmp_path, "one", *words, DISABLE_TELEMETRY="1")[2]
    told = code(tmp_path, "one", "config", "set", "env.DISABLE_TELEMTRY", "1")[2]
    assert "env.DISABLE_TELEMTRY is no switch and stops nothing; did you mean DISABLE_TELEMETRY?" in told
    assert "env.DISABLE_TELEMTRY is no switch" in code(tmp_path, "one", *words)[2]


def test_an_empty_switch_throws_nothing_as_the_page_says() -> None:
    """The page says so, and so it is: empty it is as good as not set, and `0` throws it."""
    page = (ROOT / "docs" / "data-usage.md").read_text()
    assert "| `DISABLE_TELEMETRY` | Metrics | any value but an empty one, even `0` or `false` |" in page
    switch = Switch("DISABLE_TELEMETRY")
    assert [switch.is_thrown({switch.name: value}) for value in ("", "0")] == [False, True]


def test_the_help_of_explain_names_every_flow_and_key() -> None:
    """All that it takes stands in its help: none can be added and forgotten there."""
    (line,) = [line for line in (explain.help or "").splitlines() if "FLOW is one of" in line]
    assert set(line.partition(": ")[2].strip().rstrip(".").split()) == set(FlowId)
    (option,) = [one for one in explain.params if one.name == "assignments"]
    assert isinstance(option, click.Option)
    assert f"Keys: {', '.join(KEYS)}." in str(option.help)
