"""Finds the service that is running on a home."""

import contextlib
import fcntl
import os
import time
from pathlib import Path

import msgspec

FILE_NAME = "service.json"
LOCK_NAME = "service.lock"


class Running(msgspec.Struct, frozen=True):
    """A service that is up.

    Attributes:
        upstream: the kind of its upstream.
        upstream_url: where that is, if it is not the kind's own address.
        is_private: whether it ends once no `bailee run` uses it.
    """

    url: str
    pid: int
    upstream: str
    upstream_url: str = ""
    is_private: bool = False


def find_running(home: Path, *, wait_seconds: float = 0.0) -> Running | None:
    """Return the service that runs on a home, or None.

    The lock decides: a file left behind by a killed service is not believed. A service that holds the lock
    but has said nothing yet is starting or ending.

    Args:
        wait_seconds: how long to wait for such a one to be up or gone.
    """
    deadline = time.monotonic() + wait_seconds
    while is_held(home):
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            return msgspec.json.decode((home / FILE_NAME).read_bytes(), type=Running)
        if time.monotonic() >= deadline:
            break
        time.sleep(0.02)
    return None


def is_held(home: Path) -> bool:
    """Tell whether a service holds a home, up or not."""
    try:
        descriptor = os.open(home / LOCK_NAME, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        # Shared, so that two who look do not take each other for a service.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
