"""The issues that are to be opened: a queue on the disk, tried again with longer and longer pauses.

A row holds facts. Title and text are sealed in the session of the report that they belong to, and go with it;
nothing is opened as long as whoever asked can take the report back.
"""

import asyncio
import time
from collections.abc import Callable
from enum import StrEnum

import msgspec
import sqlalchemy as sa
import sqlalchemy.exc

from bailee.flows.feedback.github import NotOpened, Tracker, open_issue
from bailee.flows.feedback.issues import decode_issue, sign, write_body
from bailee.policy.problems import Problem
from bailee.vault import tables

POLL_SECONDS = 5.0
# The first pause, doubled with each attempt up to the longest; after 100 attempts, four days, it is given up.
FIRST_PAUSE_MS, LONGEST_PAUSE_MS, MOST_ATTEMPTS = 30_000, 3_600_000, 100
# A node that took an issue and was killed leaves it to the others after this time.
CLAIM_MS = 120_000
_AT_A_TIME = 20


class IssueState(StrEnum):
    """How far an issue has come."""

    WAITING = "waiting"
    OPENED = "opened"
    FAILED = "failed"


class HeldIssue(msgspec.Struct, frozen=True):
    """An issue by its facts; times are milliseconds since 1970 UTC.

    Attributes:
        next_ms: when it is tried next, where it waits.
        url: empty until it is open.
        fault: why it was not opened the last time; empty if it was, or was not tried.
    """

    repository: str
    state: IssueState
    next_ms: int
    attempts: int
    url: str
    fault: str


def enqueue(
    engine: sa.Engine, account: str, report: str, exchange: int, repository: str, *, at_ms: int, due_ms: int
) -> bool:
    """Queue the issue of a report, and tell whether it is queued; a report has one.

    Args:
        exchange: in which the issue itself is held.
        due_ms: it is opened no earlier than this.
    """
    row = {
        "account": account,
        "report": report,
        "exchange": exchange,
        "repository": repository,
        "state": IssueState.WAITING.value,
        "asked_ms": at_ms,
        "next_ms": due_ms,
        "attempts": 0,
        "url": "",
        "fault": "",
    }
    try:
        with engine.begin() as connection:
            connection.execute(sa.insert(tables.issues), row)
    except sa.exc.IntegrityError:
        return False
    return True


def read_issues(connection: sa.Connection, account: str) -> dict[str, HeldIssue]:
    """Return the issues of an account's reports, by report."""
    table = tables.issues
    return {
        row.report: HeldIssue(
            row.repository, IssueState(row.state), row.next_ms, row.attempts, row.url, row.fault
        )
        for row in connection.execute(sa.select(table).where(table.c.account == account))
    }


class IssueQueue:
    """Opens what is due.

    Args:
        read: gives what an exchange of a report of an account holds; None where nothing of it opens any more.
        clock: seconds since 1970 UTC.
    """

    def __init__(
        self,
        tracker: Tracker,
        vault: sa.Engine,
        read: Callable[[str, str, int], bytes | None],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._tracker = tracker
        self._vault = vault
        self._read = read
        self._clock = clock

    async def run(self) -> None:
        """Open what is due, for ever."""
        while True:
            await asyncio.to_thread(self.open_due)
            await asyncio.sleep(POLL_SECONDS)

    def open_due(self) -> int:
        """Try once to open each issue that is due, and return how many are open."""
        opened = 0
        try:
            for row in self._list_due():
                if self._claim(row):
                    opened += self._open(row)
        except (sa.exc.SQLAlchemyError, Problem):
            pass  # as long as the database or the keystore cannot be used they wait
        return opened

    def _list_due(self) -> "list[sa.Row[tuple[object, ...]]]":
        table = tables.issues
        query = sa.select(table).where(
            table.c.state == IssueState.WAITING.value, table.c.next_ms <= self._now_ms()
        )
        with self._vault.connect() as connection:
            return list(connection.execute(query.order_by(table.c.next_ms).limit(_AT_A_TIME)))

    def _claim(self, row: "sa.Row[tuple[object, ...]]") -> bool:
        """Take an issue, unless another node has taken it since it was listed."""
        is_unchanged = tables.issues.c.next_ms == row.next_ms
        later = self._now_ms() + CLAIM_MS
        return self._update(row, is_unchanged, next_ms=later, attempts=row.attempts + 1)

    def _open(self, row: "sa.Row[tuple[object, ...]]") -> bool:
        table = tables.issues
        body = self._read(row.account, row.report, row.exchange)
        if body is None:
            with self._vault.begin() as connection:
                connection.execute(sa.delete(table).where(_is(row)))
            return False
        try:
            issue = decode_issue(body)
            url = open_issue(
                self._tracker,
                row.repository,
                issue.title,
                write_body(issue, row.report),
                mark=sign(row.report),
                since_ms=row.asked_ms,
            )
        except NotOpened as fault:
            attempts = row.attempts + 1
            if fault.is_final or attempts >= MOST_ATTEMPTS:
                self._update(row, state=IssueState.FAILED.value, fault=str(fault))
                return False
            pause_ms = max(pause_after(attempts), int(fault.seconds * 1000))
            self._update(row, next_ms=self._now_ms() + pause_ms, fault=str(fault))
            return False
        self._update(row, state=IssueState.OPENED.value, url=url, fault="")
        return True

    def _update(
        self, row: "sa.Row[tuple[object, ...]]", *conditions: sa.ColumnElement[bool], **values: object
    ) -> bool:
        change = sa.update(tables.issues).where(_is(row), *conditions).values(**values)
        with self._vault.begin() as connection:
            return connection.execute(change).rowcount == 1

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def pause_after(attempts: int) -> int:
    """Return how long to wait after so many attempts, in milliseconds."""
    return min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS << min(attempts - 1, 20))


def _is(row: "sa.Row[tuple[object, ...]]") -> sa.ColumnElement[bool]:
    table = tables.issues
    return sa.and_(table.c.account == row.account, table.c.report == row.report)
