"""What a backup says it holds, signed with the ledger's key.

A backup is a folder: `manifest`, `vault.db`, `accounts` and `ledger/`. The manifest is a signed note
(c2sp.org/signed-note) of two lines, a heading and JSON; whatever is not in it is no part of the backup.
"""

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from bailee.files import create_private
from bailee.ledger.checkpoints import Checkpoint, open_checkpoint
from bailee.ledger.log import FOLDER as LEDGER
from bailee.ledger.notes import MAX_NOTE_BYTES, NoteRefused, Verifier, open_note
from bailee.policy.problems import Problem

MANIFEST = "manifest"
VAULT = "vault.db"
ACCOUNTS = "accounts"
PARTS = (VAULT, ACCOUNTS)
_HEADING = "bailee backup 1"
_CHUNK_BYTES = 1024 * 1024


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of a backup; `sha256` in hexadecimal digits."""

    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a backup holds.

    Attributes:
        id: 32 hexadecimal digits, drawn.
        made_ms: when its making began, milliseconds since 1970 UTC.
        program: the version that made it.
        revisions: the revision of each store's tables.
        ledger_from: how many entries the ledger had before the vault was copied: what these tell of is in it.
        checkpoint: the signed note of the ledger that is in the backup, copied last.
        counts: rows by table, and people.
    """

    version: Literal[1]
    id: str
    made_ms: int
    program: str
    revisions: dict[str, str]
    ledger_from: int
    checkpoint: str
    counts: dict[str, int]
    parts: dict[str, Part]


class Copied(msgspec.Struct, frozen=True):
    """A file that was read once: how long it is and what it hashes to."""

    bytes: int
    sha256: str


def sign_manifest(manifest: Manifest, sign: Callable[[str], bytes]) -> bytes:
    """Return the signed note of a manifest."""
    return sign(f"{_HEADING}\n{msgspec.json.encode(manifest).decode()}\n")


def read_manifest(folder: Path, verifier: Verifier) -> Manifest:
    """Return the manifest of a backup.

    Raises:
        Problem: there is none, or it is not as the home whose ledger has this key made it.
    """
    if not folder.is_dir():
        raise Problem("there is no backup here", where=str(folder), fix="name the folder of a backup")
    try:
        data = read_plain(folder / MANIFEST, limit=MAX_NOTE_BYTES)
    except FileNotFoundError:
        raise Problem(
            "this is no backup, or one that was never finished: its manifest is missing",
            where=str(folder),
            fix="name the folder that `bailee backup create` made",
        ) from None
    try:
        text = open_note(data, (verifier,)).text
    except NoteRefused as refused:
        raise damaged(f"its manifest does not hold: {refused}", folder) from None
    heading, _, body = text.partition("\n")
    try:
        if heading != _HEADING:
            raise damaged("what its manifest is signed over is something else", folder)
        manifest = msgspec.json.decode(body, type=Manifest)
    except msgspec.MsgspecError as error:
        raise damaged(f"its manifest is not of a version this program knows: {error}", folder) from None
    if set(manifest.parts) != set(PARTS):
        raise damaged("its manifest names other parts than a backup has", folder)
    strays = sorted(found.name for found in folder.iterdir() if found.name not in (MANIFEST, LEDGER, *PARTS))
    if strays:
        raise damaged(f"{strays[0]!r} is no part of it", folder)
    return manifest


def checkpoint_of(manifest: Manifest, verifier: Verifier, folder: Path) -> Checkpoint:
    """Return the checkpoint of the ledger in a backup.

    Raises:
        Problem: it is not signed by this key.
    """
    try:
        return open_checkpoint(manifest.checkpoint.encode(), verifier)
    except NoteRefused as refused:
        raise damaged(f"its checkpoint does not hold: {refused}", folder) from None


def check_part(
    folder: Path, name: str, manifest: Manifest, target: Path | None, report: Callable[[int], None]
) -> None:
    """Read a part in full and compare it with the manifest.

    Args:
        target: where to put a copy, so that what is used later is what was compared; nowhere if None.
        report: told how many bytes were read since the last time.

    Raises:
        Problem: it is missing or altered.
    """
    try:
        copied = copy_file(folder / name, target, report)
    except FileNotFoundError:
        raise damaged(f"{name} is missing", folder) from None
    part = manifest.parts[name]
    if (copied.bytes, copied.sha256) != (part.bytes, part.sha256):
        raise damaged(f"{name} is not what its manifest says", folder)


def copy_file(source: Path, target: Path | None, report: Callable[[int], None]) -> Copied:
    """Read a file in full, and write a private copy of it that is on the disk on return.

    Raises:
        Problem: it is no plain file; a link in its place would lead elsewhere.
    """
    digest = hashlib.sha256()
    size = 0
    with os.fdopen(_open_plain(source), "rb") as file:
        copy = None if target is None else os.fdopen(create_private(target), "wb")
        try:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
                if copy is not None:
                    copy.write(chunk)
                report(len(chunk))
            if copy is not None:
                copy.flush()
                os.fsync(copy.fileno())
        finally:
            if copy is not None:
                copy.close()
    return Copied(size, digest.hexdigest())


def read_plain(path: Path, *, limit: int) -> bytes:
    """Return the bytes of a plain file, those past `limit` left out but for one."""
    with os.fdopen(_open_plain(path), "rb") as file:
        return file.read(limit + 1)


def damaged(what: str, folder: Path) -> Problem:
    """Return the problem of a backup that is not as it was made."""
    return Problem(
        f"this backup is damaged, or not of this home: {what}",
        where=str(folder),
        fix="use another backup; see: bailee backup verify",
    )


def _open_plain(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Problem(f"it cannot be read: {error.strerror}", where=str(path), fix="check the file") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Problem("this is no plain file", where=str(path), fix="use a backup as it was made")
    return descriptor
