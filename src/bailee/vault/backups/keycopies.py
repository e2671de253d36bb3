"""A copy of the keys, apart from the backup it was made with, to be used for some days and then deleted.

It holds what a home cannot be made anew without: the wrapped keys of segments, the salts of pseudonyms, the
ledger's private key. All of it is sealed under a key of its own, which is wrapped by the key-encryption key;
that one is not in it and has its own backup.

File: a line that says what it is, a line of JSON (`Header`), then boxes, each behind its length as a
big-endian uint32. A box is bound to the header and its place; the last one says that it is the last.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Literal

import msgspec
import sqlalchemy as sa

from bailee.database.snapshots import reading
from bailee.policy.problems import Problem
from bailee.sealing.boxes import open_box, seal_box
from bailee.sealing.envelopes import KEY_BYTES, SealBroken
from bailee.sealing.wrapping import KeyWrapper
from bailee.vault import tables
from bailee.vault.backups.manifests import read_plain
from bailee.vault.keystore import Keystore

_HEADING = b"bailee keys 1\n"
_KEYS_IN_A_BOX = 5000
_MAX_HEADER_BYTES = 10_000
_MAX_BOX_BYTES = 64 * 1024 * 1024


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is in clear of a copy of the keys.

    Attributes:
        backup: the id of the backup it was made with.
        until_ms: when it is not to be used any more, milliseconds since 1970 UTC.
        origin: the ledger's name.
        key: the key of the boxes, wrapped by the key-encryption key.
    """

    version: Literal[1]
    backup: str
    made_ms: int
    until_ms: int
    origin: str
    key: bytes


class Secrets(msgspec.Struct, frozen=True):
    """What stands in the first box.

    Attributes:
        ledger_key: the ledger's private key as text.
        salts: the salt of each person's pseudonym.
    """

    ledger_key: str
    salts: dict[str, bytes]


class _Box(msgspec.Struct, frozen=True):
    """One box: wrapped keys by segment."""

    keys: list[tuple[bytes, bytes]]
    is_last: bool
    secrets: Secrets | None = None


def write_keys(
    file: BinaryIO,
    keystore: Keystore,
    secrets: Secrets,
    *,
    backup: str,
    made_ms: int,
    until_ms: int,
    origin: str,
    random: Callable[[int], bytes],
) -> int:
    """Write a copy of the keystore as it is at one moment; return how many keys are in it."""
    key = random(KEY_BYTES)
    header = Header(1, backup, made_ms, until_ms, origin, keystore.wrapper.wrap(key, _place(backup)))
    head = _HEADING + msgspec.json.encode(header) + b"\n"
    file.write(head)
    count = 0
    table = tables.keys
    with reading(keystore.engine) as connection:
        rows = connection.execution_options(yield_per=_KEYS_IN_A_BOX).execute(sa.select(table))
        number = 0
        pending = _Box([], is_last=False, secrets=secrets)
        for batch in rows.partitions(_KEYS_IN_A_BOX):
            _write_box(file, key, head, number, pending, random)
            number += 1
            pending = _Box([(row.segment, row.wrapped) for row in batch], is_last=False)
            count += len(pending.keys)
        _write_box(file, key, head, number, msgspec.structs.replace(pending, is_last=True), random)
    return count


class KeyCopy:
    """A copy of the keys that was opened: its header and secrets were read and hold.

    Attributes:
        header: what it says of itself.
        secrets: what its first box holds.
        wrapper: the key-encryption key it opened with.
    """

    def __init__(self, path: Path, wrapper: KeyWrapper) -> None:
        self._path = path
        self.wrapper = wrapper
        self.header = read_header(path)
        self._key = wrapper.unwrap(self.header.key, _place(self.header.backup))
        first = next(self._boxes())
        if first.secrets is None:
            raise _damaged(path, "its first box is another's")
        self.secrets = first.secrets

    def read_keys(self) -> Iterator[list[tuple[bytes, bytes]]]:
        """Give wrapped keys by segment, some thousands at a time.

        Raises:
            Problem: a box was altered, moved or taken out.
        """
        for box in self._boxes():
            yield box.keys

    def _boxes(self) -> Iterator[_Box]:
        with self._path.open("rb") as file:
            head = file.readline(_MAX_HEADER_BYTES) + file.readline(_MAX_HEADER_BYTES)
            number = 0
            while length := file.read(4):
                size = int.from_bytes(length, "big")
                data = file.read(size) if size <= _MAX_BOX_BYTES else b""
                if len(data) != size:
                    raise _damaged(self._path, f"box {number} ends too early")
                try:
                    text = open_box(self._key, data, _context(head, number))
                    box = msgspec.msgpack.decode(text, type=_Box)
                except (SealBroken, msgspec.MsgspecError) as broken:
                    raise _damaged(self._path, f"box {number} does not open: {broken}") from None
                number += 1
                yield box
                if box.is_last:
                    if file.read(1):
                        raise _damaged(self._path, "it goes on after its last box")
                    return
        raise _damaged(self._path, "its end is missing")


def read_header(path: Path) -> Header:
    """Return what a copy of the keys says of itself, unproved.

    Raises:
        Problem: it is no such file.
    """
    try:
        data = read_plain(path, limit=2 * _MAX_HEADER_BYTES)
    except FileNotFoundError:
        raise Problem("there is no such file", where=str(path), fix="name a copy of the keys") from None
    heading, _, rest = data.partition(b"\n")
    try:
        if heading + b"\n" != _HEADING:
            raise _damaged(path, "it does not begin as one")
        return msgspec.json.decode(rest.partition(b"\n")[0], type=Header)
    except msgspec.MsgspecError as error:
        raise _damaged(path, f"its header cannot be read: {error}") from None


def _write_box(
    file: BinaryIO, key: bytes, head: bytes, number: int, box: _Box, random: Callable[[int], bytes]
) -> None:
    sealed = seal_box(key, msgspec.msgpack.encode(box), _context(head, number), random)
    file.write(len(sealed).to_bytes(4, "big") + sealed)
    file.flush()
    os.fsync(file.fileno())


def _context(head: bytes, number: int) -> bytes:
    return b"keys" + hashlib.sha256(head).digest() + number.to_bytes(8, "big")


def _place(backup: str) -> bytes:
    # Longer than a segment's name, so that it is no segment's.
    return b"key copy " + backup.encode()


def _damaged(path: Path, what: str) -> Problem:
    return Problem(
        f"this is no copy of the keys, or it is damaged: {what}",
        where=str(path),
        fix="use another copy, or restore beside the keystore that is there",
    )
