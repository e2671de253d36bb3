"""Leads a database of an earlier program to the tables of this one, in one transaction, with Alembic.

Imported only when there is something to do: Alembic takes 120 ms to import, and every command opens a
database.
"""

import warnings
from typing import Any

import sqlalchemy as sa
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory

from bailee.database.stores import Store


def upgrade(connection: sa.Connection, store: Store, revision: str) -> None:
    """Run the revisions after `revision`, up to the store's head; the caller's transaction holds them all."""
    scripts = ScriptDirectory(str(store.revisions), version_locations=[str(store.revisions)])

    def select_revisions(applied: Any, context: Any) -> Any:
        # Stores made before there were revisions carry no mark: theirs is given by the caller.
        return scripts._upgrade_revs(store.head, applied or revision)

    with EnvironmentContext(Config(), scripts, fn=select_revisions) as environment:
        environment.configure(connection=connection, target_metadata=store.metadata, transactional_ddl=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            environment.run_migrations()
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("DROP TABLE IF EXISTS alembic_version")  # `user_version` says it
