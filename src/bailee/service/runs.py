"""The runs of a home: each holds a file while it lasts, and its key and a private service end with it.

The kernel lets go of a lock whatever way a process ends, so that a run that was killed is told from one that
goes on. What a killed run could not do itself, to revoke its key, the next one to look does for it.
"""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from bailee.accounts.directory import open_directory
from bailee.accounts.keys import revoke_key
from bailee.policy.problems import Problem

FOLDER = "runs"


class Run:
    """One `bailee run`, from its start to its end.

    Args:
        path: its file, which this process holds locked.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    @classmethod
    def begin(cls, home: Path) -> Self:
        """Make the file of a new run and hold it."""
        _make_folder(home)
        while True:
            path = home / FOLDER / secrets.token_hex(8)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if path.exists():  # else it was swept away between the two calls
                return cls(path, descriptor)
            os.close(descriptor)

    @property
    def name(self) -> str:
        """Its name, 16 hexadecimal digits."""
        return self._path.name

    def note_key(self, key_id: str) -> None:
        """Write down which key ends with this run."""
        os.pwrite(self._descriptor, key_id.encode(), 0)

    def end(self) -> None:
        """Give the file up; a second time does nothing."""
        if self._descriptor >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1


@contextlib.contextmanager
def deciding(home: Path) -> Iterator[None]:
    """Hold everybody else who starts, joins or ends a service of this home until this one has done so."""
    descriptor = _open_folder(home)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def withdraw(home: Path, state: Path) -> bool:
    """Sweep; where no run is left and nobody is deciding, take a service's state file away and say so.

    A run that begins afterwards finds a service that is ending, and waits for its end.
    """
    descriptor = _open_folder(home)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if sweep(home):
            return False
        state.unlink(missing_ok=True)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)


def list_running(home: Path) -> set[str]:
    """Return the names of the runs that have not been swept away: some may have been killed just now."""
    return {path.name for path in (home / FOLDER).glob("*")}


def _make_folder(home: Path) -> None:
    home.mkdir(mode=0o700, parents=True, exist_ok=True)  # `parents` alone makes them by the umask
    (home / FOLDER).mkdir(mode=0o700, exist_ok=True)


def _open_folder(home: Path) -> int:
    _make_folder(home)
    return os.open(home / FOLDER, os.O_RDONLY)


def sweep(home: Path) -> int:
    """Revoke the keys of runs that were killed, forget these, and return how many runs go on."""
    alive = 0
    for path in (home / FOLDER).glob("*"):
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if key_id := os.read(descriptor, 64).decode("ascii", "replace"):
                _revoke(home, key_id)
            path.unlink(missing_ok=True)
        except BlockingIOError:
            alive += 1
        finally:
            os.close(descriptor)
    return alive


def _revoke(home: Path, key_id: str) -> None:
    directory = open_directory(home)
    try:
        with contextlib.suppress(Problem):  # it was revoked in time, and only its file is left
            revoke_key(directory, key_id)
    finally:
        directory.close()
