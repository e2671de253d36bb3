"""What the documentation says to type works as it stands."""

import json
import os
import re
import subprocess
from pathlib import Path

import httpx2

from counterparts.programs import run_program
from counterparts.services import clean_environment, serving

PAGE = Path(__file__).parents[5] / "docs" / "telemetry.md"


def test_the_samples_for_curl_are_held(tmp_path: Path) -> None:
    """The two commands of the page, with a key in place: both are taken, and read back."""
    commands = re.findall(r"^    (curl (?:.*\\\n)*.*)$", PAGE.read_text(), re.MULTILINE)
    assert len(commands) == 2
    environment, home = clean_environment(tmp_path), tmp_path / "home"

    def run(*words: str) -> str:
        done = run_program(*words, "--home", str(home), environment=environment, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("accounts", "add", "me", "--plan", "api")
    key = run("keys", "create", "--account", "me").strip()
    with serving(home, tmp_path / "service", "--upstream", "rehearsal") as service:
        for command in commands:
            done = subprocess.run(
                ["bash", "-c", command.replace("http://127.0.0.1:8787", service.url)],
                env={"PATH": os.environ["PATH"], "KEY": key},
                capture_output=True,
                text=True,
                check=True,
            )
            assert "error" not in done.stdout
        assert "bailee.session" in run("metrics", "--json")
        assert "ValueError" in run("errors", "list", "--json")


def test_what_nobody_names_is_counted_where_it_can_be_read(tmp_path: Path) -> None:
    """An event that no entry names is dropped, and `bailee metrics` counts it; `event.name` is no field."""
    environment, home = clean_environment(tmp_path), tmp_path / "home"

    def run(*words: str) -> str:
        done = run_program(*words, "--home", str(home), environment=environment, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("accounts", "add", "me", "--plan", "api")
    key = run("keys", "create", "--account", "me").strip()
    events = [{"eventName": name, "metadata": {"version": "1.0.0"}} for name in ("bailee.session", "no.such")]
    record = {
        "body": {"stringValue": "bailee.session"},
        "attributes": [
            {"key": name, "value": {"stringValue": value}}
            for name, value in (("event.name", "bailee.session"), ("version", "1.0.0"))
        ],
    }
    logs = {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}
    with serving(home, tmp_path / "service", "--upstream", "rehearsal") as service:
        headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
        sent = httpx2.post(f"{service.url}/v1/log_event", json={"events": events}, headers=headers)
        assert sent.status_code == 202
        answer = httpx2.post(f"{service.url}/v1/logs", json=logs, headers=headers)
        assert "event.name" not in answer.text
        assert json.loads(run("metrics", "--json"))["dropped"] == 1
