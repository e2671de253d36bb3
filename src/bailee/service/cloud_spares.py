"""Drivers that wait: a process that has all it needs to drive a session, so that the next begins at once.

A service keeps one; whoever begins a session on the same home hands it over, by a socket that has a name and
no file (unix(7), "Abstract sockets"), so that nothing of it is left by a kill. Python's imports and asking
the package managers for their index are 0.7 s of a session's beginning that way spared.
"""

import contextlib
import hashlib
import os
import select
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from bailee import __version__
from bailee.boundary.declarations import find_index

DRIVE = [sys.executable, "-P", "-m", "bailee", "cloud", "drive"]
TAKEN = b"taken\n"
_ANSWER_SECONDS = 20.0  # to where the session is held by the one that drives it
_FRESH_SECONDS = 600.0  # so old an answer of a package manager may be
_LARGEST = 1 << 17  # bytes of an order
# The session for which the first is wanted begins at that moment: what one costs, 1 s of a core, waits.
_LATER_SECONDS = 2.0
_REST_SECONDS = 5.0  # between two spares of which the first did not come to wait
_ACCEPTS = "00010000"  # among the flags of a socket (proc_pid_net(5), "unix")
_CREDENTIALS = struct.Struct("3i")  # of a peer: process, user, group (unix(7), SO_PEERCRED)


class Handover(msgspec.Struct, frozen=True, kw_only=True):
    """A session that is to be driven, as if by a child of whoever hands it over.

    Attributes:
        version: of the program that hands it over.
        environment: that one's.
        only_saves: see `Driver.run`.
    """

    version: str
    session: str
    environment: dict[str, str]
    only_saves: bool


def hand_over(
    home: Path, session: str, lock: int, environment: Mapping[str, str], *, only_saves: bool = False
) -> bool:
    """Hand a session over to a driver that waits, and return once it drives it; False where none waits.

    Args:
        lock: what `Sessions.holding` gave; the driver holds the session by it.
    """
    order = Handover(
        version=__version__, session=session, environment=dict(environment), only_saves=only_saves
    )
    try:
        written = msgspec.json.encode(order)
    except UnicodeEncodeError:
        return False  # a variable that is no text: a child of this process has it as it is
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel:
        channel.settimeout(_ANSWER_SECONDS)
        try:
            channel.connect(_name(home))
            # Anybody on this machine may take the name; what we send is for ourselves.
            if not _is_ours(channel):
                return False
            socket.send_fds(channel, [written], [lock])
        except OSError:
            return False
        try:
            return channel.recv(1) == b"1"
        except TimeoutError:
            return True  # it has the lock, wherever it stands: a second driver would hold the session too
        except OSError:
            return False  # it has ended, and with it its hold


class Waiting:
    """A driver that waits.

    Args:
        stop: a descriptor at whose end it is wanted no longer.
    """

    def __init__(self, home: Path, stop: int) -> None:
        self._home = home
        self._stop = stop
        self._indexes: dict[str, str] = {}
        self._path = ""
        self._channel: socket.socket | None = None
        self.lock: int | None = None  # by which the session that was handed over is held

    def wait(self, prepare: Callable[[], object]) -> Handover | None:
        """Wait for a session, and return it; None when it is wanted no longer, or another waits.

        Args:
            prepare: does what else can be done before one is known.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            try:
                listener.bind(_name(self._home))
            except OSError:
                return None
            prepare()
            self._ask()
            listener.listen(8)
            while True:
                waited: list[socket.socket | int] = [listener, self._stop]
                ready = select.select(waited, [], [], _FRESH_SECONDS)[0]
                if self._stop in ready:
                    return None
                if not ready:
                    self._ask()
                elif (order := self._take(listener)) is not None:
                    return order

    def tell_driven(self) -> None:
        """Let whoever handed the session over go on."""
        if self._channel is not None:
            with self._channel, contextlib.suppress(OSError):
                self._channel.send(b"1")
            self._channel = None

    def find_index(self, name: str, environment: Mapping[str, str]) -> str:
        """Return what `find_index` does, as it was some minutes ago where nothing else is asked."""
        is_asked = set(environment) & {"PIP_INDEX_URL", "NPM_CONFIG_REGISTRY", "npm_config_registry"}
        if name in self._indexes and environment.get("PATH") == self._path and not is_asked:
            return self._indexes[name]
        return find_index(name, environment)

    def _ask(self) -> None:
        self._path = os.environ.get("PATH", os.defpath)
        # As in a machine: nobody's home, and none of this process's settings.
        environment = {"PATH": self._path, "HOME": "/nonexistent"}
        self._indexes = {name: find_index(name, environment) for name in ("npm", "pip")}

    def _take(self, listener: socket.socket) -> Handover | None:
        channel, _ = listener.accept()
        channel.settimeout(_ANSWER_SECONDS)
        order, locks = None, list[int]()
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            if _is_ours(channel):
                data, locks, _, _ = socket.recv_fds(channel, _LARGEST, 1)
                order = msgspec.json.decode(data, type=Handover)
        if order is None or order.version != __version__ or not locks:
            for lock in locks:
                os.close(lock)
            channel.close()
            return None
        os.set_inheritable(locks[0], False)  # what this process starts does not hold the session
        self._channel, self.lock = channel, locks[0]
        return order


def drive_next(home: Path, stop: int, told: int) -> None:
    """Wait for a session and drive it to its end.

    Args:
        stop: see `Waiting`.
        told: a descriptor that is told when a session was taken, and closed.
    """
    waiting = Waiting(home, stop)
    order = waiting.wait(_load)
    if order is None:
        return
    with contextlib.suppress(BrokenPipeError):
        os.write(told, TAKEN)
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor in (stop, told):
        os.dup2(nothing, descriptor)
    os.environ.clear()
    os.environ.update(order.environment)
    from bailee.service.cloud import Driver
    from bailee.service.cloud_logs import write_to_log

    def begin() -> None:
        write_to_log(home, order.session)
        waiting.tell_driven()

    driver = Driver(home, order.session, begin=begin, find=waiting.find_index)
    driver.run(only_saves=order.only_saves, held=waiting.lock)


def _load() -> None:
    """Have Python read what a session needs in any case."""
    import bailee.flows.web.names
    import bailee.sandbox.namespaces
    import bailee.service.cloud
    import bailee.vault.anchoring  # noqa: F401


class Spares:
    """Keeps one driver that waits, from when it is wanted until it is closed."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._spare: subprocess.Popen[bytes] | None = None
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def want(self) -> None:
        """Have one from now on: before the first session there is none."""
        with self._lock:
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(target=self._keep, daemon=True)
                self._thread.start()

    def close(self) -> None:
        """End the one that waits; sessions that are driven go on."""
        self._closed.set()
        with self._lock:
            if self._spare is not None and self._spare.stdin is not None:
                self._spare.stdin.close()
        if self._thread is not None:
            self._thread.join()

    def _keep(self) -> None:
        taken: list[subprocess.Popen[bytes]] = []
        self._closed.wait(_LATER_SECONDS)
        while not self._closed.is_set():
            with self._lock:
                if self._closed.is_set():
                    return
                self._spare = spare = self._start()
            assert spare.stdout is not None
            with spare.stdout as told:
                is_taken = told.read(len(TAKEN)) == TAKEN
            if is_taken:
                taken.append(spare)
            else:
                spare.wait()
                self._closed.wait(_REST_SECONDS)
            taken = [one for one in taken if one.poll() is None]

    def _start(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [*DRIVE, "--home", str(self._home), "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


def is_awaited(home: Path) -> bool:
    """Tell whether a driver waits for the next session of a home."""
    name = f"@{_name(home)[1:]}"
    lines = Path("/proc/net/unix").read_text().splitlines()
    return any(line.endswith(name) and line.split()[3] == _ACCEPTS for line in lines)


def _name(home: Path) -> str:
    digest = hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:16]
    return f"\0bailee-{os.geteuid()}-{digest}"


def _is_ours(channel: socket.socket) -> bool:
    if sys.platform == "linux":
        peer = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return bool(_CREDENTIALS.unpack(peer)[1] == os.geteuid())
    else:  # noqa: RET505 - else mypy tells that it is not reached
        return False  # sessions are driven on Linux alone
