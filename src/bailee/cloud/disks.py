"""What a cloud session has at rest: its disk and its log, sealed under a key of its own.

    disk.sealed     the folder `work`, packed and sealed
    log.N.sealed    what the Nth driver wrote

At work the disk lies in `work` and the log in `log`. Each step leaves, wherever it is killed, either what was
in clear or what is sealed whole: `work` counts where it is there, and is there under this name only as a
whole. Names that end with `.new` or `.gone` are of steps that did not come to their end; but for the
record's, which is others' to change too.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from bailee.cloud.archives import pack, remove_tree, survey, unpack
from bailee.files import create_private, sync_folder
from bailee.policy.problems import Problem
from bailee.sealing.envelopes import SealBroken
from bailee.sealing.streams import OpeningReader, SealingWriter

RECORD, WORK, LOG, SEALED = "session.json", "work", "log", "disk.sealed"
_NEW, _GONE = ".new", ".gone"
_PIECE = 1024 * 1024
# A machine whose driver was killed ends within moments; until then it may write.
_TRIES = 5
_REST_SECONDS = 0.5
# What changes twice within a tick of the kernel's clock, 10 ms at most, shows it once.
TICK_SECONDS = 0.02
Random = Callable[[int], bytes]


class SealedDisk(NamedTuple):
    """A disk that was sealed.

    Attributes:
        digest: SHA-256 of its file.
        size: of its file, in bytes.
        left_out: how much of it was not kept, as no program can name it.
    """

    digest: str
    size: int
    left_out: int


def has_clear(folder: Path) -> bool:
    """Tell whether something of a session lies in clear, or half done."""
    with os.scandir(folder) as entries:
        return any(
            entry.name in (WORK, LOG) or _is_of_step(entry.name) or _number(entry.name, "")
            for entry in entries
        )


def _is_of_step(name: str) -> bool:
    """Tell whether a step of the disk makes, or takes away, what has that name."""
    return name.endswith((_NEW, _GONE)) and not name.startswith(f"{RECORD}.")


def seal(folder: Path, key: bytes, id: str, *, random: Random, note: Callable[[SealedDisk], object]) -> None:
    """Seal what lies in clear, and remove it.

    Args:
        note: writes down what is sealed; what was in clear is removed after it.

    Raises:
        Problem: somebody goes on changing the disk.
        OSError: there is no room; what was in clear is still there.
    """
    sweep(folder)
    work = folder / WORK
    if work.is_dir():
        note(_seal_disk(work, key, id, random))
        work.rename(folder / f"{WORK}{_GONE}")
        sync_folder(folder)
        remove_tree(folder / f"{WORK}{_GONE}")
    _seal_logs(folder, key, id, random)


def open_disk(folder: Path, key: bytes, id: str, digest: str) -> None:
    """Have a session's disk in clear; the sealed one stays until another takes its place.

    Args:
        digest: of the disk that was sealed last.

    Raises:
        Problem: it was altered, or is another.
    """
    sweep(folder)
    work, new = folder / WORK, folder / f"{WORK}{_NEW}"
    if work.is_dir():
        return
    new.mkdir(mode=0o700)
    try:
        with (folder / SEALED).open("rb") as file, _telling(folder / SEALED):
            reader = OpeningReader(file, key, _bind(id, SEALED))
            unpack(reader, new)
            if reader.finish() != digest:
                raise SealBroken("it is not the one that was sealed last")
    except FileNotFoundError:
        remove_tree(new)
        raise _broken(folder / SEALED, "it is missing") from None
    except BaseException:
        remove_tree(new)
        raise
    new.rename(work)


def sweep(folder: Path) -> None:
    """Remove what steps that were killed have left."""
    for path in list(folder.iterdir()):
        if _is_of_step(path.name):
            remove(path)


def remove_clear(folder: Path) -> None:
    """Remove what lies in clear, and seal nothing: its key is gone."""
    sweep(folder)
    for path in list(folder.iterdir()):
        if path.name in (WORK, LOG) or _number(path.name, ""):
            remove(path)


def remove(path: Path) -> None:
    """Remove a file or a tree."""
    if path.is_dir() and not path.is_symlink():
        remove_tree(path)
    else:
        path.unlink(missing_ok=True)


def measure_log(folder: Path, key: bytes | None, id: str) -> int:
    """Return how many bytes a session said, in clear or sealed, as far as it can be read.

    Raises:
        Problem: a part of it was altered.
    """
    while True:
        try:
            return sum(length for _, _, length in _open_logs(folder, key, id))
        except FileNotFoundError:
            continue  # it was sealed just now


def _open_logs(
    folder: Path, key: bytes | None, id: str
) -> Iterator[tuple[Path, BinaryIO | OpeningReader, int]]:
    """Give each part of a log that can be read, with its place and its length in bytes."""
    for path in _list_logs(folder):
        with path.open("rb") as file, _telling(path):
            if path.suffix != ".sealed":
                yield path, file, file.seek(0, os.SEEK_END)
            elif key is not None:
                reader = OpeningReader(file, key, _bind(id, path.stem))
                yield path, reader, reader.size


def read_log(folder: Path, key: bytes | None, id: str, at: int, size: int) -> bytes:
    """Return a piece of what a session said, in clear or sealed; nothing at its end, or without a key.

    Args:
        at: where it begins, in bytes since the session began.

    Raises:
        Problem: a part of it was altered.
    """
    while True:
        try:
            before = 0
            for path, reader, length in _open_logs(folder, key, id):
                if at - before < length:
                    with _telling(path):
                        reader.seek(at - before)
                        return reader.read(size)
                before += length
        except FileNotFoundError:
            continue  # it was sealed just now
        return b""


def _seal_disk(work: Path, key: bytes, id: str, random: Random) -> SealedDisk:
    for attempt in range(_TRIES):
        time.sleep(_REST_SECONDS * attempt)
        before = survey(work)
        time.sleep(TICK_SECONDS)
        with replacing(work.with_name(SEALED)) as file:
            writer = SealingWriter(file, key, _bind(id, SEALED), random)
            left_out = pack(work, writer)
            digest = writer.finish()
        if survey(work) == before:
            return SealedDisk(digest, writer.size, left_out)
    raise Problem(
        "its disk cannot be sealed, as somebody is changing it",
        where=str(work),
        fix="end what still runs in its machine; the next sweep tries again",
    )


def _seal_logs(folder: Path, key: bytes, id: str, random: Random) -> None:
    log = folder / LOG
    if log.exists():
        # Named first, so that what is sealed and not yet removed is not sealed as another part.
        taken = [_number(path.name, "") or _number(path.name, ".sealed") for path in _list_logs(folder)]
        log.rename(folder / f"{LOG}.{max(taken, default=0) + 1}")
    for path in _list_logs(folder):
        if _number(path.name, ""):
            with path.open("rb") as plain, replacing(path.with_name(f"{path.name}.sealed")) as file:
                writer = SealingWriter(file, key, _bind(id, path.name), random)
                while piece := plain.read(_PIECE):
                    writer.write(piece)
                writer.finish()
            path.unlink()


def _list_logs(folder: Path) -> list[Path]:
    """Return the parts of a log, the first first; of one that is there twice the clear one."""
    parts: dict[int, Path] = {}
    for path in folder.iterdir():
        if number := _number(path.name, ""):
            parts[number] = path
        elif number := _number(path.name, ".sealed"):
            parts.setdefault(number, path)
    last = [folder / LOG] if (folder / LOG).exists() else []
    return [*(parts[number] for number in sorted(parts)), *last]


def _number(name: str, end: str) -> int:
    """Return which part of a log a name is of; 0 for none."""
    start = f"{LOG}."
    if not name.startswith(start) or not name.endswith(end):
        return 0
    number = name[len(start) : len(name) - len(end)]
    return int(number) if number.isascii() and number.isdigit() else 0


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Give a file that takes the place of one once it is written."""
    new = path.with_name(f"{path.name}{_NEW}")
    new.unlink(missing_ok=True)
    with os.fdopen(create_private(new), "wb") as file:
        yield file
    new.rename(path)
    sync_folder(path.parent)


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    try:
        yield
    except SealBroken as broken:
        raise _broken(path, str(broken)) from None


def _broken(path: Path, what: str) -> Problem:
    return Problem(
        f"what is sealed of the session does not open: {what}",
        where=str(path),
        fix="put its folder back from a backup, or remove the session: bailee cloud rm",
    )


def _bind(id: str, name: str) -> bytes:
    return f"cloud session {id} {name}".encode()
