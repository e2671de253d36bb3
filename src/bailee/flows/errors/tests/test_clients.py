"""Sentry's own clients, unmodified, with no way out but loopback: what is held is what is catalogued."""

import sys
from pathlib import Path

from bailee.flows.errors.results import group, read_faults
from counterparts.holdings import find_bytes
from counterparts.services import clean_environment
from counterparts.sinks import Seen, run_with_sink

HERE = Path(__file__).parent
ROOT = HERE.parents[4]
CANARY = "canary/in/a/path"


def run_client(folder: Path, *command: str) -> Seen:
    """Run a client through `bailee run`, in a network namespace without a route."""
    environment = clean_environment(
        folder, BAILEE_HOME=str(folder / "state"), NODE_PATH=str(ROOT / "node_modules")
    )
    run = [sys.executable, "-m", "bailee", "run", "--upstream", "rehearsal", "--nonessential", "--"]
    return run_with_sink([*run, *command], folder, environment)


def test_sentrys_sdk_for_python(tmp_path: Path) -> None:
    """Of a message, variables, user, tags and host nothing is held: class, errno and published frames are."""
    seen = run_client(tmp_path, sys.executable, str(HERE / "client.py"))
    assert seen.status == 0, seen.stderr
    faults = [one.fault for one in read_faults(tmp_path / "state")]
    assert [fault.exceptions[-1].name for fault in faults] == [
        "FileNotFoundError",
        "json.decoder.JSONDecodeError",
    ]
    assert faults[0].exceptions[-1].fields["errno"] == 2
    assert faults[0].exceptions[-1].frames == []  # the only one is the user's own
    assert [frame["module"] for frame in faults[1].exceptions[-1].frames] == ["json"] + ["json.decoder"] * 2
    assert {str(fault.fields["version"]) for fault in faults} == {"1.2.3"}
    held = str(group(read_faults(tmp_path / "state")))
    assert not [piece for piece in CANARY.split("/") if f"{piece}/" in held or "canary" in held]
    assert not find_bytes(tmp_path / "state", CANARY.encode())


def test_sentrys_sdk_for_node(tmp_path: Path) -> None:
    """It sends chunked and without a type, and is content with the answer."""
    seen = run_client(tmp_path, "node", str(HERE / "client.js"))
    assert seen.status == 0, seen.stderr
    assert "done true" in seen.stdout
    (fault,) = [one.fault for one in read_faults(tmp_path / "state")]
    assert (fault.exceptions[-1].name, fault.fields["agent"]) == ("TypeError", "claude-code")
    assert "canary" not in str(fault)
    assert not find_bytes(tmp_path / "state", CANARY.encode())
