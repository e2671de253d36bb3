"""A home's vault and keystore, opened together for reading."""

from pathlib import Path

import sqlalchemy as sa

from bailee.database.engines import open_database
from bailee.vault import tables
from bailee.vault.keystore import Keystore, open_keystore

VAULT = Path("vault", "vault.db")
KEYSTORE = Path("keystore")


def open_vault(home: Path) -> sa.Engine:
    """Open, or make, the vault of a home.

    Raises:
        Problem: see `database.engines.open_database`.
    """
    return open_database(home / VAULT, tables.VAULT)


def open_keys(home: Path) -> Keystore:
    """Open, or make, the keystore of a home.

    Raises:
        Problem: see `vault.keystore.open_keystore`.
    """
    return open_keystore(home / KEYSTORE)
