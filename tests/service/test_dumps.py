"""No core file is made of a process that conversations pass through, whatever ends it."""

import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from counterparts.services import Service, clean_environment

UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
# Negative control: the protection taken out, in the service and in its recorder.
DUMPABLE = "from bailee import dumps\ndumps.forbid_dumps = lambda: None\n"


@pytest.fixture(autouse=True)
def _quit_is_obeyed() -> Iterator[None]:
    """Have children end by SIGQUIT also where tests were started in the background, which ignores it."""
    before = signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGQUIT, before)


def start_service(folder: Path, changes: str) -> "subprocess.Popen[bytes]":
    """Start a service and wait until it answers."""
    # With something to run first it is our own child, of which the kernel tells us how it ended.
    service = Service(folder / "state", folder, "--upstream", "rehearsal", changes=changes or "pass")
    return service.wait_until_ready().process


def start_recorder(folder: Path, changes: str) -> "subprocess.Popen[bytes]":
    """Start a recorder as a service does, and wait until it can write."""
    (folder / "sitecustomize.py").write_text(changes)
    (folder / "state").mkdir(mode=0o700)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        descriptor = theirs.fileno()
        command = ["-m", "bailee.vault.recorder", "--home", str(folder / "state"), "--descriptor"]
        process = subprocess.Popen(
            [sys.executable, *command, str(descriptor)],
            pass_fds=[descriptor],
            cwd=folder,
            env=clean_environment(folder, PYTHONPATH=str(folder)),
        )
        ours.settimeout(30)
        assert ours.recv(1)
        # Its end comes by a signal, not by the end of this socket: that stays open until then.
        crash(process)
    return process


def crash(process: "subprocess.Popen[bytes]") -> None:
    """End a process by a signal that leaves a core file, with every limit on that lifted from outside."""
    resource.prlimit(process.pid, resource.RLIMIT_CORE, UNLIMITED)
    process.send_signal(signal.SIGQUIT)


def is_dumped(process: "subprocess.Popen[bytes]") -> bool:
    """Wait for a process's end and tell whether the kernel made a core file of it."""
    ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    assert process.wait() == -signal.SIGQUIT
    return ended.si_code == os.CLD_DUMPED


@pytest.mark.parametrize("start", [start_service, start_recorder])
@pytest.mark.parametrize("changes", ["", DUMPABLE], ids=["as it is", "control"])
def test_no_core_file(
    tmp_path: Path, start: Callable[[Path, str], "subprocess.Popen[bytes]"], changes: str
) -> None:
    """Even with the limit lifted by somebody else the kernel makes none; without the protection it does."""
    if changes and resource.getrlimit(resource.RLIMIT_CORE)[1] == 0 and os.geteuid() != 0:
        pytest.skip("core files are forbidden around the tests, so that the control cannot fail")
    process = start(tmp_path, changes)
    if start is start_service:
        crash(process)
    assert is_dumped(process) is bool(changes)
    for path in tmp_path.glob("core*"):
        path.unlink()  # as large as its process
