"""A legal hold keeps what it covers from expiry and erasure, explicitly, until somebody releases it."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from bailee.ledger.entries import HoldPlaced, HoldReleased
from bailee.policy.plans import Plan
from bailee.policy.problems import Problem
from bailee.vault import destruction
from bailee.vault.sweeping import sweep
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
    import sqlalchemy as sa

    hold(keeping)
    monkeypatch.setattr(destruction, "is_held", sa.false)
    keeping.go_to(LATE)
    assert sweep(keeping.custody).keys_destroyed == 3


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
