"""The consents of an account as they were recorded, one after the other."""

import sqlalchemy as sa

from bailee.accounts import tables
from bailee.accounts.directory import Directory
from bailee.accounts.people import Account, Change, Kind


def list_changes(directory: Directory, account: Account) -> list[Change]:
    """Return every consent recorded for an account or its organization, in the order they were."""
    table = tables.consents
    query = sa.select(table).where(table.c.subject.in_([account.id, account.organization]))
    was: dict[tuple[str, str], bool] = {}
    changes = []
    with directory.engine.connect() as connection:
        for row in connection.execute(query.order_by(table.c.number)):
            before = was.get((row.subject, row.kind), False)
            was[row.subject, row.kind] = row.given
            change = Change(row.subject, Kind(row.kind), row.given, before, row.granted_by, row.at_ms)
            changes.append(change)
    return changes
