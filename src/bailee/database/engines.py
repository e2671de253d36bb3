"""Opens databases: SQLite files in the home by default, PostgreSQL where the environment says so."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa

from bailee.database import sqlite
from bailee.database.locations import RESTORING, find_server, mark
from bailee.database.presence import note_made, read_made, tell_lost
from bailee.database.stores import Store
from bailee.policy.problems import Problem

# PostgreSQL's part is imported where it is used: a home of SQLite files pays nothing for it.

BUSY_SECONDS = sqlite.BUSY_SECONDS


def open_database(path: Path, store: Store) -> sa.Engine:
    """Open, make, or bring up to date one database of a home.

    Args:
        path: where its file is in the home, if it is one: the home is told from it and `store.file`.

    Raises:
        Problem: it is no database, is damaged, cannot be reached or written, was made by a newer program, or
            is not where the home's databases are; it was there once and is gone; or a restore has begun and
            did not come to its end.
    """
    home = _home_of(path, store)
    if (home / RESTORING).exists():
        raise Problem(
            "a restore of this home has begun and is not finished, so nothing is served from it",
            where=str(home / RESTORING),
            fix="run the same `bailee backup restore` again: it goes on where it was",
        )
    return _open(path, store, is_made=store.name in read_made(home))


def open_unfinished(path: Path, store: Store) -> sa.Engine:
    """Open a database also in the middle of a restore, and where it is lost: for the restore itself."""
    return _open(path, store, is_made=False)


def _open(path: Path, store: Store, *, is_made: bool) -> sa.Engine:
    home = _home_of(path, store)
    server = find_server(home)
    if server is None:
        if is_made and not path.exists():
            raise tell_lost(store.name, str(path))
        engine = sqlite.open_file(path, store)
    else:
        from bailee.database import postgresql

        sqlite.create_folder(path.parent)
        engine = postgresql.open_server(server, store, create=not is_made)
        mark(home, server)
    note_made(home, store.name)
    return engine


def _home_of(path: Path, store: Store) -> Path:
    return path.parents[len(Path(store.file).parts) - 1] if store.file else path.parent


def is_shared(engine: sa.Engine) -> bool:
    """Tell whether other machines may use the database too."""
    return engine.dialect.name == "postgresql"


def is_overwriting(engine: sa.Engine) -> bool:
    """Tell whether deleted bytes are off the disk once `truncate_log` has told so.

    PostgreSQL keeps them in its write-ahead log and in its pages for a while: docs/adr/0010.
    """
    return not is_shared(engine)


def truncate_log(engine: sa.Engine, *, patience: float = BUSY_SECONDS) -> bool:
    """Take what was deleted off the disk as far as the database can; tell whether that was done.

    With SQLite, `sqlite.truncate_log`. With PostgreSQL, `postgresql.vacuum`: see `is_overwriting`.

    Args:
        patience: how long to wait for readers, in seconds.
    """
    if is_shared(engine):
        from bailee.database import postgresql

        return postgresql.vacuum(engine)
    return sqlite.truncate_log(engine, patience=patience)


def checkpointing_rarely(engine: sa.Engine) -> contextlib.AbstractContextManager[None]:
    """Write much with few waits for the disk, where the database leaves that to us (SQLite)."""
    return contextlib.nullcontext() if is_shared(engine) else sqlite.checkpointing_rarely(engine)


def give_back(engine: sa.Engine, seconds: float) -> int:
    """Give freed pages back to the file system, and return how many bytes that were.

    Args:
        seconds: for so long at most (SQLite), in steps between which others write.
    """
    if is_shared(engine):
        from bailee.database import postgresql

        return postgresql.give_back(engine)
    return sqlite.give_back(engine, seconds)


def watch_changes(engine: sa.Engine) -> Callable[[], int]:
    """Return a function whose number differs once anybody else, in this process or another, has committed.

    With PostgreSQL: has changed one of the tables in the store's `watched`.
    """
    if is_shared(engine):
        from bailee.database import notifications

        return notifications.watch_changes(engine)
    return sqlite.watch_changes(engine)


def watch_others(connection: sa.Connection) -> Callable[[], int]:
    """Return a function whose number differs once anybody but this very connection has committed."""
    if is_shared(connection.engine):
        from bailee.database import notifications

        return notifications.watch_others(connection)
    return sqlite.watch_others(connection)
