"""Finds the service that is running on a home."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bailee.policy.problems import Problem

FILE_NAME = "service.json"
LOCK_NAME = "service.lock"
LOCK_SECONDS = 1.0


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


@contextlib.contextmanager
def lock_home(home: Path) -> Iterator[None]:
    """Hold the home alone: for one service, as two recorders would number the same segments twice, or for a
    restore.

    Raises:
        Problem: another service holds it.
    """
    descriptor = os.open(home / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while not _is_locked(descriptor):
            other = find_running(home)
            # Who only looks whether a service runs holds the lock for a moment too.
            if other is not None or time.monotonic() > deadline:
                detail = f": {other.url}, process {other.pid}" if other else ""
                raise Problem(
                    f"another service is running on this home{detail}",
                    where=str(home),
                    fix="stop it, or give this one another --home",
                )
            time.sleep(0.01)
        # A killed service left its own behind; with the lock held it would be believed.
        (home / FILE_NAME).unlink(missing_ok=True)
        yield
    finally:
        os.close(descriptor)


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
