"""Who an account holder is, and what proves it: being the user of this machine, a key, a password or a
passkey of their own.

Whoever runs the program can make a key for any account, as agents need them. So a key proves the account
holder only if the account holder made it, or if it was made for them and handed over, which is ledgered.
"""

import hashlib
import hmac
import os
import pwd

import msgspec
import sqlalchemy as sa

from bailee.accounts import tables
from bailee.accounts.tables import KeyOrigin
from bailee.characters import make_visible
from bailee.ledger.pseudonyms import OPERATOR

PROVING = (KeyOrigin.HOLDER, KeyOrigin.HANDED_OVER)


class Operator(msgspec.Struct, frozen=True):
    """Who asks.

    Attributes:
        name: of the user of this machine, as the system knows it.
        user_id: theirs.
        key: what they present; empty for nothing.
        signed_in: the id of the account whose holder they proved to be as they signed in to the console.
    """

    name: str
    user_id: int
    key: str = ""
    signed_in: str = ""

    @property
    def person(self) -> str:
        """What `ledger.pseudonyms` knows them by."""
        return f"{OPERATOR}{self.name}"


def user_name() -> str:
    """Return who runs this process: the name of the user of this machine.

    It is looked up by the user id: LOGNAME and its like are anybody's to set.
    """
    try:
        return make_visible(pwd.getpwuid(os.getuid()).pw_name)
    except KeyError:  # a user id that no name belongs to, as in containers
        return f"user {os.getuid()}"


def is_holder(engine: sa.Engine, account: str, operator: Operator) -> bool:
    """Tell whether who asks is the account holder, as far as they prove it.

    Args:
        account: the account's id.
    """
    if operator.signed_in:
        return operator.signed_in == account
    accounts, keys = tables.accounts, tables.keys
    parts = operator.key.split("_")
    query = sa.select(accounts.c.user_id).where(accounts.c.id == account)
    presented = sa.select(keys.c.digest).where(
        _proving(account), keys.c.id == (parts[1] if len(parts) == 3 else "")
    )
    with engine.connect() as connection:
        if connection.execute(query).scalar_one_or_none() == operator.user_id:
            return True
        digest = connection.execute(presented).scalar_one_or_none()
    return digest is not None and hmac.compare_digest(digest, digest_secret(parts[2].encode()))


def has_proof(engine: sa.Engine, account: str) -> bool:
    """Tell whether something proves the holder of an account, by its id: a key in force, a password, a
    passkey, or the word of their organization's identity provider."""
    passwords, passkeys, identities = tables.passwords, tables.passkeys, tables.identities
    proofs = (
        sa.select(tables.keys.c.id).where(_proving(account)),
        sa.select(passwords.c.account).where(passwords.c.account == account),
        sa.select(passkeys.c.id).where(passkeys.c.account == account),
        sa.select(identities.c.account).where(identities.c.account == account),
    )
    with engine.connect() as connection:
        return any(connection.execute(proof.limit(1)).first() is not None for proof in proofs)


def digest_secret(secret: bytes) -> bytes:
    """Return what is kept of a key's secret: 256 random bits need no slow hash."""
    return hashlib.sha256(secret).digest()


def _proving(account: str) -> sa.ColumnElement[bool]:
    keys = tables.keys
    return sa.and_(keys.c.account == account, keys.c.revoked_ms.is_(None), keys.c.origin.in_(PROVING))
