"""What cloud sessions say, from their drivers to whoever reads it."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from bailee.characters import make_visible
from bailee.cloud import disks
from bailee.cloud.records import Sessions

PIECE = 65_536  # bytes
_LEAST, _MOST = 10_000_000, 100_000_000  # bytes of a session's log
_LEAST_TURN = 1_000_000  # bytes that a turn may say in any case
_DISK_SHARE = 10


def tell_line(line: bytes) -> str:
    """Return a line of a log for people: without the end that terminals want, and with nothing they obey."""
    return make_visible(line.removesuffix(b"\r").decode("utf-8", "replace").expandtabs())


class Output:
    """Passes on the beginning of what a machine says, and counts the rest.

    Args:
        say: is given it.
        most: bytes that are passed on.
    """

    def __init__(self, say: Callable[[bytes], object], most: int) -> None:
        self._say = say
        self._room = most
        self.left_out = 0  # bytes

    def say(self, data: bytes) -> None:
        """Pass on what there is room for."""
        if head := data[: self._room]:
            self._say(head)
            self._room -= len(head)
        if len(head) < len(data):
            if not self.left_out:
                self._say(b"\nbailee: the log is full; what the machine says from here on is left out\n")
            self.left_out += len(data) - len(head)


def room_of_turn(folder: Path, disk_mb: int) -> int:
    """Return how many bytes a turn may add to a session's log: it has a tenth of what the disk has.

    Args:
        folder: the session's own.
    """
    taken = sum(path.stat().st_size for path in folder.glob(f"{disks.LOG}*"))
    most = min(max(disk_mb * 1_000_000 // _DISK_SHARE, _LEAST), _MOST)
    return max(most - taken, _LEAST_TURN)


def open_log(home: Path, id: str) -> int:
    """Return a descriptor that adds to a session's log."""
    path = Sessions(home).folder(id) / disks.LOG
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def write_to_log(home: Path, id: str) -> None:
    """Let all that this process and those below it write go to a session's log."""
    descriptor = open_log(home, id)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(descriptor, stream.fileno())
    os.close(descriptor)


def measure_log(sessions: Sessions, id: str) -> int:
    """Return how many bytes a session said so far.

    Raises:
        Problem: it was altered.
    """
    return disks.measure_log(sessions.folder(id), sessions.key(sessions.read_facts(id)), id)


def read_log(sessions: Sessions, id: str, at: int) -> bytes:
    """Return the next piece of what a session said, nothing at its end.

    Args:
        at: how many bytes were read before.

    Raises:
        Problem: it was altered, or the session is gone.
    """
    try:
        return disks.read_log(sessions.folder(id), sessions.key(sessions.read_facts(id)), id, at, PIECE)
    except FileNotFoundError:  # removed just now
        return b""
