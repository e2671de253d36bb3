"""A disk as set-up left it, sealed beside the record of the session that made it: `snapshot.sealed`.

It is packed and sealed as a disk at rest is, under a key of its own, and bound to what it was made for: one
that is put in the place of another does not open. Nothing of the session that made it opens anything later:
a disk on which one of its values is found is not kept.
"""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from bailee.cloud.archives import Sink, pack, remove_tree, survey, unpack
from bailee.cloud.disks import TICK_SECONDS, WORK, SealedDisk, replacing
from bailee.cloud.records import CloudSession
from bailee.policy.problems import Problem
from bailee.sandbox.machines import Kind
from bailee.sealing.envelopes import SealBroken
from bailee.sealing.streams import OpeningReader, SealingWriter

SNAPSHOT = "snapshot.sealed"
# What is shorter is found on any disk by chance.
SHORTEST_VALUE = 8
_TRIES = 3
_LOOK_BYTES = 16 * 1024 * 1024


class NotKept(Exception):
    """A disk that cannot be a snapshot; its text says why."""


class Purpose(NamedTuple):
    """What a snapshot is for: a session of which anything is different does not begin from it."""

    account: str
    repository: str
    base: str
    setup: str
    isolation: str
    network: str
    allow: tuple[str, ...]
    disk_mb: int


def purpose_of(session: CloudSession) -> Purpose:
    """Return what the snapshot of a session is for, or would be."""
    # The disk of a virtual machine is of a size; elsewhere it is a folder.
    size = session.limits.disk_mb if session.isolation == Kind.VM else 0
    return Purpose(
        session.account,
        session.repository,
        session.base,
        session.setup,
        session.isolation,
        session.network,
        session.allow,
        size,
    )


def seal_snapshot(
    folder: Path,
    key: bytes,
    context: bytes,
    *,
    values: Iterable[bytes],
    is_over: Callable[[], bool],
    random: Callable[[int], bytes],
) -> SealedDisk:
    """Seal a disk that a machine goes on with, and leave it as it is.

    Args:
        folder: the session's.
        values: what must not be on it.
        is_over: whether there is no time left for it.

    Raises:
        NotKept: it cannot be kept, and why.
        OSError: there is no room.
    """
    work = folder / WORK
    for _ in range(_TRIES):
        before = survey(work)
        time.sleep(TICK_SECONDS)
        with replacing(folder / SNAPSHOT) as file:
            writer = SealingWriter(file, key, context, random)
            left_out = pack(work, _Watching(writer, values, is_over))
            if survey(work) != before:
                continue
            return SealedDisk(writer.finish(), writer.size, left_out)
    raise NotKept("something that set-up left running is changing the disk")


def open_snapshot(source: Path, folder: Path, key: bytes, context: bytes, digest: str) -> None:
    """Make a new session's disk of a snapshot; without a whole one it stays as it is, empty.

    Args:
        source: the folder of the session that made it.
        folder: that of the new one.

    Raises:
        NotKept: it was altered, or is another, and how.
    """
    work, new = folder / WORK, folder / f"{WORK}.new"
    remove_tree(new)
    new.mkdir(mode=0o700)
    try:
        with (source / SNAPSHOT).open("rb") as file:
            reader = OpeningReader(file, key, context)
            unpack(reader, new)
            if reader.finish() != digest:
                raise SealBroken("it is not the one that was sealed")
        new.rename(work)  # which is empty
    except (SealBroken, Problem, OSError) as fault:
        remove_tree(new)
        raise NotKept(fault.what if isinstance(fault, Problem) else str(fault)) from None
    except BaseException:
        remove_tree(new)
        raise


def bind(id: str, purpose: Purpose) -> bytes:
    """Return what a snapshot is bound to.

    Args:
        id: of the session that made it.
    """
    return b"cloud snapshot 1 " + msgspec.msgpack.encode((id, *purpose))


class _Watching(Sink):
    """Passes on what is written, and raises where a value is in it that must not be."""

    def __init__(self, sink: Sink, values: Iterable[bytes], is_over: Callable[[], bool]) -> None:
        self._sink = sink
        self._values = [value for value in dict.fromkeys(values) if len(value) >= SHORTEST_VALUE]
        self._is_over = is_over
        self._overlap = max((len(value) for value in self._values), default=1) - 1
        self._last = b""
        self._until_look = _LOOK_BYTES

    def write(self, data: bytes) -> int:
        joined = self._last + data
        if any(value in joined for value in self._values):
            raise NotKept("a token or secret of this session is on the disk")
        self._last = joined[-self._overlap :] if self._overlap else b""
        self._until_look -= len(data)
        if self._until_look < 0:
            self._until_look = _LOOK_BYTES
            if self._is_over():
                raise NotKept("the session's time is over")
        return self._sink.write(data)
