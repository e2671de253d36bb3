"""What the ledger says of who signed in, and of what proves an account holder; see `ledger.entries`."""

from bailee.ledger.entry import Entry


class SignedIn(Entry, frozen=True, kw_only=True, tag="signed_in"):
    """Somebody signed in to the console.

    Attributes:
        subject: the account, or the operator who has none.
        way: "link", "password" or "passkey".
    """

    subject: str
    way: str


class SignInRefused(Entry, frozen=True, kw_only=True, tag="sign_in_refused"):
    """Somebody gave an account's name and a wrong password, or what its passkey did not sign."""

    subject: str


class PasswordChanged(Entry, frozen=True, kw_only=True, tag="password"):
    """A password that proves an account holder was set, or taken away.

    Attributes:
        origin: "holder" where the account holder did it; "handed_over" where another set the first one for
            them; "taken" where it was taken away.
    """

    subject: str
    origin: str
    by: str


class PasskeyChanged(Entry, frozen=True, kw_only=True, tag="passkey"):
    """A passkey that proves an account holder was added, or is none any more.

    Attributes:
        change: "added" or "removed" where the account holder did it; "taken" where another took it away.
    """

    subject: str
    change: str
    by: str


class IdentityChanged(Entry, frozen=True, kw_only=True, tag="identity"):
    """What an organization's identity provider says proves an account holder from now on, or no more.

    Attributes:
        change: "bound" or "removed".
        by: who did it; the account holder's own where they signed in by it first.
    """

    subject: str
    change: str
    by: str


class IdentityProviderChanged(Entry, frozen=True, kw_only=True, tag="identity_provider"):
    """An admin named who says who their organization's members are, or named nobody any more.

    Attributes:
        subject: the organization.
        digest: SHA-256 of the provider's issuer; empty where there is none any more.
    """

    subject: str
    digest: str
    by: str
