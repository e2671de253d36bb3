"""Accounts as they are known: who they are, what is in force for them, and what was recorded of that."""

from enum import StrEnum

import msgspec

from bailee.accounts.tables import Role
from bailee.policy.contexts import Context
from bailee.policy.flows import FlowId
from bailee.policy.periods import Period
from bailee.policy.plans import Plan, Provider


class Kind(StrEnum):
    """What a row of `consents` is about.

    Zero data retention, and flows that are refused, tighten, and are recorded the same way: given is on.
    """

    TRAINING = "training"
    DPP = "dpp"
    ZDR = "zdr"
    NO_METRICS = "no_metrics"
    NO_ERRORS = "no_errors"
    NO_FEEDBACK = "no_feedback"
    NO_SURVEY = "no_survey"
    NO_FORWARDING = "no_forwarding"

    @classmethod
    def refusing(cls, flow: FlowId) -> "Kind":
        """Return what records that a flow is refused; raises ValueError if none of REFUSABLE is named."""
        return cls(f"no_{flow.value}")


class Account(msgspec.Struct, frozen=True):
    """An account and what is in force for it.

    Attributes:
        organization: its organization's name; None for consumer plans.
        retention, organization_retention: the longest time it, or its organization, lets records be held.
        refuses, organization_refuses: flows of which it, or its organization, lets nothing be taken.
        is_suspended: whether an admin keeps its holder out: see `accounts.suspensions`.
    """

    id: str
    name: str
    plan: Plan
    organization: str | None
    role: Role | None
    retention: Period | None
    organization_retention: Period | None
    training: bool
    dpp: bool
    zdr: bool
    refuses: tuple[FlowId, ...] = ()
    organization_refuses: tuple[FlowId, ...] = ()
    is_suspended: bool = False

    def to_context(self, provider: Provider) -> Context:
        """Return what the policy is asked about this account's traffic to a provider's own API."""
        return Context(
            plan=self.plan,
            provider=provider,
            training=self.training,
            dpp=self.dpp,
            zdr=self.zdr,
            organization_limit=self.organization_retention,
            account_limit=self.retention,
            account_refuses=self.refuses,
            organization_refuses=self.organization_refuses,
        )


class Change(msgspec.Struct, frozen=True):
    """A consent as it was recorded.

    Attributes:
        subject: the id of the account or the name of the organization it holds for.
        was: what was in force before.
    """

    subject: str
    kind: Kind
    given: bool
    was: bool
    granted_by: str
    at_ms: int


class Access(msgspec.Struct, frozen=True):
    """That somebody read content of an account that is not theirs; `at_ms` in milliseconds since 1970 UTC.

    Attributes:
        session: the session they read; None where all of the account's were.
    """

    session: str | None
    reader: str
    purpose: str
    reason: str
    at_ms: int
