"""A fault of the agent's own: told in a line, reported by class and place where that may be, and no text."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bailee.agent.announcements import FILE, Told
from bailee.flows.errors import sender
from bailee.flows.errors.envelopes import read_envelope, read_event
from bailee.flows.errors.results import group, read_faults
from counterparts.holdings import make_key
from counterparts.services import clean_environment, serving

NOW = 1_777_000_000.0
CANARY = "canary /home/ada/plan.txt"
# What is broken in the agent for a test: a tool's name is looked up, and is not there.
BREAK = """
import bailee.agent.work as work
def broken(self, prompt):
    secret = "canary /home/ada/plan.txt"
    raise RuntimeError(secret)
work.Work.answer = broken
"""


def fail() -> BaseException:
    """Return an error that was raised in published code, of one that was not."""
    try:
        try:
            secret = CANARY
            raise OSError(28, secret, secret)
        except OSError as first:
            json.loads("{" + CANARY)
            raise AssertionError from first
    except ValueError as error:
        return error


def test_a_report_is_rebuilt_from_the_allow_list() -> None:
    """Classes, errno, published frames and the version; no message, variable, source line or key."""
    body = sender.write_report(fail(), agent="bailee", version="1.2.3", now=NOW)
    assert body is not None
    (item,) = read_envelope(body).items
    event = read_event(item.payload)
    assert set(event) - {"event_id"} <= {"level", "platform", "exception", "release", "contexts", "timestamp"}
    first, last = event["exception"]["values"]
    assert (first["type"], first["mechanism"]["meta"]["errno"]["number"]) == ("OSError", 28)
    assert (last["type"], last["module"]) == ("JSONDecodeError", "json.decoder")
    assert [frame["function"] for frame in last["stacktrace"]["frames"]][-1] == "raw_decode"
    assert b"canary" not in body
    assert b"test_errors" not in body


def test_control_without_the_rebuilding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: as the SDK makes it, with everything of it off, the path is in the message all the same."""
    monkeypatch.setattr(sender, "write_event", lambda fault: {})
    monkeypatch.setattr(sender, "admit_event", lambda event, today: event)
    monkeypatch.setattr(sender, "write_event", dict)
    body = sender.write_report(fail(), agent="bailee", version="1.2.3", now=NOW)
    assert body is not None
    assert b"/home/ada/plan.txt" in body


@pytest.mark.parametrize("switch", ["", "DISABLE_ERROR_REPORTING", "DO_NOT_TRACK", "first"])
def test_from_the_fault_to_the_table(tmp_path: Path, state: Path, switch: str) -> None:
    """It is told in a line without its text, and at the service it stands by class and place; or is off."""
    home = tmp_path / "home"
    key = make_key(home)
    if switch != "first":
        (state / FILE).write_bytes(msgspec.json.encode(Told(True, "")))
    (tmp_path / "project").mkdir()
    with serving(home, tmp_path, "--upstream", "rehearsal") as service:
        environment = clean_environment(
            tmp_path, BAILEE_STATE=str(state), BAILEE_SERVICE=service.url, ANTHROPIC_AUTH_TOKEN=key
        )
        if switch.isupper():
            environment[switch] = "1"
        prompt = ("code", "--model", "rehearsal", "-p", "rehearse greet")
        program = BREAK + "import sys; from bailee.cli import main; sys.exit(main())"
        done = subprocess.run(
            [sys.executable, "-c", program, *prompt],
            cwd=tmp_path / "project",
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert "the agent met a fault of its own: RuntimeError" in done.stderr
    assert "canary" not in done.stderr
    assert "Traceback" not in done.stderr
    found = group(read_faults(home))
    if switch:
        assert found == []
        assert "(not reported)" in done.stderr
        return
    assert [(one.name, one.agents) for one in found] == [("RuntimeError", ["bailee"])]
    assert found[0].trace[-1].startswith("bailee.cli.code.")
    (copy,) = (state / "telemetry" / "sent").glob("*.json")
    assert b"canary" not in copy.read_bytes()
    assert key.encode() not in copy.read_bytes()
