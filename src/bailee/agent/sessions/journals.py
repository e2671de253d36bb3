"""One session in one file: a journal of sealed entries that is appended to and never rewritten.

File: the 8 bytes of MAGIC, then entries. An entry: kind (1 byte), moment (8 bytes, milliseconds since 1970
UTC), length (4 bytes, both big-endian), box (`sealing.boxes`). The first entry holds the session's own key,
sealed under the machine's; all others are sealed under the session's, zstd-compressed JSON. Each is bound to
its session, place, kind and moment, so that none can be moved, left out in the middle, or dated anew. An
entry that is not whole at the end is what a killed writer left: it counts for nothing, and the next writer
cuts it off.

The key lies in the file it opens: overwriting these few bytes destroys the session, and no index outlives it.
"""

import contextlib
import fcntl
import io
import os
import struct
from collections.abc import Callable, Iterator
from enum import IntEnum
from pathlib import Path
from typing import Any, Self

import msgspec
import zstandard

from bailee.files import create_private, sync_folder
from bailee.policy.problems import Problem
from bailee.sealing.boxes import open_box, seal_box
from bailee.sealing.envelopes import KEY_BYTES, SealBroken

MAGIC = b"BAILEE1\n"
ENDING = ".session"
# A session has its name when it is whole, and loses it before its key is overwritten.
MAKING, GOING = ".session.new", ".session.gone"
_HEAD = struct.Struct(">BQI")
LARGEST = 256 << 20  # bytes of one entry
_WINDOW = 8 << 20  # bytes that unpacking may look back on; the writer's level takes 2 MB


class Kind(IntEnum):
    """What an entry holds."""

    KEY = 0
    HEAD = 1
    MESSAGE = 2
    SUMMARY = 3
    FACT = 4


class Head(msgspec.Struct, frozen=True):
    """What is known of a session from its start."""

    folder: str
    model: str
    version: str


class Entry(msgspec.Struct, frozen=True):
    """One entry, opened."""

    kind: Kind
    moment: int
    value: Any


class Journal:
    """A session's file, open for reading and appending, held by this process alone.

    Args:
        place: how many entries there are.
        end: where the last whole entry ends.
    """

    def __init__(
        self, path: Path, descriptor: int, key: bytes, place: int, end: int, random: Callable[[int], bytes]
    ) -> None:
        self.path = path
        self._descriptor = descriptor
        self._key = key
        self._place = place
        self._end = end
        self._random = random

    @property
    def id(self) -> str:
        """The session's id."""
        return self.path.stem

    @classmethod
    def create(
        cls,
        path: Path,
        machine_key: bytes,
        head: Head,
        *,
        now: int,
        random: Callable[[int], bytes] = os.urandom,
    ) -> Self:
        """Begin a session's file.

        Raises:
            FileExistsError: there is one.
        """
        new = path.with_name(path.stem + MAKING)
        descriptor = create_private(new)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            key = random(KEY_BYTES)
            journal = cls(path, descriptor, key, 0, len(MAGIC), random)
            os.pwrite(descriptor, MAGIC, 0)
            journal._put(Kind.KEY, key, machine_key, now)
            journal.append(Kind.HEAD, head, now=now)
            path.hardlink_to(new)
        except BaseException:
            os.close(descriptor)
            raise
        finally:
            new.unlink(missing_ok=True)
        sync_folder(path.parent)
        return journal

    @classmethod
    def open(cls, path: Path, machine_key: bytes, *, random: Callable[[int], bytes] = os.urandom) -> Self:
        """Open a session's file to go on with it.

        Raises:
            Problem: it is open elsewhere, is not there, or does not open under this key.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as fault:
            raise Problem(
                f"the session cannot be opened: {fault.strerror}",
                where=str(path),
                fix="see: bailee sessions --local list",
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise Problem(
                "the session is open in another terminal", where=path.stem, fix="end it there first"
            ) from None
        try:
            with path.open("rb") as file:
                opened = _Reader(file, path, machine_key)
                place, end = opened.skip()
        except BaseException:
            os.close(descriptor)
            raise
        return cls(path, descriptor, opened.key, place, end, random)

    def append(self, kind: Kind, value: Any, *, now: int) -> None:
        """Add an entry; on return it is on the disk."""
        plain = zstandard.ZstdCompressor(level=6).compress(msgspec.json.encode(value))
        self._put(kind, plain, self._key, now)

    def _put(self, kind: Kind, plain: bytes, key: bytes, now: int) -> None:
        box = seal_box(key, plain, _context(self.id, self._place, kind, now), self._random)
        entry = _HEAD.pack(kind, now, len(box)) + box
        # Written where the last whole entry ends: what a failed or killed write left behind is overwritten.
        os.ftruncate(self._descriptor, self._end)
        done = 0
        while done < len(entry):
            done += os.pwrite(self._descriptor, entry[done:], self._end + done)
        os.fsync(self._descriptor)
        self._place += 1
        self._end += len(entry)

    def close(self) -> None:
        """Let the file go; a second time does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def read_journal(path: Path, machine_key: bytes, *, kinds: frozenset[Kind] | None = None) -> Iterator[Entry]:
    """Give the entries of a session, or only those of some kinds, in their order.

    Raises:
        Problem: the file is no session, was altered, or does not open under this key.
    """
    try:
        with path.open("rb") as file:
            yield from _Reader(file, path, machine_key).entries(kinds)
    except OSError as fault:
        raise Problem(f"the session cannot be read: {fault.strerror}", where=str(path)) from None


def read_copy(data: bytes, id: str, machine_key: bytes, *, most: int) -> Iterator[Entry]:
    """Give the entries of a journal that another machine wrote, which may have written anything.

    Args:
        id: of the session, to which its entries are bound.
        most: bytes that all entries together may have, unpacked.

    Raises:
        Problem: it is no session, was altered, does not open under this key, or has more than that in it.
    """
    path, left = Path(f"{id}{ENDING}"), most

    def unpack(packed: bytes) -> Any:
        nonlocal left
        # What a frame says of its own length counts for nothing: it is read until it ends or is too long.
        plain = bytearray()
        with zstandard.ZstdDecompressor(max_window_size=_WINDOW).stream_reader(packed) as reader:
            while piece := reader.read(1 << 16):
                plain += piece
                if len(plain) > left:
                    raise Problem("the session has too much in it", where=id)
        left -= len(plain)
        return msgspec.json.decode(plain)

    try:
        yield from _Reader(io.BytesIO(data), path, machine_key).entries(None, unpack)
    except (zstandard.ZstdError, msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError):
        raise _broken(path) from None


def read_last_moment(path: Path) -> int:
    """Return the moment of the last whole entry, without opening any."""
    with path.open("rb") as file:
        return max((moment for _, moment, _, _ in _walk(file, path)), default=0)


def count_entries(path: Path, wanted: Kind) -> int:
    """Return how many whole entries of a kind there are, without opening any."""
    with path.open("rb") as file:
        return sum(1 for kind, _, _, _ in _walk(file, path) if kind is wanted)


def destroy(path: Path, random: Callable[[int], bytes] = os.urandom) -> None:
    """Destroy a session: overwrite its key, so that no copy of the rest opens with it, then remove the file.

    Raises:
        Problem: it is open in another terminal.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        gone = path if path.name.endswith(GOING) else path.with_name(path.stem + GOING)
        path.rename(gone)
        sync_folder(path.parent)
        size = os.fstat(descriptor).st_size
        os.pwrite(descriptor, random(min(size, len(MAGIC) + _HEAD.size + KEY_BYTES + 64)), 0)
        os.fsync(descriptor)
        gone.unlink()
        sync_folder(path.parent)
    except BlockingIOError:
        raise Problem(
            "the session is open in another terminal", where=path.stem, fix="end it there first"
        ) from None
    finally:
        os.close(descriptor)


def finish_all(folder: Path, random: Callable[[int], bytes] = os.urandom) -> int:
    """Destroy what was being made or destroyed when its process was killed, and return how many that were."""
    count = 0
    for ending in (MAKING, GOING):
        for path in folder.glob(f"*{ending}"):
            with contextlib.suppress(Problem, OSError):  # still being made; another process was quicker
                destroy(path, random)
                count += 1
    return count


class _Reader:
    """Reads one file from its beginning."""

    def __init__(self, file: Any, path: Path, machine_key: bytes) -> None:
        self._file = file
        self._path = path
        self._walk = _walk(file, path)
        first = next(self._walk, None)
        if first is None or first[0] is not Kind.KEY:
            raise _broken(path)
        self.key = self._open(machine_key, 0, *first)
        self._end = file.tell()

    def entries(
        self, kinds: frozenset[Kind] | None, unpack: Callable[[bytes], Any] | None = None
    ) -> Iterator[Entry]:
        for place, (kind, moment, start, length) in enumerate(self._walk, 1):
            if kinds is not None and kind not in kinds:
                continue
            self._file.seek(start)
            plain = self._open(self.key, place, kind, moment, start, length)
            yield Entry(kind, moment, (unpack or _unpack)(plain))

    def skip(self) -> tuple[int, int]:
        """Return how many whole entries there are, and where the last one ends."""
        place, end = 1, self._end
        for _, _, start, length in self._walk:
            place, end = place + 1, start + length
        return place, end

    def _open(self, key: bytes, place: int, kind: Kind, moment: int, start: int, length: int) -> bytes:
        self._file.seek(start)
        box = self._file.read(length)
        try:
            return open_box(key, box, _context(self._path.stem, place, kind, moment))
        except SealBroken:
            raise _broken(self._path) from None


def _walk(file: Any, path: Path) -> Iterator[tuple[Kind, int, int, int]]:
    """Give kind, moment, start and length of each whole entry."""
    file.seek(0, os.SEEK_END)
    size = file.tell()
    file.seek(0)
    if file.read(len(MAGIC)) != MAGIC:
        raise _broken(path)
    at = len(MAGIC)
    while at + _HEAD.size <= size:
        file.seek(at)
        kind, moment, length = _HEAD.unpack(file.read(_HEAD.size))
        start = at + _HEAD.size
        if start + length > size:
            return
        if kind not in set(Kind) or length > LARGEST:
            raise _broken(path)
        yield Kind(kind), moment, start, length
        at = start + length


def _unpack(packed: bytes) -> Any:
    return msgspec.json.decode(zstandard.ZstdDecompressor().decompress(packed, LARGEST))


def _context(session: str, place: int, kind: Kind, moment: int) -> bytes:
    return b"bailee session 1" + msgspec.msgpack.encode((session, place, int(kind), moment))


def _broken(path: Path) -> Problem:
    return Problem(
        "the session was altered, or sealed under another key",
        where=str(path),
        fix="put the file or its key back from a backup, or delete it: bailee sessions --local delete",
    )
