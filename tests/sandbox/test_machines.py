"""Every kind of machine keeps the same promises: one suite, run on each."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bailee.sandbox.guest import EXEC, LOOK, write_frame
from bailee.sandbox.machines import Begin, Kind, Machine, NotAnswered, Spec
from bailee.sandbox.namespaces import GUEST, Namespaces
from counterparts.machines import ENVIRONMENT, KINDS, SERVICE, Made, making

TRUE = {"command": ["true"], "folder": "/", "environment": {"PATH": "/usr/bin:/bin"}}


@pytest.fixture(params=list(KINDS), scope="module")
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """Give a machine of each kind."""
    with making(request.param, tmp_path_factory.mktemp(request.param)) as one:
        yield one


def test_a_command(made: Made) -> None:
    """What it says and what it ends with come back."""
    assert made.run("echo out; echo err >&2; exit 7") == 7
    assert made.text == "out\nerr\n"


def test_a_command_that_is_not_there(made: Made) -> None:
    """It is told as a shell tells it."""
    assert made.machine.exec(["nothing-of-that-name"], ENVIRONMENT, say=made.said.extend) == 127


def test_a_command_that_is_killed(made: Made) -> None:
    """A signal counts as a shell counts it."""
    assert made.run("kill -9 $$") == 137


def test_files_go_in_and_out(made: Made) -> None:
    """What is put can be read inside, and what is written inside can be got, bytes as they are."""
    data = os.urandom(300_000)
    made.machine.put("/session/some/where", data, mode=0o640)
    mode = 'import os; print(oct(os.stat("/session/some/where").st_mode)[-3:])'
    assert made.run(f"python3 -c '{mode}'") == 0
    assert "640" in made.text
    assert made.run("cp /session/some/where /session/some/copy && mv /session/some/copy /session/copy") == 0
    assert made.machine.get("/session/copy", most=400_000) == data


@pytest.mark.parametrize("path", ["/session/none", "/session", "/dev/zero", "/session/pipe"])
def test_what_cannot_be_got(made: Made, path: str) -> None:
    """What is missing or no file is refused, and the machine goes on."""
    made.run("test -e /session/pipe || python3 -c 'import os; os.mkfifo(\"/session/pipe\")'")
    with pytest.raises(NotAnswered):
        made.machine.get(path, most=1000)
    assert made.run("true") == 0


def test_too_much_is_not_got(made: Made) -> None:
    """A file that is larger than asked for is refused."""
    made.run("head -c 5000 /dev/zero > /session/large")
    with pytest.raises(NotAnswered):
        made.machine.get("/session/large", most=4999)
    assert len(made.machine.get("/session/large", most=5000)) == 5000


def test_much_is_said(made: Made) -> None:
    """Ten megabytes of output come whole."""
    assert made.run("head -c 10000000 /dev/zero") == 0
    assert len(made.said) == 10_000_000


def test_what_is_left_running_holds_nothing_up(made: Made) -> None:
    """A command ends when it ends, and not when what it left does."""
    begun = time.monotonic()
    assert made.run("sleep 600 & echo left") == 0
    assert made.text == "left\n"
    assert time.monotonic() - begun < 20


def test_what_is_left_running_is_cleared(made: Made) -> None:
    """When it is asked for, what a command left is gone, and what runs is not."""
    made.run("(while sleep 0.2; do echo x >> /session/left; done) & sleep 1")
    made.machine.clear()
    assert made.run("wc -c < /session/left; sleep 1.5; wc -c < /session/left") == 0
    before, after = made.text.split()
    assert before == after != "0"


def test_many_commands_one_after_the_other(made: Made) -> None:
    """What is said at the very end comes, and the channel stays in step."""
    for number in range(30 if made.isolation.kind is not Kind.VM else 5):
        assert made.run(f"echo {number}; (sleep 0.01; echo late) & exit {number}") == number
        assert made.text.startswith(f"{number}\n")


def test_the_environment_is_what_was_given(made: Made) -> None:
    """Nothing of whoever drives it is in it."""
    assert made.run("env") == 0
    names = {line.partition("=")[0] for line in made.text.splitlines()}
    assert names - {"PWD", "SHLVL", "_", "OLDPWD"} == {"PATH", "HOME"}


def test_nothing_of_the_host_is_there(made: Made, tmp_path: Path) -> None:
    """No home, no secret, no other process; the programs cannot be changed."""
    (tmp_path / "mine").write_text("canary-of-the-host")
    looks = [
        f"cat {tmp_path}/mine",
        "cat /etc/shadow",
        "cat /root/.bashrc",
        "echo x > /usr/bin/x",
        "echo x > /in-the-root",
        "echo x > /etc/ssl/private/x",
        f"kill -0 {os.getpid()}",
        "head -c 1 /dev/vda",
        "mount -t tmpfs x /mnt",
        "python3 -c 'import os; os.setuid(0); os.mknod(\"/session/n\", 0o60600, os.makedev(8, 0))'",
    ]
    # gVisor's has no size that could be set, and lies in memory that is watched.
    looks += ["echo x > /dev/in-it"] if made.isolation.kind is not Kind.CONTAINER else []
    for look in looks:
        assert made.run(look) != 0, look
    assert "canary" not in made.text


class Bare(Namespaces):
    """No machine at all: the first program runs on the host."""

    def create(self, spec: Spec, begin: Begin) -> Machine:
        """Run it where it is."""
        ours, theirs = socket.socketpair()
        with theirs:
            enclosure = begin([sys.executable, "-I", "-S", str(GUEST), "0"], theirs)
        return Machine(enclosure, ours, copy_disk=lambda target: None)


def test_without_a_machine_the_host_is_there(tmp_path: Path) -> None:
    """Control of the test above: what it looks for is found where there is no machine."""
    (tmp_path / "mine").write_text("canary-of-the-host")
    with making(Kind.NAMESPACE, tmp_path, isolation=Bare()) as bare:
        look = f"cat {tmp_path}/mine /etc/shadow && kill -0 $PPID"
        assert bare.run(look, folder=str(tmp_path)) == 0
        assert "canary" in bare.text


@pytest.mark.parametrize(
    "order", [write_frame(EXEC, 1, json.dumps(TRUE).encode()), write_frame(LOOK, 1)], ids=["exec", "look"]
)
def test_a_driver_that_is_gone_is_the_end(order: bytes) -> None:
    """Whoever is answered hears nothing any more: the machine's first program ends, and says nothing.

    What it says would stand in the log of a session that was stopped at its beginning.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        guest = subprocess.Popen(
            [sys.executable, "-I", "-S", str(GUEST), "0"],
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    with ours:
        ours.recv(100)  # that it is ready
        ours.shutdown(socket.SHUT_RD)
        ours.sendall(order)
        said, _ = guest.communicate(timeout=30)
    assert (said, guest.returncode) == (b"", 0)


def test_without_the_firewall_nothing_is_led(tmp_path: Path) -> None:
    """Control of the test below: it is the boundary's rules that lead to the proxy."""
    with making(Kind.NAMESPACE, tmp_path, has_firewall=False) as made:
        assert made.run("curl -s -m 5 http://192.0.2.1:8080/") != 0


def test_what_it_reaches(made: Made) -> None:
    """What listens on its boundary's loopback; all else is led to the proxy."""
    address = made.isolation.address
    assert made.run(f"curl -s -m 20 http://{address}:{SERVICE}/") == 0
    assert made.text == "this is service\n"
    assert made.run("curl -s -m 20 http://192.0.2.1:8080/") == 0
    assert made.text == "this is redirect\n"


def test_what_it_does_not_reach(made: Made) -> None:
    """No packet but TCP and names goes anywhere."""
    script = (
        "python3 -c 'import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(2);"
        ' s.connect(("192.0.2.1", 9)); s.send(b"x"); print(s.recv(9))\''
    )
    assert made.run(script) != 0


def test_its_disk_is_kept(made: Made, tmp_path: Path) -> None:
    """A snapshot of a disk has what was written, and another machine finds it on it."""
    assert made.run("mkdir -p /session/kept && echo canary > /session/kept/file") == 0
    target = tmp_path / "disk"
    if made.isolation.kind is Kind.VM:
        target.mkdir()
        made.machine.snapshot(target / "disk.img")
    else:
        made.machine.snapshot(target)
    with making(made.isolation.kind, tmp_path) as other:
        assert other.run("cat /session/kept/file") == 0
        assert other.text == "canary\n"


def test_two_machines_have_nothing_in_common(made: Made, tmp_path: Path) -> None:
    """Another of the kind has other random numbers, the right time, and does not see this one's disk."""
    made.run("echo secret > /session/secret")
    look = "head -c 16 /dev/urandom | od -An -tx1; date +%s.%N; cat /session/secret"
    made.run(look)
    mine = made.text.splitlines()
    with making(made.isolation.kind, tmp_path) as other:
        before = time.time()
        other.run(look)
        after = time.time()
        theirs = other.text.splitlines()
    assert mine[0] != theirs[0]
    assert before - 1 <= float(theirs[1]) <= after + 1
    assert "secret" not in theirs[2:]


@pytest.mark.parametrize("kind", KINDS)
def test_a_command_that_is_cut_off(kind: Kind, tmp_path: Path) -> None:
    """What is over ends with its machine, and nothing of it runs on."""
    with making(kind, tmp_path) as made:
        begun = time.monotonic()
        outer = made.machine.process_id
        assert made.run("sleep 600 & sleep 601", is_over=lambda: time.monotonic() > begun + 1) is None
        ended = made.machine.destroy()
        assert ended.count is not None
        with pytest.raises(ProcessLookupError):
            os.kill(outer, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_machine_that_is_killed(kind: Kind, tmp_path: Path) -> None:
    """It is told, and what it was asked is given up at once."""
    with making(kind, tmp_path) as made:
        threading.Timer(1, os.kill, (made.machine.process_id, signal.SIGKILL)).start()
        with pytest.raises(NotAnswered):
            made.run("sleep 600")
