"""Puts what was staged into its place, so that a process that is killed in between leaves nothing half done.

A marker in the home says that this has begun: while it is there, no database of the home opens, and running
the restore again goes on. Each step is safe to do again.
"""

import fcntl
import os
import shutil
from pathlib import Path

import msgspec

from bailee.accounts.tables import ACCOUNTS as ACCOUNTS_STORE
from bailee.database.engines import open_unfinished
from bailee.database.locations import RESTORING, find_server
from bailee.database.snapshots import replace_rows
from bailee.database.sqlite import create_folder, open_file
from bailee.database.stores import Store
from bailee.files import sync_folder
from bailee.ledger.entries import decode_entry
from bailee.ledger.log import FOLDER as LEDGER
from bailee.ledger.pseudonyms import PSEUDONYMS
from bailee.ledger.receipts import make_receipt
from bailee.ledger.storage import LOCK
from bailee.policy.problems import Problem
from bailee.vault import tables
from bailee.vault.backups.sources import KEK
from bailee.vault.backups.staging import DUE, RESULT, STAGING, Due, Restoration
from bailee.vault.custody import open_custody
from bailee.vault.keystore import open_keystore
from bailee.vault.store import KEYSTORE

_STAGED = (
    (tables.VAULT, "vault.db"),
    (ACCOUNTS_STORE, "accounts.db"),
    (tables.KEYSTORE, "keys.db"),
    (PSEUDONYMS, "pseudonyms.db"),
)


def read_unfinished(home: Path) -> Restoration | None:
    """Return the restore that has begun to replace what is in a home, or None.

    Raises:
        Problem: one has, and it cannot be read which.
    """
    try:
        data = (home / RESTORING).read_bytes()
    except FileNotFoundError:
        return None
    try:
        return msgspec.json.decode(data, type=Restoration)
    except msgspec.MsgspecError as error:
        raise Problem(
            f"it cannot be read which restore has begun: {error}",
            where=str(home / RESTORING),
            fix="restore with the program that began it",
        ) from None


def begin(home: Path) -> None:
    """Set the marker: from here on the home is what was staged, or does not open."""
    (home / STAGING / RESULT).rename(home / RESTORING)
    sync_folder(home / STAGING)
    sync_folder(home)


def discard(home: Path) -> None:
    """Take away what was staged, unless it is being put into place."""
    if not (home / RESTORING).exists():
        shutil.rmtree(home / STAGING, ignore_errors=True)


def install(home: Path, *, at_ms: int) -> None:
    """Put everything staged into its place, and take the marker off.

    Args:
        at_ms: when, for the ledger; milliseconds since 1970 UTC.
    """
    staged = home / STAGING
    _place_file(staged / KEK, home / KEYSTORE / KEK)
    _place_ledger(staged / LEDGER, home / LEDGER)
    for store, name in _STAGED:
        if (staged / name).exists():
            _replace(home, staged / name, store)
    # The vault that these keys opened is gone: nobody could say when they are due.
    _destroy_due(home, staged / DUE, at_ms)
    shutil.rmtree(staged, ignore_errors=True)
    (home / RESTORING).unlink()
    sync_folder(home)


def finish(home: Path, restoration: Restoration) -> bytes:
    """Move word of a restore on to the ledger, and return the receipt that it is there."""
    custody = open_custody(home)
    try:
        custody.accept_ledger()
        custody.settle()
        start = restoration.ledger_entries
        for index, data in enumerate(custody.log.read(start), start):
            if decode_entry(data).id == restoration.entry:
                return make_receipt(custody.log, [index])
    finally:
        custody.close()
    raise Problem("the ledger does not tell of this restore", where="ledger", fix="see: bailee ledger verify")


def _replace(home: Path, staged: Path, store: Store) -> None:
    target = home / store.file
    create_folder(target.parent)
    if find_server(home) is not None:
        source, engine = open_file(staged, store), open_unfinished(target, store)
        try:
            replace_rows(source, engine, store.metadata)
        finally:
            source.dispose()
            engine.dispose()
        _remove(staged)
        return
    # Whoever is just opening the database waits, and finds the marker or the new file.
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        # A write-ahead log belongs to the file it was written for, and would be played into the new one.
        for suffix in ("-wal", "-shm"):
            target.with_name(target.name + suffix).unlink(missing_ok=True)
        os.fsync(folder)
        staged.rename(target)
        os.fsync(folder)
    finally:
        os.close(folder)


def _remove(staged: Path) -> None:
    staged.unlink()
    for suffix in ("-wal", "-shm"):
        staged.with_name(staged.name + suffix).unlink(missing_ok=True)


def _place_file(staged: Path, target: Path) -> None:
    if staged.exists():
        create_folder(target.parent)
        staged.rename(target)
        sync_folder(target.parent)


def _place_ledger(staged: Path, target: Path) -> None:
    if not staged.exists():
        return
    if target.exists():
        # Looked over before: it holds no ledger, at most what somebody has begun to make.
        (target / LOCK).unlink(missing_ok=True)
        target.rmdir()
    staged.rename(target)
    sync_folder(target.parent)


def _destroy_due(home: Path, due: Path, at_ms: int) -> None:
    if not due.exists():
        return
    keystore = open_keystore(home / KEYSTORE, opening=open_unfinished)
    try:
        with due.open("rb") as file:
            for line in file:
                some = msgspec.json.decode(line, type=Due)
                keystore.destroy(some.segments, why=some.why, at_ms=at_ms)
        keystore.truncate_log()
    finally:
        keystore.close()
