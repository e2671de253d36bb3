"""What a database says of its own state."""

from collections.abc import Iterator

import sqlalchemy as sa

_EVERY_INDEX = """
SELECT c.relname, bt_index_check(c.oid, true) FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
WHERE a.amname = 'btree' AND c.relnamespace = 'public'::regnamespace
"""


def check_store(engine: sa.Engine) -> Iterator[str]:
    """Check a database's files, indexes and references with its own means."""
    if engine.dialect.name == "sqlite":
        yield from _check_file(engine)
        return
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS amcheck")
            connection.exec_driver_sql(_EVERY_INDEX)
    except sa.exc.DBAPIError as error:
        yield f"{engine.url.database}: {error.orig}"


def _check_file(engine: sa.Engine) -> Iterator[str]:
    with engine.connect() as connection:
        for (line,) in connection.exec_driver_sql("PRAGMA integrity_check"):
            if line != "ok":
                yield f"{engine.url.database}: {line}"
        for row in connection.exec_driver_sql("PRAGMA foreign_key_check"):
            yield f"{engine.url.database}: a row of {row[0]} refers to one that is gone"
