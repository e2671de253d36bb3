"""`python -m bench.storage`: what it costs to keep a sealed record, in SQLite rows and in files.

Sealed records are random bytes, as ciphertext is. Each way keeps the same records with the same columns
and makes each batch durable before the next; told are CPU and wall time per record and bytes on disk.
"""

import json
import os
import shutil
import sqlite3
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click

SIZES = {"3 KB": 3_000, "33 KB": 33_000}
BATCHES = (1, 8, 64)
SEGMENTS = 40
TARGET_SECONDS = 1.0
MOST_RECORDS = 20_000

# Keeps one batch of (segment, sequence, sealed) durably.
Keep = Callable[[list[tuple[int, int, bytes]]], None]


@dataclass(frozen=True)
class Cost:
    """Median of three: microseconds and bytes per record."""

    way: str
    record_bytes: int
    batch: int
    cpu_us: float
    wall_us: float
    disk_bytes: float


def keep_rows(place: Path, synchronous: str) -> Iterator[Keep]:
    """One row per record, one transaction per batch, in WAL mode."""
    connection = sqlite3.connect(place / "vault.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={synchronous}")
    connection.execute(
        "CREATE TABLE records (number INTEGER PRIMARY KEY, segment INTEGER NOT NULL,"
        " sequence INTEGER NOT NULL, sealed BLOB NOT NULL, UNIQUE (segment, sequence))"
    )

    def keep(batch: list[tuple[int, int, bytes]]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO records (segment, sequence, sealed) VALUES (?, ?, ?)", batch)
        connection.execute("COMMIT")

    yield keep
    connection.close()


def keep_log(place: Path) -> Iterator[Keep]:
    """All records to one file, a head before each, one write and one fdatasync per batch."""
    file = os.open(place / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def keep(batch: list[tuple[int, int, bytes]]) -> None:
        parts: list[bytes] = []
        for segment, sequence, sealed in batch:
            parts += (struct.pack(">QQI", segment, sequence, len(sealed)), sealed)
        os.writev(file, parts)
        os.fdatasync(file)

    yield keep
    os.close(file)


def keep_files(place: Path) -> Iterator[Keep]:
    """One file per segment; of each batch, every file touched is synced."""
    files: dict[int, int] = {}

    def keep(batch: list[tuple[int, int, bytes]]) -> None:
        touched: dict[int, list[bytes]] = {}
        for segment, sequence, sealed in batch:
            touched.setdefault(segment, []).extend((struct.pack(">QI", sequence, len(sealed)), sealed))
        for segment, parts in touched.items():
            if segment not in files:
                files[segment] = os.open(place / f"{segment}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.writev(files[segment], parts)
        for segment in touched:
            os.fdatasync(files[segment])

    yield keep
    for file in files.values():
        os.close(file)


WAYS: dict[str, Callable[[Path], Iterator[Keep]]] = {
    "SQLite rows, WAL, synchronous=FULL": lambda place: keep_rows(place, "FULL"),
    "SQLite rows, WAL, synchronous=NORMAL": lambda place: keep_rows(place, "NORMAL"),
    "one log file, fdatasync": keep_log,
    "a file per segment, fdatasync": keep_files,
}


def measure(way: str, record_bytes: int, batch: int, place: Path) -> Cost:
    """Keep records for about a second, three times, each time in an empty folder."""
    found = [_measure_once(WAYS[way], record_bytes, batch, place / str(number)) for number in range(3)]
    cpu, wall, disk = (statistics.median(values) for values in zip(*found, strict=True))
    return Cost(way, record_bytes, batch, cpu, wall, disk)


def _measure_once(
    open_store: Callable[[Path], Iterator[Keep]], record_bytes: int, batch: int, place: Path
) -> tuple[float, float, float]:
    place.mkdir(parents=True)
    pool = os.urandom(record_bytes + 4096)
    store = open_store(place)
    keep = next(store)
    count = 0
    cpu, began = time.process_time(), time.perf_counter()
    while count < MOST_RECORDS and time.perf_counter() - began < TARGET_SECONDS:
        records = [
            (number % SEGMENTS, number // SEGMENTS, pool[number % 4096 :][:record_bytes])
            for number in range(count, count + batch)
        ]
        keep(records)
        count += batch
    cpu, wall = time.process_time() - cpu, time.perf_counter() - began
    next(store, None)
    disk = sum(path.stat().st_size for path in place.iterdir())
    shutil.rmtree(place)
    return 1e6 * cpu / count, 1e6 * wall / count, disk / count


@click.command()
@click.option("--directory", type=click.Path(path_type=Path), help="On the disk to measure. [default: here]")
@click.option("--json", "as_json", is_flag=True, help="Write JSON instead of a table.")
def main(directory: Path | None, as_json: bool) -> None:
    """Measure what it costs to keep a sealed record, in several ways, by size and batch."""
    costs = []
    with tempfile.TemporaryDirectory(dir=directory or Path.cwd(), prefix=".bench-storage-") as name:
        for way in WAYS:
            for record_bytes in SIZES.values():
                for batch in BATCHES:
                    print(f"{way}, {record_bytes:,} B, batch {batch}", file=sys.stderr)
                    costs.append(measure(way, record_bytes, batch, Path(name)))
    if as_json:
        click.echo(json.dumps([asdict(cost) for cost in costs], indent=1))
        return
    click.echo("| way | record B | batch | CPU us/record | wall us/record | disk B/record |")
    click.echo("|---|---:|---:|---:|---:|---:|")
    for cost in costs:
        click.echo(
            f"| {cost.way} | {cost.record_bytes:,} | {cost.batch} | {cost.cpu_us:.1f} | {cost.wall_us:.1f}"
            f" | {cost.disk_bytes:,.0f} |"
        )


if __name__ == "__main__":
    main()
