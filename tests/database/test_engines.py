"""What is promised of a database's files: private, whole, overwritten."""

import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from bailee.database import sqlite
from bailee.database.engines import (
    checkpointing_rarely,
    give_back,
    open_database,
    truncate_log,
    watch_changes,
    watch_others,
)
from bailee.database.statements import Insert
from bailee.database.stores import Store
from bailee.ledger.pseudonyms import open_pseudonyms
from bailee.policy.problems import Problem
from counterparts.holdings import copy_first_home

METADATA = sa.MetaData()
NOTES = sa.Table(
    "notes",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("text", sa.LargeBinary, nullable=True),
)

STORE = Store("notes", METADATA, Path("never-looked-at"), "0001")


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_files_are_the_owners_alone(tmp_path: Path, umask: int) -> None:
    """Whatever the umask: folder 0700, database, log and shared memory 0600."""
    before = os.umask(umask)
    try:
        engine = open_database(tmp_path / "folder" / "x.db", STORE)
        with engine.begin() as connection:
            connection.execute(sa.insert(NOTES), {"text": b"x"})
        names = sorted(path.name for path in (tmp_path / "folder").iterdir())
        assert names == ["stores", "x.db", "x.db-shm", "x.db-wal"]
        for path in (tmp_path / "folder").iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o700
        engine.dispose()
    finally:
        os.umask(before)


def test_what_is_no_database_is_told_and_left(tmp_path: Path) -> None:
    """Another file in its place is an error that names it; its bytes stay."""
    path = tmp_path / "x.db"
    path.write_bytes(b"something else " * 500)
    with pytest.raises(Problem, match="cannot be used") as told:
        open_database(path, STORE)
    assert told.value.where == str(path)
    assert path.read_bytes() == b"something else " * 500


def test_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    """A database of a newer program is refused, and not changed."""
    path = tmp_path / "x.db"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(Problem, match="newer"):
        open_database(path, STORE)
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """A file where the folder should be is an error with the fix, not a fault."""
    (tmp_path / "folder").write_text("in the way")
    with pytest.raises(Problem, match="cannot be made"):
        open_database(tmp_path / "folder" / "x.db", STORE)


def test_what_was_deleted_is_overwritten(tmp_path: Path) -> None:
    """Bytes written over are gone from database and log once the log is truncated; before, they are there."""
    engine = open_database(tmp_path / "x.db", STORE)
    secret = os.urandom(5000)

    def holding() -> set[str]:
        piece = secret[1000:1064]
        return {path.suffix for path in tmp_path.iterdir() if piece in path.read_bytes()}

    with engine.begin() as connection:
        connection.execute(sa.insert(NOTES), {"text": secret})
    truncate_log(engine)
    assert holding() == {".db"}
    with engine.begin() as connection:
        connection.execute(sa.update(NOTES).values(text=b"short"))
    assert holding(), "control: an update alone leaves it somewhere"
    truncate_log(engine)
    assert holding() == set()
    engine.dispose()


def test_others_commits_are_seen(tmp_path: Path) -> None:
    """A watch sees the commits of any other connection, and none where nobody committed."""
    engine, other = (open_database(tmp_path / "x.db", STORE) for _ in range(2))
    version = watch_changes(engine)
    seen = version()
    assert version() == seen
    with other.begin() as connection:
        connection.execute(sa.insert(NOTES), {"text": b"x"})
    assert version() != seen
    seen = version()
    with engine.begin() as connection:
        connection.execute(sa.insert(NOTES), {"text": b"y"})
    assert version() != seen
    del version
    engine.dispose()
    other.dispose()


def test_own_commits_are_not_others(tmp_path: Path) -> None:
    """A connection that watches for others does not see its own commits, and does see theirs."""
    engine, other = (open_database(tmp_path / "x.db", STORE) for _ in range(2))
    with engine.connect() as own:
        version = watch_others(own)
        seen = version()
        with own.begin():
            own.execute(sa.insert(NOTES), {"text": b"mine"})
        assert version() == seen
        with other.begin() as connection:
            connection.execute(sa.insert(NOTES), {"text": b"theirs"})
        assert version() != seen
    engine.dispose()
    other.dispose()


def test_a_prepared_insert_is_an_insert(tmp_path: Path) -> None:
    """Rows go in as SQLAlchemy's own insert puts them, NULL and bytes included; no rows are no error."""
    engine = open_database(tmp_path / "x.db", STORE)
    insert = Insert(engine, NOTES)
    rows = [{"id": 1, "text": b"\x00\xff"}, {"id": 2, "text": None}]
    with engine.begin() as connection:
        insert(connection, rows)
        insert(connection, [])
        assert [dict(row._mapping) for row in connection.execute(sa.select(NOTES))] == rows
    engine.dispose()


_RACER = """
import sys
from pathlib import Path
{change}
from bailee.accounts.directory import open_directory
from bailee.vault.store import open_keys, open_vault
print("ready", flush=True)
sys.stdin.readline()
home = Path(sys.argv[1])
for open_it in (open_vault, open_keys, open_directory):
    open_it(home)
"""


def _count_failures_of_a_race(home: Path, change: str = "") -> int:
    """Let processes open a new home at the same moment and return how many could not."""
    with contextlib.ExitStack() as ends:
        racers = []
        for _ in range(6):
            racer = subprocess.Popen(
                [sys.executable, "-c", _RACER.format(change=change), str(home)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            racers.append(ends.enter_context(racer))
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        return sum(racer.wait(timeout=60) != 0 for racer in racers)


def test_processes_that_open_a_home_at_once_all_can(tmp_path: Path) -> None:
    """A service, its recorder and commands begin in one moment, on a new home and on one to be upgraded."""
    assert _count_failures_of_a_race(tmp_path / "new") == 0
    assert _count_failures_of_a_race(copy_first_home(tmp_path / "old")) == 0
    unlocked = (
        "import contextlib, bailee.database.sqlite as sqlite\n"
        "sqlite._opening_alone = lambda directory: contextlib.nullcontext()"
    )
    tries = (
        _count_failures_of_a_race(copy_first_home(tmp_path / f"control-{number}"), unlocked)
        for number in range(10)
    )
    assert any(tries), "control: without the lock nobody ever failed"


def test_freed_pages_are_given_back(tmp_path: Path) -> None:
    """For as long as is asked for, many to a step: the driver steps a pragma once, which gives back one."""
    path = tmp_path / "x.db"
    engine = open_database(path, Store("notes", METADATA, Path("never-looked-at"), "0001", can_shrink=True))
    with engine.begin() as connection:
        connection.execute(sa.insert(NOTES), [{"text": os.urandom(4000)} for _ in range(1000)])
        connection.execute(sa.delete(NOTES))
    assert truncate_log(engine)
    full = path.stat().st_size
    assert give_back(engine, 0) == 0
    ticks = iter(range(1000))
    given = sqlite.give_back(engine, 2, stopwatch=lambda: next(ticks))
    # A step of 100 that took a second, and one of 2, as many as fit 0.02 s; and the maps of pages among them.
    assert 102 <= given // STORE.page_bytes <= 105
    given += give_back(engine, 30)
    assert truncate_log(engine)
    assert full - given == path.stat().st_size < full // 10
    engine.dispose()


def test_the_log_grows_while_checkpoints_are_rare(tmp_path: Path) -> None:
    """And is as ever afterwards; control: by itself it is moved into the database after 1,000 pages."""
    engine = open_database(tmp_path / "x.db", STORE)
    log = tmp_path / "x.db-wal"

    def write() -> int:
        for _ in range(4):
            with engine.begin() as connection:
                connection.execute(sa.insert(NOTES), [{"text": os.urandom(2000)} for _ in range(1200)])
        return log.stat().st_size

    usual = write()
    with checkpointing_rarely(engine):
        rare = write()
    assert rare > 4 * 1200 * 2000 > usual
    assert truncate_log(engine)
    assert log.stat().st_size == 0
    engine.dispose()


def test_several_make_a_database_at_once(tmp_path: Path, database: str) -> None:
    """Processes that open a new home in the same moment make its tables once, and none of them fails."""
    for number in range(4):
        folder = tmp_path / str(number) / "keys"
        folder.mkdir(parents=True)
        with ThreadPoolExecutor(6) as pool:
            opened = list(pool.map(lambda _, of=folder: open_pseudonyms(of, os.urandom), range(6)))
        names = {one.name("ada") for one in opened}
        for one in opened:
            one.close()
        assert len(names) == 1
