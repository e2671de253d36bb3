"""What people are told of cloud sessions, and what is found out before one begins."""

import subprocess
import sys
from typing import Any

import pytest

from bailee.service.cloud_logs import tell_line
from counterparts.clouds import World
from counterparts.waiting import wait_for


@pytest.mark.parametrize(
    ("upstream", "said"), [("", "ANTHROPIC_API_KEY"), ("anthropc", "unknown upstream 'anthropc'")]
)
def test_without_a_model_nothing_begins(world: World, upstream: str, said: str) -> None:
    """Where no service runs and none would start, the order is refused at once, with the fix."""
    words = ("--upstream", upstream) if upstream else ()
    told = world.bailee("cloud", "start", "--repo", world.url, *words, "x", status=2)
    assert said in told
    assert "fix:" in told
    assert not (world.home / "cloud").exists()
    assert world.host.asked == []


def test_a_session_that_fails_is_told_where_it_is_listed(served: World) -> None:
    """Its reason stands in the list; of a conversation that never began nothing is said."""
    url = served.url.replace("app", "missing")
    said = served.bailee(
        "cloud", "start", "--wait", "--isolation", "namespace", "--repo", url, "rehearse greet", status=1
    )
    assert "failed: the repository could not be cloned" in said
    assert "conversation" not in said
    assert "failed: the repository could not be cloned" in served.bailee("cloud", "list")


def test_a_command_is_no_agent_of_ours(served: World) -> None:
    """Its receipt names no manifest that is not its own, and says nothing of what the command is."""
    known, _ = served.start("x", "--agent", "echo canary-of-the-command")
    said = served.bailee("cloud", "show", str(known["id"]))
    receipt = said[said.index("Receipt: ") :]
    assert receipt.startswith("Receipt: a command for me")
    assert "canary" not in receipt
    assert "no manifest declares a command" in receipt


def test_who_is_attached_is_told_how_it_stands(served: World) -> None:
    """States come in brackets on standard error as they change, and what is said on standard output."""
    known, _ = served.start("x", "--agent", "echo said; while [ ! -e go ]; do sleep 0.1; done", wait=False)
    id = str(known["id"])
    errors = served.folder / "errors"
    with errors.open("wb") as stderr:
        attached: subprocess.Popen[Any] = subprocess.Popen(
            [sys.executable, "-m", "bailee", "cloud", "attach", "--home", str(served.home), id],
            env=served.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
    wait_for("its state", lambda: "[working]" in errors.read_text() or None)
    (served.home / "cloud" / id / "work" / "repository" / "go").touch()
    wait_for("its end", lambda: "[done]" in errors.read_text() or None)
    out, _ = attached.communicate(b"")
    assert attached.returncode == 0
    assert "said" in out.decode().splitlines()


def test_a_line_is_shown_as_a_terminal_would() -> None:
    """A carriage return at its end and tabs are what they mean; what else a terminal obeys is visible."""
    assert tell_line(b"one\ttwo\r") == "one     two"
    assert tell_line(b"\x1b[2J\rx\xff") == "\\x1b[2J\\rx\ufffd"
