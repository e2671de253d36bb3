"""Claude Code, unmodified, works through the gateway and cannot tell the difference."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bailee.flows.messages.rehearsal.serving import rehearsing
from bailee.policy.flows import FlowId
from bailee.vault.reader import Exchange
from counterparts import claude
from counterparts.holdings import find_bytes, make_key, read_exchanges, read_transcripts
from counterparts.services import Service, serving, settle
from counterparts.taps import Message, Tap, tapping
from counterparts.waiting import wait_for

BROKEN = 'def add(a: int, b: int) -> int:\n    """Return the sum."""\n    return a - b\n'
TEST = (
    "import unittest\n\nfrom calculator import add\n\n\nclass AddTest(unittest.TestCase):\n"
    "    def test_adds(self) -> None:\n        self.assertEqual(add(2, 3), 5)\n\n\n"
    'if __name__ == "__main__":\n    unittest.main()\n'
)
# What the gateway takes off or sets itself; all else must be the same.
OURS = {b"host", b"connection", b"authorization", b"x-api-key", b"content-length", b"transfer-encoding"}


@dataclass
class Line:
    """The agent's way to the model, with a tap on each side of the service."""

    service: Service
    key: str
    before: Tap
    behind: Tap

    @property
    def environment(self) -> dict[str, str]:
        """What leads Claude Code into it."""
        return {"ANTHROPIC_BASE_URL": self.before.url, "ANTHROPIC_AUTH_TOKEN": self.key}

    @property
    def exchanges(self) -> list[Exchange]:
        """What is recorded."""
        return read_exchanges(self.service.home)


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    """Lay a line: tap, service, tap, rehearsal model."""
    home = tmp_path / "state"
    key = make_key(home)
    with rehearsing() as model, tapping(int(model.rpartition(":")[2])) as behind:
        options = ("--upstream", f"compatible={behind.url}", "--upstream-credential", "none")
        with serving(home, tmp_path, *options) as service, tapping(service.address[1]) as before:
            yield Line(service, key, before, behind)


def forwarded(tap: Tap) -> list[tuple[Message, Message | None]]:
    """Return the exchanges of model traffic: what the service answers itself is left out."""
    return [pair for pair in tap.exchanges if pair[0].start.startswith(b"POST ")]


def end_to_end(message: Message) -> list[tuple[bytes, bytes]]:
    """Return the headers that belong to the message and not to a connection."""
    return [(name, value) for name, value in message.headers if name.lower() not in OURS]


def assert_untouched(line: Line) -> int:
    """Compare what went in and came out on both sides of the service; return the number of exchanges."""
    near, far = forwarded(line.before), forwarded(line.behind)
    assert len(near) == len(far) > 0
    unmatched = list(far)
    for asked, answered in near:
        at = next(n for n, (seen, _) in enumerate(unmatched) if seen.body == asked.body)
        seen, said = unmatched.pop(at)
        assert seen.start == asked.start
        assert end_to_end(seen) == end_to_end(asked)
        assert (answered is None) == (said is None)
        if answered is not None and said is not None:
            assert answered.start == said.start
            assert answered.body == said.body
            added = [pair for pair in end_to_end(answered) if pair not in end_to_end(said)]
            assert [name for name, _ in added] == [b"x-bailee-exchange"]
            assert [pair for pair in end_to_end(answered) if pair not in added] == end_to_end(said)
    return len(near)


def test_a_session_with_tools_crosses_untouched(line: Line, tmp_path: Path) -> None:
    """It mends a failing test over many turns; both sides of the service and the record hold the same."""
    project = tmp_path / "project"
    claude.make_project(project, {"calculator.py": BROKEN, "test_calculator.py": TEST})
    done = claude.run(
        "Please mend the failing test in this project and commit the change.",
        project,
        claude.make_environment(tmp_path / "user", **line.environment),
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert "return a + b" in (project / "calculator.py").read_text()
    subprocess.run([sys.executable, "-B", "-m", "unittest", "-q"], cwd=project, check=True)
    assert assert_untouched(line) >= 5
    held = line.exchanges
    assert {one.state for one in held} == {"complete"}
    assert len({one.session for one in held}) == 1
    bodies = [asked.body for asked, _ in forwarded(line.before)]
    recorded = [one.request.reveal() for one in read_transcripts(line.service.home).values()]
    assert sorted(recorded) == sorted(bodies)
    assert find_bytes(line.service.home, b"failing test in this project", b"return a - b") == []


def test_twelve_turns_are_stored_in_a_small_part(line: Line, tmp_path: Path) -> None:
    """A session of twelve prompts leaves at most 8% of what it sent on disk, keys and index included."""
    project = tmp_path / "project"
    claude.make_project(project, {"calculator.py": BROKEN})
    environment = claude.make_environment(tmp_path / "user", **line.environment)
    for turn in range(12):
        more = ("--continue",) if turn else ()
        done = claude.run(f"rehearse long words=400 # {turn}", project, environment, *more)
        assert done.returncode == 0, done.stderr + done.stdout
    sent = sum(one.request_bytes for one in line.exchanges)
    assert len(line.exchanges) >= 12
    line.service.end()
    keystore = line.service.home / "keystore"
    # Whoever closes last moves the write-ahead log into its database, a moment after the service has ended.
    wait_for("the last to close", lambda: not list(keystore.glob("*.db-*")) or None)
    files = [line.service.home / "vault" / "vault.db", *keystore.iterdir()]
    stored = sum(file.stat().st_size for file in files)
    assert stored <= 0.08 * sent, f"{stored} bytes for {sent} sent: {stored / sent:.1%}"


@pytest.mark.parametrize("status", [400, 429, 529])
def test_the_models_refusals_reach_it_byte_for_byte(line: Line, tmp_path: Path, status: int) -> None:
    """An error of the model is the agent's to read and to try again: it comes as the model sent it."""
    project = tmp_path / "project"
    project.mkdir()
    environment = claude.make_environment(tmp_path / "user", **line.environment)
    done = claude.run(f"rehearse refuse-{status}", project, environment)
    assert done.returncode != 0
    assert assert_untouched(line) >= 1
    assert status in {one.status for one in line.exchanges}
    assert {one.state for one in line.exchanges} == {"complete"}


def test_killed_in_mid_stream_it_leaves_a_marked_session(line: Line, tmp_path: Path) -> None:
    """kill -9 while the model speaks: recorded up to there, marked, and no connection stays behind."""
    project = tmp_path / "project"
    project.mkdir()
    before = settle(line.service).count("socket")
    process = subprocess.Popen(
        claude.command("rehearse stall"),
        cwd=project,
        env=claude.make_environment(tmp_path / "user", **line.environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def is_speaking() -> bool:
        return any(b"event: content_block_delta" in one.answered for one in line.before.conversations)

    wait_for("the model to speak", is_speaking, 60)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    def marked() -> bool:
        return "client_gone" in [one.state for one in line.exchanges]

    wait_for("the session to be marked", marked)
    gone = next(one for one in line.exchanges if one.state == "client_gone")
    assert gone.response_bytes
    assert read_transcripts(line.service.home)[gone.id].response.reveal()
    line.behind.close()
    wait_for("the connections to close", lambda: settle(line.service).count("socket") == before)


MODES = {
    "bedrock": {
        "CLAUDE_CODE_USE_BEDROCK": "1",
        "CLAUDE_CODE_SKIP_BEDROCK_AUTH": "1",
        "AWS_REGION": "us-east-1",
        "ANTHROPIC_BEDROCK_BASE_URL": "{url}",
    },
    "vertex": {
        "CLAUDE_CODE_USE_VERTEX": "1",
        "CLAUDE_CODE_SKIP_VERTEX_AUTH": "1",
        "ANTHROPIC_VERTEX_BASE_URL": "{url}/v1",
        "ANTHROPIC_VERTEX_PROJECT_ID": "a-project",
        "CLOUD_ML_REGION": "us-east5",
    },
}


@pytest.mark.parametrize("mode", MODES)
def test_it_works_in_the_formats_of_other_providers(tmp_path: Path, mode: str) -> None:
    """Set to Bedrock or Vertex it speaks their formats through the service, tools and streams included."""
    home, project = tmp_path / "state", tmp_path / "project"
    key = make_key(home)
    claude.make_project(project, {"calculator.py": BROKEN, "test_calculator.py": TEST})
    with serving(home, tmp_path, "--upstream", "rehearsal") as service:
        way = {name: value.replace("{url}", service.url) for name, value in MODES[mode].items()}
        environment = claude.make_environment(tmp_path / "user", ANTHROPIC_AUTH_TOKEN=key, **way)
        done = claude.run("Please mend the failing test in this project.", project, environment)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "return a + b" in (project / "calculator.py").read_text()
    held = read_exchanges(home)
    marker = {"bedrock": "/model/", "vertex": "/publishers/anthropic/models/"}[mode]
    assert len([one for one in held if marker in one.path and one.state == "complete"]) >= 5
    assert all((one.output_tokens or 0) > 0 for one in held if "count" not in one.path)


def test_its_telemetry_comes_to_the_service(tmp_path: Path) -> None:
    """With OpenTelemetry switched on by its user, its exports arrive; of the prompt nothing is held."""
    home, project = tmp_path / "state", tmp_path / "project"
    key = make_key(home)
    project.mkdir()
    with serving(home, tmp_path, "--upstream", "rehearsal") as service:
        environment = claude.make_environment(
            tmp_path / "user",
            ANTHROPIC_BASE_URL=service.url,
            ANTHROPIC_AUTH_TOKEN=key,
            CLAUDE_CODE_ENABLE_TELEMETRY="1",
            OTEL_METRICS_EXPORTER="otlp",
            OTEL_LOGS_EXPORTER="otlp",
            OTEL_EXPORTER_OTLP_PROTOCOL="http/json",
            OTEL_EXPORTER_OTLP_ENDPOINT=service.url,
            OTEL_EXPORTER_OTLP_HEADERS=f"Authorization=Bearer {key}",
            OTEL_LOG_USER_PROMPTS="1",
        )
        done = claude.run("rehearse greet", project, environment)
        assert done.returncode == 0, done.stderr
        wait_for("an export", lambda: [one for one in read_exchanges(home) if one.flow == "metrics"])
    exports = [one for one in read_exchanges(home) if one.flow == "metrics"]
    assert {one.state for one in exports} == {"complete"}
    assert json.loads(exports[0].decision)["flow"] == "metrics"
    held = [one.request.reveal() for one in read_transcripts(home, FlowId.METRICS).values()]
    assert any(b"claude_code.user_prompt" in one for one in held)
    assert not any(b"rehearse greet" in one for one in held)
    assert find_bytes(home, b"rehearse greet") == []
