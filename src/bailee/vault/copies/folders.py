"""The folder of a copy, opened once: whatever is read, written or removed in it is named from there.

So nothing that lies elsewhere is ever touched: links are not followed, and what is no regular file is left
alone. A file is changed by writing the new one beside it, which then takes its place at once.
"""

import contextlib
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

import msgspec

from bailee.policy.problems import Problem

NEW = ".new"


class File(msgspec.Struct, frozen=True):
    """A file of a copy, as its index tells of it.

    Attributes:
        items: items of a dataset, lines of an export.
    """

    name: str
    sha256: str
    bytes: int
    items: int


class Folder:
    """An open folder.

    Attributes:
        path: where it lies, for messages.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def names(self) -> set[str]:
        """Return what is in it."""
        with os.scandir(self._descriptor) as found:
            return {entry.name for entry in found}

    def has(self, name: str) -> bool:
        """Tell whether it has a regular file of a name."""
        try:
            mode = os.stat(name, dir_fd=self._descriptor, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return False
        return stat.S_ISREG(mode)

    def read(self, name: str) -> bytes | None:
        """Return what is in a regular file; None if there is none."""
        if not self.has(name):
            return None
        with self.open(name) as file:
            return file.read()

    def open(self, name: str) -> BufferedReader:
        """Open a regular file for reading.

        Raises:
            OSError: there is none, or it is a link.
        """
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        return os.fdopen(os.open(name, flags, dir_fd=self._descriptor), "rb")

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """Open what may take the place of a file (`put`); synced when it is whole, gone if it is not."""
        self.remove(name + NEW)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(name + NEW, flags, 0o600, dir_fd=self._descriptor), "w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            self.remove(name + NEW)
            raise

    def put(self, name: str) -> None:
        """Let what was written take its place."""
        os.rename(name + NEW, name, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def remove(self, name: str) -> None:
        """Remove a regular file, if there is one."""
        if self.has(name):
            os.unlink(name, dir_fd=self._descriptor)

    def sync(self) -> None:
        """Make what was renamed and removed durable."""
        os.fsync(self._descriptor)

    def describe(self, name: str, items: int) -> File:
        """Return what an index tells of a file."""
        with self.open(name) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return File(name.removesuffix(NEW), digest, os.fstat(file.fileno()).st_size, items)

    def digest(self, name: str) -> str:
        """Return the SHA-256 of a file in hexadecimal; empty if there is none."""
        if not self.has(name):
            return ""
        return self.describe(name, 0).sha256

    def check(self, file: File) -> None:
        """Check that a file is as its index says.

        Raises:
            Problem: it is not, or it is gone.
        """
        if self.digest(file.name) != file.sha256:
            what = "is not as it was written" if self.has(file.name) else "is gone"
            raise Problem(f"{file.name} {what}", where=str(self.path))

    def replace(self, index: str, before: Sequence[File], after: Sequence[File]) -> None:
        """Let written files take their places, and the index after them; safe to do again from anywhere.

        Args:
            before: the files that the present index tells of: what is not in `after` is removed.
            after: those that the new one tells of; each is in place already, or written beside its place.

        Raises:
            Problem: a file is neither.
        """
        for file in after:
            if self.has(file.name + NEW) and self.digest(file.name + NEW) == file.sha256:
                self.put(file.name)
        for name in {file.name for file in before} - {file.name for file in after}:
            self.remove(name)
        self.sync()
        self.put(index)
        self.sync()


@contextlib.contextmanager
def open_folder(path: Path) -> Iterator[Folder]:
    """Open the folder of a copy.

    Raises:
        Problem: it is not there, or a link leads to it that was not there when it was written.
    """
    try:
        is_elsewhere = os.path.realpath(path) != str(path)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise Problem("the folder is not there any more", where=str(path)) from None
    except OSError as error:
        raise Problem(f"the folder cannot be opened: {error.strerror}", where=str(path)) from None
    try:
        if is_elsewhere:
            raise Problem("a link leads elsewhere now", where=str(path))
        yield Folder(path, descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def holding_copy(home: Path, id: str, *, patient: bool = True) -> Iterator[bool]:
    """Hold a copy, so that nobody else writes in it meanwhile; free as soon as its holder is killed.

    Args:
        patient: wait for whoever holds it; else False is given where somebody does.
    """
    (home / "copies").mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(home / "copies" / f"{id}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if patient else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def forget_lock(home: Path, id: str) -> None:
    """Remove what `holding_copy` made for a copy that is gone."""
    (home / "copies" / f"{id}.lock").unlink(missing_ok=True)
