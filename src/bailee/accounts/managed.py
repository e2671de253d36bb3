"""The settings that an organization has its agents follow: a settings file, edited by an admin, served to
clients.

It is the managed layer of an agent's settings, and as every layer it can only tighten. What it may say is
checked by whoever saves it: that is the agent's own word.
"""

import hashlib
import secrets

import msgspec
import sqlalchemy as sa

from bailee.accounts import tables
from bailee.accounts.directory import Directory
from bailee.ledger.entries import SettingsManaged
from bailee.ledger.outbox import put
from bailee.policy.problems import Problem

NONE = "{}\n"
LONGEST = 100_000  # characters


class Managed(msgspec.Struct, frozen=True):
    """What is managed; `changed_ms` is milliseconds since 1970 UTC, and 0 where nobody ever said anything."""

    body: str = NONE
    changed_by: str = ""
    changed_ms: int = 0

    @property
    def tag(self) -> str:
        """What tells this text from every other (RFC 9110, 8.8.3)."""
        return f'"{hashlib.sha256(self.body.encode()).hexdigest()[:32]}"'


class Overtaken(Problem):
    """Somebody else has saved meanwhile."""


def read_managed(directory: Directory, organization: str | None) -> Managed:
    """Return what an organization manages; an empty file for who has none."""
    with directory.engine.connect() as connection:
        return _read(connection, organization or "")


def _read(connection: sa.Connection, organization: str) -> Managed:
    table = tables.managed_settings
    row = connection.execute(sa.select(table).where(table.c.organization == organization)).first()
    return Managed() if row is None else Managed(row.body, row.changed_by, row.changed_ms)


def save_managed(
    directory: Directory, organization: str, body: str, *, account: str, by: str, over: str | None = None
) -> Managed:
    """Keep what an organization manages from now on; the caller has checked it, and who asks.

    Args:
        account: the id of the admin's account.
        by: its name.
        over: the tag of what this takes the place of; whatever is there if it is left out.

    Raises:
        Overtaken: something else is there by now.
    """
    table, now = tables.managed_settings, directory.now_ms()
    saved = Managed(body, by, now)
    entry = SettingsManaged(
        id=secrets.token_hex(16),
        at_ms=now,
        subject=directory.name(organization),
        digest=hashlib.sha256(body.encode()).hexdigest(),
        by=directory.name(account),
    )
    row = {"organization": organization, "body": body, "changed_by": by, "changed_ms": now}
    organizations = tables.organizations
    with directory.engine.begin() as connection:
        # Of several who save at once all but the first wait here, and read what that one has saved.
        mine = sa.update(organizations).where(organizations.c.name == organization)
        connection.execute(mine.values(name=organization))
        if over not in (None, _read(connection, organization).tag):
            raise Overtaken(
                "somebody changed them since you loaded the page",
                where="managed settings",
                fix="look at what is in force by now, below what you wrote, and save once more what is to be",
            )
        connection.execute(sa.delete(table).where(table.c.organization == organization))
        connection.execute(sa.insert(table), row)
        put(connection, tables.outbox, [entry])
    return saved
