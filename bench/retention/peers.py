"""Deletion in batches, as peers do it: rows with the content in them, found by time, a thousand at once.

The statement is that of LiteLLM's clean-up of spend logs, with its default of 1,000 rows to a batch; Langfuse
and others do alike. Each batch is a transaction, and nothing is vacuumed or overwritten.
"""

import os
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from bench.retention.homes import REQUEST_BYTES, RESPONSE_BYTES, Chunk
from bench.servers import Server

BATCH = 1000
DATABASE = "bench_peer"
_POOL_BYTES = 1_000_000
_TABLE = (
    "CREATE TABLE spend_logs (request_id TEXT PRIMARY KEY, account TEXT NOT NULL, session TEXT NOT NULL, "
    "start_time BIGINT NOT NULL, model TEXT, status INTEGER, request_bytes BIGINT, response_bytes BIGINT, "
    "input_tokens BIGINT, output_tokens BIGINT, messages {blob} NOT NULL, response {blob} NOT NULL)"
)
_INDEX = "CREATE INDEX spend_logs_by_time ON spend_logs (start_time)"
_DELETE = (
    "DELETE FROM spend_logs WHERE request_id IN "
    "(SELECT request_id FROM spend_logs WHERE start_time < {mark} LIMIT {mark})"
)


@dataclass(frozen=True)
class Deletion:
    """How a deletion went: rows, seconds to the last of them, and bytes of disk before and after."""

    rows: int
    seconds: float
    bytes_before: int
    bytes_after: int


def fill_file(path: Path, chunks: list[Chunk], report: Callable[[int], None]) -> None:
    """Make an SQLite database with the rows of a home's segments, each of which expires on its own day."""
    database = sqlite3.connect(path, isolation_level=None)
    try:
        for pragma in (
            "page_size = 4096",
            "journal_mode = OFF",
            "synchronous = OFF",
            "cache_size = -2000000",
        ):
            database.execute(f"PRAGMA {pragma}").fetchall()
        database.execute(_TABLE.format(blob="BLOB"))
        pool = os.urandom(_POOL_BYTES)
        database.execute("BEGIN")
        for chunk in chunks:
            series = (
                f"(WITH RECURSIVE series(i) AS (SELECT {chunk.start} WHERE {chunk.start} < {chunk.stop} "
                f"UNION ALL SELECT i + 1 FROM series WHERE i + 1 < {chunk.stop}) SELECT i FROM series)"
            )
            id = "lower(hex(randomblob(16)))"
            database.execute(_insert(chunk, series, id, ":pool"), {"pool": pool})
            report(chunk.stop)
        database.execute("COMMIT")
        database.execute(_INDEX)
        database.execute("PRAGMA journal_mode = WAL").fetchall()
    finally:
        database.close()


def fill_server(server: Server, chunks: list[Chunk], report: Callable[[int], None]) -> None:
    """Make a database with the same rows on a server."""
    with server.connect() as connection:
        connection.execute(f"CREATE DATABASE {DATABASE} TEMPLATE template0".encode())
    with server.connect(DATABASE) as connection:
        with connection.transaction():
            connection.execute(_TABLE.format(blob="BYTEA").replace(" PRIMARY KEY", "").encode())
            pool = os.urandom(_POOL_BYTES)
            for chunk in chunks:
                series = f"generate_series({chunk.start}::bigint, {chunk.stop - 1}::bigint) AS series(i)"
                insert = _insert(chunk, series, "md5('peer ' || i)", ":pool")
                insert = insert.replace("%", "%%").replace(":pool", "%(pool)s::bytea")
                connection.execute(insert.encode(), {"pool": pool})
                report(chunk.stop)
            connection.execute("ALTER TABLE spend_logs ADD PRIMARY KEY (request_id)")
            connection.execute(_INDEX.encode())
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")


def delete_from_file(path: Path, today: date) -> Deletion:
    """Delete what is due; each commit waits for the disk, as Bailee's do."""
    database = sqlite3.connect(path, isolation_level=None)
    try:
        database.execute("PRAGMA synchronous = FULL")
        statement = _DELETE.format(mark="?")
        before = path.stat().st_size

        def delete() -> int:
            return database.execute(statement, (_moment(today), BATCH)).rowcount

        rows, seconds = _delete_all(delete)
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return Deletion(rows, seconds, before, path.stat().st_size)
    finally:
        database.close()


def delete_from_server(server: Server, today: date) -> Deletion:
    """Delete what is due."""
    with server.connect(DATABASE) as connection:
        statement = _DELETE.format(mark="%s").encode()

        def size() -> int:
            found = connection.execute("SELECT pg_database_size(current_database())").fetchone()
            assert found is not None
            return int(str(found[0]))

        before = size()
        rows, seconds = _delete_all(
            lambda: connection.execute(statement, (_moment(today), BATCH), prepare=True).rowcount
        )
        return Deletion(rows, seconds, before, size())


def _insert(chunk: Chunk, series: str, id: str, pool: str) -> str:
    began = _moment(chunk.expires_on) - 1000 - (chunk.stop - chunk.start)
    sealed = f"substr({pool}, CAST(1 + (i * 7919) % {_POOL_BYTES - REQUEST_BYTES} AS INTEGER), {{}})"
    return (
        f"INSERT INTO spend_logs SELECT {id}, '00112233445566778899aabbccddeeff', 'session-' || i, "
        f"{began} + i - {chunk.start}, 'claude-opus-4-8', 200, 80652, 28491, 4, 200, "
        f"{sealed.format(REQUEST_BYTES)}, {sealed.format(RESPONSE_BYTES)} FROM {series}"
    )


def _delete_all(delete: Callable[[], int]) -> tuple[int, float]:
    began = time.monotonic()
    rows = 0
    while count := delete():
        rows += count
    return rows, time.monotonic() - began


def _moment(day: date) -> int:
    """Return the end of a day; rows carry the moment they expire, and one comparison finds what is due."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000) + 86_400_000
