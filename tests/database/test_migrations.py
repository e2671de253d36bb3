"""A store of an earlier program is led to the tables of this one: all of it, or none."""

import sqlite3
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from bailee.accounts.directory import open_directory
from bailee.accounts.holders import Operator, is_holder
from bailee.accounts.keys import create_key, list_keys, open_key_ring
from bailee.accounts.tables import ACCOUNTS, KeyOrigin
from bailee.database.stores import Store
from bailee.ledger.pseudonyms import PSEUDONYMS
from bailee.policy.plans import Plan
from bailee.policy.problems import Problem
from bailee.vault.reader import list_sessions, read_session
from bailee.vault.store import open_keys, open_vault
from bailee.vault.tables import KEYSTORE, VAULT
from counterparts.holdings import copy_first_home

STORES = (ACCOUNTS, VAULT, KEYSTORE, PSEUDONYMS)
FILES = {"accounts": "accounts.db", "vault": "vault/vault.db", "keystore": "keystore/keys.db"}


@pytest.mark.parametrize("store", STORES, ids=lambda store: store.name)
def test_the_head_is_the_last_revision(store: Store) -> None:
    """What the program takes for the newest revision is the one no other comes after."""
    scripts = ScriptDirectory(str(store.revisions), version_locations=[str(store.revisions)])
    assert scripts.get_heads() == [store.head]


def test_an_old_home_opens_whole(tmp_path: Path) -> None:
    """Accounts, consents, keys and every conversation of a home of the first program are there afterwards."""
    home = copy_first_home(tmp_path / "home")
    directory = open_directory(home)
    assert [(one.name, one.plan, one.training) for one in directory.all()] == [
        ("ada", "pro", True),
        ("bob", "team", False),
    ]
    directory.close()
    vault, keys = open_vault(home), open_keys(home)
    said = {
        session.id: b"".join(
            transcript.request.reveal()
            for transcript in read_session(vault, keys, session.account, session.id, today=date(2026, 11, 25))
        )
        for session in list_sessions(vault)
    }
    assert set(said) == {"first-session", "second-session"}
    assert b"the heron of turn 1" in said["first-session"]
    assert b"the heron of turn 2" in said["first-session"]
    assert b"the egret" in said["second-session"]
    with vault.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []
        assert connection.exec_driver_sql("PRAGMA auto_vacuum").scalar_one() == 2
    keys.close()
    vault.dispose()


def test_an_upgraded_home_has_the_tables_of_a_new_one(tmp_path: Path) -> None:
    """Column by column and index by index, what revisions lead to is what a new home is made with."""
    old, new = copy_first_home(tmp_path / "old"), tmp_path / "new"
    for home in (old, new):
        open_directory(home).close()
        open_vault(home).dispose()
        open_keys(home).close()
    for store in (ACCOUNTS, VAULT, KEYSTORE):
        shapes = [describe(home / FILES[store.name]) for home in (old, new)]
        assert shapes[0] == shapes[1], store.name
        with sa.create_engine(f"sqlite:///{old / FILES[store.name]}").connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), store.metadata) == []


# What revision 6 of the accounts added.
CONSOLE = ("passwords", "operators", "sign_ins", "managed_settings")
# And revision 7.
PASSKEYS = ("passkeys", "passkey_challenges")
# And revision 8.
IDENTITIES = ("identities", "identity_requests", "identity_providers")


def test_the_keys_of_an_earlier_program_prove_nobody(tmp_path: Path, database: str) -> None:
    """Nobody knows any more who made them: agents go on with them, and content opens with none of them."""
    directory = open_directory(tmp_path)
    ada = directory.add("ada", Plan.PRO)
    _, secret = create_key(directory, "ada", origin=KeyOrigin.HOLDER, made_by="ada")
    somebody = Operator("somebody", -1, secret)
    assert is_holder(directory.engine, ada.id, somebody)
    mark = {
        "sqlite": "PRAGMA user_version = 2",
        "postgresql": "UPDATE alembic_version SET version_num = '0002'",
    }
    with directory.engine.begin() as connection:
        for table in ("logins", "login_guesses", "secrets", *CONSOLE, *PASSKEYS, *IDENTITIES):
            connection.exec_driver_sql(f"DROP TABLE {table}")
        connection.exec_driver_sql("ALTER TABLE accounts DROP COLUMN suspended_ms")
        for column in ("origin", "made_by"):
            connection.exec_driver_sql(f"ALTER TABLE keys DROP COLUMN {column}")
        connection.exec_driver_sql(mark[directory.engine.dialect.name])
    directory.close()
    directory = open_directory(tmp_path)
    (key,) = list_keys(directory)
    assert (key.origin, key.made_by, key.is_proof) == (None, None, False)
    assert not is_holder(directory.engine, ada.id, somebody)
    directory.close()
    ring = open_key_ring(tmp_path)
    assert ring.authenticate(secret.encode()) is not None
    ring.close()


def describe(path: Path) -> dict[str, object]:
    """Return the columns, keys and indexes of every table of a database."""
    shape: dict[str, object] = {}
    connection = sqlite3.connect(path)
    for (table,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name"):
        columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
        indexes = connection.execute(f"PRAGMA index_list({table})").fetchall()
        shape[table] = (
            sorted((name, kind, bool(required), key) for _, name, kind, required, _, key in columns),
            sorted((name, unique) for _, name, unique, *_ in indexes),
            sorted(row[2:5] for row in connection.execute(f"PRAGMA foreign_key_list({table})")),
        )
    shape["version"] = connection.execute("PRAGMA user_version").fetchone()
    connection.close()
    return shape


_KILLED = """
import os, signal, sys
from pathlib import Path
import bailee.database.migrations as migrations
upgrade = migrations.upgrade
def die(*arguments):
    upgrade(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
migrations.upgrade = die
from bailee.vault.store import open_vault
open_vault(Path(sys.argv[1]))
"""


def test_an_upgrade_that_was_killed_has_not_happened(tmp_path: Path) -> None:
    """kill -9 at its end leaves the old store, and the next start upgrades it."""
    home = copy_first_home(tmp_path / "home")
    before = describe(home / FILES["vault"])
    done = subprocess.run([sys.executable, "-c", _KILLED, str(home)], check=False)
    assert done.returncode == -9
    assert describe(home / FILES["vault"]) == before
    open_vault(home).dispose()
    assert describe(home / FILES["vault"]) != before


def test_an_upgrade_that_fails_changes_nothing(tmp_path: Path) -> None:
    """A store that already has a table of a name that is needed is left as it is, and the fault is told."""
    home = copy_first_home(tmp_path / "home")
    connection = sqlite3.connect(home / FILES["vault"])
    connection.execute("CREATE TABLE holds (something TEXT)")
    connection.commit()
    connection.close()
    before = describe(home / FILES["vault"])
    with pytest.raises(Problem, match="holds"):
        open_vault(home)
    assert describe(home / FILES["vault"]) == before
