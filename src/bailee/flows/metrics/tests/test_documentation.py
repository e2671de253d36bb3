"""What the documentation says to type works as it stands."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import httpx2
import pytest

from counterparts.programs import run_program
from counterparts.services import clean_environment, serving
from counterparts.sinks import run_with_sink
from counterparts.waiting import wait_for

PAGE = Path(__file__).parents[5] / "docs" / "telemetry.md"


def test_the_samples_for_curl_are_held(tmp_path: Path) -> None:
    """The commands of the page, with a key in place: all are taken, and read back."""
    (block,) = re.findall(r"^    curl .*?(?=\n\n)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    commands = re.split(r"^(?=    curl )", block, flags=re.MULTILINE)[1:]
    assert len(commands) == 3
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
            assert "rror" not in done.stdout
        told = json.loads(run("metrics", "--json"))
        assert {one["name"] for one in told["usage"]} == {"bailee.turn", "bailee.session"}
        assert told["dropped"] == {}
        assert "ValueError" in run("errors", "list", "--json")


# Puts address and key of the run around it into a sample, and runs that.
RUN_SAMPLE = """
import os, sys
from pathlib import Path
place = os.environ["BAILEE_SERVICE"].removeprefix("http://")
sample = Path(sys.argv[1]).read_text().replace("127.0.0.1:8787", place)
exec(compile(sample.replace("KEY", os.environ["ANTHROPIC_AUTH_TOKEN"]), sys.argv[1], "exec"))
"""


@pytest.mark.parametrize(("maker", "shown"), [("statsig", "bailee.turn"), ("sentry_sdk", "ValueError")])
def test_the_samples_in_python_are_held(tmp_path: Path, maker: str, shown: str) -> None:
    """With the SDKs as their makers ship them, where no route leads out: both are held, and read back."""
    found = re.search(
        rf"^    (?:from|import) {maker}\b.*?(?=\n\n\S)", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    assert found
    (tmp_path / "sample.py").write_text(dedent(found[0]))
    environment = clean_environment(tmp_path, BAILEE_HOME=str(tmp_path / "home"))
    run = [sys.executable, "-m", "bailee", "run", "--upstream", "rehearsal", "--nonessential", "--"]
    command = [*run, sys.executable, "-c", RUN_SAMPLE, str(tmp_path / "sample.py")]
    seen = run_with_sink(command, tmp_path, environment)
    assert seen.status == 0, seen.stderr
    words = ("metrics",) if maker == "statsig" else ("errors", "list")
    assert shown in run_program(*words, "--json", environment=environment, folder=tmp_path).stdout


def test_what_was_dropped_is_counted_where_it_can_be_read(tmp_path: Path) -> None:
    """A misspelt event by itself, a misspelt field, an item of Sentry's that is none: `bailee metrics` and
    `/metrics` count them, by path, and never say what it was; what is catalogued adds nothing (control)."""
    environment, home = clean_environment(tmp_path), tmp_path / "home"

    def run(*words: str) -> str:
        done = run_program(*words, "--home", str(home), environment=environment, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("accounts", "add", "me", "--plan", "api")
    key = run("keys", "create", "--account", "me").strip()
    with serving(home, tmp_path / "service", "--upstream", "rehearsal") as service:
        headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}

        def send(name: str, **fields: str) -> None:
            events = [{"eventName": name, "metadata": {"version": "1.0.0", **fields}}]
            sent = httpx2.post(f"{service.url}/v1/log_event", json={"events": events}, headers=headers)
            assert sent.status_code == 202

        def count() -> tuple[dict[str, object], list[str]]:
            lines = httpx2.get(f"{service.url}/metrics").text.splitlines()
            drops = [line for line in lines if line.startswith("bailee_dropped")]
            return json.loads(run("metrics", "--json"))["dropped"], drops

        send("bailee.session")
        assert count() == ({}, [])
        send("bailee.sesion")
        send("bailee.session", surfaces="heron")
        log = {"body": {"stringValue": "heron.event"}}
        logs = {"resourceLogs": [{"scopeLogs": [{"logRecords": [log, log]}]}]}
        assert httpx2.post(f"{service.url}/v1/logs", json=logs, headers=headers).status_code == 200
        envelope = '{}\n{"type": "session"}\n{}\n'
        url = f"{service.url}/api/1/envelope/?sentry_key={key}"
        assert httpx2.post(url, content=envelope, headers={"content-type": "text/plain"}).status_code == 200
        told, drops = wait_for("the notes", lambda: found if len((found := count())[0]) == 2 else None)
        shown = run("metrics")
    assert told == {
        "/v1/log_event": {"samples": 1, "fields": 1},
        "/v1/logs": {"samples": 2, "fields": 0},
    }
    assert sorted(drops) == [
        'bailee_dropped_total{flow="errors",kind="items",path="/api/{project:int}/envelope/"} 1.0',
        'bailee_dropped_total{flow="metrics",kind="fields",path="/v1/log_event"} 1.0',
        'bailee_dropped_total{flow="metrics",kind="samples",path="/v1/log_event"} 1.0',
        'bailee_dropped_total{flow="metrics",kind="samples",path="/v1/logs"} 2.0',
    ]
    assert re.search(r"^/v1/logs +2 +0$", shown, re.MULTILINE)
    assert "heron" not in shown
    assert "sesion" not in shown


def test_the_name_of_an_event_is_no_field(tmp_path: Path) -> None:
    """A log shaped like Claude Code's, `event.name` beside the body, is taken without a word; another field
    that no entry names is told (control)."""
    environment, home = clean_environment(tmp_path), tmp_path / "home"
    for words in (("accounts", "add", "me", "--plan", "api"), ("keys", "create", "--account", "me")):
        done = run_program(*words, "--home", str(home), environment=environment, folder=tmp_path)
    headers = {"authorization": f"Bearer {done.stdout.strip()}"}
    with serving(home, tmp_path / "service", "--upstream", "rehearsal") as service:
        for field, is_told in (("event.name", False), ("event.title", True)):
            given = {"version": "1.0.0", field: "session"}
            record = {
                "body": {"stringValue": "bailee.session"},
                "attributes": [{"key": key, "value": {"stringValue": value}} for key, value in given.items()],
            }
            logs = {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}
            answer = httpx2.post(f"{service.url}/v1/logs", json=logs, headers=headers)
            assert ("fields dropped" in answer.text) is is_told
