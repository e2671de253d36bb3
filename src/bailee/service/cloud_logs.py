"""What cloud sessions say, from their drivers to whoever reads it."""

import os
import sys
from pathlib import Path

from bailee.cloud import disks
from bailee.cloud.records import Sessions

PIECE = 65_536  # bytes


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
