"""Leases: work that one node at a time may do, written down in the database that the nodes share.

A lease runs out by itself, so that a node that was killed holds up the others for some seconds only. Nodes
compare their own clocks: they must agree within a few seconds, as time servers keep them.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import sqlalchemy as sa
import sqlalchemy.exc

from bailee.policy.problems import Problem

LEASE_SECONDS = 15.0
_LOOK_SECONDS = 0.05


def node_name() -> str:
    """Return what this machine is called among those that share databases."""
    return socket.gethostname()


def lease_table(metadata: sa.MetaData) -> sa.Table:
    """Return the table of leases in a database."""
    return sa.Table(
        "leases",
        metadata,
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("holder", sa.Text, nullable=False),
        # Milliseconds since 1970 UTC.
        sa.Column("until_ms", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )


class Lease:
    """The right to do some work, for a while.

    Args:
        name: what work.
        holder: who asks; no other may use the same words.
        clock: seconds since 1970 UTC.
    """

    def __init__(
        self,
        engine: sa.Engine,
        table: sa.Table,
        name: str,
        holder: str,
        clock: Callable[[], float],
        seconds: float = LEASE_SECONDS,
    ) -> None:
        self.name = name
        self.seconds = seconds
        self._engine = engine
        self._table = table
        self._holder = holder
        self._clock = clock

    def take(self) -> bool:
        """Take the lease, or take it over where it has run out; tell whether it is ours."""
        leases, now = self._table, int(self._clock() * 1000)
        is_free = sa.or_(leases.c.holder == self._holder, leases.c.until_ms <= now)
        if self._set(is_free):
            return True
        row = {"name": self.name, "holder": self._holder, "until_ms": self._until()}
        try:
            with self._engine.begin() as connection:
                connection.execute(sa.insert(leases), row)
        except sqlalchemy.exc.IntegrityError:
            return False
        return True

    def renew(self) -> bool:
        """Let the lease run anew from now on; tell whether it was still ours.

        One that ran out and that nobody took is still ours.
        """
        return self._set(self._table.c.holder == self._holder)

    def keep(self) -> None:
        """Renew the lease before something that only its holder may do.

        Raises:
            Problem: another took it over, as this process stood still for longer than it ran.
        """
        if not self.renew():
            raise Problem(
                f"another process went on with the {self.name}, as this one stood still",
                where="leases",
                fix="try again",
            )

    def release(self) -> None:
        """Give the lease back, if it is still ours."""
        leases = self._table
        ours = sa.and_(leases.c.name == self.name, leases.c.holder == self._holder)
        with self._engine.begin() as connection:
            connection.execute(sa.delete(leases).where(ours))

    def _set(self, which: sa.ColumnElement[bool]) -> bool:
        leases = self._table
        change = sa.update(leases).where(leases.c.name == self.name, which)
        with self._engine.begin() as connection:
            values = {"holder": self._holder, "until_ms": self._until()}
            return connection.execute(change.values(values)).rowcount == 1

    def _until(self) -> int:
        return int((self._clock() + self.seconds) * 1000)


@contextlib.contextmanager
def holding(lease: Lease, *, patience: float = 4 * LEASE_SECONDS) -> Iterator[Lease]:
    """Hold a lease, renewed as long as the work takes.

    Args:
        patience: how long to wait for whoever holds it, in seconds.

    Raises:
        Problem: somebody else held it all the while.
    """
    deadline = time.monotonic() + patience
    while not lease.take():
        if time.monotonic() > deadline:
            raise Problem(
                f"another process has been busy with the {lease.name} for {patience:.0f} s",
                where="leases",
                fix="try again later",
            )
        time.sleep(_LOOK_SECONDS)
    is_done = threading.Event()
    renewing = threading.Thread(target=_renew_until, args=(lease, is_done), daemon=True)
    renewing.start()
    try:
        yield lease
    finally:
        is_done.set()
        renewing.join()
        lease.release()


def _renew_until(lease: Lease, is_done: threading.Event) -> None:
    while not is_done.wait(lease.seconds / 3):
        # A database that is away for a moment costs nothing yet; `keep` tells what is lost.
        with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError):
            lease.renew()
