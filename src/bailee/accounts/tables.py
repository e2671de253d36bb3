"""The tables of accounts.db. Times are milliseconds since 1970 UTC."""

from enum import StrEnum
from pathlib import Path

import sqlalchemy as sa

from bailee.database.stores import Store
from bailee.ledger.outbox import outbox_table

metadata = sa.MetaData()
ACCOUNTS = Store(
    "accounts",
    metadata,
    Path(__file__).parent / "revisions",
    "0009",
    file="accounts.db",
    watched=tuple(
        (table, "INSERT OR UPDATE OR DELETE") for table in ("accounts", "consents", "keys", "organizations")
    ),
    vacuumed=(
        "accesses",
        "accounts",
        "consents",
        "keys",
        "login_guesses",
        "logins",
        "managed_settings",
        "operators",
        "organizations",
        "passkey_challenges",
        "passkeys",
        "passwords",
        "secrets",
        "sign_ins",
    ),
)


class Role(StrEnum):
    """What an account may do in its organization."""

    ADMIN = "admin"
    MEMBER = "member"


class KeyOrigin(StrEnum):
    """Who made a key: the account holder, another for the account holder, another for agents, a run, a login.

    The first two prove the account holder (`holders.PROVING`). A login is approved by them, and its key is
    not one: an agent holds it, and so may every command and every library that runs in the agent.
    """

    HOLDER = "holder"
    HANDED_OVER = "handed_over"
    OTHER = "other"
    RUN = "run"
    LOGIN = "login"


organizations = sa.Table(
    "organizations",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("retention", sa.Text, nullable=True),
)

accounts = sa.Table(
    "accounts",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("plan", sa.Text, nullable=False),
    sa.Column("organization", sa.ForeignKey("organizations.name"), nullable=True),
    sa.Column("role", sa.Text, nullable=True),
    sa.Column("retention", sa.Text, nullable=True),
    # The user of this machine who is the account holder, by user id; NULL where only a key tells.
    sa.Column("user_id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=True),
    # Since when an admin keeps its holder out.
    sa.Column("suspended_ms", sa.BigInteger, nullable=True),
)

# Append-only; the latest row of a subject and kind is in force.
consents = sa.Table(
    "consents",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("given", sa.Boolean, nullable=False),
    sa.Column("granted_by", sa.Text, nullable=False),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
)

keys = sa.Table(
    "keys",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("account", sa.ForeignKey("accounts.id"), nullable=False),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("digest", sa.LargeBinary(32), nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("revoked_ms", sa.BigInteger, nullable=True),
    # A KeyOrigin, and the user of this machine who made it; NULL in keys that an earlier program made.
    sa.Column("origin", sa.Text, nullable=True),
    sa.Column("made_by", sa.Text, nullable=True),
)

# Logins of agents (RFC 8628) from their beginning until a while after they expire.
logins = sa.Table(
    "logins",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    # Of what the agent polls with, and of what a person types.
    sa.Column("digest", sa.LargeBinary(32), nullable=False),
    sa.Column("user_digest", sa.LargeBinary(32), nullable=False),
    sa.Column("client", sa.Text, nullable=False),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("address", sa.Text, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("expires_ms", sa.BigInteger, nullable=False),
    # Approved if there is an account then, else denied.
    sa.Column("account", sa.ForeignKey("accounts.id"), nullable=True),
    sa.Column("decided_ms", sa.BigInteger, nullable=True),
    sa.Column("decided_by", sa.Text, nullable=True),
    sa.Column("redeemed_ms", sa.BigInteger, nullable=True),
    sa.Index("logins_by_user_code", "user_digest", unique=True),
)

# Wrong codes that an account's holder typed.
login_guesses = sa.Table(
    "login_guesses",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("account", sa.Text, sa.ForeignKey("accounts.id"), nullable=False),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
)

# Who but the account holder read content: the account holder sees it.
accesses = sa.Table(
    "accesses",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("account", sa.Text, sa.ForeignKey("accounts.id"), nullable=False),
    sa.Column("session", sa.Text, nullable=True),
    sa.Column("reader", sa.Text, nullable=False),
    sa.Column("purpose", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
    sa.Index("accesses_by_account", "account", "number"),
)

# What sessions work with and never see, sealed under the home's key: see `secrets`.
secrets = sa.Table(
    "secrets",
    metadata,
    # An account's id, or `organization:` and its name.
    sa.Column("owner", sa.Text, primary_key=True),
    # Host and path; empty for every repository.
    sa.Column("repository", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    # Those that may have it, with spaces between.
    sa.Column("hosts", sa.Text, nullable=False),
    sa.Column("exposed", sa.Boolean, nullable=False),
    sa.Column("changed_ms", sa.BigInteger, nullable=False),
    sa.Column("changed_by", sa.Text, nullable=False),
)

# What proves an account holder to the console: a slow hash, as people choose it.
passwords = sa.Table(
    "passwords",
    metadata,
    sa.Column("account", sa.Text, sa.ForeignKey("accounts.id"), primary_key=True),
    sa.Column("hash", sa.Text, nullable=False),
    sa.Column("changed_ms", sa.BigInteger, nullable=False),
)

# What proves an account holder to the console: the public half of a key that their authenticator keeps.
passkeys = sa.Table(
    "passkeys",
    metadata,
    # As the authenticator calls it, in base64url.
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("account", sa.Text, sa.ForeignKey("accounts.id"), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    # Of the service when it was added: the authenticator made the key for it.
    sa.Column("host", sa.Text, nullable=False),
    # COSE (RFC 9052).
    sa.Column("public_key", sa.LargeBinary, nullable=False),
    # As the authenticator counts them; some always say 0.
    sa.Column("signatures", sa.BigInteger, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("used_ms", sa.BigInteger, nullable=True),
)

# What passkeys are to sign, each once and within minutes.
passkey_challenges = sa.Table(
    "passkey_challenges",
    metadata,
    sa.Column("digest", sa.Text, primary_key=True),
    # Digest of what the forms of the browser that asked for it are bound to.
    sa.Column("browser", sa.Text, nullable=False),
    # Whose passkey is to be added; NULL where somebody signs in.
    sa.Column("account", sa.Text, sa.ForeignKey("accounts.id"), nullable=True),
    sa.Column("expires_ms", sa.BigInteger, nullable=False),
)

# Who says who an organization's members are (OpenID Connect), and what the service is called there.
identity_providers = sa.Table(
    "identity_providers",
    metadata,
    sa.Column("organization", sa.Text, sa.ForeignKey("organizations.name"), primary_key=True),
    sa.Column("issuer", sa.Text, nullable=False),
    sa.Column("client", sa.Text, nullable=False),
    # The client's secret, under the home's key; NULL where it has none.
    sa.Column("sealed", sa.LargeBinary, nullable=True),
    # An `identities.Claim`; of `email` the domain that counts.
    sa.Column("claim", sa.Text, nullable=False),
    sa.Column("domain", sa.Text, nullable=False),
    sa.Column("makes_accounts", sa.Boolean, nullable=False),
    sa.Column("changed_ms", sa.BigInteger, nullable=False),
    sa.Column("changed_by", sa.Text, nullable=False),
)

# Whom a provider's word proves.
identities = sa.Table(
    "identities",
    metadata,
    sa.Column("organization", sa.Text, sa.ForeignKey("organizations.name"), primary_key=True),
    sa.Column("issuer", sa.Text, primary_key=True),
    sa.Column("subject", sa.Text, primary_key=True),
    sa.Column("account", sa.Text, sa.ForeignKey("accounts.id"), nullable=False, unique=True),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
)

# Browsers that were sent to a provider, each good once and within minutes.
identity_requests = sa.Table(
    "identity_requests",
    metadata,
    # Of what comes back with the browser.
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("browser", sa.Text, nullable=False),
    sa.Column("organization", sa.Text, nullable=False),
    # Whose holder is to be known there from now on; NULL where somebody signs in.
    sa.Column("account", sa.Text, sa.ForeignKey("accounts.id"), nullable=True),
    sa.Column("nonce", sa.Text, nullable=False),
    sa.Column("verifier", sa.Text, nullable=False),
    sa.Column("place", sa.Text, nullable=False),
    sa.Column("expires_ms", sa.BigInteger, nullable=False),
)

# Accounts whose holders see to the service itself.
operators = sa.Table(
    "operators",
    metadata,
    sa.Column("account", sa.Text, sa.ForeignKey("accounts.id"), primary_key=True),
    sa.Column("appointed_by", sa.Text, nullable=False),
    sa.Column("appointed_ms", sa.BigInteger, nullable=False),
)

# Browsers that are signed in, and links that sign one in once; see `sign_ins`.
sign_ins = sa.Table(
    "sign_ins",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("digest", sa.LargeBinary(32), nullable=False),
    # A `sign_ins.Way`.
    sa.Column("way", sa.Text, nullable=False),
    sa.Column("account", sa.Text, sa.ForeignKey("accounts.id"), nullable=True),
    # The user of this machine who runs the service; NULL for whoever is only an account holder.
    sa.Column("user", sa.Text, nullable=True),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("expires_ms", sa.BigInteger, nullable=False),
    sa.Column("address", sa.Text, nullable=False),
    sa.Column("agent", sa.Text, nullable=False),
)

# What an organization's agents are told to do: a settings file, and nothing of anybody's.
managed_settings = sa.Table(
    "managed_settings",
    metadata,
    sa.Column("organization", sa.Text, sa.ForeignKey("organizations.name"), primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("changed_by", sa.Text, nullable=False),
    sa.Column("changed_ms", sa.BigInteger, nullable=False),
)

outbox = outbox_table(metadata)
