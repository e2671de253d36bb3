"""Makes a backup of a home while it is in use: vault, accounts and ledger; the keys apart, if at all.

All of it is written beside its place and moved there once it is whole and on the disk, so that what has its
name is a backup.
"""

import contextlib
import fcntl
import os
import re
import secrets as drawing
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from bailee import __version__
from bailee.accounts.backups import write_people
from bailee.accounts.tables import ACCOUNTS as ACCOUNTS_STORE
from bailee.database.engines import truncate_log
from bailee.database.snapshots import copy_rows, count_rows, reading
from bailee.database.sqlite import open_file
from bailee.files import create_private, sync_folder, write_private
from bailee.ledger.copies import copy_log
from bailee.ledger.entries import BackedUp, KeyCopyDeleted, decode_entry
from bailee.ledger.log import FOLDER as LEDGER
from bailee.ledger.outbox import put
from bailee.ledger.pseudonyms import OPERATOR, PSEUDONYMS
from bailee.policy.periods import Period, Unit
from bailee.policy.problems import Problem
from bailee.vault import tables
from bailee.vault.backups.keycopies import Secrets, write_keys
from bailee.vault.backups.manifests import (
    ACCOUNTS,
    MANIFEST,
    VAULT,
    Manifest,
    Part,
    copy_file,
    sign_manifest,
)
from bailee.vault.custody import Custody

LONGEST_WINDOW_DAYS = 35
_DAY_MS = 86_400_000
# Told how much is done, and of how much.
Progress = Callable[[int, int], None]


class Created(msgspec.Struct, frozen=True):
    """A backup that was made.

    Attributes:
        bytes: the size of its vault and accounts.
        counts: rows by table, and people.
        ledger_entries: how many entries the copy of the ledger has.
        keys: how many keys are in the copy of the keys; None where none was made.
        keys_until_ms: until when that copy may be used, and by when it is to be deleted.
    """

    id: str
    made_ms: int
    bytes: int
    counts: dict[str, int]
    ledger_entries: int
    keys: int | None
    keys_until_ms: int | None


class KeyCopyKnown(msgspec.Struct, frozen=True):
    """A copy of the keys that the ledger tells of and nobody has said is deleted."""

    backup: str
    made_ms: int
    until_ms: int


def check_window(window: Period) -> Period:
    """Return the window of a copy of the keys unchanged.

    Raises:
        Problem: it is not some days, up to LONGEST_WINDOW_DAYS.
    """
    if window.unit is not Unit.DAYS or window.count > LONGEST_WINDOW_DAYS:
        raise Problem(
            f"{window} is no window for a copy of the keys: what is erased opens with it until it is deleted",
            where="--window",
            fix=f"give 1d to {LONGEST_WINDOW_DAYS}d",
        )
    return window


def create_backup(
    custody: Custody,
    folder: Path,
    *,
    keys: Path | None,
    window: Period,
    by: str,
    report: Progress = lambda done, total: None,
    random: Callable[[int], bytes] = drawing.token_bytes,
) -> Created:
    """Make a backup.

    Args:
        folder: what it is to be; nothing is there yet.
        keys: the file that a copy of the keys is to be, apart from the backup; None makes none.
        window: how long that copy may be used.
        by: who makes it, in words.

    Raises:
        Problem: one of the places is taken, or lies in the home or in the backup.
    """
    check_window(window)
    _check_place(folder, custody.home, "the backup")
    if keys is not None:
        if keys.absolute().is_relative_to(folder.absolute()):
            raise Problem(
                "a copy of the keys in the backup would open it for as long as the backup is kept",
                where=str(keys),
                fix="name a file elsewhere, which is deleted when its window ends",
            )
        _check_place(keys, custody.home, "the copy of the keys")
    custody.settle()
    id, made_ms = custody.draw(), custody.now_ms()
    until_ms = made_ms + window.count * _DAY_MS if keys is not None else None
    with _staging(folder) as staged:
        manifest = _write_parts(custody, staged, id, made_ms, report, random)
        with _staging_keys(keys) as staged_keys:
            count = None
            if staged_keys is not None and until_ms is not None:
                count = _write_key_copy(custody, staged_keys, id, made_ms, until_ms, random)
            entry = BackedUp(
                id=custody.draw(),
                at_ms=custody.now_ms(),
                backup=id,
                by=custody.pseudonyms.name(f"{OPERATOR}{by}"),
                keys_until_ms=until_ms,
            )
            with custody.vault.begin() as connection:
                put(connection, tables.vault_outbox, [entry])
            # First the ledger: there is no copy of the keys that nobody knows of.
            custody.settle()
            if staged_keys is not None and keys is not None:
                staged_keys.rename(keys)
                sync_folder(keys.absolute().parent)
        staged.rename(folder)
        sync_folder(folder.absolute().parent)
    size = sum(part.bytes for part in manifest.parts.values())
    entries = custody.log.checkpoint(manifest.checkpoint.encode()).size
    return Created(id, made_ms, size, manifest.counts, entries, count, until_ms)


def list_key_copies(custody: Custody) -> list[KeyCopyKnown]:
    """Return the copies of keys that nobody has confirmed to be deleted, the oldest first."""
    known: dict[str, KeyCopyKnown] = {}
    for data in custody.log.read():
        if b'"backup":' not in data:
            continue
        entry = decode_entry(data)
        if isinstance(entry, BackedUp) and entry.keys_until_ms is not None:
            known[entry.backup] = KeyCopyKnown(entry.backup, entry.at_ms, entry.keys_until_ms)
        elif isinstance(entry, KeyCopyDeleted):
            known.pop(entry.backup, None)
    return list(known.values())


def confirm_deleted(custody: Custody, backup: str, *, by: str) -> KeyCopyKnown:
    """Record that every copy of the keys made with a backup is deleted.

    Raises:
        Problem: the ledger knows of no such copy.
    """
    found = [known for known in list_key_copies(custody) if known.backup.startswith(backup)]
    if len(found) != 1:
        raise Problem(
            f"there is no copy of keys {backup!r} that waits to be deleted",
            where="BACKUP_ID",
            fix="see: bailee backup list-keys",
        )
    entry = KeyCopyDeleted(
        id=custody.draw(),
        at_ms=custody.now_ms(),
        backup=found[0].backup,
        by=custody.pseudonyms.name(f"{OPERATOR}{by}"),
    )
    with custody.vault.begin() as connection:
        put(connection, tables.vault_outbox, [entry])
    custody.settle()
    return found[0]


def _write_parts(
    custody: Custody,
    staged: Path,
    id: str,
    made_ms: int,
    report: Progress,
    random: Callable[[int], bytes],
) -> Manifest:
    ledger_from = custody.log.size
    counts = _copy_vault(custody, staged / VAULT, report)
    # After the vault: whoever is in it and was not erased since is in here.
    with os.fdopen(create_private(staged / ACCOUNTS), "wb") as file:
        people = write_people(custody.directory.engine, custody.pseudonyms.salt, file, random)
        file.flush()
        os.fsync(file.fileno())
    _forget_erased(custody, people)
    note = copy_log(custody.home / LEDGER, staged / LEDGER, custody.log.verifier)
    parts = {}
    for name in (VAULT, ACCOUNTS):
        copied = copy_file(staged / name, None, lambda count: None)
        parts[name] = Part(copied.bytes, copied.sha256)
    manifest = Manifest(
        version=1,
        id=id,
        made_ms=made_ms,
        program=__version__,
        revisions={store.name: store.head for store in (tables.VAULT, ACCOUNTS_STORE, PSEUDONYMS)},
        ledger_from=ledger_from,
        checkpoint=note.decode(),
        counts={**counts, "people": len(people)},
        parts=parts,
    )
    write_private(staged / MANIFEST, sign_manifest(manifest, custody.log.sign))
    sync_folder(staged)
    return manifest


def _copy_vault(custody: Custody, path: Path, report: Progress) -> dict[str, int]:
    copy = open_file(path, tables.VAULT)
    ordered = tables.vault.sorted_tables
    try:
        with reading(custody.vault) as source, copy.begin() as target:
            counts = count_rows(source, ordered)
            total, done = sum(counts.values()), 0

            def count(rows: int) -> None:
                nonlocal done
                done += rows
                report(done, total)

            copy_rows(source, target, ordered, count)
        truncate_log(copy)
    finally:
        copy.dispose()
    return counts


def _forget_erased(custody: Custody, people: list[str]) -> None:
    """Destroy salts that were drawn here for who was erased in the same moment."""
    there: set[str | None] = set()
    for account in custody.directory.all():
        there |= {account.id, account.organization}
    for person in people:
        if person not in there:
            custody.pseudonyms.forget(person)


def _write_key_copy(
    custody: Custody, path: Path, id: str, made_ms: int, until_ms: int, random: Callable[[int], bytes]
) -> int:
    with path.open("r+b") as file:
        return write_keys(
            file,
            custody.keystore,
            Secrets(custody.log.export_key(), custody.pseudonyms.all()),
            backup=id,
            made_ms=made_ms,
            until_ms=until_ms,
            origin=custody.log.verifier.name,
            random=random,
        )


def _check_place(place: Path, home: Path, what: str) -> None:
    if place.exists() or place.is_symlink():
        raise Problem(f"{what} would replace what is here", where=str(place), fix="name a new place")
    if not place.absolute().parent.is_dir():
        raise Problem(
            f"the folder that {what} is to lie in is not there", where=str(place.parent), fix="make it first"
        )
    if place.absolute().resolve().is_relative_to(home.resolve()):
        raise Problem(
            f"{what} would lie in the home, and be lost with it",
            where=str(place),
            fix="name a place elsewhere",
        )


@contextlib.contextmanager
def _staging(final: Path) -> Iterator[Path]:
    """Give a new folder near a place, held while it lasts; those of creations that were killed go."""
    _sweep(final)
    around = final.absolute().with_name(f".{final.name}.{drawing.token_hex(8)}")
    around.mkdir(mode=0o700)
    held = os.open(around, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        # Not the folder that is held: whoever opens a database in a folder locks that.
        staged = around / "backup"
        staged.mkdir(mode=0o700)
        yield staged
    finally:
        os.close(held)
        shutil.rmtree(around, ignore_errors=True)


@contextlib.contextmanager
def _staging_keys(final: Path | None) -> Iterator[Path | None]:
    if final is None:
        yield None
        return
    _sweep(final)
    staged = final.absolute().with_name(f".{final.name}.{drawing.token_hex(8)}")
    held = create_private(staged)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield staged
    finally:
        os.close(held)
        staged.unlink(missing_ok=True)


def _sweep(final: Path) -> None:
    """Take away what creations of the same name that were killed have left."""
    left = re.compile(rf"\.{re.escape(final.name)}\.[0-9a-f]{{16}}")
    for path in final.absolute().parent.iterdir():
        if not left.fullmatch(path.name) or path.is_symlink():
            continue
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()
            except BlockingIOError:
                continue
            finally:
                os.close(descriptor)
