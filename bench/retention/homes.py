"""Homes that hold many segments: made through the program's own schema, filled by statements in bulk.

Every segment is a session of one exchange with two sealed records. Content is random bytes, as ciphertext
is, and so are wrapped keys, which nobody unwraps here. What is written later stands later, as in a life of
recording; numbers of segments and names of keys are drawn, so that one day's are all over their tables.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bailee.database.locations import VARIABLE
from bailee.policy.plans import Plan
from bailee.vault import tables
from bailee.vault.custody import Custody, open_custody

REQUEST_BYTES, RESPONSE_BYTES = 700, 300
WRAPPED_BYTES = 60
_POOL_BYTES = 1_000_000
ACCOUNTS = 50
# So many of a hundred are held for five years, as accounts have it that let their content train: what is
# written before the oldest that is due and stays is what a sweep must not look at.
LONG_PERCENT = 20
_LONG_DAYS = 60
SHORT = 30
_CHUNK = 500_000


@dataclass(frozen=True)
class Holding:
    """How many segments a home holds, and how many of them are due on each of the days that come."""

    segments: int
    due: tuple[int, ...]


@dataclass(frozen=True)
class Chunk:
    """Segments written on one day under one period: numbers `start` up to `stop` in order of time."""

    start: int
    stop: int
    day: date
    expires_on: date
    retention: str


def plan_chunks(holding: Holding, today: date) -> list[Chunk]:
    """Divide the segments of a home into days, the one longest ago first.

    Due are `holding.due[n]` on the n-th day from today on; all others not before the day after the last.
    """
    rest = holding.segments - sum(holding.due)
    long = rest * LONG_PERCENT // 100
    kinds: list[tuple[int, date, date, str]] = []
    for number, count in enumerate(_divide(long, _LONG_DAYS)):
        day = today - timedelta(days=1500 - 20 * number)
        kinds.append((count, day, day + timedelta(days=1825), "5y"))
    for number, count in enumerate(holding.due):
        expiry = today + timedelta(days=number)
        kinds.append((count, expiry - timedelta(days=SHORT), expiry, f"{SHORT}d"))
    days = SHORT - len(holding.due)
    for number, count in enumerate(_divide(rest - long, days)):
        expiry = today + timedelta(days=len(holding.due) + number)
        kinds.append((count, expiry - timedelta(days=SHORT), expiry, f"{SHORT}d"))
    chunks, start = [], 0
    for count, day, expiry, retention in kinds:
        for first in range(start, start + count, _CHUNK):
            stop = min(first + _CHUNK, start + count)
            chunks.append(Chunk(first, stop, day, expiry, retention))
        start += count
    return chunks


def build_home(
    home: Path, holding: Holding, today: date, database: str | None, report: Callable[[int], None]
) -> None:
    """Make a home and fill it.

    Args:
        database: where its databases are, if not in files.
        report: told how many segments are there, after each chunk.
    """
    with at_database(database):
        custody = open_custody(home)
        try:
            accounts = _make_accounts(custody)
            chunks = plan_chunks(holding, today)
            if database is None:
                custody.close()  # which lets go of the files
                _fill_files(home, accounts, chunks, report)
            else:
                _fill_server(custody, accounts, chunks, report)
        finally:
            custody.close()


@contextlib.contextmanager
def at_database(database: str | None) -> Iterator[None]:
    """Say in the environment where a home's databases are; None is in files."""
    before = os.environ.pop(VARIABLE, None)
    if database is not None:
        os.environ[VARIABLE] = database
    try:
        yield
    finally:
        os.environ.pop(VARIABLE, None)
        if before is not None:
            os.environ[VARIABLE] = before


def _divide(count: int, parts: int) -> list[int]:
    return [count * (n + 1) // parts - count * n // parts for n in range(parts)]


def _make_accounts(custody: Custody) -> list[str]:
    """Make accounts whose content may train, under their ceilings, and the one decision there is."""
    for number in range(ACCOUNTS):
        name = f"account-{number:04}"
        custody.directory.add(name, Plan.PRO)
        custody.directory.consent(name, given=True)
    accounts = custody.directory.all()
    for account in accounts:
        custody.tighten(account)
    with custody.vault.begin() as connection:
        row = {"number": 1, "digest": os.urandom(32), "body": "{}"}
        connection.execute(sa.insert(tables.decisions), row)
    custody.settle()
    return [account.id for account in accounts]


# --- Statements, the same for both databases but for a date, a sequence of numbers and 16 drawn bytes ---

# Odd factors modulo a power of two give each number once: 62 bits that look drawn, and the same anywhere.
_HIGH = "(i * 1103515245 + 12345) % 2147483648"
_LOW = "(i * 22695477 + 1) % 2147483648"
_NUMBER = f"(({_HIGH}) * 2147483648 + ({_LOW}))"
_SESSION = "'2f8c1d70-5b1e-4c3a-9d42-' || substr('000000000000' || i, length('000000000000' || i) - 11)"


def _vault_statements(chunk: Chunk, *, a_date: str, series: str, id: str, true: str) -> dict[str, str]:
    """Return what fills each table of the vault with a chunk."""
    began = int(datetime(chunk.day.year, chunk.day.month, chunk.day.day, tzinfo=UTC).timestamp() * 1000)
    spread = 86_000_000 / max(1, chunk.stop - chunk.start)
    started = f"{began} + CAST((i - {chunk.start}) * {spread} AS BIGINT)"
    exchange = f"((({started}) << 21) + (i % 1048576))"
    account = f"accounts.id FROM {series} JOIN bench_accounts AS accounts ON accounts.number = i % {ACCOUNTS}"
    day, expiry = (a_date.format(value.isoformat()) for value in (chunk.day, chunk.expires_on))
    sealed = f"substr(:pool, CAST(1 + (i * 7919) % {_POOL_BYTES - REQUEST_BYTES} AS INTEGER), {{}})"
    trainable = true if chunk.retention == "5y" else f"NOT {true}"
    return {
        "segments": "INSERT INTO segments (number, id, session, day, decision, retention, expires_on, "
        f"trainable, account) SELECT {_NUMBER}, {id}, {_SESSION}, {day}, 1, '{chunk.retention}', {expiry}, "
        f"{trainable}, {account}",
        "exchanges": "INSERT INTO exchanges (id, session, key, decision, flow, segment, started_ms, "
        "first_byte_ms, duration_ms, state, upstream, path, model, status, request_bytes, response_bytes, "
        "input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens, stop_reason, account) "
        f"SELECT {exchange}, {_SESSION}, 'key-0001', 1, 'messages', {_NUMBER}, {started}, 400, 9000, "
        "'complete', 'anthropic', '/v1/messages', 'claude-opus-4-8', 200, 80652, 28491, 4, 200, 20093, 120, "
        f"'end_turn', {account}",
        "records": "INSERT INTO records (segment, sequence, exchange, kind, sealed) "
        f"SELECT {_NUMBER}, kind, {exchange}, kind, CASE kind WHEN 0 THEN {sealed.format(REQUEST_BYTES)} "
        f"ELSE {sealed.format(RESPONSE_BYTES)} END FROM {series} "
        "CROSS JOIN (SELECT 0 AS kind UNION ALL SELECT 1) AS kinds",
    }


def _fill_files(
    home: Path, accounts: Sequence[str], chunks: Sequence[Chunk], report: Callable[[int], None]
) -> None:
    """Fill SQLite's files: without a log while it lasts, and the indexes that are not keys made last."""
    import sqlite3

    database = sqlite3.connect(home / tables.VAULT.file, isolation_level=None)
    try:
        database.execute("ATTACH ? AS keystore", (str(home / tables.KEYSTORE.file),))
        for schema in ("main", "keystore"):
            for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -2000000"):
                database.execute(f"PRAGMA {schema}.{pragma}").fetchall()
        database.execute("CREATE TEMP TABLE bench_accounts (number INTEGER PRIMARY KEY, id TEXT)")
        database.executemany("INSERT INTO bench_accounts VALUES (?, ?)", enumerate(accounts))
        query = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
        indexes = database.execute(query).fetchall()
        for name, _ in indexes:
            database.execute(f"DROP INDEX {name}")
        pool = {"pool": os.urandom(_POOL_BYTES)}
        database.execute("BEGIN")
        for chunk in chunks:
            # Recursion is how SQLite counts; a subquery for each chunk, and nothing in Python for each row.
            series = (
                f"(WITH RECURSIVE series(i) AS (SELECT {chunk.start} WHERE {chunk.start} < {chunk.stop} "
                f"UNION ALL SELECT i + 1 FROM series WHERE i + 1 < {chunk.stop}) SELECT i FROM series)"
            )
            statements = _vault_statements(chunk, a_date="'{}'", series=series, id="randomblob(16)", true="1")
            # In the order of the tree they go into: three times as fast, and the same tree.
            statements["segments"] += " ORDER BY 1"
            for statement in statements.values():
                database.execute(statement, pool if ":pool" in statement else {})
            database.execute(
                f"INSERT INTO keystore.keys SELECT segments.id, randomblob({WRAPPED_BYTES}) FROM {series} "
                f"CROSS JOIN segments ON segments.number = {_NUMBER} ORDER BY 1"
            )
            report(chunk.stop)
        database.execute("COMMIT")
        for _, statement in indexes:
            database.execute(statement)
        for schema in ("main", "keystore"):
            database.execute(f"PRAGMA {schema}.journal_mode = WAL").fetchall()
    finally:
        database.close()


def _fill_server(
    custody: Custody, accounts: Sequence[str], chunks: Sequence[Chunk], report: Callable[[int], None]
) -> None:
    """Fill a server's tables, each in the transaction that empties it; keys and indexes are made last."""
    pool = os.urandom(_POOL_BYTES)
    drawn = "decode(md5('bench ' || i), 'hex')"
    with _bare(custody.vault, "segments", "exchanges", "records") as run:
        run("CREATE TEMP TABLE bench_accounts (number bigint PRIMARY KEY, id text)", {})
        for number, id in enumerate(accounts):
            run("INSERT INTO bench_accounts VALUES (%(number)s, %(id)s)", {"number": number, "id": id})
        for chunk in chunks:
            statements = _vault_statements(
                chunk, a_date="DATE '{}'", series=_series(chunk), id=drawn, true="true"
            )
            for statement in statements.values():
                run(statement.replace("%", "%%").replace(":pool", "%(pool)s::bytea"), {"pool": pool})
            report(chunk.stop)
    with _bare(custody.keystore.engine, "keys") as run:
        for chunk in chunks:
            wrapped = f"substr(%(pool)s::bytea, (1 + (i * 7919) %% 900000)::int, {WRAPPED_BYTES})"
            run(f"INSERT INTO keys SELECT {drawn}, {wrapped} FROM {_series(chunk)}", {"pool": pool})
    for engine in (custody.vault, custody.keystore.engine):
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")
            connection.exec_driver_sql("CHECKPOINT")


def _series(chunk: Chunk) -> str:
    return f"generate_series({chunk.start}::bigint, {chunk.stop - 1}::bigint) AS series(i)"


@contextlib.contextmanager
def _bare(engine: sa.Engine, *names: str) -> Iterator[Callable[[str, dict[str, Any]], None]]:
    """Give what runs statements in one transaction, in which tables have no keys, indexes and triggers."""
    constraints = (
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE conrelid::regclass::text = ANY(%(names)s) ORDER BY contype = 'f'"
    )
    indexes = (
        "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index "
        "WHERE indrelid::regclass::text = ANY(%(names)s) "
        "AND NOT EXISTS (SELECT 1 FROM pg_constraint WHERE conindid = indexrelid)"
    )
    with engine.begin() as connection:

        def run(statement: str, values: dict[str, Any]) -> None:
            connection.exec_driver_sql(statement, values)

        run("SET LOCAL maintenance_work_mem = '1GB'", {})
        known = connection.exec_driver_sql(constraints, {"names": list(names)}).all()
        plain = connection.exec_driver_sql(indexes, {"names": list(names)}).all()
        for table, name, _ in reversed(known):
            run(f"ALTER TABLE {table} DROP CONSTRAINT {name}", {})
        for name, _ in plain:
            run(f"DROP INDEX {name}", {})
        run(f"TRUNCATE {', '.join(names)}", {})
        yield run
        for table, name, definition in known:
            run(f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}", {})
        for _, definition in plain:
            run(definition, {})
