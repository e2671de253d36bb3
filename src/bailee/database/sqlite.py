"""SQLite in WAL mode: a file for each database, of its owner alone, deleted bytes overwritten."""

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import sqlalchemy.event
import sqlalchemy.exc

from bailee.database.stores import Store
from bailee.policy.problems import Problem

BUSY_SECONDS = 10
_RARE_CHECKPOINT_BYTES = 64 * 1024 * 1024
# How long the write lock is held to give pages back, and how many that may be.
_STEP_SECONDS = 0.02
_PAGES_AT_FIRST, _MOST_PAGES = 100, 10_000


def open_file(path: Path, store: Store) -> sa.Engine:
    """Open, make, or bring up to date an SQLite database that only its owner can read.

    Every commit is synced to disk: an answer is complete for an agent only once its record is durable, and
    with many exchanges to a transaction the sync costs no more than without (docs/adr/0005). Freed pages are
    overwritten with zeros.

    Raises:
        Problem: the file is no database, is damaged, cannot be written, or was made by a newer program.
    """
    _create_private(path)
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": BUSY_SECONDS})
    sqlalchemy.event.listen(engine, "connect", partial(_prepare, store))
    try:
        with _opening_alone(path.parent):
            _bring_up_to_date(engine, store)
    except Problem as problem:
        engine.dispose()
        problem.where = problem.where or str(path)
        raise
    except sqlalchemy.exc.DatabaseError as error:
        engine.dispose()
        raise Problem(
            f"the database cannot be used: {error.orig}",
            where=str(path),
            fix="check the disk and the file's owner, or put the file back from a backup",
        ) from None
    return engine


def _bring_up_to_date(engine: sa.Engine, store: Store) -> None:
    with engine.connect() as connection:
        revision = _read_revision(connection)
        if revision == store.head:
            return
        connection.rollback()
        # A table that is laid out anew is dropped and renamed; what refers to it means the new one.
        connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
        connection.rollback()
        # The driver itself begins a transaction at the first insert only, too late for tables.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        if revision is None:
            store.metadata.create_all(connection)
        elif revision > store.head:
            raise Problem(
                f"this database was made by a newer Bailee (revision {revision}, known here {store.head})",
                fix="run the newer version; nothing was changed",
            )
        else:
            from bailee.database.migrations import upgrade

            upgrade(connection, store, revision)
        _write_revision(connection, store.head)
        connection.commit()
        connection.exec_driver_sql("PRAGMA foreign_keys = ON")
        if revision is not None and store.can_shrink:
            connection.exec_driver_sql("VACUUM")  # what makes giving back freed pages possible from now on


def _read_revision(connection: sa.Connection) -> str | None:
    """Return the revision a database is at, or None if it is empty.

    SQLite's own `user_version` holds its number: a table for one word would take two pages.
    """
    version: int = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    return f"{version:04}" if version else None


def _write_revision(connection: sa.Connection, revision: str) -> None:
    connection.exec_driver_sql(f"PRAGMA user_version = {int(revision)}")


@contextlib.contextmanager
def _opening_alone(directory: Path) -> Iterator[None]:
    """Hold every other process that opens a database in this folder until this one is done.

    A service, its recorder and a command may open a new home in the same moment. SQLite's own locks do not
    carry that far: switching to WAL fails at once where another holds the file, whatever the busy timeout,
    and between the look for a table and its making another may make it (39 of 48 processes failed so).
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def truncate_log(engine: sa.Engine, *, patience: float = BUSY_SECONDS) -> bool:
    """Move the write-ahead log into the database and empty it; tell whether that was done.

    It is not while somebody reads what stood there before. Until it is done, what was deleted is still in the
    log, and in the database's own pages.

    Args:
        patience: how long to wait for readers, in seconds.
    """
    with engine.connect() as connection:
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {int(patience * 1000)}")
        try:
            is_busy = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()[0]
        except sqlalchemy.exc.OperationalError:
            return False
        finally:
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
    return not is_busy


@contextlib.contextmanager
def checkpointing_rarely(engine: sa.Engine) -> Iterator[None]:
    """Let new connections move the write-ahead log into the database once for 64 MB, not for 1,000 pages.

    Each time waits for the disk, and what is spread over a whole file, as the keys of one day are, is written
    once instead of many times: keys were destroyed in half the time. Afterwards `truncate_log` is still to be
    called.
    """

    def prepare(connection: sqlite3.Connection, record: object) -> None:
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
        connection.execute(f"PRAGMA wal_autocheckpoint = {_RARE_CHECKPOINT_BYTES // page_bytes}")

    engine.dispose()
    sqlalchemy.event.listen(engine, "connect", prepare)
    try:
        yield
    finally:
        sqlalchemy.event.remove(engine, "connect", prepare)
        engine.dispose()


def give_back(engine: sa.Engine, seconds: float, *, stopwatch: Callable[[], float] = time.monotonic) -> int:
    """Give freed pages back to the file system for so long; return how many bytes that were.

    In small steps, because the write lock is held meanwhile. SQLite looks through its list of free pages for
    each page that it gives back. While the list is short, 1,000 pages take some 10 ms; with 2.5 million
    pages on it a single one took 10 ms, so that steps get as small as they have to.
    """
    with engine.connect() as connection:
        size = connection.exec_driver_sql("PRAGMA page_size").scalar_one()
        first = before = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        # One page to a step, and the driver steps to the end only what it runs as a script.
        driver: Any = connection.connection.driver_connection
        pages, now = _PAGES_AT_FIRST, stopwatch()
        deadline = now + seconds
        while now < deadline:
            driver.executescript(f"PRAGMA incremental_vacuum({pages})")
            after = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            if after == before:
                break
            before, began, now = after, now, stopwatch()
            wanted = pages * _STEP_SECONDS / max(now - began, 0.001)
            pages = max(1, min(int(wanted), 2 * pages, _MOST_PAGES))
    given: int = (first - before) * size
    return given


def watch_changes(engine: sa.Engine) -> Callable[[], int]:
    """Return a function whose number differs once anybody else, in this process or another, has committed.

    SQLite counts the commits of others in `data_version`: one read of shared memory, 2 µs, where asking a
    table takes 60. The connection behind it never writes, so it sees every commit.
    """
    database = sqlite3.connect(str(engine.url.database), isolation_level=None, timeout=BUSY_SECONDS)
    return _watch(database.cursor())


def watch_others(connection: sa.Connection) -> Callable[[], int]:
    """Return a function whose number differs once anybody but this very connection has committed."""
    return _watch(connection.connection.cursor())


def _watch(cursor: Any) -> Callable[[], int]:
    def version() -> int:
        number: int = cursor.execute("PRAGMA data_version").fetchone()[0]
        return number

    return version


def create_folder(folder: Path) -> None:
    """Make a folder that only its owner can enter, and those it lies in.

    Raises:
        Problem: it cannot be made.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        for place in reversed(missing):  # `parents=True` would make them by the umask
            place.mkdir(mode=0o700, exist_ok=True)
        folder.mkdir(exist_ok=True)
    except FileExistsError:
        raise Problem(
            "the database cannot be made: its folder is a file",
            where=str(folder),
            fix="move the file away, or choose another folder",
        ) from None
    except OSError as error:
        raise _not_made(error, folder) from None


def _create_private(path: Path) -> None:
    # SQLite would make the file by the umask; its log and shared memory take over the file's own mode.
    create_folder(path.parent)
    try:
        # A file that is there is not opened: closing any descriptor of it drops every POSIX lock that SQLite
        # holds on it in this process ("How To Corrupt An SQLite Database File", section 2.2).
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return
    except OSError as error:
        raise _not_made(error, path) from None


def _not_made(error: OSError, path: Path) -> Problem:
    return Problem(
        f"the database cannot be made: {error.strerror}",
        where=str(path),
        fix="check the folder's owner and the space on the disk",
    )


def _prepare(store: Store, connection: sqlite3.Connection, record: object) -> None:
    cursor = connection.cursor()
    # The rest of a record's last page is lost: of a 12-turn session's bytes the usual 4096 took 8.3%, this
    # takes 7.6%, and 1024 took 6.3% but a quarter of the throughput.
    cursor.execute(f"PRAGMA page_size = {store.page_bytes}")
    if store.can_shrink:
        cursor.execute("PRAGMA auto_vacuum = INCREMENTAL")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA secure_delete = ON")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute(f"PRAGMA journal_size_limit = {4 * 1024 * 1024}")
    cursor.close()
