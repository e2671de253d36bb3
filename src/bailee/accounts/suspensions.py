"""Members whom an admin keeps out: what proves them stays, and opens nothing meanwhile.

Nothing is taken away from them: where nothing proves a holder any more, somebody else could be handed the
next proof, and be taken for them. What is held of them stays theirs, keeps its terms, and goes on its day.
"""

import secrets

import sqlalchemy as sa

from bailee.accounts import tables
from bailee.accounts.choices import require_appointment
from bailee.accounts.directory import Directory
from bailee.accounts.holders import Operator
from bailee.accounts.people import Account
from bailee.accounts.sign_ins import end_sign_ins
from bailee.accounts.tables import Role
from bailee.ledger.entries import MemberSuspended
from bailee.ledger.outbox import put
from bailee.policy.problems import Problem

_WHERE = "Members"


def suspend_member(
    directory: Directory, organization: str, member: str, operator: Operator, *, given: bool
) -> Account:
    """Keep a member out, or let them in again; return their account as it is then.

    Their keys open nothing from the next request on, their browsers are signed out, and nothing signs them
    in.

    Args:
        member: the name of their account.
        operator: who says so; one of the organization's admins.
        given: whether they are kept out.

    Raises:
        Problem: the operator is no admin, the member is none or an admin, or it is so already.
    """
    require_appointment(directory, organization, operator)
    holder = next((one for one in directory.members(organization) if one.name == member), None)
    if holder is None:
        raise Problem(f"{member!r} is no member of {organization!r}", where=_WHERE, fix="choose one who is")
    if given and holder.role is Role.ADMIN:
        raise Problem(f"{member!r} is an admin", where=_WHERE, fix="make them a member first")
    if given == holder.is_suspended:
        state = "suspended already" if given else "not suspended"
        raise Problem(f"{member!r} is {state}", where=_WHERE, fix="load the page anew")
    table, now = tables.accounts, directory.now_ms()
    entry = MemberSuspended(
        id=secrets.token_hex(16),
        at_ms=now,
        subject=directory.name(holder.id),
        given=given,
        by=directory.name(operator.signed_in or operator.person),
    )
    change = sa.update(table).where(table.c.id == holder.id).values(suspended_ms=now if given else None)
    with directory.engine.begin() as connection:
        # Who was made an admin meanwhile is left alone.
        able = table.c.role == Role.MEMBER.value if given else sa.true()
        if not connection.execute(change.where(able)).rowcount:
            raise Problem(f"{member!r} is an admin", where=_WHERE, fix="make them a member first")
        put(connection, tables.outbox, [entry])
    if given:
        end_sign_ins(directory, holder.id)
    return directory.get(member)
