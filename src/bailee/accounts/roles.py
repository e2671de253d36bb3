"""Who is an admin of an organization: admins name further ones, and one is always left."""

import secrets

import sqlalchemy as sa

from bailee.accounts import tables
from bailee.accounts.choices import require_appointment
from bailee.accounts.directory import Directory
from bailee.accounts.holders import Operator
from bailee.accounts.people import Account
from bailee.accounts.tables import Role
from bailee.ledger.entries import RoleChanged
from bailee.ledger.outbox import put
from bailee.policy.problems import Problem


def change_role(
    directory: Directory, organization: str, member: str, role: Role, operator: Operator
) -> Account:
    """Give a member another role, and return their account as it is then.

    Args:
        member: the name of their account.
        operator: who says so; one of the organization's admins.

    Raises:
        Problem: they are no admin, the member is none, or no admin would be left.
    """
    require_appointment(directory, organization, operator)
    members = {one.name: one for one in directory.members(organization)}
    if member not in members:
        raise Problem(
            f"{member!r} is no member of {organization!r}", where="Members", fix="choose one who is"
        )
    holder = members[member]
    suspended = Problem(f"{member!r} is suspended", where="Members", fix="let them in again first")
    if role is Role.ADMIN and holder.is_suspended:
        raise suspended
    table = tables.accounts
    # One who is suspended looks after nothing.
    is_admin = sa.and_(
        table.c.organization == organization,
        table.c.role == Role.ADMIN.value,
        table.c.suspended_ms.is_(None),
    )
    change = sa.update(table).where(table.c.id == holder.id).values(role=role.value)
    entry = RoleChanged(
        id=secrets.token_hex(16),
        at_ms=directory.now_ms(),
        subject=directory.name(holder.id),
        role=role.value,
        by=directory.name(operator.signed_in or operator.person),
    )
    with directory.engine.begin() as connection:
        # Of two admins who make each other a member at once, one stays: PostgreSQL has the second wait here,
        # SQLite at the update, after which what is left is counted.
        connection.execute(sa.select(table.c.id).where(is_admin).with_for_update()).all()
        # Who was suspended meanwhile is left alone.
        able = table.c.suspended_ms.is_(None) if role is Role.ADMIN else sa.true()
        if not connection.execute(change.where(able)).rowcount:
            raise suspended
        if connection.execute(sa.select(table.c.id).where(is_admin).limit(1)).first() is None:
            raise Problem(
                f"{member!r} is the last admin of {organization!r}",
                where="Members",
                fix="make another one first",
            )
        put(connection, tables.outbox, [entry])
    return directory.get(member)
