"""`bailee` as a process of its own, without the second that Python takes to import all of it.

A process that has imported the program and does nothing else forks for each start. What it forks has its own
arguments, environment, folder, standard streams and session, and runs `bailee.cli.main` as `python -m bailee`
does: 0.02 s in place of 0.4 s for a small command and 3 s for the agent. Where the start itself is looked at,
or Python runs something first, a test starts Python.
"""

import array
import atexit
import contextlib
import gc
import io
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import IO

import msgspec

from counterparts import siblings

# What commands and the service import; a module that is not there only costs the time to import it later.
PRELOADED = (
    *("bailee.cli", "bailee.service.serving", "bailee.vault.custody", "bailee.vault.reader"),
    *("bailee.accounts.keys", "bailee.accounts.directory", "bailee.cli.run", "bailee.cli.sessions"),
    *("bailee.flows.messages.rehearsal.application", "bailee.agent.work", "bailee.manifests.settings"),
    *("bailee.vault.recorder", "bailee.vault.sweeper", "bailee.cli.cloud", "bailee.service.cloud"),
    *(
        "bailee.cli.up",
        "bailee.cli.code",
        "bailee.service.oauth",
        "bailee.flows.messages.upstreams.compatible",
    ),
    *("bailee.agent.costs", "bailee.agent.printing", "bailee.agent.announcements", "kingfisher_sdk"),
    *("anyio._backends._asyncio", "uvicorn.protocols.http.auto", "uvicorn.protocols.websockets.auto"),
    *("uvicorn.lifespan.off", "httpcore2", "h11", "certifi", "truststore", "encodings.idna"),
    *("anthropic", "rich.progress", "rich.markdown", "rich.syntax", "psycopg"),
)
_STATUS = struct.Struct("i")


class Start(msgspec.Struct):
    """What a process is started with."""

    arguments: list[str]
    environment: dict[str, str]
    folder: str
    is_session: bool


class Program:
    """A process that was forked, in the terms of `subprocess.Popen`."""

    def __init__(self, pid: int, status: int, arguments: Sequence[str]) -> None:
        self.pid = pid
        self.args = arguments
        self.returncode: int | None = None
        self._status = status

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        return self._read(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return the exit code, negative for a signal.

        Raises:
            subprocess.TimeoutExpired: it has not ended in time.
        """
        code = self._read(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(list(self.args), timeout or 0.0)
        return code

    def _read(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
            told = os.read(self._status, _STATUS.size)
            assert told, "the process that forks is gone"
            self.returncode = os.waitstatus_to_exitcode(_STATUS.unpack(told)[0])
            os.close(self._status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


class _Forker:
    """The process that forks, as the tests see it; one for each process that runs tests."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            code = "from counterparts.programs import serve; serve()"
            command = [sys.executable, "-c", code + " " * siblings.ROOM]
            path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
            environment = {"PATH": os.environ["PATH"], "PYTHONPATH": path, "LANG": "C.UTF-8"}
            self._process = subprocess.Popen(
                command, stdin=theirs.fileno(), env=environment, start_new_session=True
            )
        atexit.register(self.close)

    def start(self, start: Start, streams: Sequence[int]) -> Program:
        """Fork a process."""
        ours, theirs = os.pipe()
        try:
            _send(self._socket, msgspec.json.encode(start), [*streams, theirs])
        finally:
            os.close(theirs)
        pid = int.from_bytes(self._socket.recv(8), "big")
        return Program(pid, ours, start.arguments)

    def close(self) -> None:
        """End it."""
        self._socket.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)


_forkers: dict[int, _Forker] = {}


def start_program(
    *arguments: str,
    environment: Mapping[str, str],
    folder: Path,
    stdin: IO[bytes] | int = subprocess.DEVNULL,
    stdout: IO[bytes] | int,
    stderr: IO[bytes] | int,
    is_session: bool = False,
) -> Program:
    """Start `bailee` with these arguments and nothing of the environment around the tests."""
    forker = _forkers.get(os.getpid())
    if forker is None:
        forker = _forkers[os.getpid()] = _Forker()
    start = Start(list(arguments), dict(environment), str(folder), is_session)
    with Path(os.devnull).open("r+b") as nothing:
        streams = [
            nothing.fileno() if one == subprocess.DEVNULL else one if isinstance(one, int) else one.fileno()
            for one in (stdin, stdout, stderr)
        ]
        return forker.start(start, streams)


def run_program(
    *arguments: str,
    environment: Mapping[str, str],
    folder: Path,
    given: str = "",
    seconds: float = 60.0,
) -> "subprocess.CompletedProcess[str]":
    """Run `bailee` to its end and return what it printed.

    With a PYTHONPATH in its environment Python is started, which runs something from there first.

    Raises:
        subprocess.TimeoutExpired: it has not ended in time; it is killed then.
    """
    if "PYTHONPATH" in environment:
        return subprocess.run(
            [sys.executable, "-m", "bailee", *arguments],
            env=environment,
            cwd=folder,
            input=given,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    with _file(given.encode()) as stdin, _file() as out, _file() as err:
        program = start_program(
            *arguments, environment=environment, folder=folder, stdin=stdin, stdout=out, stderr=err
        )
        try:
            code = program.wait(seconds)
        except subprocess.TimeoutExpired:
            program.kill()
            raise
        texts = [os.pread(file.fileno(), 1 << 28, 0).decode() for file in (out, err)]
    return subprocess.CompletedProcess(["bailee", *arguments], code, *texts)


def _file(data: bytes = b"") -> IO[bytes]:
    file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - whoever asked for it closes it
    file.write(data)
    file.seek(0)
    return file


def _send(sock: socket.socket, data: bytes, descriptors: Sequence[int]) -> None:
    # An environment may be larger than a packet: it goes through a file.
    with _file(data) as file:
        rights = array.array("i", [file.fileno(), *descriptors])
        sock.sendmsg([b"start"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


def serve() -> None:
    """Import the program, then fork for each request and tell how each child ended; a process of its own."""
    for name in PRELOADED:
        with contextlib.suppress(ImportError):
            import_module(name)
    gc.freeze()  # what is shared with children stays so
    # A shell ignores both for what it starts in the background, and programs would go on doing so.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    control = socket.socket(fileno=os.dup(0))
    woken, wakes = os.pipe()
    for end in (woken, wakes):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    ends: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([control.fileno(), woken], [], [])
        if woken in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(woken, 4096)
            _reap(ends)
        if control.fileno() in ready:
            data, descriptors, _, _ = socket.recv_fds(control, 16, 8)
            if not data:
                return
            start = msgspec.json.decode(os.pread(descriptors[0], 1 << 26, 0), type=Start)
            os.close(descriptors[0])
            *streams, status = descriptors[1:]
            pid = os.fork()
            if pid == 0:
                for descriptor in (status, woken, wakes, *ends.values()):
                    os.close(descriptor)
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                control.close()
                _become(start, streams)
            for descriptor in streams:
                os.close(descriptor)
            ends[pid] = status
            control.send(pid.to_bytes(8, "big"))


def _reap(ends: dict[int, int]) -> None:
    for pid in list(ends):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            end = ends.pop(pid)
            with contextlib.suppress(BrokenPipeError):
                os.write(end, _STATUS.pack(status))
            os.close(end)


def _become(start: Start, streams: Sequence[int]) -> None:
    """Run the program in this process, which ends with it."""
    if start.is_session:
        os.setsid()
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    _run(start.arguments, start.environment, start.folder)


def _become_sibling(sibling: siblings.Sibling) -> None:
    """Run what a program of ours started in this process, which ends with it."""
    _run(sibling.arguments, sibling.environment, sibling.folder, sibling.module)


def _run(
    arguments: Sequence[str], environment: Mapping[str, str], folder: str, module: str = "bailee"
) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    for name, number, mode, errors in (
        ("stdin", 0, "rb", "surrogateescape"),
        ("stdout", 1, "wb", "surrogateescape"),
        ("stderr", 2, "wb", "backslashreplace"),
    ):
        stream = io.TextIOWrapper(os.fdopen(number, mode, closefd=False), encoding="utf-8", errors=errors)
        stream.reconfigure(line_buffering=name == "stderr")
        setattr(sys, name, stream)
    run = import_module("bailee.cli" if module == "bailee" else module).main
    place = import_module("bailee.__main__" if module == "bailee" else module).__file__
    sys.argv = [str(place), *arguments]
    if module == "bailee" and siblings.STARTERS.intersection(arguments[:1]):
        siblings.prepare(_become_sibling)
    code = 0
    try:
        code = run() or 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    # What an interpreter does at its end, but for taking 2,000 modules apart, which takes 0.7 s.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for output in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            output.flush()
    os._exit(code)
