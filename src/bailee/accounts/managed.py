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


def read_managed(directory: Directory, organization: str | None) -> Managed:
    """Return what an organization manages; an empty file for who has none."""
    table = tables.managed_settings
    query = sa.select(table).where(table.c.organization == (organization or ""))
    with directory.engine.connect() as connection:
        row = connection.execute(query).first()
    return Managed() if row is None else Managed(row.body, row.changed_by, row.changed_ms)


def save_managed(directory: Directory, organization: str, body: str, *, account: str, by: str) -> Managed:
    """Keep what an organization manages from now on; the caller has checked it, and who asks.

    Args:
        account: the id of the admin's account.
        by: its name.
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
    with directory.engine.begin() as connection:
        connection.execute(sa.delete(table).where(table.c.organization == organization))
        connection.execute(sa.insert(table), row)
        put(connection, tables.outbox, [entry])
    return saved
