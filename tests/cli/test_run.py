"""`bailee run`: the command's own behaviour, an environment that leads to the service, and a receipt."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bailee.accounts.directory import open_directory
from bailee.accounts.keys import list_keys
from bailee.service.running import find_running
from counterparts.holdings import find_bytes, read_exchanges
from counterparts.services import clean_environment, serving
from counterparts.waiting import wait_for

SDK = """
import os, sys
import anthropic
client = anthropic.Anthropic()
print(client.messages.create(model="claude-rehearsal", max_tokens=64,
      messages=[{"role": "user", "content": sys.argv[1]}]).content[0].text)
"""


class Run:
    """A `bailee run` in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "state"
        self.folder = folder
        self.receipt = folder / "receipt.json"

    def command(self, *command: str, options: tuple[str, ...] = ()) -> list[str]:
        start = [sys.executable, "-m", "bailee", "run", "--home", str(self.home), "--upstream", "rehearsal"]
        return [*start, "--receipt", str(self.receipt), *options, "--", *command]

    def __call__(
        self, *command: str, options: tuple[str, ...] = (), stdin: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*command, options=options),
            cwd=self.folder,
            env=clean_environment(self.folder, **environment),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def told(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.receipt.read_bytes())
        return told


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Give a runner."""
    return Run(tmp_path)


def test_a_program_with_the_official_sdk_runs_through_it(run: Run) -> None:
    """Without a change an SDK client reaches the model; the receipt tells all, and its erasure works."""
    done = run(sys.executable, "-c", SDK, "rehearse greet", ANTHROPIC_API_KEY="the-users-own")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Hello. I am the rehearsal model")
    told = run.told
    (flow,) = told["flows"]
    assert (flow["flow"], flow["destination"], flow["exchanges"]) == ("messages", "rehearsal", 1)
    assert flow["outcomes"] == {"complete": 1}
    assert (flow["retention"], flow["trainable"]) == ("30d", False)
    assert flow["sent_bytes"] > 0 < flow["received_bytes"]
    assert flow["stored_bytes"] > 0
    (erase,) = told["erase"]
    assert erase in done.stderr
    assert "not enforced" in done.stderr
    erased = subprocess.run(
        [sys.executable, "-m", *erase.split(), "--yes"],
        env=clean_environment(run.folder, BAILEE_HOME=str(run.home)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert erased.returncode == 0, erased.stderr
    assert read_exchanges(run.home) == []


@pytest.mark.parametrize("status", [0, 1, 7, 255])
def test_the_exit_status_is_the_commands(run: Run, status: int) -> None:
    """Whatever the command ends with, `bailee run` ends with."""
    assert run("sh", "-c", f"exit {status}").returncode == status
    assert run.told["exit_status"] == status


def test_a_command_that_is_not_there(run: Run) -> None:
    """127, as a shell says it, and no traceback."""
    done = run("no-such-command")
    assert done.returncode == 127
    assert "no-such-command: not found" in done.stderr
    assert "Traceback" not in done.stderr


def test_input_and_output_pass_through(run: Run) -> None:
    """The command has the standard streams of `bailee run`; the receipt is on the third only."""
    done = run("sh", "-c", "cat; echo to-error >&2", stdin="to-input\n")
    assert done.stdout == "to-input\n"
    assert "\nto-error\n" in f"\n{done.stderr}"
    assert "Receipt" in done.stderr


def test_arguments_are_not_read_by_us(run: Run) -> None:
    """Options after `--` are the command's, `--json` and `--help` included."""
    done = run("sh", "-c", 'echo "$@"', "sh", "--json", "--help", "-h")
    assert done.stdout == "--json --help -h\n"


def test_the_environment_leads_to_the_service(run: Run) -> None:
    """The command sees the service's URL and a key of the run; the user's own credentials are gone."""
    own = {
        "ANTHROPIC_API_KEY": "own-1",
        "CLAUDE_CODE_OAUTH_TOKEN": "own-2",
        "AWS_BEARER_TOKEN_BEDROCK": "own-3",
        "ANTHROPIC_CUSTOM_HEADERS": "x: own-4",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://own-5",
        "KEEP_ME": "kept",
    }
    done = run("env", options=("--agent", "claude-code"), **own)
    seen = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    assert seen["ANTHROPIC_BASE_URL"].startswith("http://127.0.0.1:")
    assert seen["ANTHROPIC_AUTH_TOKEN"].startswith("bailee_")
    assert seen["OTEL_EXPORTER_OTLP_ENDPOINT"] == seen["ANTHROPIC_BASE_URL"]
    assert seen["CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"] == "1"
    assert "127.0.0.1" in seen["NO_PROXY"]
    assert seen["KEEP_ME"] == "kept"
    assert "own-" not in done.stdout
    left = run("env", options=("--agent", "claude-code", "--nonessential"), **own).stdout
    assert "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=http://own-5" in left
    assert "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC" not in left


def test_the_key_is_on_no_command_line_and_ends_with_the_run(run: Run) -> None:
    """The key is in the environment only, is revoked afterwards, and is on disk as a digest."""
    look = "tr '\\0' ' ' < /proc/$PPID/cmdline; echo; echo $ANTHROPIC_AUTH_TOKEN"
    line, key = run("sh", "-c", look).stdout.splitlines()
    assert "bailee run" in line
    assert key not in line
    directory = open_directory(run.home)
    assert [one.revoked_ms is not None for one in list_keys(directory)] == [True]
    directory.engine.dispose()
    assert find_bytes(run.home, key.encode(), key.rpartition("_")[2].encode()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_reach_the_command(run: Run, number: signal.Signals) -> None:
    """A signal for `bailee run` is the command's; it decides how to end, and the receipt follows."""
    script = (
        "import signal, sys, time\n"
        f"signal.signal({int(number)}, lambda *_: sys.exit(42))\n"
        "print('ready', flush=True)\n"
        "time.sleep(30)\n"
    )
    process = subprocess.Popen(
        run.command(sys.executable, "-c", script),
        env=clean_environment(run.folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 42
    assert "Receipt" in errors


def test_a_command_ended_by_a_signal(run: Run) -> None:
    """128 and the signal's number, as a shell says it."""
    assert run("sh", "-c", "kill -KILL $$").returncode == 128 + signal.SIGKILL


def test_nothing_is_left_running(run: Run) -> None:
    """The service that was started for the run ends with it."""
    run("true")
    assert find_running(run.home) is None
    assert not (run.home / "service.json").exists()


def test_a_running_service_is_found_and_left(run: Run) -> None:
    """Where a service runs on the home it is used, and goes on; another upstream than its own is an error."""
    with serving(run.home, run.folder, "--upstream", "rehearsal") as service:
        done = run("sh", "-c", "echo $ANTHROPIC_BASE_URL")
        assert done.stdout.strip() == service.url
        assert find_running(run.home) is not None
        other = run("true", options=("--upstream", "anthropic"))
        assert other.returncode == 2
        assert "is running on this home" in other.stderr


def test_a_settings_file_that_leads_past_it_is_refused(run: Run) -> None:
    """A repository that brings its own base URL does not get the conversation: nothing is started."""
    settings = run.folder / ".claude" / "settings.json"
    settings.parent.mkdir()
    settings.write_text(json.dumps({"env": {"ANTHROPIC_BASE_URL": "https://elsewhere.example"}}))
    done = run("echo", "started", options=("--agent", "claude-code"))
    assert done.returncode == 2
    assert done.stdout == ""
    assert str(settings) in done.stderr
    assert "take ANTHROPIC_BASE_URL out" in done.stderr
    settings.write_text("{")
    unreadable = run("echo", "started", options=("--agent", "claude-code"))
    assert (unreadable.returncode, unreadable.stdout) == (2, "")
    settings.write_text("{}")
    assert run("echo", "started", options=("--agent", "claude-code")).stdout == "started\n"


def test_the_agent_killed_leaves_a_marked_session_in_the_receipt(run: Run) -> None:
    """When the command is killed in the middle of an answer, the receipt says that its agent left."""
    process = subprocess.Popen(
        run.command(sys.executable, "-c", SDK, "rehearse stall"),
        env=clean_environment(run.folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )

    def is_asking() -> bool:
        return (run.home / "vault").exists() and bool(read_exchanges(run.home))

    wait_for("the request", is_asking)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert run.told["flows"][0]["outcomes"] == {"client_gone": 1}


def test_killed_itself_it_leaves_what_the_documentation_says(run: Run) -> None:
    """SIGKILL on `bailee run`: its service lives on until ended, the key is in force until revoked."""
    process = subprocess.Popen(
        run.command("sleep", "30"),
        env=clean_environment(run.folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    running = wait_for("the service", lambda: find_running(run.home))

    def has_key() -> bool:
        directory = open_directory(run.home)
        try:
            return bool(list_keys(directory))
        finally:
            directory.engine.dispose()

    wait_for("the key", has_key)
    process.kill()
    process.wait()
    try:
        directory = open_directory(run.home)
        assert [one.revoked_ms for one in list_keys(directory)] == [None]
        directory.engine.dispose()
        assert find_running(run.home) == running
    finally:
        os.kill(running.pid, signal.SIGTERM)
        wait_for("the service's end", lambda: find_running(run.home) is None)
