"""Verifies a backup by itself: that it is whole, and signed with the key of a ledger."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from bailee.ledger.log import FOLDER as LEDGER
from bailee.ledger.log import VERIFIER
from bailee.ledger.notes import Verifier, parse_verifier
from bailee.ledger.storage import DirectoryTiles
from bailee.vault.backups.manifests import (
    PARTS,
    VAULT,
    Manifest,
    check_part,
    checkpoint_of,
    damaged,
    read_manifest,
)
from bailee.vault.backups.sources import check_ledger


def verify_backup(folder: Path, verifier: Verifier, report: Callable[[int, int], None]) -> Manifest:
    """Read all of a backup, and return what it says it holds.

    Raises:
        Problem: any part of it is not as it was made.
    """
    manifest = read_manifest(folder, verifier)
    total = sum(part.bytes for part in manifest.parts.values())
    done = 0

    def count(read: int) -> None:
        nonlocal done
        done += read
        report(done, total)

    for name in PARTS:
        check_part(folder, name, manifest, None, count)
    # Read-only and without a log: nothing is written beside it.
    with closing(sqlite3.connect(f"file:{folder / VAULT}?mode=ro&immutable=1", uri=True)) as database:
        if (found := database.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
            raise damaged(f"{VAULT}: {found}", folder)
    size = check_ledger(
        folder / LEDGER, verifier, manifest.checkpoint, what="the ledger of the backup", report=report
    )
    if size != checkpoint_of(manifest, verifier, folder).size:
        raise damaged("its ledger is not the one its manifest tells of", folder)
    return manifest


def read_verifier(folder: Path) -> Verifier:
    """Return the public key that lies in a backup: enough to see that it is whole, not whose it is.

    Raises:
        Problem: it is missing or no key.
    """
    text = DirectoryTiles(folder / LEDGER).read(VERIFIER)
    if text is None:
        raise damaged("the public key of its ledger is missing", folder)
    return parse_verifier(text.decode("utf-8", "replace"))
