"""Keeps a conversation: through Bailee's own recorder, and by storing every request as peers do."""

import asyncio
import os
import random
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import zstandard

from bailee.manifests import load_manifest
from bailee.policy.contexts import Context
from bailee.policy.decisions import decide
from bailee.policy.plans import Plan, Provider
from bailee.vault.frames import Begin, Finish
from bailee.vault.recording import Recording, decided_of
from bench.vault.conversations import Exchange

_HEADERS = (
    b"accept: application/json\ncontent-type: application/json\nanthropic-version: 2023-06-01\n"
    b"anthropic-beta: interleaved-thinking-2025-05-14\nuser-agent: bench/1\n"
)
_ANSWER_HEADERS = b"content-type: text/event-stream; charset=utf-8\nrequest-id: req_01bench\n"


@dataclass(frozen=True)
class Kept:
    """What keeping a conversation took.

    Attributes:
        stored_bytes: of all files, logs emptied; less what an empty store has.
        cpu_seconds: of the process that keeps it, once it is there.
    """

    stored_bytes: int
    cpu_seconds: float


def keep_by_recorder(home: Path, exchanges: Sequence[Exchange]) -> Kept:
    """Record a conversation as the service does: each exchange durable before the next one begins."""
    asyncio.run(_record(home, ()))
    empty = _size(home)
    cpu = asyncio.run(_record(home, exchanges))
    return Kept(_size(home) - empty, cpu)


def keep_every_request(path: Path, exchanges: Sequence[Exchange]) -> Kept:
    """Store each request and answer whole, compressed alone, a row and a transaction each."""
    database = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode = WAL", "synchronous = FULL"):
        database.execute(f"PRAGMA {pragma}").fetchall()
    database.execute(
        "CREATE TABLE requests (id INTEGER PRIMARY KEY, session TEXT NOT NULL, started_ms INTEGER NOT NULL, "
        "request BLOB NOT NULL, response BLOB NOT NULL)"
    )
    database.execute("CREATE INDEX requests_by_session ON requests (session)")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    empty = path.stat().st_size
    compressor = zstandard.ZstdCompressor(level=3)
    began = time.process_time()
    for number, exchange in enumerate(exchanges):
        row = (number, "session", number, compressor.compress(exchange.request))
        database.execute(
            "INSERT INTO requests VALUES (?, ?, ?, ?, ?)", (*row, compressor.compress(exchange.answer))
        )
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    cpu = time.process_time() - began
    database.close()
    return Kept(path.stat().st_size - empty, cpu)


async def _record(home: Path, exchanges: Sequence[Exchange]) -> float:
    """Record exchanges and return the recorder's seconds of CPU for them."""
    decision = decide(
        load_manifest("bailee").flow("messages"), Context(plan=Plan.API, provider=Provider.ANTHROPIC)
    )
    decided = decided_of(decision)
    recording = Recording(home, random.getrandbits)
    await recording.start()
    before = _read_cpu(recording.process_id)
    try:
        for exchange in exchanges:
            started_ms = int(time.time() * 1000)
            id = recording.new_exchange(started_ms)
            begin = Begin(
                exchange=id,
                account="0" * 32,
                session="2f8c1d70-5b1e-4c3a-9d42-000000000000",
                key="key-0001",
                decision=decided.digest,
                flow="messages",
                keep=True,
                started_ms=started_ms,
                upstream="anthropic",
                path="/v1/messages?beta=true",
                request_bytes=len(exchange.request),
                headers=_HEADERS,
                body=exchange.request,
            )
            recording.begin(begin, decided)
            facts = (200, 400, 9000, len(exchange.answer), "claude-opus-4-8", 4, 200, 20093, 120, "end_turn")
            await recording.finish(Finish(id, "complete", None, *facts, _ANSWER_HEADERS, exchange.answer))
        return _read_cpu(recording.process_id) - before
    finally:
        await recording.close()


def _read_cpu(process: int | None) -> float:
    """Return the seconds of CPU of a process of one thread, to the nanosecond (/proc/PID/schedstat)."""
    return int(Path(f"/proc/{process}/schedstat").read_text().split()[0]) / 1e9


def _size(home: Path) -> int:
    return sum(path.stat().st_size for path in home.rglob("*") if path.is_file() and os.access(path, os.R_OK))
