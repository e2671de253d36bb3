"""Files of their owner alone that are whole on the disk, or not there."""

import fcntl
import os
from pathlib import Path


def create_private(path: Path) -> int:
    """Make a file that only its owner can read, and return its descriptor, open for writing.

    Raises:
        FileExistsError: there is one.
    """
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def write_private(path: Path, data: bytes) -> None:
    """Write a new file that only its owner can read; on return it is on the disk.

    Raises:
        FileExistsError: there is one.
    """
    _write(create_private(path), data)


def replace_file(path: Path, data: bytes) -> None:
    """Write a file that takes the place of the one before at once; what a killed writer left goes.

    A link that somebody put in the way is taken away and not followed. One writer of a folder waits for
    another, or it would put the other's half of a file in place.
    """
    new = leftover(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        new.unlink(missing_ok=True)
        _write(create_private(new), data)
        new.rename(path)
    finally:
        os.close(folder)


def leftover(path: Path) -> Path:
    """Return what `replace_file` leaves beside a file where it is killed."""
    return path.with_name(f"{path.name}.new")


def sync_folder(folder: Path) -> None:
    """Make what was made, moved and taken away in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(descriptor: int, data: bytes) -> None:
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
