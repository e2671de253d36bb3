"""What every kind of machine can do, and the conversation with the first program in it.

A machine stands inside a boundary, which has the network. How it is isolated besides is its kind's affair:
`namespaces`, `containers`, `virtual`. Whatever the kind, `guest.py` runs in it and is asked over one channel.
"""

import contextlib
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import msgspec

from bailee.boundary.enclosure import Enclosure, Ended
from bailee.policy.problems import Problem
from bailee.sandbox import guest

WORK = "/session"  # a session's disk, in its machine
READY_SECONDS = 60.0  # an emulated machine that has to start from nothing took 10 s beside another busy core
END_SECONDS = 5.0
_LOOK_SECONDS = 0.1
_ANSWER_SECONDS = 30.0
Begin = Callable[[Sequence[str], socket.socket], Enclosure]


class Kind(StrEnum):
    """How a machine is isolated, the strongest first."""

    VM = "vm"
    CONTAINER = "container"
    NAMESPACE = "namespace"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine may take.

    Attributes:
        memory_mb, disk_mb: megabytes, of 1,000,000 bytes.
        processors: of a virtual machine; the others have those of the host.
        processes: at once, threads included where the kernel counts them so.
    """

    memory_mb: int = 2000
    processors: int = 2
    disk_mb: int = 10_000
    processes: int = 1000


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """A machine that is wanted.

    Attributes:
        folder: where its disk lies.
        program: the agent's, so that it is there.
    """

    folder: Path
    program: str = ""
    limits: Limits = Limits()


class Isolation(Protocol):
    """A kind of machine."""

    @property
    def kind(self) -> Kind:
        """What it is called."""
        ...

    @property
    def address(self) -> str:
        """Where a machine finds what listens on its boundary's loopback."""
        ...

    @property
    def answers_itself(self) -> bool:
        """Whether it answers the system calls of what runs in it, and so needs more of them itself."""
        ...

    def check(self) -> None:
        """Raise Problem where no such machine can be made here."""
        ...

    def create(self, spec: Spec, begin: Begin) -> "Machine":
        """Make a machine.

        Args:
            begin: runs a command in the machine's boundary, with a channel as its standard input.
        """
        ...


class NotAnswered(Problem):
    """A machine that does not say what it has to."""


class Machine:
    """A machine that runs. What it says is untrusted: it is bounded, and means nothing outside it.

    Args:
        channel: to `guest.py` in it.
        opening: what a machine that was stopped is told first; None for one that has just begun.
        copy_disk: copies the disk while nothing writes to it.
    """

    def __init__(
        self,
        enclosure: Enclosure,
        channel: socket.socket,
        *,
        opening: Callable[[], Mapping[str, object]] | None = None,
        copy_disk: Callable[[Path], None],
    ) -> None:
        self._enclosure = enclosure
        self._channel = channel
        self._opening = opening
        self._copy_disk = copy_disk
        self._held = bytearray()
        self._number = 0
        self._ended: Ended | None = None
        channel.setblocking(False)

    @property
    def process_id(self) -> int:
        """The process outside that everything of the machine is below."""
        return self._enclosure.process_id

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        """Wait until the machine can be asked.

        Raises:
            NotAnswered: it ended, or took too long.
        """
        if self._opening is None:
            self._await(guest.READY, 0, seconds)
        else:
            self._ask(guest.OPEN, self._opening(), seconds)
            # After the answer: what is asked first waits until the machine has been read back, for 0.5 s.
            self._ask(guest.CLOCK, {"time_ns": time.time_ns()}, seconds)

    def exec(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        folder: str = WORK,
        *,
        say: Callable[[bytes], None],
        is_over: Callable[[], bool] = lambda: False,
    ) -> int | None:
        """Run a command to its end, and return its status as a shell tells it.

        Args:
            say: is given what it writes, standard error included.
            is_over: whether it is to end before it has; then None is returned, and the machine is to be
            destroyed.

        Raises:
            NotAnswered: the machine ended before the command.
        """
        asked = {"command": list(command), "environment": dict(environment), "folder": folder}
        number = self._begin(guest.EXEC, asked)
        while not is_over():
            for kind, about, data in self._receive(_LOOK_SECONDS):
                if about != number:
                    continue
                if kind == guest.OUTPUT:
                    say(data)
                elif kind == guest.ENDED:
                    return _read_status(data)
                elif kind == guest.FAULT:
                    say(data + b"\n")
                    return 126
        self._send(guest.SIGNAL, number, int(signal.SIGTERM))
        return None

    def clear(self) -> None:
        """End what commands that have ended left running, as far as it stayed in their groups."""
        self._ask(guest.CLEAR, {}, _ANSWER_SECONDS)

    def put(self, path: str, data: bytes, *, mode: int = 0o600) -> None:
        """Write a file in the machine.

        Raises:
            NotAnswered: it could not be written.
        """
        number = self._begin(guest.PUT, {"path": path, "mode": mode})
        for at in range(0, len(data), 1 << 16):
            self._write(guest.write_frame(guest.PIECE, number, data[at : at + (1 << 16)]))
        self._write(guest.write_frame(guest.END, number))
        self._await(guest.END, number, _ANSWER_SECONDS)

    def get(self, path: str, *, most: int) -> bytes:
        """Return what is in a file of the machine.

        Args:
            most: bytes; a larger one is not read.

        Raises:
            NotAnswered: there is none, or it is larger.
        """
        number = self._begin(guest.GET, {"path": path, "most": most})
        read = bytearray()
        deadline = time.monotonic() + _ANSWER_SECONDS
        while time.monotonic() < deadline:
            for kind, about, data in self._receive(_LOOK_SECONDS):
                if about != number:
                    continue
                if kind == guest.PIECE and len(read) + len(data) <= most:
                    read += data
                elif kind == guest.END:
                    return bytes(read)
                else:
                    raise _silent(f"{path} cannot be read: {_visible(data) or 'it is larger than it may be'}")
        raise _silent(f"{path} was not given")

    def has_left(self) -> bool:
        """Tell whether something runs that a command which has ended left running."""
        try:
            self._ask(guest.LOOK, {}, _ANSWER_SECONDS)
        except NotAnswered:
            return True
        return False

    @contextlib.contextmanager
    def resting(self) -> Iterator[None]:
        """Have its disk whole where it lies, as it is between two commands.

        A virtual machine writes nothing to it until the end of this. In the others nothing stops what a
        command has left running, see `has_left`.

        Raises:
            NotAnswered: the machine does not stop writing.
        """
        if self._opening is None:  # what is written there is written here
            yield
            return
        self._ask(guest.FREEZE, {}, _ANSWER_SECONDS)
        try:
            yield
        finally:
            self._ask(guest.THAW, {}, _ANSWER_SECONDS)

    def snapshot(self, target: Path) -> None:
        """Copy its disk, as it is between two commands."""
        with self.resting():
            self._copy_disk(target)

    def destroy(self) -> Ended:
        """End it with all that runs in it, and return what its boundary counted. Again does nothing."""
        if self._ended is not None:
            return self._ended
        self._channel.close()
        done = threading.Event()

        def hurry() -> None:
            if not done.wait(END_SECONDS):
                self._enclosure.send_signal(signal.SIGTERM)
            if not done.wait(END_SECONDS):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._enclosure.process_id, signal.SIGKILL)

        hurrying = threading.Thread(target=hurry, daemon=True)
        hurrying.start()
        try:
            self._ended = self._enclosure.wait()
        finally:
            done.set()
            hurrying.join()
        return self._ended

    # --- Frames ---

    def _begin(self, kind: int, asked: Mapping[str, object]) -> int:
        self._number += 1
        self._write(guest.write_frame(kind, self._number, msgspec.json.encode(asked)))
        return self._number

    def _ask(self, kind: int, asked: Mapping[str, object], seconds: float) -> None:
        self._await(guest.END, self._begin(kind, asked), seconds)

    def _send(self, kind: int, number: int, asked: object) -> None:
        with contextlib.suppress(NotAnswered):
            self._write(guest.write_frame(kind, number, msgspec.json.encode(asked)))

    def _await(self, wanted: int, number: int, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for kind, about, data in self._receive(_LOOK_SECONDS):
                if (kind, about) == (wanted, number):
                    return
                if kind == guest.FAULT and about == number:
                    raise _silent(f"the machine cannot do it: {_visible(data)}")
        raise _silent(f"the machine did not answer within {seconds:g} s")

    def _receive(self, seconds: float) -> list[tuple[int, int, bytes]]:
        if select.select([self._channel], [], [], seconds)[0]:
            try:
                piece = self._channel.recv(1 << 18)
            except OSError:
                piece = b""
            if not piece:
                raise _silent("the machine ended")
            self._held += piece
        try:
            return guest.read_frames(self._held)
        except ValueError as fault:
            raise _silent(f"the machine says what makes no sense: {fault}") from None

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        deadline = time.monotonic() + _ANSWER_SECONDS
        while left:
            if time.monotonic() > deadline:
                raise _silent("the machine takes nothing")
            if select.select([], [self._channel], [], _LOOK_SECONDS)[1]:
                try:
                    left = left[self._channel.send(left) :]
                except BlockingIOError:
                    continue
                except OSError:
                    raise _silent("the machine ended") from None


def _read_status(data: bytes) -> int:
    try:
        return msgspec.json.decode(data, type=int) & 0xFF
    except msgspec.MsgspecError:
        return 255


def _visible(data: bytes) -> str:
    from bailee.characters import make_visible

    return make_visible(data[:200].decode("utf-8", "replace"))


def _silent(what: str) -> NotAnswered:
    return NotAnswered(what, where="the session's machine", fix="see its log: bailee cloud logs")
