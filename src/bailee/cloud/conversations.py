"""The conversation of a cloud session: copied from its disk after each turn, bounded, and not opened.

What lies on a session's disk is the machine's word: links, pipes, files without an end. So it is opened part
by part, and what is copied is bytes that mean nothing yet; `agent.sessions.copies` reads them as hostile.
The copy lies beside the session's record, so that reading it takes no disk, whatever the disk is made of.
"""

import contextlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

import msgspec

from bailee.cloud.records import ENDED, CloudSession, Sessions, State
from bailee.files import replace_file
from bailee.policy.problems import Problem
from bailee.sandbox.machines import WORK, Machine, NotAnswered
from bailee.sealing.envelopes import KEY_BYTES, OVERHEAD_BYTES

COPY = "conversation"
# Where `bailee code` keeps its sessions below the HOME of a machine; see `agent.state`.
STATE = "home/.local/state/bailee"
LARGEST = 16_000_000  # bytes of a journal, which is compressed
LARGEST_COPY = LARGEST + 1000  # bytes
MOST_NAMES = 10_000
NAMES_SECONDS = 30.0  # a machine that is emulated takes its time
_NAME = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.session")


class Copy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A session of the agent in a machine, as its files say.

    Attributes:
        id: the agent's own for it; its entries are bound to that.
        key: what the machine's sessions are sealed under.
        journal: the file.
    """

    id: str
    key: bytes
    journal: bytes

    def __repr__(self) -> str:
        return f"Copy({self.id!r}, ...)"


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A cloud session, as far as somebody has to know it who takes it over.

    Attributes:
        answered: how many prompts were answered.
        has_unsaved: whether there may be work that was not pushed.
        conversation: a packed Copy; empty where none was kept, or the session runs.
    """

    id: str
    repository: str
    branch: str
    agent: str
    state: State
    answered: int
    has_unsaved: bool
    conversation: bytes

    def __repr__(self) -> str:
        return f"Offer({self.id!r}, ...)"


class Source(Protocol):
    """What a session's disk is read through. Names and contents are the machine's word."""

    def names(self, folder: str) -> list[str]:
        """Return the names of the regular files of a folder, the one that was changed last first.

        Raises:
            OSError: there is no such folder, or too much in it.
        """
        ...

    def read(self, path: str, *, most: int) -> bytes:
        """Return what is in a regular file.

        Raises:
            OSError: there is none, or it has more than `most` bytes.
        """
        ...


class Disk:
    """A disk that is a folder. No link in it is followed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self, folder: str) -> list[str]:
        """See `Source.names`."""
        found = []
        with self._opened(PurePosixPath(folder).parts) as descriptor, os.scandir(descriptor) as entries:
            for number, entry in enumerate(entries):
                if number >= MOST_NAMES:
                    raise OSError(f"there are more than {MOST_NAMES} files in it")
                if entry.is_file(follow_symlinks=False):
                    found.append((entry.stat(follow_symlinks=False).st_mtime_ns, entry.name))
        return [name for _, name in sorted(found, reverse=True)]

    def read(self, path: str, *, most: int) -> bytes:
        """See `Source.read`."""
        *folders, name = PurePosixPath(path).parts
        with self._opened(folders) as descriptor:
            # A pipe without a writer would hold us for ever; opened like this it is told from a file.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            inner = os.open(name, flags, dir_fd=descriptor)
        with os.fdopen(inner, "rb") as file:
            if not stat.S_ISREG(os.fstat(inner).st_mode):
                raise OSError("it is no regular file")
            data = file.read(most + 1)
        if len(data) > most:
            raise OSError(f"it has more than {most} bytes")
        return data

    @contextlib.contextmanager
    def _opened(self, parts: Sequence[str]) -> Iterator[int]:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._folder, flags)
        try:
            for part in parts:
                inner = os.open(part, flags, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        finally:
            os.close(descriptor)


class MachineDisk:
    """A disk that its machine alone can read, while it runs."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def names(self, folder: str) -> list[str]:
        """See `Source.names`."""
        said = bytearray()
        words = ["sh", "-c", 'cd -- "$1" 2> /dev/null && ls -t | head -n "$2"', "sh"]
        words += [f"{WORK}/{folder}", str(MOST_NAMES)]

        deadline = time.monotonic() + NAMES_SECONDS

        def is_over() -> bool:
            return len(said) > LARGEST or time.monotonic() > deadline

        try:
            status = self._machine.exec(words, {"PATH": os.defpath}, say=said.extend, is_over=is_over)
        except NotAnswered as fault:
            raise OSError(fault.what) from None
        if status is None:
            raise OSError("its machine does not list it")
        return said.decode("utf-8", "replace").splitlines()

    def read(self, path: str, *, most: int) -> bytes:
        """See `Source.read`."""
        try:
            return self._machine.get(f"{WORK}/{path}", most=most)
        except NotAnswered as fault:
            raise OSError(fault.what) from None


def copy_conversation(source: Source) -> Copy | None:
    """Return the session that the agent in a machine was at last; None where it keeps none.

    Raises:
        OSError: there is one, and it cannot be copied.
    """
    try:
        names = source.names(f"{STATE}/sessions")
    except FileNotFoundError:
        return None
    found = next((match for name in names if (match := _NAME.fullmatch(name))), None)
    if found is None:
        return None
    journal = source.read(f"{STATE}/sessions/{found[0]}", most=LARGEST)
    return Copy(found[1], source.read(f"{STATE}/key", most=KEY_BYTES), journal)


def keep_conversation(
    folder: Path, source: Source, *, seal: Callable[[bytes], bytes] = lambda data: data
) -> str:
    """Keep a copy of the conversation in a session's folder, and return why there is none; empty if there is.

    An older one never stands for it: where there is nothing to copy, what was there goes.

    Args:
        folder: the session's own.
        seal: is given what is kept, which has the key of what it is a copy of.
    """
    try:
        if (copy := copy_conversation(source)) is not None:
            replace_file(folder / COPY, seal(msgspec.msgpack.encode(copy)))
            return ""
        why = "its agent keeps none"
    except OSError as fault:
        why = f"it cannot be copied: {fault.strerror or fault}"
    (folder / COPY).unlink(missing_ok=True)
    return why


def read_conversation(folder: Path) -> bytes:
    """Return the copy in a session's folder, packed, and sealed if it was; empty if there is none."""
    try:
        with (folder / COPY).open("rb") as file:
            return file.read(LARGEST_COPY + OVERHEAD_BYTES + 1)
    except FileNotFoundError:
        return b""


def open_copy(packed: bytes) -> Copy:
    """Unpack a copy.

    Raises:
        Problem: it is none.
    """
    try:
        return msgspec.msgpack.decode(packed, type=Copy)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise Problem(
            "the copy of the conversation cannot be understood",
            fix="is the service that it comes from of this version?",
        ) from None


def make_offer(session: CloudSession, sessions: Sessions) -> Offer:
    """Return what somebody has to know of a session who takes it over.

    Raises:
        Problem: the copy of its conversation was altered.
    """
    kept = read_conversation(sessions.folder(session.id)) if session.state in ENDED else b""
    return Offer(
        id=session.id,
        repository=session.repository,
        branch=session.branch,
        agent=session.agent,
        state=session.state,
        answered=session.answered,
        has_unsaved=session.has_unsaved,
        conversation=sessions.open_copy(session.id, kept) if kept else b"",
    )
