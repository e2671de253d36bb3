"""Reads the rows in which sealed content stands."""

from typing import NamedTuple

import sqlalchemy as sa

from bailee.vault import tables


class Record(NamedTuple):
    """A row of `tables.records`."""

    sequence: int
    exchange: int
    kind: int
    sealed: bytes


def read_records(engine: sa.Engine, segment: int) -> list[Record]:
    """Return every record of a segment, in order."""
    table = tables.records
    columns = (table.c.sequence, table.c.exchange, table.c.kind, table.c.sealed)
    query = sa.select(*columns).where(table.c.segment == segment).order_by(table.c.sequence)
    with engine.connect() as connection:
        return [Record(*row) for row in connection.execute(query)]
