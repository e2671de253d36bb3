"""Removes an account with everything that is known of it."""

import sqlalchemy as sa

from bailee.accounts import tables
from bailee.policy.consents import Consent


def remove_account(connection: sa.Connection, account: str) -> str | None:
    """Remove an account, its keys, its logins, its sign-ins, its secrets, its consents and who read its
    content.

    An organization goes with its last member.

    Returns:
        The name of the organization that went; None if none did.
    """
    accounts, keys, consents = tables.accounts, tables.keys, tables.consents
    organizations, accesses = tables.organizations, tables.accesses
    organization: str | None = connection.execute(
        sa.select(accounts.c.organization).where(accounts.c.id == account)
    ).scalar_one_or_none()
    connection.execute(sa.delete(keys).where(keys.c.account == account))
    for table in (
        tables.logins,
        tables.login_guesses,
        tables.passwords,
        tables.passkeys,
        tables.passkey_challenges,
        tables.identities,
        tables.identity_requests,
        tables.operators,
        tables.sign_ins,
    ):
        connection.execute(sa.delete(table).where(table.c.account == account))
    connection.execute(sa.delete(accesses).where(accesses.c.account == account))
    connection.execute(sa.delete(tables.secrets).where(tables.secrets.c.owner == account))
    # Training is what an account consents to, all else is an organization's: in a home of an earlier program
    # an organization may have the name that is this account's id.
    is_accounts = consents.c.kind == Consent.TRAINING
    connection.execute(sa.delete(consents).where(consents.c.subject == account, is_accounts))
    connection.execute(sa.delete(accounts).where(accounts.c.id == account))
    others = sa.select(accounts.c.id).where(accounts.c.organization == organization)
    if organization is None or connection.execute(others).first() is not None:
        return None
    connection.execute(sa.delete(consents).where(consents.c.subject == organization, ~is_accounts))
    of_organization = tables.secrets.c.owner == f"organization:{organization}"
    connection.execute(sa.delete(tables.secrets).where(of_organization))
    for table in (tables.managed_settings, tables.identity_providers):
        connection.execute(sa.delete(table).where(table.c.organization == organization))
    connection.execute(sa.delete(organizations).where(organizations.c.name == organization))
    return organization
