"""What a restore goes by: what is still there of a home, and what has to come from copies."""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import sqlalchemy as sa

from bailee.accounts.tables import ACCOUNTS as ACCOUNTS_STORE
from bailee.accounts.tables import accounts
from bailee.database.engines import open_database
from bailee.database.locations import find_server
from bailee.database.stores import Store
from bailee.ledger.log import CHECKPOINT, VERIFIER
from bailee.ledger.log import FOLDER as LEDGER
from bailee.ledger.notes import Verifier, parse_signer, parse_verifier
from bailee.ledger.pseudonyms import PSEUDONYMS, salts
from bailee.ledger.storage import DirectoryTiles
from bailee.ledger.verification import verify_ledger
from bailee.policy.problems import Problem
from bailee.sealing.wrapping import open_key_file
from bailee.vault import tables
from bailee.vault.backups.keycopies import KeyCopy
from bailee.vault.store import KEYSTORE

KEK = "kek"


class Request(msgspec.Struct, frozen=True):
    """What somebody asks to be restored.

    Attributes:
        backup: the folder of the backup.
        keys: the copy of the keys; None where the keystore is still there.
        kek: the key-encryption key's file; None where it is in its place in the home.
        ledger: the newest copy of the ledger; None where the ledger is still there.
        unknown: why it is accepted that nothing tells what was erased after the backup; None if it is not.
        by: who asks, in words.
    """

    backup: Path
    keys: Path | None = None
    kek: Path | None = None
    ledger: Path | None = None
    unknown: str | None = None
    by: str = ""


class Present(msgspec.Struct, frozen=True):
    """Which parts of a home are still there."""

    vault: bool
    accounts: bool
    keystore: bool
    pseudonyms: bool
    ledger: bool


def look_over(home: Path) -> Present:
    """Tell which parts of a home are still there; a database without rows counts as lost.

    Raises:
        Problem: one of them is there and cannot be opened.
    """
    return Present(
        vault=is_there(home, tables.VAULT),
        accounts=_has_rows(home, ACCOUNTS_STORE, accounts),
        keystore=_has_rows(home, tables.KEYSTORE, tables.origins, tables.keys),
        pseudonyms=_has_rows(home, PSEUDONYMS, salts),
        ledger=DirectoryTiles(home / LEDGER).read(CHECKPOINT) is not None,
    )


def check_request(request: Request, present: Present, home: Path) -> None:
    """Check that a request names what is lost, and nothing that would replace what is there.

    Raises:
        Problem: it does not.
    """
    needs_keys = not (present.keystore and present.pseudonyms)
    if present.keystore and not present.ledger:
        raise Problem(
            "the keystore is here and the ledger is not, so that nobody can say what was erased",
            where=str(home / LEDGER),
            fix="put the newest copy of the ledger there, with its key",
        )
    if needs_keys and request.keys is None:
        raise Problem(
            "the keystore is lost, and without its keys nothing of the backup opens",
            where="--keys",
            fix="name the copy of the keys that was made with `bailee backup create --keys`",
        )
    if not needs_keys and request.keys is not None:
        raise Problem(
            "the keystore is here, and an older copy of it would bring back what was erased",
            where="--keys",
            fix="leave --keys out",
        )
    if present.ledger and (request.ledger is not None or request.unknown is not None):
        raise Problem(
            "the ledger is here, and it tells what was erased",
            where="--ledger, --accept-unknown",
            fix="leave both out",
        )
    if not present.ledger and request.ledger is None and request.unknown is None:
        raise Problem(
            "the ledger is lost, and what was erased after the backup would come back",
            where="--ledger",
            fix="name the newest copy of the ledger; if there is none, say why that is accepted: "
            "--accept-unknown REASON",
        )


def is_there(home: Path, store: Store) -> bool:
    """Tell whether a home's database can be opened; one on a server is made if it is missing."""
    return find_server(home) is not None or (home / store.file).exists()


def open_key_copy(request: Request, home: Path, now_ms: int) -> KeyCopy:
    """Open the copy of the keys with the key-encryption key.

    Raises:
        Problem: it does not open, or its window is over.
    """
    assert request.keys is not None
    kek = request.kek or home / KEYSTORE / KEK
    try:
        wrapper = open_key_file(kek, os.urandom, create=False)
    except Problem as problem:
        problem.fix = f"{problem.fix}; or name it with --key-encryption-key"
        raise
    copy = KeyCopy(request.keys, wrapper)
    check_window(copy, now_ms)
    return copy


def check_window(copy: KeyCopy, now_ms: int) -> None:
    """Refuse a copy of the keys whose window is over.

    Raises:
        Problem: it is.
    """
    if now_ms > copy.header.until_ms:
        days = (now_ms - copy.header.until_ms) / 86_400_000
        raise Problem(
            f"the window of this copy of the keys ended {days:.1f} days ago",
            where="--keys",
            fix="use a newer copy, and delete this one: what was erased since would open with it",
        )


def find_verifier(home: Path, copy: KeyCopy | None) -> Verifier:
    """Return the public key of the home's ledger: its own, or that of the private key among the keys.

    Raises:
        Problem: neither is there.
    """
    text = DirectoryTiles(home / LEDGER).read(VERIFIER)
    if text is not None:
        return parse_verifier(text.decode("utf-8", "replace"))
    if copy is None:
        raise Problem(
            "there is no ledger here", where=str(home / LEDGER), fix="name another home with --home"
        )
    verifier = parse_signer(copy.secrets.ledger_key, where="--keys").verifier
    if verifier.name != copy.header.origin:
        raise Problem("this copy of the keys is not of one home", where="--keys", fix="use another copy")
    return verifier


def check_ledger(
    folder: Path, verifier: Verifier, since: str, *, what: str, report: Callable[[int, int], None]
) -> int:
    """Verify a ledger in full, and that it begins with all that an earlier one had; return its size.

    Args:
        since: the note of the earlier one's checkpoint.
        what: which ledger it is, in words.

    Raises:
        Problem: it does not verify.
    """
    found = verify_ledger(DirectoryTiles(folder), verifier, since=since.encode(), progress=report)
    if not found.verified or found.checkpoint is None:
        fault = found.faults[0]
        raise Problem(
            f"{what} does not verify, or does not go on from the backup's: {fault.what}",
            where=f"{folder}: {fault.path}",
            fix="use a copy that verifies (bailee ledger verify), or the backup that belongs to this home",
        )
    return found.checkpoint.size


def _has_rows(home: Path, store: Store, *looked_at: sa.Table) -> bool:
    if not is_there(home, store):
        return False
    engine = open_database(home / store.file, store)
    try:
        with engine.connect() as connection:
            return any(connection.execute(sa.select(table).limit(1)).first() for table in looked_at)
    finally:
        engine.dispose()
