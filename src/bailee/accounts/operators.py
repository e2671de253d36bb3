"""Who sees to the service itself: the user who runs it, and account holders whom that user appoints."""

import secrets

import sqlalchemy as sa

from bailee.accounts import tables
from bailee.accounts.directory import Directory
from bailee.ledger.entries import OperatorAppointed
from bailee.ledger.outbox import put
from bailee.ledger.pseudonyms import OPERATOR


def is_operator(directory: Directory, account: str) -> bool:
    """Tell whether an account, by its id, is an operator's."""
    table = tables.operators
    with directory.engine.connect() as connection:
        return (
            connection.execute(sa.select(table.c.account).where(table.c.account == account)).first()
            is not None
        )


def find_account_of_user(directory: Directory, user_id: int) -> str | None:
    """Return the id of the account that is a user's of this machine; None where there is none."""
    table = tables.accounts
    query = sa.select(table.c.id).where(table.c.user_id == user_id).order_by(table.c.name)
    with directory.engine.connect() as connection:
        return connection.execute(query.limit(1)).scalar_one_or_none()


def appoint_operator(directory: Directory, account: str, *, given: bool, by: str) -> bool:
    """Make an account holder an operator, or have them be none any more; return whether that was new.

    Args:
        account: its name.
        by: the user of this machine who says so.

    Raises:
        Problem: there is no such account.
    """
    holder, table = directory.get(account), tables.operators
    if is_operator(directory, holder.id) == given:
        return False
    entry = OperatorAppointed(
        id=secrets.token_hex(16),
        at_ms=directory.now_ms(),
        subject=directory.name(holder.id),
        given=given,
        by=directory.name(f"{OPERATOR}{by}"),
    )
    with directory.engine.begin() as connection:
        if given:
            row = {"account": holder.id, "appointed_by": by, "appointed_ms": entry.at_ms}
            connection.execute(sa.insert(table), row)
        else:
            connection.execute(sa.delete(table).where(table.c.account == holder.id))
        put(connection, tables.outbox, [entry])
    return True
