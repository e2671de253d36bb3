"""Which ledger a database's entries go to: one, for as long as the database lives."""

import contextlib

import sqlalchemy as sa
import sqlalchemy.exc

from bailee.policy.problems import Problem


def origin_table(metadata: sa.MetaData) -> sa.Table:
    """Return the table that holds the origin of a database's ledger, in one row."""
    return sa.Table(
        "origins",
        metadata,
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("origin", sa.Text, nullable=False),
    )


def bind(engine: sa.Engine, origins: sa.Table, origin: str, *, where: str) -> None:
    """Note the origin of the ledger at first use.

    Raises:
        Problem: the database's entries have gone to another ledger: two of them would each tell a part.
    """
    known = _read(engine, origins)
    if known is None:
        # Whoever comes second is told the first one's.
        with contextlib.suppress(sqlalchemy.exc.IntegrityError), engine.begin() as connection:
            connection.execute(sa.insert(origins), {"number": 1, "origin": origin})
        known = _read(engine, origins)
    if known != origin:
        raise Problem(
            f"this is the ledger {origin}, and the databases here have told theirs to {known}",
            where=where,
            fix="share that home's directory between the nodes, or put its ledger back from a backup",
        )


def _read(engine: sa.Engine, origins: sa.Table) -> str | None:
    with engine.connect() as connection:
        return connection.execute(sa.select(origins.c.origin)).scalar_one_or_none()
