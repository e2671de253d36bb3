"""Reports among conversations: found, triaged, and gone with all that was noted of them; both databases."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa

from bailee.flows.feedback.reports import path_from
from bailee.flows.feedback.storage import (
    HeldReport,
    Triage,
    find_sent,
    list_reports,
    list_sent_from,
    triage_report,
)
from bailee.policy.plans import Plan
from bailee.vault import destruction, sweeping, tables
from bailee.vault.sweeping import sweep
from counterparts.keeping import Keeping


@pytest.fixture
def keeping(tmp_path: Path, database: str) -> Iterator[Keeping]:
    """Give a home with two consumers."""
    opened = Keeping(tmp_path / "home")
    for name in ("ada", "bob"):
        opened.custody.directory.add(name, Plan.PRO)
    yield opened
    opened.close()


def report(keeping: Keeping, name: str, id: str, session: str = "session-1") -> None:
    decided, begin = keeping.admit(keeping.custody.directory.get(name), id, b"reported", "feedback")
    keeping.write((decided, msgspec.structs.replace(begin, path=path_from(session))))


def listed(keeping: Keeping, *names: str) -> list[HeldReport]:
    ids = [keeping.custody.directory.get(name).id for name in names]
    return list_reports(keeping.custody.vault, ids, today=keeping.today)


def triaged(keeping: Keeping) -> int:
    with keeping.custody.vault.connect() as connection:
        count: int = connection.execute(sa.select(sa.func.count()).select_from(tables.triage)).scalar_one()
    return count


def close(keeping: Keeping, one: HeldReport) -> None:
    now_ms = keeping.custody.now_ms()
    triage_report(keeping.custody.vault, one, Triage.CLOSED, "a note", by="root", at_ms=now_ms)


def test_reports_are_found_among_conversations(keeping: Keeping) -> None:
    """Whose, which session they were sent from, and nothing that is no report."""
    keeping.record("ada", "session-1")
    keeping.record("ada", "report-like")
    report(keeping, "ada", "report-1", "session-1")
    report(keeping, "ada", "report-2", "session-2")
    report(keeping, "bob", "report-3", "session-1")
    assert [one.id for one in listed(keeping, "ada", "bob")] == ["report-3", "report-2", "report-1"]
    ada = keeping.custody.directory.get("ada").id
    sent = list_sent_from(keeping.custody.vault, ada, "session-1", today=keeping.today)
    assert [one.id for one in sent] == ["report-1"]
    assert find_sent(keeping.custody.vault, ada, "report-1") is not None
    assert find_sent(keeping.custody.vault, ada, "report-3") is None
    assert find_sent(keeping.custody.vault, ada, "report-like") is None


@pytest.mark.parametrize("way", ["erased", "account erased", "expired"])
def test_what_was_noted_goes_with_the_report(keeping: Keeping, way: str) -> None:
    """A note may say what the report said: none outlives it."""
    report(keeping, "ada", "report-1")
    (one,) = listed(keeping, "ada")
    close(keeping, one)
    (closed,) = listed(keeping, "ada")
    assert (closed.state, closed.note, closed.changed_by) == (Triage.CLOSED, "a note", "root")
    if way == "erased":
        keeping.custody.erase_session(one.account, one.id, by="ada")
    elif way == "account erased":
        keeping.custody.erase_account(keeping.custody.directory.get("ada"), by="ada")
    else:
        keeping.go_to(date(2031, 5, 4))
        assert sweep(keeping.custody).keys_destroyed == 1
    assert triaged(keeping) == 0


def test_control_where_nothing_looks_for_notes(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: without the sweep's look the note of an expired report is still there."""
    report(keeping, "ada", "report-1")
    close(keeping, listed(keeping, "ada")[0])
    keeping.go_to(date(2031, 5, 4))
    monkeypatch.setattr(sweeping, "forget_reports", lambda engine: 0)
    sweep(keeping.custody)
    assert triaged(keeping) == 1
    assert destruction.forget_reports(keeping.custody.vault) == 1


def test_a_note_on_what_is_held_stays(keeping: Keeping) -> None:
    """A sweep takes no note of a report that is there."""
    report(keeping, "ada", "report-1")
    close(keeping, listed(keeping, "ada")[0])
    sweep(keeping.custody)
    assert triaged(keeping) == 1
