"""Tells whether others changed a PostgreSQL database, by what its triggers notify (LISTEN, NOTIFY).

A notification is sent with its commit and may still be on its way when the one who committed goes on. So each
look asks the server an empty question, whose answer comes after every notification of a commit before it:
some 16 µs on one machine. A look that only read what has come would serve a key for a moment after it was
revoked, and would for ever see nothing on a connection that died without a word.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import psycopg
import sqlalchemy as sa
import sqlalchemy.event
import sqlalchemy.exc
from psycopg.pq import ExecStatus

from bailee.database.postgresql import CHANNEL


def watch_changes(engine: sa.Engine) -> Callable[[], int]:
    """Return a function whose number differs once anybody has committed a change that is watched.

    On a connection of its own, which goes with the engine. A lost one counts as a change at every look until
    there is another: whoever trusts what was read before has to read again, and is told there what is wrong.
    """
    changes = 0
    listening: psycopg.Connection[Any] | None = _listen(engine)

    def close(*_: object) -> None:
        nonlocal listening
        if listening is not None:
            with contextlib.suppress(psycopg.Error):
                listening.close()
        listening = None

    def version() -> int:
        nonlocal changes, listening
        try:
            if listening is None:
                changes += 1  # whatever happened meanwhile was told to nobody
                listening = _listen(engine)
            changes += len(_collect(listening))
        except (psycopg.Error, sqlalchemy.exc.SQLAlchemyError):
            changes += 1
            close()
        return changes

    sqlalchemy.event.listen(engine, "engine_disposed", close)
    return version


def watch_others(connection: sa.Connection) -> Callable[[], int]:
    """Return a function whose number differs once anybody but this very connection has committed a change.

    Not to be called within a transaction: the server tells nothing there.
    """
    changes = 0
    driver: Any = connection.connection.driver_connection
    own: int = driver.info.backend_pid

    def note(notification: psycopg.Notify) -> None:
        nonlocal changes
        changes += notification.pid != own

    def version() -> int:
        nonlocal changes
        try:
            changes += sum(pid != own for pid in _collect(driver))
        except psycopg.Error:
            changes += 1  # the next statement tells what is wrong
        return changes

    # What comes with the answers to other statements.
    driver.add_notify_handler(note)
    connection.exec_driver_sql(f"LISTEN {CHANNEL}")
    connection.commit()
    return version


def _listen(engine: sa.Engine) -> "psycopg.Connection[Any]":
    pooled = engine.raw_connection()
    driver: Any = pooled.driver_connection
    pooled.detach()
    driver.autocommit = True
    driver.execute(f"LISTEN {CHANNEL}")
    listening: psycopg.Connection[Any] = driver
    return listening


def _collect(connection: "psycopg.Connection[Any]") -> list[int]:
    """Return who committed a change since the last look: the process ids of their connections."""
    if connection.pgconn.exec_(b"").status != ExecStatus.EMPTY_QUERY:
        raise psycopg.OperationalError("the connection is lost")
    found = []
    while (notification := connection.pgconn.notifies()) is not None:
        found.append(notification.be_pid)
    return found
