"""What a program that was forked starts of `bailee`, forked as well, without the 0.3 s of its imports.

A recorder, a sweeper, a driver and the service of a run are started by `python -m`. A process that did
nothing yet waits beside each program for that: it makes a copy of itself, of which the program is the parent
(clone(2), CLONE_PARENT), and which gets the arguments, environment, folder and descriptors that it would have
had, and its own command line (proc_pid_cmdline(5)). What a test starts by Python itself, because something
runs first there, starts all of this by Python too.
"""

import array
import asyncio
import contextlib
import ctypes
import fcntl
import inspect
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

# Programs that start any of it; the rest need nobody beside them.
STARTERS = frozenset({"up", "run", "code", "cloud"})
MODULES = frozenset({"bailee", "bailee.vault.recorder", "bailee.vault.sweeper"})
# Room for the command line of whatever is forked, in that of the process that forks.
ROOM = 4096
_CLONE_PARENT = 0x00008000
_CLONE = {"x86_64": 56, "aarch64": 220}.get(platform.machine())  # of the kernel's system calls
_ABOVE = 600  # no descriptor that is handed on has such a number
_PID_BYTES = 8
_execute_child: Callable[..., None] = subprocess.Popen._execute_child  # type: ignore[attr-defined]
_create_subprocess_exec = asyncio.create_subprocess_exec
_SIGNATURE = inspect.signature(_execute_child)


class Sibling(msgspec.Struct):
    """What is started.

    Attributes:
        command: as the kernel tells it of the process.
        targets: the numbers that the descriptors, sent in this order, have there.
    """

    module: str
    arguments: list[str]
    command: list[str]
    environment: dict[str, str]
    folder: str
    is_session: bool
    mask: int
    targets: list[int]


def prepare(become: Callable[[Sibling], None]) -> None:
    """Have a process wait beside this one, which has no threads yet, and start `bailee` through it.

    Args:
        become: runs what is started, in its process, and does not return.
    """
    if _CLONE is None:
        return
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        _wait(theirs, become)
    theirs.close()
    lock = threading.Lock()

    def start(process: "subprocess.Popen[Any]", *given: Any, **named: Any) -> None:
        asked = _SIGNATURE.bind(process, *given, **named).arguments
        pid = None
        if (sibling := _read(asked)) is not None:
            streams = [asked[name] for name in ("p2cread", "c2pwrite", "errwrite")]
            streams = [number if one == -1 else one for number, one in enumerate(streams)]
            with lock:
                pid = _ask(ours, sibling, [*streams, *sibling.targets[3:]])
        if pid is None:
            _execute_child(process, *given, **named)
            return
        process.pid = pid
        process._child_created = True  # type: ignore[attr-defined]
        ends = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        process._close_pipe_fds(*[asked[name] for name in ends])  # type: ignore[attr-defined]

    subprocess.Popen._execute_child = start  # type: ignore[attr-defined]
    asyncio.create_subprocess_exec = _start_beside_a_loop


class _Process:
    """What `asyncio.create_subprocess_exec` gives, without pipes."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self.pid = process.pid
        self.kill = process.kill
        self.terminate = process.terminate
        self.send_signal = process.send_signal

    @property
    def returncode(self) -> int | None:
        return self._process.poll()

    async def wait(self) -> int:
        if sys.platform == "linux" and self._process.poll() is None:
            loop, ended, descriptor = asyncio.get_running_loop(), asyncio.Event(), os.pidfd_open(self.pid)
            loop.add_reader(descriptor, ended.set)
            try:
                await ended.wait()
            finally:
                loop.remove_reader(descriptor)
                os.close(descriptor)
        return self._process.wait()


async def _start_beside_a_loop(*command: Any, **named: Any) -> Any:
    """Start what has no pipes by `subprocess`: uvloop has a start of its own."""
    streams = [named.get(name) for name in ("stdin", "stdout", "stderr")]
    if subprocess.PIPE in streams:
        return await _create_subprocess_exec(*command, **named)
    return _Process(subprocess.Popen(list(command), **named))  # noqa: ASYNC220 - it does not wait


def _read(asked: dict[str, Any]) -> Sibling | None:
    """Tell what is started, if it is of this project and nothing about its start is out of the ordinary."""
    if asked["executable"] or asked["preexec_fn"] or asked["shell"] or not asked["close_fds"]:
        return None
    if not isinstance(asked["args"], list) or asked["process_group"] != -1 or asked["umask"] != -1:
        return None
    command = [os.fsdecode(word) for word in asked["args"]]
    rest = [word for word in command[1:3] if word != "-P"] + command[3:]
    if command[0] != sys.executable or rest[:1] != ["-m"] or rest[1] not in MODULES:
        return None
    environment = dict(os.environ if asked["env"] is None else asked["env"])
    if any(name.startswith("PYTHON") for name in environment):
        return None
    status = Path("/proc/self/status").read_text()
    return Sibling(
        rest[1],
        rest[2:],
        command,
        environment,
        os.fsdecode(asked["cwd"] or Path.cwd()),
        bool(asked["start_new_session"]),
        int(status.partition("\nUmask:")[2].split()[0], 8),
        [0, 1, 2, *sorted(asked["pass_fds"])],
    )


def _ask(channel: socket.socket, sibling: Sibling, descriptors: Sequence[int]) -> int | None:
    try:
        written = msgspec.json.encode(sibling)
        # An environment may be larger than a packet: it goes through a file.
        with tempfile.TemporaryFile(buffering=0) as file:
            file.write(written)
            rights = array.array("i", [file.fileno(), *descriptors])
            channel.sendmsg([b"start"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        told = channel.recv(_PID_BYTES)
    except (OSError, UnicodeEncodeError):
        return None  # nobody waits there any more, or it is no text: Python starts it
    return int.from_bytes(told, "big") or None


def _wait(channel: socket.socket, become: Callable[[Sibling], None]) -> None:
    """Make copies of this process for as long as its program is there."""
    os.chdir("/")  # a moment longer than its program it may be there, and keeps no disk from being taken away
    tell_command(["waits", "beside", str(os.getppid())])  # it is none of what tests look for
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    kept = channel.fileno()
    for descriptor in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if descriptor != kept:
            with contextlib.suppress(OSError):
                os.close(descriptor)
    for _ in range(3):
        if (nothing := os.open(os.devnull, os.O_RDWR)) > 2:
            os.close(nothing)
    while True:
        try:
            data, descriptors, _, _ = socket.recv_fds(channel, 16, 64)
        except OSError:
            data = b""
        if not data:
            os._exit(0)
        sibling = msgspec.json.decode(os.pread(descriptors[0], 1 << 26, 0), type=Sibling)
        pid = _copy()
        if pid == 0:
            channel.close()
            _settle(sibling, descriptors[0], descriptors[1:])
            become(sibling)
        for descriptor in descriptors:
            os.close(descriptor)
        # The last word: whoever waits for a lock must not find it held here.
        with contextlib.suppress(OSError):
            channel.send(max(pid, 0).to_bytes(_PID_BYTES, "big"))


def _copy() -> int:
    """Do what `os.fork` does, for a child of our parent."""
    python, system = ctypes.pythonapi, ctypes.PyDLL(None)
    flags = ctypes.c_ulong(_CLONE_PARENT | signal.SIGCHLD)
    zero = ctypes.c_ulong(0)
    python.PyOS_BeforeFork()
    pid: int = system.syscall(ctypes.c_long(_CLONE or 0), flags, zero, zero, zero, zero)
    if pid == 0:
        python.PyOS_AfterFork_Child()
    else:
        python.PyOS_AfterFork_Parent()
    return pid


def _settle(sibling: Sibling, file: int, descriptors: Sequence[int]) -> None:
    """Give this process what its program would have had."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.close(file)
    moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, _ABOVE) for descriptor in descriptors]
    for descriptor in descriptors:
        os.close(descriptor)
    for number, descriptor in zip(sibling.targets, moved, strict=True):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.umask(sibling.mask)
    if sibling.is_session:
        os.setsid()
    tell_command(sibling.command)


def tell_command(command: Sequence[str]) -> None:
    """Have the kernel tell another command line of this process than that of the one that forks."""
    # Source: proc_pid_stat(5), fields 48 and 49.
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    first, last = int(fields[45]), int(fields[46])
    written = b"\0".join(map(os.fsencode, command))[: last - first - 1]
    ctypes.memset(first, 0, last - first)
    ctypes.memmove(first, written, len(written))
