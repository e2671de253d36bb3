"""Real clients, unmodified, with no way out but loopback: what is held is exactly what is catalogued."""

import sys
from pathlib import Path

import pytest

from bailee.flows.metrics.results import read_points
from counterparts.holdings import find_bytes, make_key
from counterparts.services import clean_environment
from counterparts.sinks import Seen, run_with_sink

HERE = Path(__file__).parent
ROOT = HERE.parents[4]
CANARY = b"canary/in/a/path"
TURN = ("bailee.turn", {"version": "1.2.3", "outcome": "done", "rounds": 3.0})


def run_client(folder: Path, *command: str) -> Seen:
    """Run a client through `bailee run`, in a network namespace without a route."""
    environment = clean_environment(
        folder, BAILEE_HOME=str(folder / "state"), NODE_PATH=str(ROOT / "node_modules")
    )
    run = [sys.executable, "-m", "bailee", "run", "--upstream", "rehearsal", "--nonessential", "--"]
    return run_with_sink([*run, *command], folder, environment)


def held(folder: Path) -> list[tuple[str, dict[str, object]]]:
    """Return what is held, without the time."""
    return [(one.name, dict(one.fields)) for one in read_points(folder / "state")]


@pytest.mark.parametrize("client", ["statsig", "statsig-core"])
def test_statsigs_own_clients(tmp_path: Path, client: str) -> None:
    """Both Python clients start, log and shut down without an error of theirs; one event is held."""
    seen = run_client(tmp_path, sys.executable, str(HERE / "clients.py"), client)
    assert seen.status == 0, seen.stderr
    assert held(tmp_path) == [TURN]
    assert not find_bytes(tmp_path / "state", CANARY)


def test_statsigs_client_of_javascript(tmp_path: Path) -> None:
    """So does the one for browsers, run by node."""
    seen = run_client(tmp_path, "node", str(HERE / "client.js"))
    assert seen.status == 0, seen.stderr
    assert "done" in seen.stdout
    assert held(tmp_path) == [TURN]
    assert not find_bytes(tmp_path / "state", CANARY)


def test_opentelemetrys_sdk(tmp_path: Path) -> None:
    """Running totals become what came since, and never add up; names and fields of its own are dropped."""
    seen = run_client(tmp_path, sys.executable, str(HERE / "clients.py"), "opentelemetry")
    assert seen.status == 0, seen.stderr
    assert held(tmp_path) == [
        ("claude_code.commit.count", {"value": 3.0}),
        ("claude_code.commit.count", {"value": 4.0}),
    ]
    assert not find_bytes(tmp_path / "state", CANARY, b"secret.project")


def run_by_grpc(folder: Path, *command: str, project: Path | None = None, **variables: str) -> Seen:
    """Run a client beside a service that takes OTLP over gRPC, in a network namespace without a route."""
    home = folder / "state"
    key = make_key(home)
    environment = clean_environment(folder, PYTHONPATH=str(ROOT / "tests"), **variables)
    beside = [sys.executable, str(HERE / "exporting.py"), str(home), str(folder), key]
    return run_with_sink([*beside, *command], project or folder, environment)


def test_opentelemetrys_sdk_over_grpc(tmp_path: Path) -> None:
    """Metrics and logs, gzip: the same is held as over HTTP, and what was dropped is told to the sender."""
    client = [sys.executable, str(HERE / "clients.py"), "grpc"]
    seen = run_by_grpc(tmp_path, *client, OTEL_EXPORTER_OTLP_COMPRESSION="gzip")
    assert seen.status == 0, seen.stderr
    assert held(tmp_path) == [
        ("claude_code.commit.count", {"value": 3.0}),
        ("claude_code.commit.count", {"value": 4.0}),
        TURN,
    ]
    assert not find_bytes(tmp_path / "state", CANARY, b"secret.project")


@pytest.mark.parametrize("protocol", ["http/protobuf", "http/json", "grpc"])
def test_claude_code(tmp_path: Path, protocol: str) -> None:
    """Its own export of metrics and events is taken; nothing of prompt, path or account is held."""
    from counterparts.claude import BINARY, TOOLS

    project = tmp_path / "canary-project"
    project.mkdir()
    (project / "greet.py").write_text("def greet():\n    return 'canary-in-code'\n")
    variables = {
        "CLAUDE_CODE_ENABLE_TELEMETRY": "1",
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_LOGS_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_LOG_USER_PROMPTS": "1",
        "OTEL_LOG_TOOL_DETAILS": "1",
    }
    agent = [str(BINARY), "-p", "rehearse greet canary-in-a-prompt", "--allowedTools", TOOLS]
    if protocol == "grpc":
        seen = run_by_grpc(tmp_path, *agent, project=project, **variables)
    else:
        run = [sys.executable, "-m", "bailee", "run", "--upstream", "rehearsal", "--"]
        environment = clean_environment(tmp_path, BAILEE_HOME=str(tmp_path / "state"), **variables)
        seen = run_with_sink([*run, *agent], project, environment)
    assert seen.status == 0, seen.stderr
    names = {name for name, _ in held(tmp_path)}
    assert {"claude_code.session.count", "claude_code.token.usage", "claude_code.api_request"} <= names
    words = [str(value) for _, fields in held(tmp_path) for value in fields.values()]
    assert not [word for word in words if "canary" in word or "/" in word or "@" in word]
