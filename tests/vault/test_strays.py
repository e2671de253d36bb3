"""A key that nothing was written under, as a killed recorder leaves one, is destroyed; no other is."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
import sqlalchemy.exc

from bailee.ledger.entries import KeysDestroyed
from bailee.policy.plans import Plan
from bailee.policy.problems import Problem
from bailee.vault import strays, sweeping, tables
from bailee.vault.keystore import open_keystore
from bailee.vault.store import KEYSTORE, open_vault
from bailee.vault.sweeping import sweep
from bailee.vault.writer import VaultWriter
from counterparts.keeping import Keeping

PATIENCE = strays.PATIENCE_MS / 1000 + 1


class Killed(Exception):
    """Stands for the end of a recorder."""


@pytest.fixture
def keeping(tmp_path: Path, database: str) -> Iterator[Keeping]:
    """Give a home where ada said something that stays."""
    opened = Keeping(tmp_path / "home")
    opened.custody.directory.add("ada", Plan.PRO)
    opened.record("ada", "kept")
    yield opened
    opened.close()


def count(keeping: Keeping) -> tuple[int, int, int]:
    """Return how many keys, fresh keys and segments there are."""
    found = []
    for engine, table in (
        (keeping.custody.keystore.engine, tables.keys),
        (keeping.custody.keystore.engine, tables.fresh_keys),
        (keeping.custody.vault, tables.segments),
    ):
        with engine.connect() as connection:
            found.append(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())
    return found[0], found[1], found[2]


def write_between(keeping: Keeping, between: Callable[[], None]) -> None:
    """Have another recorder write a session, and something happen between its key and its segment."""
    vault, keystore = open_vault(keeping.home), open_keystore(keeping.home / KEYSTORE)
    writer = VaultWriter(vault, keystore, os.urandom, lambda: keeping.now)
    write = writer._write

    def happen() -> None:
        between()
        write()

    writer._write = happen  # type: ignore[method-assign]
    decided, begin = keeping.admit(keeping.custody.directory.get("ada"), "stray", b"said")
    try:
        writer.take([decided])
        writer.take([begin])
        assert writer.commit() == []  # the request alone; nobody is told of its end
    finally:
        writer.close()
        keystore.close()
        vault.dispose()


def die() -> None:
    raise Killed


def test_a_stray_key_is_destroyed(keeping: Keeping) -> None:
    """Killed between key and segment: after a minute the key goes, the ledger tells of it, all else stays."""
    with pytest.raises(Killed):
        write_between(keeping, die)
    assert count(keeping) == (2, 2, 1)
    sweep(keeping.custody)
    assert count(keeping) == (2, 2, 1), "a recorder may be about to write"
    keeping.now += PATIENCE
    assert sweep(keeping.custody).keys_destroyed == 1
    assert count(keeping) == (1, 0, 1)
    assert len(keeping.read("ada")) == 1
    (told,) = [entry for entry in keeping.entries() if isinstance(entry, KeysDestroyed)]
    assert (told.why, len(told.segments)) == ("expired", 1)
    assert sweep(keeping.custody).keys_destroyed == 0


def test_the_check_of_strays_can_fail(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: a sweep that does not look for stray keys leaves them."""
    monkeypatch.setattr(sweeping, "mark_strays", lambda *arguments, **more: 0)
    with pytest.raises(Killed):
        write_between(keeping, die)
    keeping.now += PATIENCE
    assert sweep(keeping.custody).keys_destroyed == 0
    assert count(keeping)[0] == 2


def test_a_sweep_killed_between_its_steps_is_finished(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Marked and not yet forgotten: the next sweep goes on."""
    with pytest.raises(Killed):
        write_between(keeping, die)
    keeping.now += PATIENCE
    with monkeypatch.context() as patched:
        patched.setattr(keeping.custody.keystore, "forget_fresh", lambda fresh: die())
        with pytest.raises(Killed):
            sweep(keeping.custody)
    sweep(keeping.custody)
    assert count(keeping) == (1, 0, 1)


def test_a_recorder_that_wakes_up_while_its_key_goes(keeping: Keeping) -> None:
    """Its segment's number is taken: it cannot write, and ends."""

    marked: list[int] = []

    def mark() -> None:
        keeping.now += PATIENCE
        custody = keeping.custody
        marked.append(strays.mark_strays(custody.vault, custody.keystore, at_ms=custody.now_ms()))

    with pytest.raises(sqlalchemy.exc.IntegrityError):
        write_between(keeping, mark)
    assert marked == [1, 0]  # it tries again once
    sweep(keeping.custody)
    assert count(keeping) == (1, 0, 1)


def test_a_recorder_that_wakes_up_after_its_key_is_gone(keeping: Keeping) -> None:
    """It finds its key gone: nobody is told that anything is kept, and what it wrote is swept."""

    def let_sweep() -> None:
        keeping.now += PATIENCE
        sweep(keeping.custody)

    with pytest.raises(Problem, match="stood still"):
        write_between(keeping, let_sweep)
    sweep(keeping.custody)
    assert count(keeping) == (1, 0, 1)


def test_a_recorder_that_was_faster_keeps_its_key(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment that is written between the look and the mark is no stray: its key and content stay."""
    look = keeping.custody.keystore.list_fresh

    def write_late(**arguments: int) -> object:
        found = look(**arguments)
        if found:
            keeping.record("ada", "late")
        return found

    monkeypatch.setattr(keeping.custody.keystore, "list_fresh", write_late)
    keeping.now += PATIENCE
    sweep(keeping.custody)
    assert count(keeping)[0] == count(keeping)[2] == 2
    assert len(keeping.read("ada")) == 2
