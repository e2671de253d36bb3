"""The reports that are held: found by their facts, opened, triaged and erased."""

import time
from collections.abc import Callable, Iterable
from datetime import date
from enum import StrEnum
from pathlib import Path

import msgspec
import sqlalchemy as sa

from bailee.flows.feedback.queue import HeldIssue, read_issues
from bailee.flows.feedback.reports import FROM_SESSIONS, Report, decode_report, session_of
from bailee.policy.flows import FlowId
from bailee.policy.problems import Problem
from bailee.vault import tables
from bailee.vault.custody import Custody, open_custody
from bailee.vault.holds import check_reason
from bailee.vault.reader import read_session

# What the sessions of reports begin with, so that the index of sessions finds them.
START = "report-"


class Triage(StrEnum):
    """What was made of a report."""

    OPEN = "open"
    CLOSED = "closed"


class HeldReport(msgspec.Struct, frozen=True):
    """A report by its facts; nothing of its content. Times are milliseconds since 1970 UTC.

    Attributes:
        account: its id.
        session: the session it was sent from, whether or not anything is held of that.
        expires_on: None where it is held without end.
        note, changed_by, changed_ms: of whoever triaged it last; empty, and 0, before that.
        issue: the one that was asked for with it, if any.
    """

    id: str
    account: str
    session: str
    sent_ms: int
    bytes: int
    retention: str
    expires_on: date | None
    state: Triage = Triage.OPEN
    note: str = ""
    changed_by: str = ""
    changed_ms: int = 0
    issue: HeldIssue | None = None


def draw_id(random: Callable[[int], bytes]) -> str:
    """Draw a report's id."""
    return START + random(8).hex()


def list_reports(engine: sa.Engine, accounts: Iterable[str], *, today: date) -> list[HeldReport]:
    """Return the reports that accounts sent and that are held still, the latest first.

    Account by account, so that an index finds them among millions of conversations.
    """
    with engine.connect() as connection:
        found = [report for account in accounts for report in _list(connection, account, today)]
    return sorted(found, key=lambda report: (-report.sent_ms, report.id))


def list_sent_from(engine: sa.Engine, account: str, session: str, *, today: date) -> list[HeldReport]:
    """Return the reports that were sent from a session and are held still."""
    return [report for report in list_reports(engine, [account], today=today) if report.session == session]


def find_report(engine: sa.Engine, accounts: Iterable[str], id: str, *, today: date) -> HeldReport:
    """Return a report by its id, or by the beginning of it that only one has.

    Raises:
        Problem: there is none, or there are several.
    """
    found = [report for report in list_reports(engine, accounts, today=today) if report.id.startswith(id)]
    exact = [report for report in found if report.id == id]
    if not id or not found:
        raise Problem(f"there is no report {id!r}", where="REPORT", fix="see: bailee feedback list")
    if len(exact or found) > 1:
        listed = ", ".join(report.id for report in found[:5])
        raise Problem(f"{len(found)} reports begin with {id!r}", where=listed, fix="give more of the id")
    return (exact or found)[0]


def find_sent(engine: sa.Engine, account: str, id: str) -> int | None:
    """Return when an account sent a report, in milliseconds since 1970 UTC; None if nothing of it is held."""
    exchanges, segments = tables.exchanges, tables.segments
    query = sa.select(exchanges.c.started_ms).select_from(
        exchanges.join(segments, segments.c.number == exchanges.c.segment)
    )
    query = query.where(_is_report(account, id), _is_there())
    with engine.connect() as connection:
        found: int | None = connection.execute(query).scalar_one_or_none()
    return found


def read_report(custody: Custody, account: str, id: str) -> Report:
    """Open a report.

    Raises:
        Problem: a record of it was altered, or nothing of it opens any more.
    """
    found = read_session(custody.vault, custody.keystore, account, id, today=custody.today())
    for transcript in found:
        try:
            return decode_report(transcript.request.reveal())
        except ValueError:
            continue  # what an agent called its session like a report
    raise Problem(f"nothing of report {id!r} opens any more", fix="see: bailee feedback list")


def triage_report(
    engine: sa.Engine, report: HeldReport, state: Triage, note: str, *, by: str, at_ms: int
) -> None:
    """Say what was made of a report.

    Args:
        note: in a line; it is in clear, and goes with the report.
        by: who says so.

    Raises:
        Problem: the note is long, or not one line.
    """
    if note:
        try:
            check_reason(note)
        except Problem as problem:
            raise Problem("a note is one printable line", where="--note", fix=problem.fix) from None
    table = tables.triage
    row = {
        "account": report.account,
        "report": report.id,
        "state": state.value,
        "note": note,
        "changed_by": by,
        "changed_ms": at_ms,
    }
    with engine.begin() as connection:
        connection.execute(
            sa.delete(table).where(table.c.account == report.account, table.c.report == report.id)
        )
        connection.execute(sa.insert(table), row)


def erase_report(
    home: Path, account: str, report: str, by: str, *, clock: Callable[[], float] = time.time
) -> bytes:
    """Erase a report as a session is erased, keys first, and return the receipt.

    Raises:
        Problem: nothing is held of it, or a legal hold covers it.
    """
    custody = open_custody(home, clock=clock)
    try:
        return custody.erase_session(account, report, by=by)[1]
    finally:
        custody.close()


def _list(connection: sa.Connection, account: str, today: date) -> list[HeldReport]:
    exchanges, segments, triage = tables.exchanges, tables.segments, tables.triage
    columns = (exchanges.c.session, exchanges.c.path, exchanges.c.started_ms, exchanges.c.request_bytes)
    query = sa.select(*columns, segments.c.retention, segments.c.expires_on)
    query = query.select_from(exchanges.join(segments, segments.c.number == exchanges.c.segment))
    is_in_time = sa.or_(segments.c.expires_on.is_(None), segments.c.expires_on > today)
    query = query.where(_is_report(account), _is_there(), is_in_time)
    triaged = {
        row.report: row for row in connection.execute(sa.select(triage).where(triage.c.account == account))
    }
    asked = read_issues(connection, account)
    reports = []
    for row in connection.execute(query):
        report = HeldReport(
            id=row.session,
            account=account,
            session=session_of(row.path) or "",
            sent_ms=row.started_ms,
            bytes=row.request_bytes,
            retention=row.retention,
            expires_on=row.expires_on,
            issue=asked.get(row.session),
        )
        if (made := triaged.get(row.session)) is not None:
            report = msgspec.structs.replace(
                report,
                state=Triage(made.state),
                note=made.note,
                changed_by=made.changed_by,
                changed_ms=made.changed_ms,
            )
        reports.append(report)
    return reports


def _is_report(account: str, id: str | None = None) -> sa.ColumnElement[bool]:
    c = tables.exchanges.c
    of_account = sa.and_(c.account == account, c.flow == FlowId.FEEDBACK.value, c.state == "complete")
    # And no issue that was asked for with one, which is held in its session.
    of_account = sa.and_(of_account, c.path.startswith(FROM_SESSIONS))
    if id is not None:
        return sa.and_(of_account, c.session == id)
    # A range and no pattern, which the index serves in either database: "." is what comes after "-".
    return sa.and_(of_account, c.session >= START, c.session < START[:-1] + ".")


def _is_there() -> sa.ColumnElement[bool]:
    """Match what was neither erased nor destroyed."""
    segments = tables.segments
    is_kept = sa.or_(segments.c.expires_on.is_(None), segments.c.expires_on != tables.ERASED)
    return sa.and_(segments.c.is_destroyed.is_(False), is_kept)
