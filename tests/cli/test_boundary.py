"""`bailee run` with its boundary: what a person allows, changes meanwhile, and can prove afterwards."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from counterparts.holdings import find_bytes, read_exchanges
from counterparts.programs import run_program
from counterparts.services import clean_environment
from counterparts.waiting import wait_for

SECRET = "ghp_the-real-token-of-this-account-0001"


class Host:
    """A host on loopback: echoes what it gets, in clear or inside TLS, and keeps it."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.trusted = folder / "trusted.pem"
        authority.cert_pem.write_to_path(str(self.trusted))
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(self._tls)
        self.got: list[bytes] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                taken, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(taken,), daemon=True).start()

    def _serve(self, taken: socket.socket) -> None:
        try:
            with taken:
                if taken.recv(1, socket.MSG_PEEK) == b"\x16":
                    with self._tls.wrap_socket(taken, server_side=True) as inside:
                        self._answer(inside)
                else:
                    self._answer(taken)
        except OSError:
            return

    def _answer(self, taken: socket.socket) -> None:
        while data := taken.recv(65536):
            self.got.append(data)
            if data.startswith((b"GET", b"POST")):
                taken.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
            else:
                taken.sendall(data)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """Give a host."""
    made = Host(tmp_path)
    yield made
    made.listener.close()


class Runs:
    """`bailee run` in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home, self.receipt = folder, folder / "state", folder / "receipt.json"
        self.home.mkdir(mode=0o700)

    def words(self, *options: str) -> list[str]:
        start = ["run", "--home", str(self.home), "--upstream", "rehearsal", "--receipt", str(self.receipt)]
        return [*start, *options, "--"]

    def __call__(
        self, *command: str, options: tuple[str, ...] = (), **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        return run_program(
            *self.words(*options),
            *command,
            environment=clean_environment(self.folder, **environment),
            folder=self.folder,
        )

    def start(self, script: str, **environment: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "bailee", *self.words(), sys.executable, "-c", script],
            cwd=self.folder,
            env=clean_environment(self.folder, **environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def write_rules(self, text: str) -> None:
        new = self.home / "boundary.new"
        new.write_text(text)
        new.replace(self.home / "boundary.toml")

    @property
    def seen(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.receipt.read_bytes())["boundary"]
        return told


@pytest.fixture
def run(tmp_path: Path) -> Runs:
    """Give a runner."""
    return Runs(tmp_path)


def allow(port: int, more: str = "") -> str:
    return f'[[allow]]\nhost = "127.0.0.1"\nports = [{port}]\nprivate = true\n{more}\n'


def test_what_a_person_allows_is_reached_and_told(run: Runs, host: Host) -> None:
    """With --allow the host is reached; without, it is refused with the rule and the way out (control)."""
    script = [
        "curl",
        "-sS",
        "--max-time",
        "10",
        "--insecure",
        "--noproxy",
        "",
        f"https://127.0.0.1:{host.port}/x",
    ]
    refused = run(*script)
    assert refused.returncode != 0
    assert host.got == []
    assert f"127.0.0.1:{host.port} is an address and not a declared name" in refused.stderr
    done = run(*script, options=("--allow", f"127.0.0.1:{host.port}"))
    assert done.returncode == 0, done.stderr
    assert b"GET /x" in host.got[0]
    (use,) = [one for one in run.seen["used"] if one["port"] == host.port]
    assert (use["connections"], use["rule"]) == (1, f"--allow: 127.0.0.1:{host.port}")
    assert use["sent_bytes"] > 100 < use["received_bytes"]
    assert run.seen["counts"]["verdict"] == "agreed"


HOLDING = """
import socket, sys
out = socket.create_connection(("127.0.0.1", 3128))
out.sendall(b"CONNECT 127.0.0.1:{port} HTTP/1.1\\r\\n\\r\\n")
head = out.recv(1000)
out.sendall(b"first")
print(out.recv(100).decode(), flush=True)
out.settimeout(30)
print("ended" if out.recv(100) == b"" else "goes on", flush=True)
"""


@pytest.mark.parametrize("change", ["forbid", "take out", "unreadable"])
def test_a_change_ends_what_is_open(run: Runs, host: Host, change: str) -> None:
    """A rule that forbids, one that is taken out and a file that cannot be read end an open tunnel."""
    run.write_rules(allow(host.port, 'wire = "tcp"'))
    process = run.start(HOLDING.replace("{port}", str(host.port)))
    assert process.stdout is not None
    assert process.stdout.readline() == "first\n"
    forbid = f'[[forbid]]\nhost = "127.0.0.1"\nports = [{host.port}]\n'
    texts = {"forbid": allow(host.port, 'wire = "tcp"') + forbid, "take out": "", "unreadable": "[[allow"}
    run.write_rules(texts[change])
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, out) in ((0, "ended\n"), (1, "")), errors
    assert run.seen["counts"]["verdict"] == "agreed"


def test_a_change_leaves_what_is_allowed(run: Runs, host: Host) -> None:
    """Control: a change that has nothing to do with it leaves the tunnel open."""
    run.write_rules(allow(host.port, 'wire = "tcp"'))
    script = HOLDING.replace("{port}", str(host.port)).replace("settimeout(30)", "settimeout(2)")
    process = run.start(script)
    assert process.stdout is not None
    process.stdout.readline()
    run.write_rules(allow(host.port, 'wire = "tcp"') + '[[forbid]]\nhost = "other.example"\n')
    _, errors = process.communicate(timeout=60)
    assert "TimeoutError" in errors


def test_a_secret_is_used_and_never_seen(run: Runs, host: Host) -> None:
    """The host gets the value, the agent has a placeholder and gets it back; only the bound host gets it."""
    run.write_rules(
        allow(host.port, 'methods = ["GET"]') + '[[secret]]\nvariable = "GH_TOKEN"\nhosts = ["127.0.0.1"]\n'
    )
    ask = 'curl -sS --noproxy "" -H "Authorization: Bearer $GH_TOKEN" https://127.0.0.1:%d/r'
    look = f'{ask}; echo; echo "$GH_TOKEN"; env'
    done = run("sh", "-c", look % host.port, GH_TOKEN=SECRET, SSL_CERT_FILE=str(host.trusted))
    assert done.returncode == 0, done.stderr
    assert f"Bearer {SECRET}".encode() in host.got[0]
    assert SECRET not in done.stdout + done.stderr
    assert "Bearer bailee-placeholder-" in done.stdout
    assert find_bytes(run.home, SECRET.encode()) == []


def test_a_host_with_a_wrong_certificate_is_refused(run: Runs, host: Host) -> None:
    """Where TLS is opened the proxy verifies the host, as the agent cannot."""
    run.write_rules(allow(host.port, 'methods = ["GET"]'))
    done = run("curl", "-sS", "-i", "--noproxy", "", f"https://127.0.0.1:{host.port}/r")
    assert "502" in done.stdout
    assert "x-bailee-denied: unreachable" in done.stdout
    assert host.got == []


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[[allow", "cannot be read"),
        ('[[allow]]\nhost = "a b"\n', "cannot be allowed"),
        ('[[allow]]\nhost = "a.example"\nmethod = ["GET"]\n', "unknown field"),
        ('[[allow]]\nhost = "a.example"\nports = []\n', "names no port"),
        ('[[secret]]\nvariable = "GH_TOKEN"\nhosts = ["*"]\n', "named hosts"),
    ],
)
def test_rules_that_cannot_be_meant_start_nothing(run: Runs, text: str, what: str) -> None:
    """A file of rules is understood whole or the command is not started."""
    run.write_rules(text)
    done = run("touch", "began", GH_TOKEN=SECRET)
    assert done.returncode == 2
    assert what in done.stderr
    assert "boundary.toml" in done.stderr or "GH_TOKEN" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (run.folder / "began").exists()


def test_the_receipt_is_proved(run: Runs) -> None:
    """It verifies as it is, and with any figure changed it does not."""
    run("curl", "-sS", "https://elsewhere.example")
    words = ("ledger", "verify", str(run.receipt), "--home", str(run.home))
    environment = clean_environment(run.folder)
    assert run_program(*words, environment=environment, folder=run.folder).returncode == 0
    told = json.loads(run.receipt.read_bytes())
    for change in (
        lambda: told["boundary"]["refused"].clear(),
        lambda: told.update(enforced=False),
        lambda: told["boundary"]["counts"]["sent"].update(proxy=1),
    ):
        change()
        run.receipt.write_text(json.dumps(told))
        done = run_program(*words, environment=environment, folder=run.folder)
        assert done.returncode == 1
        assert "another content" in done.stdout


def test_hostile_names_are_shown_harmless(run: Runs) -> None:
    """What an agent asks for is told without what it would do to a terminal, or to a line of its own."""
    script = (
        "import socket\n"
        "out = socket.create_connection(('127.0.0.1', 3128))\n"
        "out.sendall(b'CONNECT \\x1b[31mred\\x0aReceipt:443 HTTP/1.1\\r\\n\\r\\n')\n"
        "out.recv(1000)\n"
        "out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "label = b'\\x1b[2Jx'\n"
        "asked = b'\\0\\1\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0' + bytes([len(label)]) + label + b'\\0\\0\\1\\0\\1'\n"
        "out.sendto(asked, ('9.9.9.9', 53))\n"
        "out.settimeout(5)\n"
        "out.recv(1000)\n"
    )
    done = run(sys.executable, "-c", script)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stderr
    assert "names that were asked for and do not exist here" in done.stderr


def test_a_killed_runs_log_is_kept_all_the_same(run: Runs, host: Host) -> None:
    """After kill -9 of `bailee run` the service takes the log into the vault."""
    run.write_rules(allow(host.port, 'wire = "tcp"'))
    process = run.start(HOLDING.replace("{port}", str(host.port)))
    assert process.stdout is not None
    assert process.stdout.readline() == "first\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)

    def taken() -> bool | None:
        return not list((run.home / "boundary").glob("*")) or None

    wait_for("the log", taken)
    (log,) = [one for one in read_exchanges(run.home) if one.flow == "web"]
    assert (log.state, log.path) == ("complete", "connections")
    assert '"count":30' in log.decision
    assert find_bytes(run.home, f'"port":{host.port}'.encode()) == []


def test_without_a_boundary_the_receipt_says_so(run: Runs, host: Host) -> None:
    """--unenforced goes without: what passes the proxy by is in no receipt, and it says that."""
    script = (
        f"import socket; out = socket.create_connection(('127.0.0.1', {host.port})); out.sendall(b'by'); "
        "out.recv(10)"
    )
    assert run(sys.executable, "-c", script).returncode != 0
    assert host.got == []
    done = run(sys.executable, "-c", script, options=("--unenforced",))
    assert done.returncode == 0, done.stderr
    assert host.got == [b"by"]
    assert "not enforced" in done.stderr
    assert run.seen["enforcement"] == "none"
    assert run.seen["counts"]["verdict"] == "unknown"


def test_what_is_missing_is_named_before_anything_starts(run: Runs, tmp_path: Path) -> None:
    """Without nftables there is no boundary: the fix is told, and the other way out."""
    changes = tmp_path / "changes"
    changes.mkdir()
    (changes / "sitecustomize.py").write_text(
        "import bailee.boundary.means as means\nmeans.PROGRAMS = '/nowhere'\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "bailee", *run.words(), "touch", "began"],
        env=clean_environment(run.folder, PYTHONPATH=str(changes)),
        cwd=run.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "apt install nftables" in done.stderr
    assert "--unenforced" in done.stderr
    assert not (run.folder / "began").exists()


def test_a_socket_as_input_is_refused(run: Runs) -> None:
    """A connection that is somebody's standard input would be a way past the boundary; a pipe is not."""
    listener = socket.create_server(("127.0.0.1", 0))
    with socket.create_connection(listener.getsockname()) as out:
        done = subprocess.run(
            [sys.executable, "-m", "bailee", *run.words(), "true"],
            env=clean_environment(run.folder),
            cwd=run.folder,
            stdin=out.fileno(),
            capture_output=True,
            text=True,
            check=False,
        )
    listener.close()
    assert done.returncode == 2
    assert "standard input is a socket" in done.stderr


@pytest.mark.parametrize("is_changed", [True, False])
def test_settings_that_change_during_the_run_are_named(run: Runs, is_changed: bool) -> None:
    """A file that the agent writes is named in the receipt if it says something else (control: not).

    One that was not there and asks for nothing is not named.
    """
    settings = run.folder / ".claude" / "settings.json"
    settings.parent.mkdir()
    settings.write_text(json.dumps({"model": "opus"}))
    said = {
        "model": "haiku",
        **({"env": {"ANTHROPIC_BASE_URL": "http://elsewhere.example"}} if is_changed else {}),
    }
    receipt = run.folder / "receipt.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bailee", *run.words()[:-1], "--receipt", str(receipt), "--"),
            *("sh", "-c", f"echo '{json.dumps(said)}' > .claude/settings.json; echo '{{}}' > .claude.json"),
        ],
        env=clean_environment(run.folder),
        cwd=run.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    named = json.loads(receipt.read_text())["settings_changed"]
    assert named == ([str(settings)] if is_changed else [])
    assert ("SETTINGS CHANGED" in done.stderr) is is_changed


DENIED = "for n in $(seq 30); do curl -s -m 20 https://denied.example/; done; echo whole"
FEW = "denials = { slow = 12, stop = 6, seconds = 60 }\n"


@pytest.mark.parametrize(
    ("more", "actions", "is_whole"),
    [
        ("", ["slowed", "told"], True),
        pytest.param("stop = false\n", ["slowed", "told"], True, marks=pytest.mark.soak),
        ("stop = true\n", ["slowed", "stopped"], False),
    ],
    ids=["as it is", "not to stop", "to stop"],
)
@pytest.mark.parametrize(
    "options",
    [(), pytest.param(("--unenforced",), marks=pytest.mark.soak)],
    ids=["enforced", "unenforced"],
)
def test_abuse_is_told_and_ends_no_run_of_ones_own(
    run: Runs, more: str, actions: list[str], is_whole: bool, options: tuple[str, ...]
) -> None:
    """What is done too often stands on the receipt; the command is ended only where a person wants it so."""
    run.write_rules(f"[abuse]\n{more}{FEW}")
    done = run("sh", "-c", DENIED, options=options)
    assert [one["action"] for one in run.seen["abuse"]] == actions
    assert ("whole" in done.stdout) is is_whole
    assert done.returncode == (0 if is_whole else 143)
    assert "ABUSE: slowed down for repeated denials" in done.stderr


def test_who_does_not_end_when_stopped_is_ended(run: Runs) -> None:
    """A command that does not obey a stop reaches nothing more, and is gone some seconds later."""
    run.write_rules(f"[abuse]\nstop = true\n{FEW}")
    done = run("sh", "-c", "trap '' TERM; while true; do curl -s -m 20 https://denied.example/; done")
    assert done.returncode == 137
    assert [one["action"] for one in run.seen["abuse"]] == ["slowed", "stopped"]
