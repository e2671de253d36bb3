"""What people choose for an account or an organization, once they have shown that it is theirs to choose.

What loosens takes a proof of who asks (`holders.is_holder`). What tightens, whoever runs the program may do
for an account holder; the ledger says who did. What is refused is ledgered (`Directory.tell_refusal`).
"""

from typing import NoReturn

from bailee.accounts.directory import Directory
from bailee.accounts.holders import Operator, has_proof, is_holder
from bailee.accounts.people import Account, Change, Kind
from bailee.accounts.tables import KeyOrigin, Role
from bailee.policy.flows import FlowId
from bailee.policy.periods import UNLIMITED, Period, is_within
from bailee.policy.problems import Problem

RETENTION = "retention"
KEY = "key"
ADMIN = "admin"
LOGIN = "login"


def choose_training(directory: Directory, account: str, operator: Operator, *, given: bool) -> Change:
    """Record a choice on training: the account holder's own, or an operator's who ends it for them.

    Raises:
        Problem: somebody else would allow it, the plan has no training switch, or there is no such account.
    """
    holder = directory.get(account)
    if is_holder(directory.engine, holder.id, operator):
        return directory.consent(account, given=given)
    if given:
        _refuse(directory, holder, operator, Kind.TRAINING, "the account holder alone allows training")
    return directory.consent(account, given=given, by=operator.person)


def choose_flow(
    directory: Directory, account: str, operator: Operator, flow: FlowId, *, refused: bool
) -> Change:
    """Record that nothing of a flow is taken of an account: whatever the account holder says, or refused.

    Raises:
        Problem: somebody else would accept it, or there is no such account.
    """
    holder = directory.get(account)
    if is_holder(directory.engine, holder.id, operator):
        return directory.refuse(account, flow, given=refused)
    if not refused:
        what = f"the account holder alone lets {flow} be taken again"
        _refuse(directory, holder, operator, Kind.refusing(flow), what, given=False)
    return directory.refuse(account, flow, given=True, by=operator.person)


def choose_retention(directory: Directory, account: str, operator: Operator, limit: Period) -> None:
    """Record how long records may be held at most: whatever the account holder says, or shorter than before.

    Raises:
        Problem: somebody else would lengthen it, or there is no such account.
    """
    holder = directory.get(account)
    if is_holder(directory.engine, holder.id, operator):
        directory.limit_account(account, limit)
        return
    if not is_within(limit, holder.retention or UNLIMITED):
        what = f"the account holder alone has records held longer than {holder.retention}"
        _refuse(directory, holder, operator, RETENTION, what)
    directory.limit_account(account, limit, by=operator.person)


def require_admin(directory: Directory, admin: str, operator: Operator, what: str, *, given: bool) -> None:
    """Have an admin prove who they are, before it is looked at what they may decide.

    Args:
        admin: the name of their account.
        what: is to be decided: a `Kind`, or RETENTION.
        given: whether it would be given.

    Raises:
        Problem: they do not, or there is no such account.
    """
    person = directory.get(admin)
    if not is_holder(directory.engine, person.id, operator):
        message = f"nothing shows that you are {admin!r}"
        _refuse(directory, person, operator, what, message, given=given, where=f"--as {admin}")


def require_appointment(directory: Directory, organization: str, operator: Operator) -> None:
    """Have one of its admins prove who they are, before an organization gets another admin.

    Where none is left anybody may name the next one.

    Raises:
        Problem: none of them does.
    """
    admins = [one for one in directory.all() if (one.organization, one.role) == (organization, Role.ADMIN)]
    if not admins or any(is_holder(directory.engine, one.id, operator) for one in admins):
        return
    directory.tell_refusal(ADMIN, True, operator.person, of=organization)
    raise Problem(
        f"an admin of {organization!r} names further ones, and nothing shows that you are one",
        where="--role admin",
        fix="present a key in BAILEE_KEY that proves one of them, or leave --role out",
    )


def require_holder(directory: Directory, account: str, operator: Operator) -> Account:
    """Have the account holder prove who they are, before an agent is let in to their account.

    Raises:
        Problem: they do not, or there is no such account.
    """
    holder = directory.get(account)
    if not is_holder(directory.engine, holder.id, operator):
        _refuse(directory, holder, operator, LOGIN, "the account holder alone approves a login")
    return holder


def choose_origin(directory: Directory, account: str, operator: Operator, *, for_holder: bool) -> KeyOrigin:
    """Tell what a key that is about to be made will count as.

    Args:
        for_holder: it is made for the account holder and handed over to them.

    Raises:
        Problem: the account holder has a proof already, which is to be revoked first so that they
            notice; or there is no such account.
    """
    holder = directory.get(account)
    if is_holder(directory.engine, holder.id, operator):
        return KeyOrigin.HOLDER
    if not for_holder:
        return KeyOrigin.OTHER
    if has_proof(directory.engine, holder.id):
        directory.tell_refusal(KEY, True, operator.person, of=holder.id)
        raise Problem(
            f"the holder of {account!r} has a key or a password already that proves who they are",
            where="--for-holder",
            fix="have them do it without --for-holder, with their key in BAILEE_KEY, or in the console; "
            "if a key is lost, revoke it first: bailee keys list",
        )
    return KeyOrigin.HANDED_OVER


def _refuse(
    directory: Directory,
    holder: Account,
    operator: Operator,
    what: str,
    message: str,
    *,
    given: bool = True,
    where: str = "",
) -> NoReturn:
    directory.tell_refusal(what, given, operator.person, of=holder.id)
    raise Problem(
        message,
        where=where or f"--account {holder.name}",
        fix="present a key in BAILEE_KEY that proves it; "
        f"the first one: bailee keys create --account {holder.name} --for-holder",
    )
