"""Files as tools read and write them: text, whole or not at all, never through a link put there meanwhile."""

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from difflib import unified_diff
from pathlib import Path

from bailee.agent.tools.failures import Failed

LARGEST = 10_000_000  # bytes


@contextlib.contextmanager
def _folder_of(root: Path, path: Path, *, is_made: bool = False) -> Iterator[tuple[int, str]]:
    """Open the folder that a file is in, part by part from the project's; give its descriptor and the name.

    A part that has become a link since the path was resolved opens nothing: a process that swaps folders
    between the look and the change leads nobody out of the project.
    """
    *folders, name = path.relative_to(root).parts
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(root, flags)
    try:
        for part in folders:
            if is_made:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, dir_fd=descriptor)
            inner = os.open(part, flags, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor, name
    finally:
        os.close(descriptor)


def read_text(root: Path, path: Path, shown: str) -> str:
    """Return the text of a file.

    Args:
        root: the folder of the project that the path is below, links resolved in both.

    Raises:
        Failed: it is not there, no regular file, too large, or no text.
    """
    if path == root:
        raise Failed(f"{shown} is a folder: use list")
    try:
        with _folder_of(root, path) as (folder, name):
            # A pipe without a writer would hold us for ever; opened like this it is refused at once.
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(name, flags, dir_fd=folder)
    except FileNotFoundError:
        raise Failed(f"{shown} does not exist") from None
    except OSError as fault:
        raise Failed(f"{shown} cannot be read: {fault.strerror}") from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise Failed(f"{shown} is " + ("a folder: use list" if stat.S_ISDIR(mode) else "no regular file"))
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise Failed(f"{shown} is larger than {LARGEST // 1_000_000} MB: search it instead")
    if b"\0" in data[:8000]:
        raise Failed(f"{shown} is not text")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as fault:
        raise Failed(f"{shown} is not UTF-8 text (byte {fault.start})") from None


def write_text(root: Path, path: Path, text: str, shown: str) -> None:
    """Put text in place of a file at once, keeping its mode; what a killed writer leaves is another name.

    Args:
        root: see `read_text`.

    Raises:
        Failed: it cannot be written.
    """
    if path == root:
        raise Failed(f"{shown} is a folder")
    new = f".{path.name[:200]}.{secrets.token_hex(4)}.new"
    try:
        data = text.encode("utf-8")
        with _folder_of(root, path, is_made=True) as (folder, name):
            try:
                # Nobody else reads it before it has the mode of the file it replaces.
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                with os.fdopen(os.open(new, flags, 0o600, dir_fd=folder), "wb") as file:
                    file.write(data)
                    os.fchmod(file.fileno(), _mode_of(folder, name))
                os.replace(new, name, src_dir_fd=folder, dst_dir_fd=folder)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(new, dir_fd=folder)
                raise
    except (OSError, UnicodeEncodeError) as fault:
        reason = fault.strerror if isinstance(fault, OSError) else "it is no text that can be encoded"
        raise Failed(f"{shown} cannot be written: {reason}") from None


def _mode_of(folder: int, name: str) -> int:
    """Return the mode of a file, or the one that a new file gets."""
    try:
        return stat.S_IMODE(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        os.umask(mask := os.umask(0o077))
        return 0o666 & ~mask


def tell_difference(before: str, after: str, shown: str) -> str:
    """Return the unified diff between two texts of a file."""
    lines = unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), f"a/{shown}", f"b/{shown}"
    )
    # A last line without a line break would run into the next one.
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)
