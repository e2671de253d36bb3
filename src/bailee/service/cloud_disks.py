"""The disks of cloud sessions, under the terms of their accounts: gone on their day, kept by a legal hold.

A disk holds what an agent saw of a repository, so that it goes as a conversation does, counted from the day
the session was last at work. Under zero data retention it goes as soon as the session has ended.
"""

import contextlib
import time
from datetime import UTC, date, datetime
from pathlib import Path

import sqlalchemy as sa

from bailee.accounts.directory import Directory
from bailee.accounts.keys import list_keys
from bailee.cloud.records import ENDED, CloudSession, Sessions
from bailee.flows.git.grants import list_grants, withdraw_grant
from bailee.policy.flows import FlowId
from bailee.policy.periods import Period
from bailee.policy.problems import Problem
from bailee.vault.holds import read_covered
from bailee.vault.terms import terms_of


def sweep_disks(home: Path, directory: Directory, vault: sa.Engine, today: date) -> list[str]:
    """Remove ended sessions whose day has come, or whose account is gone, and return their ids."""
    sessions = Sessions(home)
    ids = sessions.ids()
    if not ids:
        return []
    with vault.connect() as connection:
        held = {account for account, _ in read_covered(connection)}
    accounts = {one.name: one for one in directory.all()}
    gone = []
    for id in ids:
        # One that cannot be read is left for a person, as is one that somebody has just begun to drive.
        with contextlib.suppress(Problem):
            session = sessions.look(id)
            account = accounts.get(session.account)
            if session.state not in ENDED or (account is not None and account.id in held):
                continue
            if account is None or _is_due(session, terms_of(account, FlowId.MESSAGES).retention, today):
                sessions.remove(id)
                gone.append(id)
    return gone


def sweep_grants(home: Path, directory: Directory) -> None:
    """Take away what killed sessions left of their way to repositories: it goes with its key."""
    if granted := list_grants(home):
        now_ms = time.time_ns() // 1_000_000
        in_force = {key.id for key in list_keys(directory) if key.is_in_force(now_ms)}
        for key in set(granted) - in_force:
            withdraw_grant(home, key)


def _is_due(session: CloudSession, period: Period, today: date) -> bool:
    used = datetime.fromtimestamp(session.changed_ms / 1000, UTC).date()
    if period.is_none:
        return True
    day = period.expires_on(used)
    return day is not None and day <= today
