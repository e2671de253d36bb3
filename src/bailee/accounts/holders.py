"""Who an account holder is, and what proves it: being the user of this machine, or a key of their own.

Whoever runs the program can make a key for any account, as agents need them. So a key proves the account
holder only if the account holder made it, or if it was made for them and handed over, which is ledgered.
"""

import hashlib
import hmac

import msgspec
import sqlalchemy as sa

from bailee.accounts import tables
from bailee.accounts.tables import KeyOrigin
from bailee.ledger.pseudonyms import OPERATOR

PROVING = (KeyOrigin.HOLDER, KeyOrigin.HANDED_OVER)


class Operator(msgspec.Struct, frozen=True):
    """Who asks.

    Attributes:
        name: of the user of this machine, as the system knows it.
        user_id: theirs.
        key: what they present; empty for nothing.
    """

    name: str
    user_id: int
    key: str = ""

    @property
    def person(self) -> str:
        """What `ledger.pseudonyms` knows them by."""
        return f"{OPERATOR}{self.name}"


def is_holder(engine: sa.Engine, account: str, operator: Operator) -> bool:
    """Tell whether who asks is the account holder, as far as they prove it.

    Args:
        account: the account's id.
    """
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
    """Tell whether there is a key in force that proves the holder of an account, by its id."""
    with engine.connect() as connection:
        return connection.execute(sa.select(tables.keys.c.id).where(_proving(account))).first() is not None


def digest_secret(secret: bytes) -> bytes:
    """Return what is kept of a key's secret: 256 random bits need no slow hash."""
    return hashlib.sha256(secret).digest()


def _proving(account: str) -> sa.ColumnElement[bool]:
    keys = tables.keys
    return sa.and_(keys.c.account == account, keys.c.revoked_ms.is_(None), keys.c.origin.in_(PROVING))
