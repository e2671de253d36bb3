"""Keys that agents present: made once, stored as digests, looked up from memory, revoked at once.

A key is `bailee_<id>_<secret>`: an id of 64 bits to find it by and 256 random bits to prove it. A digest
of 256 random bits cannot be searched, so SHA-256 does; a slow password hash would cost every request
50 ms and protect nothing more.
"""

import hmac
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
import sqlalchemy.exc

from bailee.accounts import tables
from bailee.accounts.directory import Directory, open_directory
from bailee.accounts.holders import PROVING, digest_secret
from bailee.accounts.people import Account
from bailee.accounts.tables import KeyOrigin
from bailee.database.engines import watch_changes
from bailee.ledger.entries import KeyCreated, KeyRevoked
from bailee.ledger.outbox import put
from bailee.ledger.pseudonyms import OPERATOR
from bailee.policy.contexts import Context
from bailee.policy.flows import FlowId
from bailee.policy.periods import Period
from bailee.policy.plans import Plan, Provider
from bailee.policy.problems import Problem

_KEY = re.compile(rb"bailee_([0-9a-f]{16})_([0-9a-f]{64})")
_NO_DIGEST = bytes(32)
# A login lies on a machine that may be lost or sold; whoever still works there logs in again in a minute.
LOGIN_DAYS = 90
_LOGIN_MS = LOGIN_DAYS * 86_400_000
_NEVER_MS = 253_370_764_800_000  # the year 9999


class Key(msgspec.Struct, frozen=True):
    """A key by its facts; the secret is known to its holder only. Times are milliseconds since 1970 UTC.

    Attributes:
        origin, made_by: who made it, as what and by name; None where an earlier program did not say.
    """

    id: str
    account: str
    label: str
    created_ms: int
    revoked_ms: int | None
    origin: KeyOrigin | None = None
    made_by: str | None = None

    @property
    def expires_ms(self) -> int | None:
        """When it is not known any more by itself; None for never."""
        return self.created_ms + _LOGIN_MS if self.origin is KeyOrigin.LOGIN else None

    def is_in_force(self, now_ms: int) -> bool:
        """Tell whether it opens anything at a moment, in milliseconds since 1970 UTC."""
        return self.revoked_ms is None and now_ms < (self.expires_ms or _NEVER_MS)

    @property
    def is_proof(self) -> bool:
        """Whether presenting it proves the account holder."""
        return self.origin in PROVING


class Principal(msgspec.Struct, frozen=True):
    """Who presents a key, and what is in force for them.

    Attributes:
        is_proof: whether the key proves the account holder.
        is_login: whether it is that of a login: the account holder let an agent in, on a machine of a person.
    """

    key_id: str
    account_id: str
    account_name: str
    plan: Plan
    training: bool
    dpp: bool
    zdr: bool
    account_limit: Period | None
    organization_limit: Period | None
    organization: str | None
    account_refuses: tuple[FlowId, ...] = ()
    organization_refuses: tuple[FlowId, ...] = ()
    is_proof: bool = False
    is_login: bool = False

    def to_context(self, provider: Provider, *, is_first_party: bool = False) -> Context:
        """Return what the policy is asked about this principal's traffic; see `Context` for the words."""
        return Context(
            plan=self.plan,
            provider=provider,
            is_first_party=is_first_party,
            training=self.training,
            dpp=self.dpp,
            zdr=self.zdr,
            organization_limit=self.organization_limit,
            account_limit=self.account_limit,
            account_refuses=self.account_refuses,
            organization_refuses=self.organization_refuses,
        )


def create_key(
    directory: Directory,
    account: str,
    *,
    label: str = "",
    origin: KeyOrigin = KeyOrigin.OTHER,
    made_by: str = "",
    person: str = "",
    clock: Callable[[], float] | None = None,
    random: Callable[[int], bytes] = secrets.token_bytes,
) -> tuple[Key, str]:
    """Make a key for an account; return its facts and the key itself, which is shown this once.

    Args:
        origin: as what it is made; see `choices.choose_origin`.
        made_by: who makes it, by name.
        person: as `ledger.pseudonyms` knows them; the user of this machine of that name if left out.
        clock: seconds since 1970 UTC; the directory's own if left out.

    Raises:
        Problem: there is no such account, or the label is not one line of up to 100 characters.
    """
    check_label(label, where="--label")
    holder = directory.get(account)
    created = directory.now_ms() if clock is None else int(clock() * 1000)
    with directory.engine.begin() as connection:
        return insert_key(
            connection,
            directory,
            holder.id,
            holder.name,
            label=label,
            origin=origin,
            made_by=made_by,
            person=person,
            created_ms=created,
            random=random,
        )


def check_label(label: str, *, where: str) -> None:
    """Raise Problem where a label is not one printable line of up to 100 characters."""
    if len(label) > 100 or not (label.isprintable() or not label):
        raise Problem("the label is not one printable line", where=where, fix="shorten it")


def insert_key(
    connection: sa.Connection,
    directory: Directory,
    account: str,
    name: str,
    *,
    label: str,
    origin: KeyOrigin,
    made_by: str,
    person: str = "",
    created_ms: int,
    random: Callable[[int], bytes] = secrets.token_bytes,
) -> tuple[Key, str]:
    """Make a key in a transaction of the caller's, with the entry that tells of it.

    Args:
        account, name: the account's id and its name.
    """
    id, secret = random(8).hex(), random(32).hex()
    connection.execute(
        sa.insert(tables.keys).values(
            id=id,
            account=account,
            label=label,
            digest=digest_secret(secret.encode()),
            created_ms=created_ms,
            origin=origin.value,
            made_by=made_by,
        )
    )
    is_holders = origin in (KeyOrigin.HOLDER, KeyOrigin.LOGIN)
    entry = KeyCreated(
        id=secrets.token_hex(16),
        at_ms=created_ms,
        subject=directory.name(account),
        key=directory.name(account, f"key {id}"),
        origin=origin.value,
        by=directory.name(account if is_holders else person or f"{OPERATOR}{made_by}"),
    )
    put(connection, tables.outbox, [entry])
    return Key(id, name, label, created_ms, None, origin, made_by), f"bailee_{id}_{secret}"


def list_keys(directory: Directory) -> list[Key]:
    """Return all keys, the newest first."""
    keys, accounts = tables.keys, tables.accounts
    query = sa.select(keys, accounts.c.name).join(accounts).order_by(keys.c.created_ms.desc(), keys.c.id)
    with directory.engine.connect() as connection:
        return [_key(row) for row in connection.execute(query)]


def _key(row: sa.Row[Any]) -> Key:
    return Key(
        row.id,
        row.name,
        row.label,
        row.created_ms,
        row.revoked_ms,
        KeyOrigin(row.origin) if row.origin else None,
        row.made_by,
    )


def find_key(directory: Directory, token: bytes) -> Key | None:
    """Return the key in force that is presented, by its facts; None if it is none.

    The digest is compared in constant time.
    """
    match = _KEY.fullmatch(token)
    if match is None:
        return None
    keys, accounts = tables.keys, tables.accounts
    query = sa.select(keys, accounts.c.name).join(accounts)
    is_in_force = keys.c.revoked_ms.is_(None) & accounts.c.suspended_ms.is_(None)
    which = query.where(keys.c.id == match[1].decode(), is_in_force)
    with directory.engine.connect() as connection:
        row = connection.execute(which).first()
    digest = _NO_DIGEST if row is None else row.digest
    is_it = hmac.compare_digest(digest_secret(match[2]), digest)
    return _key(row) if row is not None and is_it else None


def revoke_key(
    directory: Directory, id: str, *, by: str = "", person: str = "", clock: Callable[[], float] = time.time
) -> None:
    """Revoke a key; a running service refuses it from the next request on.

    Args:
        by: the user of this machine who revokes it; empty where its run ended, or whoever held it gave it up.
        person: who revokes it where it is none of these, as `ledger.pseudonyms` knows them.

    Raises:
        Problem: there is no key of that id, or it was revoked before.
    """
    keys = tables.keys
    at_ms, who = int(clock() * 1000), person or (f"{OPERATOR}{by}" if by else "")
    revoke = sa.update(keys).where(keys.c.id == id, keys.c.revoked_ms.is_(None)).values(revoked_ms=at_ms)
    with directory.engine.begin() as connection:
        account = connection.execute(revoke.returning(keys.c.account)).scalar_one_or_none()
        if account is None:
            raise Problem(f"there is no key {id!r} in force", where="KEY_ID", fix="see: bailee keys list")
        put(connection, tables.outbox, [_tell_revoked(directory, account, id, at_ms, who)])


def revoke_keys(directory: Directory, account: str, *, clock: Callable[[], float] = time.time) -> int:
    """Revoke all keys of an account; a running service refuses them from the next request on.

    A login that was approved and not redeemed yet makes none any more.

    Args:
        account: the account's id.

    Returns:
        How many were in force.
    """
    keys = tables.keys
    at_ms = int(clock() * 1000)
    in_force = sa.and_(keys.c.account == account, keys.c.revoked_ms.is_(None))
    revoke = sa.update(keys).where(in_force).values(revoked_ms=at_ms).returning(keys.c.id)
    with directory.engine.begin() as connection:
        connection.execute(sa.delete(tables.logins).where(tables.logins.c.account == account))
        ids = list(connection.execute(revoke).scalars())
        put(connection, tables.outbox, [_tell_revoked(directory, account, id, at_ms) for id in ids])
    return len(ids)


def _tell_revoked(directory: Directory, account: str, id: str, at_ms: int, who: str = "") -> KeyRevoked:
    return KeyRevoked(
        id=secrets.token_hex(16),
        at_ms=at_ms,
        subject=directory.name(account),
        key=directory.name(account, f"key {id}"),
        by=directory.name(who) if who else "",
    )


class KeyRing:
    """Tells whose key it is, from memory, as of the latest commit of any process.

    Args:
        version: gives a number that differs once another process has committed.
        clock: seconds since 1970 UTC.
    """

    def __init__(
        self, directory: Directory, version: Callable[[], int], *, clock: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._directory = directory
        self._version = version
        self._seen: int | None = None
        self._principals: dict[bytes, tuple[bytes, int, Principal | None]] = {}

    def authenticate(self, token: bytes) -> Principal | None:
        """Return whose key this is, or None if it is nobody's, was revoked, expired, or of one suspended.

        The digest is compared in constant time, and an unknown id costs the same comparison.

        Raises:
            Problem: the accounts changed and cannot be read: who was known before may not be any more.
        """
        version = self._version()
        if version != self._seen:
            try:
                self._read()
            except sqlalchemy.exc.SQLAlchemyError:
                raise Problem("the accounts cannot be read", where="accounts", fix="try again") from None
            self._seen = version
        match = _KEY.fullmatch(token)
        if match is None:
            return None
        digest, expires_ms, principal = self._principals.get(match[1], (_NO_DIGEST, _NEVER_MS, None))
        is_known = hmac.compare_digest(digest_secret(match[2]), digest)
        return principal if is_known and self._clock() * 1000 < expires_ms else None

    def close(self) -> None:
        """Close the database."""
        self._directory.engine.dispose()

    def _read(self) -> None:
        accounts = {account.id: account for account in self._directory.all()}
        query = sa.select(tables.keys).where(tables.keys.c.revoked_ms.is_(None))
        with self._directory.engine.connect() as connection:
            self._principals = {
                row.id.encode(): (
                    row.digest,
                    row.created_ms + _LOGIN_MS if row.origin == KeyOrigin.LOGIN else _NEVER_MS,
                    _principal(row.id, accounts[row.account], row.origin),
                )
                for row in connection.execute(query)
                if not accounts[row.account].is_suspended
            }


def open_key_ring(home: Path) -> KeyRing:
    """Open the keys of a home for a service.

    Raises:
        Problem: see `database.engines.open_database`.
    """
    directory = open_directory(home)
    return KeyRing(directory, watch_changes(directory.engine))


def _principal(key_id: str, account: Account, origin: str | None) -> Principal:
    return Principal(
        key_id,
        account.id,
        account.name,
        account.plan,
        account.training,
        account.dpp,
        account.zdr,
        account.retention,
        account.organization_retention,
        account.organization,
        account.refuses,
        account.organization_refuses,
        is_proof=origin in PROVING,
        is_login=origin == KeyOrigin.LOGIN,
    )
