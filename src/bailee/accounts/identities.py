"""Account holders whom their organization's identity provider knows (OpenID Connect), for the console.

An admin names the provider. What it says proves a member whom it was bound to: by themselves, signed in
otherwise, or at their first sign-in where nothing proves them yet. So no provider that an admin names lets
anybody in as somebody who was there before. Once bound, a member is known by the provider's own id of them
(`sub`), and never by a name, which there may become another's.
"""

import hashlib
import secrets
from enum import StrEnum
from typing import Any

import msgspec
import sqlalchemy as sa

from bailee.accounts import tables
from bailee.accounts.directory import Directory
from bailee.accounts.holders import has_proof
from bailee.accounts.people import Account
from bailee.accounts.sign_ins import end_sign_ins, refuse_sign_in
from bailee.accounts.tables import Role
from bailee.ledger.outbox import put
from bailee.ledger.sign_in_entries import IdentityChanged, IdentityProviderChanged
from bailee.policy.problems import Problem
from bailee.sealing.wrapping import KeyWrapper

REQUEST_MS = 10 * 60_000
LONGEST = 1000  # characters of a subject (OpenID Connect Core 1.0 has at most 255), an issuer, a client
_WHERE = "your organization's sign-in"


class Claim(StrEnum):
    """What of a provider's word a member's name is (OpenID Connect Core 1.0, 5.1), the first time."""

    USERNAME = "preferred_username"
    EMAIL = "email"


class IdentityProvider(msgspec.Struct, frozen=True, kw_only=True):
    """Who says who the members of an organization are.

    Attributes:
        issuer: its address, as its tokens have it.
        client: what the service is called there.
        domain: of `Claim.EMAIL`, what stands behind the @; what stands before it is the member's name.
        makes_accounts: whether whoever it knows becomes a member; else an admin adds members first.
    """

    organization: str
    issuer: str
    client: str
    claim: Claim
    domain: str = ""
    makes_accounts: bool = False
    changed_ms: int = 0
    changed_by: str = ""


class Sent(msgspec.Struct, frozen=True):
    """A browser that was sent to a provider.

    Attributes:
        account: the id of whose holder is to be known there from now on; None where somebody signs in.
        nonce: what the provider's word is to name (OpenID Connect Core 1.0, 3.1.2.1).
        verifier: what proves that a code was asked for here (RFC 7636).
    """

    organization: str
    account: str | None
    nonce: str
    verifier: str
    place: str


def name_provider(
    directory: Directory, wrapper: KeyWrapper, provider: IdentityProvider, *, secret: str, by: str
) -> None:
    """Name an organization's provider, in place of the one before.

    Args:
        secret: of the client; empty keeps the one before, if issuer and client stay, and else there is none.
        by: the name of the admin.
    """
    table, before = tables.identity_providers, find_provider(directory, provider.organization)
    sealed = wrapper.wrap(secret.encode(), _bind(provider)) if secret else None
    if not secret and before is not None and _bind(before) == _bind(provider):
        sealed = _read(directory, provider.organization).sealed  # type: ignore[union-attr]
    row = {
        "organization": provider.organization,
        "issuer": provider.issuer,
        "client": provider.client,
        "sealed": sealed,
        "claim": provider.claim.value,
        "domain": provider.domain,
        "makes_accounts": provider.makes_accounts,
        "changed_ms": directory.now_ms(),
        "changed_by": by,
    }
    with directory.engine.begin() as connection:
        connection.execute(sa.delete(table).where(table.c.organization == provider.organization))
        connection.execute(sa.insert(table), row)
        put(
            connection, tables.outbox, [_tell_provider(directory, provider.organization, provider.issuer, by)]
        )


def forget_provider(directory: Directory, organization: str, *, by: str) -> None:
    """Name no provider any more; whom it proved is signed out, and proven by what else they have.

    Raises:
        Problem: there is none.
    """
    providers, identities = tables.identity_providers, tables.identities
    of_it = identities.c.organization == organization
    with directory.engine.begin() as connection:
        gone = connection.execute(sa.delete(providers).where(providers.c.organization == organization))
        if not gone.rowcount:
            raise Problem("there is no identity provider", where="Sign-in", fix="load the page anew")
        bound = list(connection.execute(sa.select(identities.c.account).where(of_it)).scalars())
        connection.execute(sa.delete(identities).where(of_it))
        told = [_tell(directory, account, "removed", by) for account in bound]
        put(connection, tables.outbox, [*told, _tell_provider(directory, organization, "", by)])
    for account in bound:
        end_sign_ins(directory, account)


def find_provider(directory: Directory, organization: str) -> IdentityProvider | None:
    """Return an organization's provider; None where it named none."""
    row = _read(directory, organization)
    if row is None:
        return None
    return IdentityProvider(
        organization=row.organization,
        issuer=row.issuer,
        client=row.client,
        claim=Claim(row.claim),
        domain=row.domain,
        makes_accounts=bool(row.makes_accounts),
        changed_ms=row.changed_ms,
        changed_by=row.changed_by,
    )


def has_providers(directory: Directory) -> bool:
    """Tell whether any organization has one."""
    with directory.engine.connect() as connection:
        return connection.execute(sa.select(tables.identity_providers).limit(1)).first() is not None


def open_client_secret(directory: Directory, wrapper: KeyWrapper, provider: IdentityProvider) -> str:
    """Return the secret of the client at a provider; empty where it has none.

    Raises:
        Problem: it does not open under the home's key.
    """
    row = _read(directory, provider.organization)
    if row is None or row.sealed is None:
        return ""
    return wrapper.unwrap(row.sealed, _bind(provider)).decode()


def is_bound(directory: Directory, account: str) -> bool:
    """Tell whether a provider's word proves the holder of an account, by its id."""
    table = tables.identities
    with directory.engine.connect() as connection:
        return connection.execute(sa.select(table).where(table.c.account == account)).first() is not None


def send(
    directory: Directory, organization: str, *, account: str | None, browser: str, place: str
) -> tuple[str, Sent]:
    """Note that a browser is sent to a provider; return what it is to come back with, and what was noted.

    Args:
        account: see `Sent`.
        browser: what forms of the browser are bound to.
        place: the page that was asked for.
    """
    state, now, table = secrets.token_urlsafe(32), directory.now_ms(), tables.identity_requests
    sent = Sent(organization, account, secrets.token_urlsafe(32), secrets.token_urlsafe(48), place)
    row = {
        **msgspec.structs.asdict(sent),
        "digest": _digest(state),
        "browser": _digest(browser),
        "expires_ms": now + REQUEST_MS,
    }
    with directory.engine.begin() as connection:
        connection.execute(sa.delete(table).where(table.c.expires_ms <= now))
        connection.execute(sa.insert(table), row)
    return state, sent


def take_back(directory: Directory, state: str, *, browser: str) -> Sent:
    """Return what was noted of a browser that came back, which is good no more.

    Raises:
        Problem: it was not sent, came back before, or too late.
    """
    table = tables.identity_requests
    mine = sa.and_(
        table.c.digest == _digest(state),
        table.c.browser == _digest(browser),
        table.c.expires_ms > directory.now_ms(),
    )
    with directory.engine.begin() as connection:
        row = connection.execute(sa.select(table).where(mine)).first()
        if row is None or not connection.execute(sa.delete(table).where(mine)).rowcount:
            raise Problem(
                "this browser was not sent to the organization, came back before, or took too long",
                where=_WHERE,
                fix="begin anew on the page that signs you in",
            )
    return Sent(row.organization, row.account, row.nonce, row.verifier, row.place)


def admit(directory: Directory, provider: IdentityProvider, sent: Sent, claims: dict[str, Any]) -> Account:
    """Return the account whose holder a provider's word proves; it is bound to them where it may be.

    Args:
        claims: of a token that was found good.

    Raises:
        Problem: it proves nobody here.
    """
    subject = str(claims["sub"])
    bound = _find_bound(directory, provider, subject)
    if sent.account is not None:
        account = directory.find(sent.account)
        if account is None or account.organization != provider.organization:
            raise Problem("this account is no member of that organization", where=_WHERE)
        if bound is not None and bound != account.id:
            raise Problem("your organization knows you as the holder of another account", where=_WHERE)
        return account if bound else _bind_account(directory, provider, subject, account)
    if bound is not None:
        account = directory.find(bound)
        if account is None or account.organization != provider.organization:
            raise Problem("the account that you had is no member of that organization", where=_WHERE)
        return account
    name = _read_name(provider, claims)
    account = next((one for one in directory.members(provider.organization) if one.name == name), None)
    if account is None:
        return _bind_account(directory, provider, subject, _make(directory, provider, name))
    if has_proof(directory.engine, account.id):
        refuse_sign_in(directory, account)
        raise Problem(
            f"the holder of {name!r} proves themselves otherwise, and has not said that this is them",
            where=_WHERE,
            fix="sign in as before, and connect the two under your name",
        )
    return _bind_account(directory, provider, subject, account)


def _read_name(provider: IdentityProvider, claims: dict[str, Any]) -> str:
    told = claims.get(provider.claim.value)
    name = told.strip().lower() if isinstance(told, str) else ""
    if provider.claim is Claim.EMAIL:
        name, _, domain = name.rpartition("@")
        if claims.get("email_verified") is not True or domain != provider.domain:
            name = ""
    if not name:
        raise Problem(
            f"your organization does not say who you are: its word has no {provider.claim.value} that counts",
            where=_WHERE,
            fix="an admin sees to what it says, or to what is looked for, under Sign-in",
        )
    return name


def _make(directory: Directory, provider: IdentityProvider, name: str) -> Account:
    if not provider.makes_accounts:
        raise Problem(
            f"{name!r} is no member of {provider.organization}",
            where=_WHERE,
            fix="an admin adds members under Organization",
        )
    plan = directory.members(provider.organization)[0].plan
    by = provider.organization
    return directory.add(name, plan, organization=provider.organization, role=Role.MEMBER, by=by)


def _find_bound(directory: Directory, provider: IdentityProvider, subject: str) -> str | None:
    table = tables.identities
    query = sa.select(table.c.account).where(
        table.c.organization == provider.organization,
        table.c.issuer == provider.issuer,
        table.c.subject == subject,
    )
    with directory.engine.connect() as connection:
        found: str | None = connection.execute(query).scalar_one_or_none()
    return found


def _bind_account(
    directory: Directory, provider: IdentityProvider, subject: str, account: Account
) -> Account:
    row = {
        "organization": provider.organization,
        "issuer": provider.issuer,
        "subject": subject,
        "account": account.id,
        "created_ms": directory.now_ms(),
    }
    table = tables.identities
    try:
        with directory.engine.begin() as connection:
            # Of an issuer that the organization left.
            old = sa.and_(table.c.account == account.id, table.c.issuer != provider.issuer)
            connection.execute(sa.delete(table).where(old))
            connection.execute(sa.insert(table), row)
            put(connection, tables.outbox, [_tell(directory, account.id, "bound", account.id)])
    except sa.exc.IntegrityError:
        refuse_sign_in(directory, account)
        raise Problem(
            "your organization knows somebody else as the holder of this account",
            where=_WHERE,
            fix="an admin sees to it",
        ) from None
    return account


def _read(directory: Directory, organization: str) -> sa.Row[Any] | None:
    table = tables.identity_providers
    with directory.engine.connect() as connection:
        return connection.execute(sa.select(table).where(table.c.organization == organization)).first()


def _bind(provider: IdentityProvider) -> bytes:
    # A secret that is copied beside another issuer's address does not open: it would be sent there.
    return b"bailee identity provider 1" + msgspec.msgpack.encode(
        (provider.organization, provider.issuer, provider.client)
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _tell(directory: Directory, account: str, change: str, by: str) -> IdentityChanged:
    return IdentityChanged(
        id=secrets.token_hex(16),
        at_ms=directory.now_ms(),
        subject=directory.name(account),
        change=change,
        by=directory.name(by),
    )


def _tell_provider(directory: Directory, organization: str, issuer: str, by: str) -> IdentityProviderChanged:
    return IdentityProviderChanged(
        id=secrets.token_hex(16),
        at_ms=directory.now_ms(),
        subject=directory.name(organization),
        digest=_digest(issuer) if issuer else "",
        by=directory.name(by),
    )
