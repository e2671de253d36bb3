"""What a database is for: its tables, and the revisions that lead to them from any earlier program's."""

from pathlib import Path

import msgspec
import sqlalchemy as sa


class Store(msgspec.Struct, frozen=True):
    """One kind of database.

    Attributes:
        name: such as "vault".
        metadata: the tables as this program knows them.
        revisions: the folder of Alembic revisions, whose last one leads to `metadata`.
        head: the id of that revision.
        can_shrink: whether freed pages are given back to the file system. Not so where keys are: giving back
            moves pages about, and a page that is cut off is not overwritten.
        page_bytes: size of a page in SQLite; a small one where rows are.
        file: where in a home it is with SQLite, such as "vault/vault.db"; a file of the home if empty.
        watched: what `engines.watch_changes` and `watch_others` look at with PostgreSQL: tables, and the
            changes of each that count. SQLite sees every commit.
        vacuumed: the tables that PostgreSQL vacuums as soon as something was deleted on purpose.
    """

    name: str
    metadata: sa.MetaData
    revisions: Path
    head: str
    can_shrink: bool = False
    page_bytes: int = 1024
    file: str = ""
    watched: tuple[tuple[str, str], ...] = ()
    vacuumed: tuple[str, ...] = ()
