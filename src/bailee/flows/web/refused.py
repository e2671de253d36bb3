"""What agents were refused of late, by host and port, from the logs of connections that the vault holds."""

from collections.abc import Iterable
from datetime import date

import msgspec
import sqlalchemy as sa

from bailee.flows.web.log import Closed, Opened, Refused, Row
from bailee.flows.web.receiver import read_held
from bailee.policy.flows import FlowId
from bailee.vault import tables
from bailee.vault.custody import Custody
from bailee.vault.reader import read_session

# Logs of so many runs are opened at most, the latest first.
MOST_RUNS = 200


class Denied(msgspec.Struct, frozen=True):
    """A host and port that were refused; times are milliseconds since 1970 UTC."""

    host: str
    port: int
    rule: str
    reason: str
    count: int
    last_ms: int
    is_plain: bool  # whether plain HTTP was asked for


class Passed(msgspec.Struct, frozen=True):
    """A host and port that were reached, with bytes from agents and to them."""

    host: str
    port: int
    rule: str
    count: int
    sent: int
    received: int


class Run(msgspec.Struct, frozen=True):
    """A log that is held: whose run, and its records."""

    account: str
    session: str


def list_runs(custody: Custody, *, today: date) -> list[Run]:
    """Return the logs that are held and open, the latest first."""
    table = tables.segments
    is_open = sa.or_(table.c.expires_on.is_(None), table.c.expires_on > today)
    query = sa.select(table.c.account, table.c.session, sa.func.max(table.c.number).label("latest"))
    query = query.where(table.c.flow == FlowId.WEB.value, table.c.is_destroyed.is_(False), is_open)
    query = query.group_by(table.c.account, table.c.session).order_by(sa.desc("latest")).limit(MOST_RUNS)
    with custody.vault.connect() as connection:
        return [Run(row.account, row.session) for row in connection.execute(query)]


def read_rows(custody: Custody, run: Run, *, today: date) -> list[Row]:
    """Open a log; that somebody reads it is recorded by the caller, before."""
    opened = read_session(custody.vault, custody.keystore, run.account, run.session, today=today)
    rows: list[Row] = []
    for transcript in opened:
        try:
            rows += read_held(transcript.request.reveal())
        except msgspec.MsgspecError:
            continue  # of another flow, in a session of the same name
    return rows


def count_passed(logs: Iterable[Iterable[Row]]) -> list[Passed]:
    """Return what was let through, what was reached most often first; connections have numbers by log."""
    found: dict[tuple[str, int, str], Passed] = {}
    for rows in logs:
        opened: dict[int, tuple[str, int, str]] = {}
        for row in rows:
            if isinstance(row, Opened):
                key = opened[row.number] = row.host, row.port, row.rule
                before = found.get(key, Passed(*key, 0, 0, 0))
                found[key] = msgspec.structs.replace(before, count=before.count + 1)
            elif isinstance(row, Closed) and row.number in opened:
                before = found[opened[row.number]]
                found[opened[row.number]] = msgspec.structs.replace(
                    before, sent=before.sent + row.sent, received=before.received + row.received
                )
    return sorted(found.values(), key=lambda one: (-one.count, one.host, one.port))


def count_denied(rows: Iterable[Row]) -> list[Denied]:
    """Return what was refused, what was refused most often first."""
    found: dict[tuple[str, int, str, bool], Denied] = {}
    for row in rows:
        if not isinstance(row, Refused):
            continue
        key = row.host, row.port, row.rule, row.is_plain
        before = found.get(key)
        count = before.count + 1 if before else 1
        last = max(before.last_ms, row.at_ms) if before else row.at_ms
        found[key] = Denied(row.host, row.port, row.rule, row.reason, count, last, row.is_plain)
    return sorted(found.values(), key=lambda one: (-one.count, one.host, one.port))
