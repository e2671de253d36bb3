"""A legal hold keeps what it covers from expiry and erasure, explicitly, until somebody releases it."""

import threading
from collections.abc import Iterator
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from bailee.ledger.entries import Erased, HoldPlaced, HoldReleased
from bailee.policy.plans import Plan
from bailee.policy.problems import Problem
from bailee.vault import custody, destruction, erasure, sweeping, tables
from bailee.vault.custody import open_custody
from bailee.vault.holds import PlacedHold, list_holds
from bailee.vault.sweeping import Progress, sweep
from counterparts.keeping import Keeping

LATE = date(2026, 7, 1)


@pytest.fixture
def keeping(tmp_path: Path, database: str) -> Iterator[Keeping]:
    """Give a home with two accounts; ada's two sessions and bob's one are thirty days old and more."""
    opened = Keeping(tmp_path / "home")
    for name in ("ada", "bob"):
        opened.custody.directory.add(name, Plan.PRO)
    opened.record("ada", "session-1")
    opened.record("ada", "session-2")
    opened.record("bob", "session-1")
    yield opened
    opened.close()


def hold(keeping: Keeping, session: str | None = None, reason: str = "case 7") -> str:
    account = keeping.custody.directory.get("ada")
    return keeping.custody.hold(account, session, reason=reason, by="counsel").id


@pytest.mark.parametrize(("session", "stays"), [("session-1", 1), (None, 2)])
def test_what_is_held_does_not_expire(keeping: Keeping, session: str | None, stays: int) -> None:
    """A hold on a session keeps that one, a hold on an account all of its own and nobody else's."""
    id = hold(keeping, session)
    keeping.go_to(LATE)
    done = sweep(keeping.custody)
    assert (done.keys_destroyed, done.held_back) == (3 - stays, stays)
    assert len(keeping.read("ada")) == stays
    assert keeping.read("bob") == set()
    keeping.custody.release(id, reason="settled", by="counsel")
    assert sweep(keeping.custody).keys_destroyed == stays
    assert keeping.read("ada") == set()


def test_control_without_the_hold(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: a sweeper that does not look for holds destroys what is held."""
    hold(keeping)
    monkeypatch.setattr(destruction, "is_held", sa.false)
    monkeypatch.setattr(destruction, "read_covered", lambda connection: set())
    keeping.go_to(LATE)
    assert sweep(keeping.custody).keys_destroyed == 3


def sweep_and_hold(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> PlacedHold:
    """Sweep one segment at a time, and place a hold on all of ada's as soon as the first has gone."""
    account = keeping.custody.directory.get("ada")
    placed: list[PlacedHold] = []

    def place(progress: Progress) -> None:
        if not placed:
            placed.append(keeping.custody.hold(account, None, reason="case 7", by="counsel"))

    monkeypatch.setattr(sweeping, "destroy_due", partial(destruction.destroy_due, limit=1))
    keeping.go_to(LATE)
    sweep(keeping.custody, report=place)
    return placed[0]


def test_a_hold_that_comes_during_a_sweep(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the sweep has found and not destroyed yet stays; the hold says what was gone before it."""
    placed = sweep_and_hold(keeping, monkeypatch)
    assert placed.gone in (0, 1)
    assert len(keeping.read("ada")) == 2 - placed.gone
    assert keeping.read("bob") == set()


@pytest.mark.sqlite
def test_control_without_a_second_look(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: a sweep that goes by what it read at first destroys what is held by then."""
    monkeypatch.setattr(destruction, "read_covered", lambda connection: set())
    assert sweep_and_hold(keeping, monkeypatch).gone < 2
    assert keeping.read("ada") == set()


def place_in_the_middle(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> tuple[PlacedHold, bool]:
    """Place a hold on all of ada's between a sweep's look at holds and the end of the keys.

    Returns:
        The hold, and whether it waited for the end of the keys.
    """
    other = open_custody(keeping.home, clock=lambda: keeping.now)
    account = other.directory.get("ada")
    destroy = destruction.Keystore.destroy
    placed: list[PlacedHold] = []
    waited: list[bool] = []

    def place() -> None:
        placed.append(other.hold(account, None, reason="case 7", by="counsel"))

    placing = threading.Thread(target=place)

    def destroy_late(keystore: Any, ids: list[bytes], **more: Any) -> int:
        if not waited:
            placing.start()
            placing.join(0.5)
            waited.append(placing.is_alive())
        return destroy(keystore, ids, **more)

    def reclaim_later(engine: sa.Engine) -> destruction.Reclaimed:
        placing.join(20)  # while the rows are there that it counts
        return destruction.reclaim_batch(engine)

    monkeypatch.setattr(destruction.Keystore, "destroy", destroy_late)
    monkeypatch.setattr(sweeping, "reclaim_batch", reclaim_later)
    keeping.go_to(LATE)
    sweep(keeping.custody)
    other.close()
    return placed[0], waited[0]


def test_no_hold_is_placed_on_what_is_just_being_destroyed(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a sweep's look at holds and the end of the keys a hold waits, and then says what is gone."""
    placed, has_waited = place_in_the_middle(keeping, monkeypatch)
    assert has_waited
    assert placed.gone == 2
    assert keeping.read("ada") == set()


def test_control_without_the_lock(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: with nothing to wait for, the hold covers all, by its own word, and all of it is destroyed."""
    monkeypatch.setattr(destruction, "lock_holds", lambda connection: None)
    placed, has_waited = place_in_the_middle(keeping, monkeypatch)
    assert (has_waited, placed.gone) == (False, 0)
    assert keeping.read("ada") == set()


def test_a_session_whose_keys_are_gone_takes_no_hold(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows may be there for a moment still; a hold on them would promise what nobody can keep."""
    keeping.go_to(LATE)
    with monkeypatch.context() as patch:
        patch.setattr(sweeping, "reclaim_batch", lambda engine: destruction.Reclaimed(0, 0, 0, 0))
        sweep(keeping.custody)
    with pytest.raises(Problem, match="destroyed"):
        hold(keeping, "session-1")
    assert not [entry for entry in keeping.entries() if isinstance(entry, HoldPlaced)]


def test_what_is_held_is_not_erased(keeping: Keeping) -> None:
    """Erasing is refused with the hold's name and reason, for the session and for the whole account."""
    id = hold(keeping, "session-1")
    account = keeping.custody.directory.get("ada")
    for erase in (
        lambda: keeping.custody.erase_session(account.id, "session-1", by="op"),
        lambda: keeping.custody.erase_account(account, by="op"),
    ):
        with pytest.raises(Problem, match="case 7") as refused:
            erase()
        assert id in str(refused.value)
    assert len(keeping.read("ada")) == 2
    keeping.custody.erase_session(account.id, "session-2", by="op")
    assert len(keeping.read("ada")) == 1


@pytest.mark.parametrize("session", ["session-1", None])
def test_a_hold_that_comes_during_an_erasure(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch, session: str | None
) -> None:
    """Placed after the look at holds and before anything is marked, it is honoured: refused, and untold."""
    account = keeping.custody.directory.get("ada")
    lock = erasure.lock_holds
    erase = partial(keeping.custody.erase_account, account, by="op")
    if session is not None:
        erase = partial(keeping.custody.erase_session, account.id, session, by="op")

    def place_first(connection: sa.Connection) -> None:
        hold(keeping, session)
        lock(connection)

    with monkeypatch.context() as patch:
        patch.setattr(erasure, "lock_holds", place_first)
        with pytest.raises(Problem, match="case 7"):
            erase()
    assert len(keeping.read("ada")) == 2
    assert [entry for entry in keeping.entries() if isinstance(entry, Erased)] == []


def test_a_hold_that_comes_after_an_erasure_was_marked(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is marked is ledgered as erased, and goes: a hold on it is refused, or says what it missed."""
    account = keeping.custody.directory.get("ada")
    destroy = erasure.destroy_batch
    placed: list[int] = []

    def place_first(*arguments: Any, **more: Any) -> int:
        if not placed:
            with pytest.raises(Problem, match="destroyed"):
                hold(keeping, "session-1")
            placed.append(keeping.custody.hold(account, None, reason="case 8", by="counsel").gone)
        return destroy(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(erasure, "destroy_batch", place_first)
        keeping.custody.erase_session(account.id, "session-1", by="op")
    assert placed == [1]
    assert len(keeping.read("ada")) == 1
    with keeping.custody.keystore.engine.connect() as connection:
        assert len(connection.execute(tables.keys.select()).all()) == 2
    (told,) = [entry for entry in keeping.entries() if isinstance(entry, Erased)]
    assert (told.segments, told.exchanges) == (1, 1)


def test_an_account_that_is_erased_takes_no_hold(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its end in the vault and that of its name, too: there is nothing to hold."""
    account = keeping.custody.directory.get("ada")
    remove = keeping.custody.directory.remove

    def place_first(id: str) -> str | None:
        with pytest.raises(Problem, match="being erased"):
            hold(keeping)
        return remove(id)

    monkeypatch.setattr(keeping.custody.directory, "remove", place_first)
    keeping.custody.erase_account(account, by="op")
    with keeping.custody.vault.connect() as connection:
        assert list_holds(connection) == []


def test_the_ledger_counts_what_was_marked(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came after the count that a person was shown is erased, and in the counts of the entry."""
    account = keeping.custody.directory.get("ada")
    count = custody.count_session

    def count_first(*arguments: Any) -> Any:
        counted = count(*arguments)
        keeping.record("ada", "session-1")
        return counted

    monkeypatch.setattr(custody, "count_session", count_first)
    erased, _ = keeping.custody.erase_session(account.id, "session-1", by="op")
    (told,) = [entry for entry in keeping.entries() if isinstance(entry, Erased)]
    assert told.exchanges == erased.exchanges == 2
    assert (told.segments, told.records) == (1, 4)


def test_a_hold_covers_what_comes_later(keeping: Keeping) -> None:
    """Records written under a hold on an account stay as well."""
    hold(keeping)
    keeping.record("ada", "session-3")
    keeping.go_to(LATE)
    sweep(keeping.custody)
    assert len(keeping.read("ada")) == 3


def test_holds_are_in_the_ledger_without_their_reasons(keeping: Keeping) -> None:
    """Placing and releasing are told, the reason as a commitment only."""
    id = hold(keeping, reason="the case of somebody")
    keeping.custody.release(id, reason="settled", by="counsel")
    told = keeping.entries()
    assert [one.hold for one in told if isinstance(one, HoldPlaced | HoldReleased)] == [id, id]
    assert not any(b"somebody" in data or b"counsel" in data for data in keeping.custody.log.read())


@pytest.mark.parametrize("reason", ["", "  ", "two\nlines", "x" * 501, "\x1b[2J"])
def test_a_hold_needs_a_reason(keeping: Keeping, reason: str) -> None:
    """Placed or released without one printable line of why, it is refused and nothing changes."""
    with pytest.raises(Problem, match="reason"):
        hold(keeping, reason=reason)
    id = hold(keeping)
    with pytest.raises(Problem, match="reason"):
        keeping.custody.release(id, reason=reason, by="counsel")
    keeping.go_to(LATE)
    assert sweep(keeping.custody).held_back == 2


def test_unknown_sessions_and_holds_are_errors(keeping: Keeping) -> None:
    """Nothing is placed on a session nobody knows, and a hold is released once."""
    with pytest.raises(Problem, match="no session"):
        hold(keeping, "session-9")
    with pytest.raises(Problem, match="no hold"):
        keeping.custody.release("0" * 16, reason="x", by="y")
    id = hold(keeping)
    keeping.custody.release(id, reason="x", by="y")
    with pytest.raises(Problem, match="no hold"):
        keeping.custody.release(id, reason="x", by="y")
