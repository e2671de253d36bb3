"""A whole interactive session in a real terminal, as a person types it."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from counterparts.holdings import make_key
from counterparts.programs import run_program
from counterparts.projects import git, make_project
from counterparts.services import serving
from counterparts.terminals import Terminal, opening

ASKED = "or what to do instead:"
READY = "mode ask"


class Desk:
    """A terminal on a user's machine."""

    def __init__(self, folder: Path, terminal: Terminal, rules: Path) -> None:
        self.folder = folder
        self.project = folder / "project"
        self.terminal = terminal
        make_project(self.project)
        (folder / "user").mkdir()
        (folder / "state").mkdir(mode=0o700)
        shutil.copytree(rules, folder / "state" / "cache")

    def start(self, *options: str, **environment: str) -> None:
        whole = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder / "user"),
            "BAILEE_STATE": str(self.folder / "state"),
            "LANG": "C.UTF-8",
            **environment,
        }
        command = [sys.executable, "-m", "bailee", "code", "--model", "rehearsal", *options]
        self.terminal.start(command, environment=whole, directory=self.project)


@pytest.fixture
def desk(tmp_path: Path, scanner_rules: Path) -> Iterator[Desk]:
    with opening(tmp_path) as terminal:
        yield Desk(tmp_path, terminal, scanner_rules)


def test_a_whole_session(desk: Desk) -> None:
    """Prompt, permission, edit, tests, commit, privacy, quit."""
    terminal = desk.terminal
    desk.start()
    terminal.wait("kept on this machine for 30d")
    terminal.wait(READY)
    terminal.type("Please fix the failing test")
    for count in range(1, 6):  # ls, test, edit, test, commit
        terminal.wait(ASKED, times=count)
        terminal.type("yes")
    shown = terminal.wait("committed the change")
    assert "+    return a + b" in shown
    assert git(desk.project, "log", "--format=%s").splitlines()[0] == "Make add add"
    terminal.wait("tokens in")
    terminal.type("/privacy")
    terminal.wait("DECIDED BY")
    terminal.type("/name calculator")
    terminal.wait("is called")
    assert "is kept on this machine until" in terminal.leave()


def test_exit_ends_as_quit_does_and_other_words_do_not(desk: Desk) -> None:
    """`/exit` is `/quit`, and the help says so once; the word alone goes to the model; `/exits` is none."""
    terminal = desk.terminal
    desk.start()
    terminal.wait(READY)
    terminal.type("/help")
    assert terminal.wait("Ctrl-D ends").count("/exit") == 1
    terminal.type("/exits")
    terminal.wait("there is no command /exits")
    terminal.type("exit")
    terminal.wait("tokens in")
    terminal.type("/exit")
    terminal.wait_until_ended()


def test_a_session_is_resumed(tmp_path: Path, scanner_rules: Path) -> None:
    """What was said is found again by its name in the picker, and the conversation goes on with it."""
    with opening(tmp_path) as terminal:
        desk = Desk(tmp_path, terminal, scanner_rules)
        desk.start("rehearse greet")
        terminal.wait("tokens in")
        terminal.type("/name the greeting")
        terminal.wait("is called")
        terminal.leave()
    with opening(tmp_path) as again:
        desk.terminal = again
        desk.start("--resume")
        again.wait("Number, words to search for")
        again.type("nothing like it")
        again.wait("No session fits")
        again.wait("Number, words", times=2)  # what is typed before it asks is not read
        again.type("greeting")
        again.wait("Number, words", times=3)
        again.type("1")
        shown = again.wait("Go on.")
        assert "this is all of my answer" in shown
        again.type("rehearse greet")
        again.wait("tokens in")
        again.leave()


def test_no_is_no(desk: Desk) -> None:
    """A bare Enter, `no` and other words refuse; the words reach the model; the project stays as it is."""
    terminal = desk.terminal
    desk.start("Please fix the failing test")
    terminal.wait(ASKED)
    terminal.type("look at the tests first")
    shown = terminal.wait("The user did not allow this: look at the tests first")
    assert "failed" in shown
    terminal.wait("tokens in")
    assert git(desk.project, "log", "--format=%s").splitlines() == ["as it was"]


def test_an_interrupt_ends_the_turn_and_not_the_session(desk: Desk) -> None:
    """Ctrl-C during an answer stops it, keeps what was said, and the next prompt is answered."""
    terminal = desk.terminal
    desk.start("rehearse stall seconds=600")
    terminal.wait("now I fall silent")
    terminal.press("C-c")
    terminal.wait("interrupted")
    terminal.type("rehearse greet")
    terminal.wait("this is all of my answer")
    terminal.wait("tokens in", times=2)  # before that the turn has not ended
    terminal.press("C-c")
    terminal.wait("once more")
    terminal.press("C-c")
    terminal.wait_until_ended()


def test_the_survey_takes_no_key_that_was_meant_for_something_else(
    desk: Desk, tmp_path: Path, scanner_rules: Path
) -> None:
    """While it asks, a bare 1 is a prompt; `/rate 3` sends the rating, and the service counts it."""
    terminal = desk.terminal
    home = tmp_path / "home"
    key = make_key(home)
    (desk.project / ".bailee").mkdir()
    settings = desk.folder / "user" / ".config" / "bailee" / "settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"feedbackSurveyRate": 1}')
    with serving(home, tmp_path, "--upstream", "rehearsal") as service:
        to = {"BAILEE_SERVICE": service.url, "ANTHROPIC_BASE_URL": service.url, "ANTHROPIC_AUTH_TOKEN": key}
        desk.start("--model", "claude-rehearsal-1", **to)
        for turn in (1, 2):
            terminal.type("rehearse greet")
            terminal.wait("tokens in", times=turn)
        assert "How is the session going?" not in terminal.screen
        terminal.type("rehearse greet")
        terminal.wait("How is the session going?")
        terminal.type("1")
        terminal.wait("tokens in", times=4)
        assert "Sent: 1" not in terminal.screen
        terminal.type("/rate 3")
        terminal.wait("Sent: 3, and nothing else.")
        terminal.type("/rate 2")
        terminal.wait("Not sent: this session was rated already.")
        terminal.leave()
        told = run_program(
            "survey",
            "days",
            "--json",
            environment={"HOME": str(tmp_path), "BAILEE_HOME": str(home)},
            folder=tmp_path,
        )
        assert [(one["rating"], one["count"]) for one in json.loads(told.stdout)] == [("3", 1)]
