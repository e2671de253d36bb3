"""A home under custody that is backed up, loses parts of itself, and is restored."""

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from bailee.accounts.people import Account
from bailee.accounts.tables import ACCOUNTS
from bailee.database.engines import open_database
from bailee.database.stores import Store
from bailee.ledger.copies import copy_log
from bailee.ledger.log import FOLDER
from bailee.ledger.pseudonyms import PSEUDONYMS
from bailee.policy.periods import Period
from bailee.policy.plans import Plan
from bailee.vault.backups.creation import Created, create_backup
from bailee.vault.backups.installing import begin, finish, install
from bailee.vault.backups.sources import Request
from bailee.vault.backups.staging import Restoration, stage
from bailee.vault.tables import KEYSTORE, VAULT
from counterparts.keeping import Keeping

STORES = (VAULT, ACCOUNTS, KEYSTORE, PSEUDONYMS)


class Archive:
    """A home, the place its backups are in, and what happens to both.

    Attributes:
        keeping: the home, opened; another one after each restore.
        backup, keys, mirror, kek: where the backup is, and the copies of keys, ledger and key-encryption key.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.keeping = Keeping(self.home)
        self.backup, self.keys = folder / "backup", folder / "keys"
        self.mirror, self.kek = folder / "mirror", folder / "kek"

    @property
    def ada(self) -> Account:
        """The account of most of what is held."""
        return self.keeping.custody.directory.get("ada")

    def create(self, *, keys: bool = True, window: str = "7d", backup: Path | None = None) -> Created:
        """Make a backup, with a copy of the keys and of the key-encryption key."""
        if not self.kek.exists():
            shutil.copy(self.home / "keystore" / "kek", self.kek)
        return create_backup(
            self.keeping.custody,
            backup or self.backup,
            keys=self.keys if keys else None,
            window=Period.parse(window),
            by="op",
        )

    def erase_session(self, session: str) -> None:
        """Erase a session of ada's."""
        self.keeping.custody.erase_session(self.ada.id, session, by="op")

    def copy_ledger(self) -> None:
        """Bring the mirror of the ledger up to date."""
        self.keeping.custody.settle()
        copy_log(self.home / FOLDER, self.mirror, self.keeping.custody.log.verifier)

    def lose(self, *stores: Store) -> None:
        """Lose some databases."""
        self.keeping.close()
        for store in stores:
            lose_database(self.home, store)

    def lose_everything(self) -> None:
        """Lose the machine: the home with all that is in it, and its databases."""
        self.lose(*STORES)
        shutil.rmtree(self.home)
        self.home.mkdir(mode=0o700)

    def stage(self, **request: object) -> Restoration:
        """Stage a restore at the time of the home."""
        wanted = Request(**{"backup": self.backup, "by": "op", **request})  # type: ignore[arg-type]
        return stage(self.home, wanted, now_ms=int(self.keeping.now * 1000))

    def restore(self, **request: object) -> Restoration:
        """Restore, and open the home again at the same time."""
        now = self.keeping.now
        staged = self.stage(**request)
        self.keeping.close()
        begin(self.home)
        install(self.home, at_ms=int(now * 1000))
        finish(self.home, staged)
        self.open(now)
        return staged

    def restore_anew(self, **request: object) -> Restoration:
        """Restore a lost machine from all the copies there are."""
        copies = {"keys": self.keys, "kek": self.kek, "ledger": self.mirror}
        return self.restore(**{**copies, **request})

    def open(self, now: float) -> None:
        """Open the home at a time."""
        self.keeping = Keeping(self.home)
        self.keeping.now = now

    def said(self, name: str = "ada") -> set[bytes]:
        """Return what an account said that opens."""
        from bailee.vault.reader import list_sessions, read_session

        custody = self.keeping.custody
        account = custody.directory.get(name).id
        return {
            transcript.request.reveal()
            for session in list_sessions(custody.vault, account=account)
            for transcript in read_session(
                custody.vault, custody.keystore, account, session.id, today=custody.today()
            )
        }


def lose_database(home: Path, store: Store) -> None:
    """Lose a database: its files, or its rows on a server."""
    engine = open_database(home / store.file, store)
    if engine.dialect.name == "postgresql":
        names = ", ".join(table.name for table in store.metadata.sorted_tables)
        with engine.begin() as connection:
            connection.execute(sa.text(f"TRUNCATE {names}"))
    engine.dispose()
    for suffix in ("", "-wal", "-shm"):
        (home / f"{store.file}{suffix}").unlink(missing_ok=True)


def modes(folder: Path) -> set[tuple[bool, int]]:
    """Return the permissions below a folder and of it, each with whether it is a folder's."""
    found = [folder, *folder.rglob("*")]
    return {(path.is_dir(), stat.S_IMODE(os.lstat(path).st_mode)) for path in found}


@pytest.fixture
def archive(tmp_path: Path, database: str) -> Iterator[Archive]:
    """Give a home with ada, who said something in three sessions, and boss of acme."""
    opened = Archive(tmp_path)
    directory = opened.keeping.custody.directory
    directory.add("ada", Plan.PRO)
    directory.add("boss", Plan.TEAM, organization="acme")
    for number in (1, 2, 3):
        opened.keeping.record("ada", f"session-{number}", b"the heron of %d" % number)
    opened.keeping.record("boss", "session-b", b"the egret")
    yield opened
    opened.keeping.close()


@pytest.fixture
def make_archive(tmp_path: Path) -> Callable[[str], Archive]:
    """Give what makes another home."""
    return lambda name: Archive(tmp_path / name)
