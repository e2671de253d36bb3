"""Where a log's files lie: a folder of the local disk, or whatever else can do these few things."""

import contextlib
import fcntl
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from bailee.files import sync_folder
from bailee.ledger.tiles import MAX_BUNDLE_BYTES
from bailee.policy.problems import Problem

LOCK = "lock"
_TEMPORARY = re.compile(r"\.[^/]+\.[0-9a-f]{16}")
_APPENDING, _AT_REST = b"1", b"0"


class Appending(Protocol):
    """The right to change a log, held by one appender over all processes."""

    @property
    def interrupted(self) -> bool:
        """Return whether an appender before this one did not come to its end, and may have left files."""
        ...

    def settle(self) -> None:
        """Say that nothing is left of those who were interrupted; before, nobody forgets that they were."""
        ...

    def write(self, files: Mapping[str, bytes]) -> None:
        """Write files, each replaced as a whole; all of them are durable on return."""
        ...

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files; it is no error if there is no such file, and no harm if some come back."""
        ...


class TileStorage(Protocol):
    """The files of a log, named by paths relative to it."""

    def read(self, path: str) -> bytes | None:
        """Return a file's bytes, None if there is none. Past the length of any right file they may be cut."""
        ...

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder, none if there is no such folder."""
        ...

    def paths(self) -> Iterator[str]:
        """Give the paths of all files, in no order."""
        ...

    def appending(self) -> contextlib.AbstractContextManager[Appending]:
        """Wait for the right to change the log, and hold it."""
        ...

    def resting(self) -> contextlib.AbstractContextManager[bool]:
        """Hold appenders off; gives whether the last of them was interrupted."""
        ...


class DirectoryTiles:
    """The files of a log in a folder of the local disk: files 0600, folders 0700."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, path: str) -> bytes | None:
        """Return a file's bytes; see `TileStorage.read`."""
        try:
            with (self.root / path).open("rb") as file:
                return file.read(MAX_BUNDLE_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except OSError as error:
            raise Problem(
                f"the ledger cannot be read: {error.strerror}",
                where=str(self.root / path),
                fix="check the file's owner and the disk",
            ) from None

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder; see `TileStorage.names`."""
        try:
            return [found.name for found in (self.root / folder).iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def paths(self) -> Iterator[str]:
        """Give the paths of all files; see `TileStorage.paths`."""
        for folder, _, names in os.walk(self.root):
            prefix = Path(folder).relative_to(self.root)
            for name in names:
                yield (prefix / name).as_posix()

    @contextlib.contextmanager
    def appending(self) -> Iterator[Appending]:
        """Hold the lock alone, with a mark in it that stays if this process ends before its work does."""
        _make_folders(self.root)
        descriptor = os.open(self.root / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            appending = _DirectoryAppending(self.root, descriptor)
            yield appending
            appending.end()
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def resting(self) -> Iterator[bool]:
        """Share the lock with other readers; a copy without a lock file is nobody's to append to."""
        try:
            descriptor = os.open(self.root / LOCK, os.O_RDONLY)
        except FileNotFoundError:
            yield False
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield os.pread(descriptor, 1, 0) == _APPENDING
        finally:
            os.close(descriptor)


class _DirectoryAppending:
    def __init__(self, root: Path, lock: int) -> None:
        self._root = root
        self._lock = lock
        self.interrupted = os.pread(lock, 1, 0) == _APPENDING
        self._marked = False

    def write(self, files: Mapping[str, bytes]) -> None:
        """Write files beside their places, then move them there; see `Appending.write`."""
        if not self._marked:
            os.pwrite(self._lock, _APPENDING, 0)
        folders: set[Path] = set()
        staged: list[tuple[Path, Path]] = []
        for path, data in files.items():
            final = self._root / path
            folders |= {final.parent, *_make_folders(final.parent)}
            # The name is drawn: one by process id would be taken for ever by a process killed in between.
            temporary = final.with_name(f".{final.name}.{secrets.token_hex(8)}")
            staged.append((temporary, final))
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        if not self._marked:
            # Durable before any file is in its place: what lies beyond a checkpoint without this mark is
            # nobody's interrupted work. After the files' own syncs it costs next to nothing.
            os.fsync(self._lock)
            self._marked = True
        for temporary, final in staged:
            temporary.rename(final)
        for folder in folders:
            sync_folder(folder)

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files, and the folders of partial tiles that this empties; see `Appending.remove`."""
        for path in paths:
            file = self._root / path
            file.unlink(missing_ok=True)
            if file.parent.name.endswith(".p"):
                with contextlib.suppress(OSError):  # not empty, or gone
                    file.parent.rmdir()

    def settle(self) -> None:
        """Let the mark go with the end of this appender; see `Appending.settle`."""
        self.interrupted, self._marked = False, True

    def end(self) -> None:
        """Take the mark off. It may come back with a power failure, where it does no harm."""
        if self._marked and not self.interrupted:
            os.pwrite(self._lock, _AT_REST, 0)


def is_temporary(path: str) -> bool:
    """Return whether a path is that of a file being written, or left by who was killed while writing it."""
    return _TEMPORARY.fullmatch(path.rpartition("/")[2]) is not None


def _make_folders(folder: Path) -> list[Path]:
    """Make a folder and those it lies in, and return the folders whose listing that changed."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for made in reversed(missing):
        made.mkdir(mode=0o700, exist_ok=True)
    return [made.parent for made in missing]
