"""Sweeps and deletions of what is due, each measured, with the disk before and after."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from bailee.service.sweeping import LOOK_SECONDS
from bench.machine import read_busy_cores
from bench.retention.homes import at_database
from bench.retention.peers import Deletion
from bench.servers import Server


@dataclass(frozen=True)
class Measured:
    """One sweep of Bailee, or one deletion of a peer.

    Attributes:
        what: "bailee" or "batched DELETE".
        held: segments or rows there were at first; the small sweeps before took a little of it.
        due: how many of them were due, and went.
        gone_seconds: from the deadline to nothing that is due being readable; of Bailee the last key
            destroyed, the longest time to notice and the start of the process included.
        seconds: until the rows were gone and the space given back.
        bytes_before, bytes_after: of disk.
        peak_bytes: of resident memory of the process that sweeps; 0 where it is not measured.
        busy: cores that others used just before.
    """

    database: str
    what: str
    held: int
    due: int
    gone_seconds: float
    seconds: float
    cpu_seconds: float
    bytes_before: int
    bytes_after: int
    peak_bytes: int
    busy: float


class SweepFailed(Exception):
    """A sweep did not do what it should; the text says what it said."""


def measure_sweep(home: Path, day: date, *, held: int, due: int, server: Server | None, url: str) -> Measured:
    """Run a sweeper as the service does, and measure it.

    Raises:
        SweepFailed: it did not destroy exactly what was due.
    """
    before = measure_home(home, server, url)
    busy = read_busy_cores()
    with at_database(url or None):
        environment = dict(os.environ)
    command = ["-m", "bench.retention.sweeping", "--home", str(home), "--day", day.isoformat()]
    began = time.clock_gettime(time.CLOCK_MONOTONIC)
    done = subprocess.run(
        [sys.executable, *command],
        cwd=Path(__file__).resolve().parents[2],
        env=environment,
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode:
        raise SweepFailed(f"the sweeper ended with {done.returncode}")
    facts = json.loads(done.stdout)
    if facts["keys_destroyed"] != due or facts["segments"] != due:
        raise SweepFailed(f"{due} were due, and {facts['keys_destroyed']} keys were destroyed")
    starting = facts["began"] - began
    return Measured(
        database="SQLite" if server is None else "PostgreSQL",
        what="bailee",
        held=held,
        due=due,
        gone_seconds=LOOK_SECONDS + starting + facts["seconds_to_keys"],
        seconds=LOOK_SECONDS + starting + facts["seconds"],
        cpu_seconds=facts["cpu_seconds"],
        bytes_before=before,
        bytes_after=measure_home(home, server, url),
        peak_bytes=facts["peak_bytes"],
        busy=busy,
    )


def tell_deletion(done: Deletion, *, held: int, due: int, server: Server | None, busy: float) -> Measured:
    """Return a peer's deletion beside the others.

    Raises:
        SweepFailed: it did not delete exactly what was due.
    """
    if done.rows != due:
        raise SweepFailed(f"{due} were due, and {done.rows} rows were deleted")
    return Measured(
        database="SQLite" if server is None else "PostgreSQL",
        what="batched DELETE",
        held=held,
        due=due,
        gone_seconds=done.seconds,
        seconds=done.seconds,
        cpu_seconds=0.0,
        bytes_before=done.bytes_before,
        bytes_after=done.bytes_after,
        peak_bytes=0,
        busy=busy,
    )


def measure_home(home: Path, server: Server | None, url: str) -> int:
    """Return how many bytes of disk a home takes, its databases included."""
    size = sum(path.stat().st_size for path in home.rglob("*") if path.is_file())
    if server is None:
        return size
    name = url.partition("?")[0].rpartition("/")[2]
    with server.connect() as connection:
        query = "SELECT sum(pg_database_size(datname)) FROM pg_database WHERE datname LIKE %s"
        found = connection.execute(query, (f"{name}\\_%",)).fetchone()
    return size + int(str(found[0] if found else 0))
