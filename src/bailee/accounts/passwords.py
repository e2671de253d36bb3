"""Passwords of account holders, for the console: Argon2id, set by who proves to be the holder.

The first one may be set for a holder who has no proof yet and be handed over, as a first key is; both are
ledgered, and so is a password that is taken away.
"""

import contextlib
import secrets
from functools import cache
from typing import TYPE_CHECKING

import sqlalchemy as sa

from bailee.accounts import tables
from bailee.accounts.choices import choose_origin
from bailee.accounts.directory import Directory
from bailee.accounts.holders import Operator
from bailee.accounts.people import Account
from bailee.accounts.sign_ins import end_sign_ins
from bailee.accounts.tables import KeyOrigin
from bailee.ledger.outbox import put
from bailee.ledger.sign_in_entries import PasswordChanged
from bailee.policy.problems import Problem

if TYPE_CHECKING:
    from argon2 import PasswordHasher

# NIST SP 800-63B, 5.1.1.2: at least 8; longer ones in place of rules about letters. What is longer than the
# upper bound would only keep the hash busy.
LEAST, MOST = 12, 256


@cache
def _hasher() -> "PasswordHasher":
    from argon2 import PasswordHasher  # 15 ms that a service without a password does not need

    return PasswordHasher()  # RFC 9106, second recommended option: 64 MiB, 3 passes, 4 lanes


@cache
def _nobodys() -> str:
    """Return the hash that is compared with where there is none: a name is not told by how long it takes."""
    return _hasher().hash(secrets.token_hex(16))


def set_password(
    directory: Directory,
    account: str,
    operator: Operator,
    password: str,
    *,
    for_holder: bool = False,
    but: str = "",
) -> None:
    """Set a password; the account's other sign-ins end.

    Args:
        account: its name.
        for_holder: it is handed over to the holder, who has no proof yet.
        but: the id of the sign-in that goes on.

    Raises:
        Problem: it is too short or too long, or who asks does not prove to be the holder.
    """
    if not LEAST <= len(password) <= MOST:
        raise Problem(
            f"a password has {LEAST} to {MOST} characters",
            where="password",
            fix="take several words that nobody would guess",
        )
    holder = directory.get(account)
    origin = choose_origin(directory, account, operator, for_holder=for_holder)
    if origin is KeyOrigin.OTHER:
        directory.tell_refusal("password", True, operator.person, of=holder.id)
        raise Problem(
            "the account holder alone sets their password",
            where=f"--account {account}",
            fix="sign in first; one without any proof is handed a password with --for-holder",
        )
    hashed = _hasher().hash(password)
    table = tables.passwords
    by = holder.id if origin is KeyOrigin.HOLDER else operator.person
    with directory.engine.begin() as connection:
        connection.execute(sa.delete(table).where(table.c.account == holder.id))
        row = {"account": holder.id, "hash": hashed, "changed_ms": directory.now_ms()}
        connection.execute(sa.insert(table), row)
        put(connection, tables.outbox, [_tell(directory, holder.id, origin.value, by)])
    end_sign_ins(directory, holder.id, but=but)


def take_password(directory: Directory, account: str, operator: Operator) -> None:
    """Take a password away, so that nobody signs in with it: whoever runs the program may; sign-ins end.

    Raises:
        Problem: the account has none, or there is no such account.
    """
    holder = directory.get(account)
    table = tables.passwords
    with directory.engine.begin() as connection:
        if not connection.execute(sa.delete(table).where(table.c.account == holder.id)).rowcount:
            raise Problem(f"{account!r} has no password", where=f"--account {account}")
        put(connection, tables.outbox, [_tell(directory, holder.id, "taken", operator.person)])
    end_sign_ins(directory, holder.id)


def has_password(directory: Directory, account: str) -> bool:
    """Tell whether an account, by its id, has a password."""
    table = tables.passwords
    with directory.engine.connect() as connection:
        return (
            connection.execute(sa.select(table.c.account).where(table.c.account == account)).first()
            is not None
        )


def check_password(directory: Directory, name: str, password: str) -> tuple[Account | None, bool]:
    """Return the account of a name, and whether that is its password; either way it takes as long."""
    from argon2.exceptions import Argon2Error, InvalidHashError

    table, accounts = tables.passwords, tables.accounts
    query = sa.select(table.c.hash).join(accounts, accounts.c.id == table.c.account)
    with directory.engine.connect() as connection:
        known = connection.execute(query.where(accounts.c.name == name)).scalar_one_or_none()
    is_it = False
    with contextlib.suppress(Argon2Error, InvalidHashError):
        is_it = _hasher().verify(known or _nobodys(), password[: MOST + 1])
    account = directory.get(name) if known is not None else None
    return account, bool(is_it and account is not None)


def _tell(directory: Directory, account: str, origin: str, by: str) -> PasswordChanged:
    return PasswordChanged(
        id=secrets.token_hex(16),
        at_ms=directory.now_ms(),
        subject=directory.name(account),
        origin=origin,
        by=directory.name(by),
    )
