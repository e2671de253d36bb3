"""Consistent views of a database, and the portable form of one: an SQLite file, whatever it was in."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

# A batch ends at whichever comes first: rows of content may have 40 MiB each.
_ROWS = 2000
_BYTES = 8 * 1024 * 1024


@contextlib.contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Give a connection that sees one moment of a database, whatever others commit meanwhile."""
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            # The driver begins a transaction at the first change only.
            connection.exec_driver_sql("BEGIN")
            yield connection
            connection.rollback()
        return
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        yield connection
        connection.rollback()


def count_rows(connection: sa.Connection, tables: Sequence[sa.Table]) -> dict[str, int]:
    """Return how many rows each table has."""
    return {
        table.name: connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
        for table in tables
    }


def copy_rows(
    source: sa.Connection,
    target: sa.Connection,
    tables: Sequence[sa.Table],
    report: Callable[[int], None] = lambda rows: None,
) -> None:
    """Copy all rows of some tables, those that others refer to first.

    Args:
        report: told after each batch how many rows were in it.
    """
    for table in tables:
        for batch in read_batches(source, sa.select(table)):
            target.execute(sa.insert(table), batch)
            report(len(batch))


def read_batches(connection: sa.Connection, query: sa.Select[Any]) -> Iterator[list[dict[str, Any]]]:
    """Give the rows of a query in batches of bounded size."""
    batch: list[dict[str, Any]] = []
    size = 0
    for row in connection.execution_options(yield_per=100).execute(query):
        values = dict(row._mapping)
        batch.append(values)
        size += sum(len(value) for value in values.values() if isinstance(value, bytes | str))
        if len(batch) >= _ROWS or size >= _BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def replace_rows(source: sa.Engine, target: sa.Engine, metadata: sa.MetaData) -> None:
    """Put the rows of one database into the place of another's, in one transaction."""
    tables = metadata.sorted_tables
    with reading(source) as rows, target.begin() as connection:
        if target.dialect.name == "postgresql":
            quote = target.dialect.identifier_preparer.quote
            names = ", ".join(quote(table.name) for table in tables)
            connection.exec_driver_sql(f"TRUNCATE {names}")
        else:
            for table in reversed(tables):
                connection.execute(sa.delete(table))
        copy_rows(rows, connection, tables)
        if target.dialect.name == "postgresql":
            _go_on_counting(connection, tables)


def insert_rows(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows that may have columns which the table has no more; columns they lack get their default."""
    known = set(table.columns.keys())
    kept = [{name: value for name, value in row.items() if name in known} for row in rows]
    if kept:
        connection.execute(sa.insert(table), kept)


def _go_on_counting(connection: sa.Connection, tables: Sequence[sa.Table]) -> None:
    """Have PostgreSQL number the next rows after those that were inserted with numbers of their own."""
    for table in tables:
        for column in table.primary_key.columns:
            sequence = sa.func.pg_get_serial_sequence(f'"{table.name}"', column.name)
            found = connection.execute(sa.select(sequence)).scalar_one()
            if found is not None:
                last = sa.select(sa.func.coalesce(sa.func.max(column), 0) + 1).scalar_subquery()
                connection.execute(sa.select(sa.func.setval(found, last, sa.false())))
