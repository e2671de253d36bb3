"""kill -9 of the commands that take long: run again, they end as if nothing had been."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pyarrow.parquet
import pytest

from bailee.database import leases
from bailee.flows.messages.conversations import read_messages, read_text
from bailee.ledger.entries import KeysDestroyed
from bailee.ledger.log import FOLDER
from bailee.ledger.storage import DirectoryTiles
from bailee.ledger.verification import verify_ledger
from bailee.policy.plans import Plan
from bailee.sealing.masking import Masked
from bailee.vault.copies.registry import Maker
from bailee.vault.datasets.building import DatasetBuilder
from bailee.vault.datasets.verification import verify_dataset
from bailee.vault.exports import KINDS, export_account
from counterparts.keeping import Keeping
from counterparts.services import clean_environment

SESSIONS = 24
ANSWER = b'{"type":"message","content":[{"type":"text","text":"done"}]}'
KILLS = 4

# Slow enough to be killed in the middle of anything, small enough that there are many steps.
SLOW = """
import os, time
fsync = os.fsync
def slow_fsync(descriptor):
    time.sleep(0.004)
    fsync(descriptor)
os.fsync = slow_fsync
from bailee.vault.datasets import building
building.DatasetBuilder.__init__.__kwdefaults__["sessions_in_a_part"] = 2
"""
# Stands still once it may move entries into the ledger, and says so.
STANDING_STILL = """
import time
from pathlib import Path
from bailee.ledger.log import Log
append = Log.append
def stand_still(self, entries):
    if not entries:
        return append(self, entries)
    Path("settling").touch()
    time.sleep(60)
Log.append = stand_still
"""
SHORT_LEASES = """
from bailee.database import leases
leases.Lease.__init__.__defaults__ = (2.0,)
"""


@pytest.fixture
def keeping(tmp_path: Path, database: str) -> Iterator[Keeping]:
    """Give a home where ada, who lets models be trained, said something in many sessions."""
    opened = Keeping(tmp_path / "home")
    opened.now = time.time() - 3600  # commands go by today
    opened.custody.directory.add("ada", Plan.PRO)
    opened.custody.directory.consent("ada", given=True)
    for number in range(SESSIONS):
        asked = {"model": "claude", "messages": [{"role": "user", "content": f"question {number}"}]}
        opened.record("ada", f"session-{number:02}", body=json.dumps(asked).encode(), answer=ANSWER)
    opened.custody.settle()
    yield opened
    opened.close()


def start(keeping: Keeping, changes: str, *arguments: str) -> "subprocess.Popen[bytes]":
    """Start a command with some Python that runs first."""
    folder = keeping.home.parent
    place = folder / f"changes-{abs(hash(changes))}"
    place.mkdir(exist_ok=True)
    (place / "sitecustomize.py").write_text(changes)
    return subprocess.Popen(
        [sys.executable, "-m", "bailee", *arguments, "--home", str(keeping.home)],
        env=clean_environment(folder, PYTHONPATH=str(place)),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(process: "subprocess.Popen[bytes]") -> None:
    """Wait for a command to end well."""
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()


def kill_again_and_again(begin: Callable[[], "subprocess.Popen[bytes]"], out: Path) -> int:
    """Kill a command at random after it has begun to write, some times; return how often it was at work."""
    random = Random(20261124)
    killed = 0
    for _ in range(KILLS):
        before = states(out)
        process = begin()
        while process.poll() is None and states(out) == before:
            time.sleep(0.002)
        time.sleep(random.uniform(0, 0.15))
        process.kill()
        process.communicate()
        if process.returncode != -signal.SIGKILL:
            assert process.returncode == 0
            return killed
        killed += 1
    return killed


def states(out: Path) -> set[tuple[str, int]]:
    """Return what is in a folder, by name and time of change."""
    try:
        return {(entry.name, entry.stat().st_mtime_ns) for entry in os.scandir(out)}
    except FileNotFoundError:
        return set()


def lines(out: Path) -> dict[str, list[dict[str, Any]]]:
    """Return what an export holds."""
    return {
        kind: [json.loads(line) for line in (out / f"{kind}.jsonl").read_bytes().splitlines()]
        for kind in KINDS
        if kind != "accesses"  # each run that reads is one
    }


def test_a_killed_export_goes_on(keeping: Keeping, tmp_path: Path) -> None:
    """Killed at random, again and again, it ends with everything once, as one that was never killed."""
    reason = ("--reason", "asked in writing")

    def begin(out: Path, changes: str) -> "subprocess.Popen[bytes]":
        return start(keeping, changes, "accounts", "export", "ada", "--out", str(out), *reason)

    finish(begin(tmp_path / "whole", ""))
    out = tmp_path / "out"
    assert kill_again_and_again(lambda: begin(out, SLOW), out) >= 2
    if (out / "export.json").exists() or not (out / "README.txt").exists():
        finish(begin(out, ""))
    assert lines(out) == lines(tmp_path / "whole")
    assert {path.name for path in out.iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}


@pytest.mark.sqlite
def test_a_killed_build_goes_on(keeping: Keeping, tmp_path: Path) -> None:
    """Killed at random, again and again, it ends with every item once, in the ledger, and verifies."""
    out = tmp_path / "out"

    def begin(changes: str) -> "subprocess.Popen[bytes]":
        return start(keeping, changes, "dataset", "build", "--out", str(out), "--reason", "model 7")

    assert kill_again_and_again(lambda: begin(SLOW), out) >= 2
    if (out / "building.json").exists() or not (out / "manifest.json").exists():
        finish(begin(SLOW))
    built = [
        row for path in sorted(out.glob("*.parquet")) for row in pyarrow.parquet.read_table(path).to_pylist()
    ]
    asked = [json.loads(row["messages"])[-1]["content"] for row in built]
    assert sorted(asked) == sorted(f"question {number}" for number in range(SESSIONS))
    assert verify_dataset(keeping.custody, out).is_in_order
    assert not list(out.glob("*.new"))


@pytest.mark.sqlite
def test_killed_at_the_very_first_write(keeping: Keeping, tmp_path: Path) -> None:
    """A folder that holds nothing but half of the file that tells how far it is, is taken up."""
    for name in ("export", "building"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.json.new").write_bytes(b'{"half a')
    ada = keeping.custody.directory.get("ada")
    export_account(
        keeping.custody, ada, tmp_path / "export", read_text=read_text, maker=Maker("ada", is_holder=True)
    )
    assert len(lines(tmp_path / "export")["sessions"]) == SESSIONS
    builder = DatasetBuilder(
        keeping.custody,
        tmp_path / "building",
        reason="model 7",
        by="builder",
        read_messages=read_messages,
        mask=lambda text: Masked(text.decode(), {}),
    )
    assert builder.build().counts.items == SESSIONS


# --- Two sweepers ---


def test_a_sweeper_killed_in_the_middle_holds_up_the_other_for_its_lease(keeping: Keeping) -> None:
    """Two at once, one killed as it moves entries: the other does the rest, and each key is told of once."""
    with keeping.custody.vault.begin() as connection:
        connection.exec_driver_sql("UPDATE segments SET expires_on = '2026-01-01'")
    first = start(keeping, SHORT_LEASES + STANDING_STILL, "retention", "sweep")
    mark = keeping.home.parent / "settling"
    while not mark.exists():
        assert first.poll() is None
        time.sleep(0.01)
    second = start(keeping, SHORT_LEASES, "retention", "sweep")
    time.sleep(1.5)
    assert second.poll() is None, "both moved entries at once"
    killed = time.monotonic()
    first.kill()
    first.communicate()
    finish(second)
    assert time.monotonic() - killed < leases.LEASE_SECONDS
    told = [
        segment for one in keeping.entries() if isinstance(one, KeysDestroyed) for segment in one.segments
    ]
    assert len(told) == len(set(told)) == SESSIONS
    assert keeping.read("ada") == set()
    log = keeping.custody.log
    assert verify_ledger(DirectoryTiles(keeping.home / FOLDER), log.verifier).verified
