"""Finds the service that is running on a home."""

import contextlib
import fcntl
import os
from pathlib import Path

import msgspec

FILE_NAME = "service.json"


class Running(msgspec.Struct, frozen=True):
    """A service that is up."""

    url: str
    pid: int
    upstream: str


def find_running(home: Path) -> Running | None:
    """Return the service that runs on a home, or None.

    The lock decides: a file left behind by a killed service is not believed.
    """
    try:
        descriptor = os.open(home / "service.lock", os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            return msgspec.json.decode((home / FILE_NAME).read_bytes(), type=Running)
        return None
    finally:
        os.close(descriptor)
    return None
