"""Receipts of what account holders erased themselves, kept for them until their account goes.

An erasure that was asked for in a browser may be done when nobody waits for its answer any more. A receipt
names nobody and holds nothing of what went; each is a file below the home, in a folder of its account's.
"""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from bailee.files import replace_file

FOLDER = "receipts"


def keep_receipt(home: Path, account: str, receipt: bytes, *, at_ms: int) -> None:
    """Keep a receipt of an account's.

    Args:
        at_ms: milliseconds since 1970 UTC, which receipts are listed by.
    """
    folder = home / FOLDER / account
    for made in (home / FOLDER, folder):
        made.mkdir(mode=0o700, exist_ok=True)
    replace_file(folder / f"{at_ms:015}-{hashlib.sha256(receipt).hexdigest()[:16]}.json", receipt)


def count_receipts(home: Path, account: str) -> int:
    """Return how many receipts are kept for an account."""
    return len(_list(home, account))


def read_receipts(home: Path, account: str) -> Iterator[bytes]:
    """Give the receipts of an account one by one, the oldest first."""
    for path in _list(home, account):
        yield path.read_bytes()


def forget_receipts(home: Path, account: str) -> None:
    """Remove the receipts of an account that is gone."""
    shutil.rmtree(home / FOLDER / account, ignore_errors=True)


def _list(home: Path, account: str) -> list[Path]:
    return sorted((home / FOLDER / account).glob("*.json"))
