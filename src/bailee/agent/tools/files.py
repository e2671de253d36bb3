"""Files as tools read and write them: text, whole or not at all, never through a link put there meanwhile."""

import contextlib
import os
import secrets
import stat
from difflib import unified_diff
from pathlib import Path

from bailee.agent.tools.failures import Failed

LARGEST = 10_000_000  # bytes


def read_text(path: Path, shown: str) -> str:
    """Return the text of a file.

    Raises:
        Failed: it is not there, no regular file, too large, or no text.
    """
    try:
        # A pipe without a writer would hold us for ever; opened like this it is there at once, and refused.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
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


def write_text(path: Path, text: str, shown: str) -> None:
    """Put text in place of a file at once, keeping its mode; what a killed writer leaves is another name.

    Raises:
        Failed: it cannot be written.
    """
    new = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else None
        with new.open("x", encoding="utf-8", newline="") as file:
            file.write(text)
        if mode is not None:
            new.chmod(mode)
        new.replace(path)
    except (OSError, UnicodeEncodeError) as fault:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        reason = fault.strerror if isinstance(fault, OSError) else "it is no text that can be encoded"
        raise Failed(f"{shown} cannot be written: {reason}") from None


def tell_difference(before: str, after: str, shown: str) -> str:
    """Return the unified diff between two texts of a file."""
    lines = unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), f"a/{shown}", f"b/{shown}"
    )
    # A last line without a line break would run into the next one.
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)
