"""`bailee run`: the command's own behaviour, an environment that leads to the service, and a receipt."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bailee.accounts.directory import open_directory
from bailee.accounts.keys import list_keys, revoke_key
from bailee.cli.run import find_manifests, make_environment
from bailee.policy.periods import Period
from bailee.policy.plans import Plan, Provider
from bailee.service.running import find_running, is_held
from bailee.service.serving import SWEEP_SECONDS
from counterparts.holdings import find_bytes, read_exchanges
from counterparts.programs import run_program
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
        environment = clean_environment(self.folder, **environment)
        return run_program(
            *self.command(*command, options=options)[3:],
            environment=environment,
            folder=self.folder,
            given=stdin,
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
    flow, log = told["flows"]
    assert (log["flow"], log["retention"]) == ("web", "30d")
    assert (flow["flow"], flow["destination"], flow["exchanges"]) == ("messages", "rehearsal", 1)
    assert flow["outcomes"] == {"complete": 1}
    assert (flow["retention"], flow["trainable"]) == ("30d", False)
    assert flow["sent_bytes"] > 0 < flow["received_bytes"]
    assert flow["stored_bytes"] > 0
    (erase,) = told["erase"]
    assert erase in done.stderr
    assert "the kernel's count agrees" in done.stderr
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


@pytest.mark.parametrize("command", ["no-such-command", "./no-such-command"])
def test_a_command_that_is_not_there(run: Run, command: str) -> None:
    """127, as a shell says it, with what mends it; and nothing is made for it: no account, no receipt."""
    done = run(command)
    assert done.returncode == 127
    assert (done.stdout, done.stderr.count("not found")) == ("", 1)
    where, fix = ("PATH", "install it") if command == "no-such-command" else (command, "name a file")
    assert f"  where: {where}\n  fix:   {fix}" in done.stderr
    assert not run.home.exists()
    assert not run.receipt.exists()


def test_a_command_that_shows_itself_missing_only_where_it_is_started(run: Run) -> None:
    """Control: a file that is there, with an interpreter that is not, is told by whoever starts it."""
    script = run.folder / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    done = run(str(script))
    assert done.returncode == 127
    assert "script: not found" in done.stderr
    assert "Traceback" not in done.stderr
    assert run.told["exit_status"] == 127


def test_a_command_is_found_wherever_it_would_be_started_from(run: Run) -> None:
    """By a path from the working folder, and on a PATH of the user's own."""
    folder = run.folder / "programs"
    folder.mkdir()
    (folder / "tool").write_text("#!/bin/sh\necho here\n")
    (folder / "tool").chmod(0o755)
    assert run("programs/tool").stdout == "here\n"
    assert run("tool", PATH=f"{folder}:{os.environ['PATH']}").stdout == "here\n"


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


@pytest.mark.parametrize(
    ("options", "parent", "started_by"),
    [(("--confine",), "1", "init.py"), (("--unenforced",), "$PPID", "bailee run")],
)
def test_the_key_is_on_no_command_line_and_ends_with_the_run(
    run: Run, options: tuple[str, ...], parent: str, started_by: str
) -> None:
    """The key is in the environment only, is revoked afterwards, and is on disk as a digest."""
    look = f"tr '\\0' ' ' < /proc/{parent}/cmdline; echo; echo $ANTHROPIC_AUTH_TOKEN"
    started = subprocess.run(
        run.command("sh", "-c", look, options=options),
        cwd=run.folder,
        env=clean_environment(run.folder),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    line, key = started.stdout.splitlines()
    assert started_by in line
    assert key not in line
    directory = open_directory(run.home)
    assert [one.revoked_ms is not None for one in list_keys(directory)] == [True]
    directory.close()
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


def start(run: Run, *command: str, **more: Any) -> subprocess.Popen[str]:
    """Start a run and let it go on."""
    return subprocess.Popen(
        run.command(*command, **more),
        cwd=run.folder,
        env=clean_environment(run.folder),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def keys_in_force(home: Path) -> int:
    """Count the keys that a service would take."""
    directory = open_directory(home)
    try:
        return len([key for key in list_keys(directory) if key.revoked_ms is None])
    finally:
        directory.close()


# Says where the service is, waits for a line, and then asks the model.
PATIENT = f"import os\nprint(os.environ['ANTHROPIC_BASE_URL'], flush=True)\ninput()\n{SDK}"


def test_runs_share_a_service_until_the_last_has_ended(run: Run) -> None:
    """The run that started the service may end first: the other's agent goes on, and its receipt is whole."""
    first = start(run, sys.executable, "-c", PATIENT, "rehearse greet")
    assert first.stdout is not None
    url = first.stdout.readline()
    second = start(run, sys.executable, "-c", PATIENT, "rehearse greet")
    assert second.stdout is not None
    assert second.stdout.readline() == url
    first.communicate("\n", timeout=60)
    assert first.returncode == 0
    assert find_running(run.home) is not None
    time.sleep(2 * SWEEP_SECONDS)
    answer, errors = second.communicate("\n", timeout=60)
    assert second.returncode == 0, errors
    assert answer.startswith("Hello. I am the rehearsal model")
    assert run.told["flows"][0]["outcomes"] == {"complete": 1}
    assert find_running(run.home) is None
    assert keys_in_force(run.home) == 0


def test_many_runs_begin_a_home_at_once(run: Run) -> None:
    """On a new home they make one account and one service between them, and each does its work."""
    many = [start(run, sys.executable, "-c", PATIENT, "rehearse greet") for _ in range(4)]
    urls = set()
    for one in many:
        assert one.stdout is not None
        urls.add(one.stdout.readline())
    assert len(urls) == 1
    assert urls != {""}
    for one in many:
        answer, errors = one.communicate("\n", timeout=60)
        assert one.returncode == 0, errors
        assert answer.startswith("Hello")
    # Each had one exchange with the model, and a log of its connections.
    assert Counter(one.flow for one in read_exchanges(run.home)) == {"messages": 4, "web": 4}
    assert find_running(run.home) is None


def test_who_looks_does_not_stop_a_service_from_starting(run: Run) -> None:
    """A service starts while others look whether one runs; a state file left behind is not believed."""
    run.home.mkdir(mode=0o700)
    (run.home / "service.lock").touch()
    (run.home / "service.json").write_text('{"url": "http://127.0.0.1:1", "pid": 1, "upstream": "rehearsal"}')
    looking = (
        "import sys, pathlib; from bailee.service.running import find_running\n"
        "while True:\n    find_running(pathlib.Path(sys.argv[1]))\n"
    )
    lookers = [subprocess.Popen([sys.executable, "-c", looking, str(run.home)]) for _ in range(2)]
    try:
        assert find_running(run.home) is None
        with serving(run.home, run.folder, "--upstream", "rehearsal") as service:
            running = find_running(run.home)
            assert running is not None
            assert running.url == service.url
    finally:
        for looker in lookers:
            looker.kill()
            looker.wait()


def kill_in_the_middle(run: Run) -> None:
    """Kill a run (SIGKILL) once its command is at work."""
    process = start(run, "sh", "-c", "echo $$; exec sleep 60")
    assert process.stdout is not None
    agent = int(process.stdout.readline())
    process.kill()
    process.wait()
    os.kill(agent, signal.SIGKILL)
    process.communicate()


def test_killed_itself_its_key_and_its_service_end(run: Run) -> None:
    """SIGKILL on `bailee run`: within moments its key is revoked and the service it had started is gone."""
    kill_in_the_middle(run)
    wait_for("the service's end", lambda: not is_held(run.home), 15)
    assert keys_in_force(run.home) == 0
    assert list((run.home / "runs").iterdir()) == []


@pytest.mark.parametrize("is_protected", [True, False], ids=["protected", "control"])
def test_killed_itself_it_leaves_no_key_with_a_service_that_stays(run: Run, is_protected: bool) -> None:
    """A service that was there before goes on, and revokes the key; one that does not sweep leaves it."""
    changes = "" if is_protected else "import bailee.service.runs\nbailee.service.runs.sweep = lambda _: 0\n"
    with serving(run.home, run.folder, "--upstream", "rehearsal", changes=changes) as service:
        kill_in_the_middle(run)
        time.sleep(3 * SWEEP_SECONDS)
        assert keys_in_force(run.home) == (0 if is_protected else 1)
        assert service.process.poll() is None
    run("true")  # the next run sweeps as well
    assert keys_in_force(run.home) == 0


def test_another_address_of_the_same_kind_is_another_upstream(run: Run) -> None:
    """`compatible=A` that runs is not taken for `compatible=B`; written otherwise, A is still A."""
    options = ("--upstream", "compatible=http://127.0.0.1:9", "--upstream-credential", "none")
    with serving(run.home, run.folder, *options):
        other = run("echo", "started", options=("--upstream", "compatible=http://127.0.0.1:10"))
        assert (other.returncode, other.stdout) == (2, "")
        assert "at http://127.0.0.1:9 is running" in other.stderr
        same = run("echo", "started", options=("--upstream", "compatible=HTTP://127.0.0.1:9/"))
        assert same.stdout == "started\n", same.stderr


SECRETS = {
    "BAILEE_UPSTREAM_KEY": "own-1",
    "ANTHROPIC_API_KEY": "own-2",
    "CLAUDE_CODE_OAUTH_TOKEN": "own-3",
    "CLAUDE_CODE_USE_BEDROCK": "own-4",
    "ANTHROPIC_FOUNDRY_BASE_URL": "own-5",
    "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": "own-6",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "own-7",
}


@pytest.mark.parametrize("agent", [(), ("--agent", "claude-code")], ids=["unknown", "claude-code"])
def test_the_operators_key_stays_with_the_service(run: Run, agent: tuple[str, ...]) -> None:
    """The upstream's key reaches no agent, and a command nobody declares loses what any agent would."""
    seen = run("env", options=agent, **SECRETS, AWS_REGION="here").stdout
    assert "own-" not in seen
    assert "AWS_REGION=here" in seen
    assert "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1" in seen


def test_cloud_credentials_are_the_operators_where_the_upstream_is_that_cloud() -> None:
    """With Bedrock as the upstream AWS credentials are taken out; else they are left for tools."""
    inherited = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "here"}
    told = {"url": "http://127.0.0.1:1", "key": "k", "account": "a", "nonessential": False}
    manifests = find_manifests("claude-code", "claude")
    left = make_environment(manifests, inherited, provider=Provider.BEDROCK, **told)  # type: ignore[arg-type]
    assert {name for name in left if name.startswith("AWS_")} == {"AWS_REGION"}
    left = make_environment(manifests, inherited, provider=Provider.ANTHROPIC, **told)  # type: ignore[arg-type]
    assert inherited.items() <= left.items()


def test_a_switch_set_back_by_a_file_is_refused(run: Run) -> None:
    """A file that blanks the switch which the receipt relies on is refused; with another value it is not."""
    settings = run.folder / ".claude" / "settings.json"
    settings.parent.mkdir()
    name = "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"
    settings.write_text(json.dumps({"env": {name: ""}}))
    done = run("echo", "started", options=("--agent", "claude-code"))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"take {name} out" in done.stderr
    assert run("echo", "started", options=("--agent", "claude-code", "--nonessential")).returncode == 0
    settings.write_text(json.dumps({"env": {name: "0"}}))
    assert run("echo", "started", options=("--agent", "claude-code")).stdout == "started\n"


def test_telemetry_may_go_elsewhere_where_it_is_left_alone(run: Run) -> None:
    """A file with another telemetry endpoint is refused, unless `--nonessential` leaves telemetry alone."""
    settings = run.folder / ".claude" / "settings.json"
    settings.parent.mkdir()
    settings.write_text(json.dumps({"env": {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://elsewhere.test"}}))
    assert run("true", options=("--agent", "claude-code")).returncode == 2
    assert run("true", options=("--agent", "claude-code", "--nonessential")).returncode == 0


def test_the_account_that_is_made_is_told(run: Run) -> None:
    """The first run says which account and plan it made and how to have another; the next says nothing."""
    first = run("true").stderr
    assert "made the account me, plan api" in first
    assert "bailee accounts add" in first
    assert "made the account" not in run("true").stderr


def test_without_a_key_the_way_to_try_it_is_told(run: Run) -> None:
    """Where the upstream has no key, the service's own words are given, each once, and the offline way."""
    command = [sys.executable, "-m", "bailee", "run", "--home", str(run.home), "--", "true"]
    done = subprocess.run(
        command, env=clean_environment(run.folder), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "--upstream rehearsal" in done.stderr
    assert done.stderr.count("fix:") == 1
    assert done.stderr.count("where:") <= 1
    assert "ANTHROPIC_API_KEY" in done.stderr


def test_a_receipt_that_cannot_be_written(run: Run) -> None:
    """It is told before the command starts; where it fails at the end, receipt and exit status are kept."""
    run.receipt = run.folder / "none" / "receipt.json"
    done = run("echo", "started")
    assert (done.returncode, done.stdout) == (2, "")
    assert str(run.receipt) in done.stderr
    run.receipt.parent.mkdir()
    done = run("sh", "-c", f"mkdir {run.receipt}; exit 7")
    assert done.returncode == 7
    assert "Receipt: sh for me" in done.stderr
    assert "could not be written" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_receipt_of_a_command_that_nothing_declares(run: Run) -> None:
    """It lists no flows of another agent, and says that model traffic did not pass and what is not known."""
    done = run("true")
    assert "  messages: nothing passed the service\n" in done.stderr
    assert "no manifest declares true" in done.stderr
    assert (run.told["agent"], run.told["command"], run.told["other_flows"]) == (None, "true", [])
    declared = run("true", options=("--agent", "claude-code"))
    assert "  messages: nothing passed the service\n" in declared.stderr
    assert "api.anthropic.com" not in declared.stderr
    assert "no manifest" not in declared.stderr
    assert "messages" not in [flow["flow"] for flow in run.told["other_flows"]]


def test_the_receipt_names_the_rules_in_short_lines(run: Run) -> None:
    """What decided retention and training is named, for a person and for a program, in lines that fit."""
    done = run(sys.executable, "-c", SDK, "rehearse greet", options=("--agent", "claude-code"))
    flow, _ = run.told["flows"]
    assert flow["retention_rules"] == ["retention.commercial"]
    assert flow["training_rules"] == ["training.commercial"]
    assert "kept 30d (retention.commercial), until " in done.stderr
    assert "does not train models (training.commercial)" in done.stderr
    assert "1 exchange (1 complete)" in done.stderr
    receipt = done.stderr[done.stderr.index("Receipt:") :]
    assert max(len(line) for line in receipt.splitlines()) <= 110


def test_the_receipt_names_the_accounts_own_limit(run: Run) -> None:
    """An account's shorter limit is named beside the rule of its plan."""
    directory = open_directory(run.home)
    directory.add("ada", Plan.PRO, retention=Period.days(7))
    directory.close()
    done = run(sys.executable, "-c", SDK, "rehearse greet")
    assert run.told["flows"][0]["retention_rules"] == ["retention.consumer", "limit.account"]
    assert "kept 7d (retention.consumer, limit.account)" in done.stderr


def test_a_key_revoked_meanwhile_does_not_cost_the_receipt(run: Run) -> None:
    """Where somebody revokes the run's key meanwhile, the receipt still comes, with the command's status."""
    process = start(run, "sh", "-c", "echo started; read line; exit 7")
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    directory = open_directory(run.home)
    revoke_key(directory, list_keys(directory)[0].id)
    directory.close()
    _, errors = process.communicate("\n", timeout=60)
    assert process.returncode == 7
    assert "Receipt: sh for me" in errors
