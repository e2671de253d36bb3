"""Browsers that are signed in to the console, and links that sign one in once.

What a browser holds is 256 random bits behind an id; the digest is kept, as of a key. A link is a sign-in of
a few minutes that is exchanged for one of hours, in one transaction. A sign-in ends at its time, when it is
taken back, and with its account; nothing prolongs it, so that using the console writes nothing.
"""

import hmac
import re
import secrets
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import msgspec
import sqlalchemy as sa

from bailee.accounts import tables
from bailee.accounts.directory import Directory
from bailee.accounts.holders import digest_secret
from bailee.accounts.people import Account
from bailee.ledger.outbox import put
from bailee.ledger.pseudonyms import OPERATOR
from bailee.ledger.sign_in_entries import SignedIn, SignInRefused
from bailee.policy.problems import Problem

LINK_MS = 10 * 60_000
SIGN_IN_MS = 12 * 3_600_000
# Of one account: what is beyond it is the oldest, and ends.
MOST = 50
_TOKEN = re.compile(r"([0-9a-f]{16})_([0-9a-f]{64})")


class Way(StrEnum):
    """How somebody signed in; a link that nobody has used yet is none of these."""

    WAITING = "waiting"
    LINK = "link"
    ORGANIZATION = "organization"
    PASSKEY = "passkey"
    PASSWORD = "password"  # noqa: S105 - the word, and none itself


class SignIn(msgspec.Struct, frozen=True):
    """A browser that is signed in, or a link that waits. Times are milliseconds since 1970 UTC.

    Attributes:
        account: the id of the account whose holder it is; None for an operator who has none.
        user: the user of this machine who runs the service, if it is that one.
        address, agent: where it came from, and what the browser calls itself.
    """

    id: str
    way: Way
    account: str | None
    user: str | None
    created_ms: int
    expires_ms: int
    address: str
    agent: str


def make_link(directory: Directory, *, account: str | None, user: str | None) -> str:
    """Make what signs a browser in once, within ten minutes: the token, which is kept as a digest.

    Args:
        account: the id of an account whose holder is known by other proof.
        user: the user of this machine, if they run the service.
    """
    forget_ended(directory)
    return _insert(directory, Way.WAITING, account, user, LINK_MS, address="", agent="")


def redeem_link(directory: Directory, token: str, *, address: str, agent: str) -> str | None:
    """Exchange a link for a sign-in, and return its token; None where it was used, expired or made up."""
    found = find_sign_in(directory, token, waiting=True)
    if found is None:
        return None
    table = tables.sign_ins
    with directory.engine.begin() as connection:
        # Of two who use it at once, one is signed in.
        gone = sa.delete(table).where(table.c.id == found.id, table.c.way == Way.WAITING.value)
        if not connection.execute(gone).rowcount:
            return None
    return sign_in(directory, found.account, found.user, Way.LINK, address=address, agent=agent)


def sign_in(
    directory: Directory, account: str | None, user: str | None, way: Way, *, address: str, agent: str
) -> str:
    """Sign a browser in, and return the token that it holds from now on.

    Whoever runs the service signs in without their account while that is suspended.

    Raises:
        Problem: an admin suspended the account.
    """
    forget_ended(directory)
    if account is not None and _is_suspended(directory, account):
        if user is None:
            _tell_refused(directory, account)
            raise Problem(
                "an admin of your organization suspended this account",
                where="Sign in",
                fix="ask them; what is held of you keeps its terms, and goes on its day",
            )
        account = None
    return _insert(directory, way, account, user, SIGN_IN_MS, address=address, agent=agent)


def find_sign_in(directory: Directory, token: str, *, waiting: bool = False) -> SignIn | None:
    """Return the sign-in of a token; None where there is none, or its time is over.

    The digest is compared in constant time.
    """
    match = _TOKEN.fullmatch(token)
    if match is None:
        return None
    table = tables.sign_ins
    with directory.engine.connect() as connection:
        row = connection.execute(sa.select(table).where(table.c.id == match[1])).first()
    digest = bytes(32) if row is None else row.digest
    is_it = hmac.compare_digest(digest_secret(match[2].encode()), digest)
    if row is None or not is_it or row.expires_ms <= directory.now_ms():
        return None
    found = _sign_in(row)
    return found if (found.way is Way.WAITING) == waiting else None


def _is_suspended(directory: Directory, account: str) -> bool:
    table = tables.accounts
    query = sa.select(table.c.id).where(table.c.id == account, table.c.suspended_ms.is_not(None))
    with directory.engine.connect() as connection:
        return connection.execute(query).first() is not None


def list_sign_ins(directory: Directory, account: str | None, user: str | None) -> list[SignIn]:
    """Return where an account holder, or an operator without an account, is signed in, the latest first."""
    table = tables.sign_ins
    query = sa.select(table).where(
        _of(account, user), table.c.way != Way.WAITING.value, table.c.expires_ms > directory.now_ms()
    )
    with directory.engine.connect() as connection:
        rows = connection.execute(query.order_by(table.c.created_ms.desc(), table.c.id)).all()
    return [_sign_in(row) for row in rows]


def end_sign_in(directory: Directory, id: str, *, account: str | None, user: str | None) -> None:
    """End one of somebody's own sign-ins.

    Raises:
        Problem: they have none of that id.
    """
    table = tables.sign_ins
    with directory.engine.begin() as connection:
        if not connection.execute(sa.delete(table).where(table.c.id == id, _of(account, user))).rowcount:
            raise Problem("there is no such sign-in", where="sign-ins", fix="it has ended already")


def end_sign_ins(directory: Directory, account: str, *, but: str = "") -> int:
    """End all sign-ins of an account, links included, but for one; return how many those were."""
    table = tables.sign_ins
    which = sa.and_(table.c.account == account, table.c.id != but)
    with directory.engine.begin() as connection:
        return connection.execute(sa.delete(table).where(which)).rowcount


def refuse_sign_in(directory: Directory, account: Account) -> None:
    """Ledger that somebody gave an account's name and a wrong password, or what its passkey did not sign."""
    _tell_refused(directory, account.id)


def _tell_refused(directory: Directory, account: str) -> None:
    entry = SignInRefused(id=secrets.token_hex(16), at_ms=directory.now_ms(), subject=directory.name(account))
    with directory.engine.begin() as connection:
        put(connection, tables.outbox, [entry])


def forget_ended(directory: Directory) -> None:
    """Delete sign-ins and links whose time is over."""
    table = tables.sign_ins
    ended = table.c.expires_ms <= directory.now_ms()
    with directory.engine.connect() as connection:
        # Looked for first: a service reads its keys anew after every commit.
        if connection.execute(sa.select(table.c.id).where(ended).limit(1)).first() is None:
            return
    with directory.engine.begin() as connection:
        connection.execute(sa.delete(table).where(ended))


def _insert(
    directory: Directory,
    way: Way,
    account: str | None,
    user: str | None,
    lasts_ms: int,
    *,
    address: str,
    agent: str,
    random: Callable[[int], bytes] = secrets.token_bytes,
) -> str:
    table, now = tables.sign_ins, directory.now_ms()
    id, secret = random(8).hex(), random(32).hex()
    row = {
        "id": id,
        "digest": digest_secret(secret.encode()),
        "way": way.value,
        "account": account,
        "user": user,
        "created_ms": now,
        "expires_ms": now + lasts_ms,
        "address": address[:100],
        "agent": agent[:200],
    }
    others = sa.select(table.c.id).where(_of(account, user)).order_by(table.c.created_ms.desc())
    with directory.engine.begin() as connection:
        beyond = list(connection.execute(others.offset(MOST - 1)).scalars())
        if beyond:
            connection.execute(sa.delete(table).where(table.c.id.in_(beyond)))
        connection.execute(sa.insert(table), row)
        if way is not Way.WAITING:
            who = account or f"{OPERATOR}{user}"
            told = SignedIn(id=random(16).hex(), at_ms=now, subject=directory.name(who), way=way.value)
            put(connection, tables.outbox, [told])
    return f"{id}_{secret}"


def _of(account: str | None, user: str | None) -> sa.ColumnElement[bool]:
    table = tables.sign_ins
    if account is not None:
        return table.c.account == account
    return sa.and_(table.c.account.is_(None), table.c.user == user)


def _sign_in(row: sa.Row[Any]) -> SignIn:
    return SignIn(
        row.id,
        Way(row.way),
        row.account,
        row.user,
        row.created_ms,
        row.expires_ms,
        row.address,
        row.agent,
    )
