"""Consents: the only things that loosen, who may grant each, and for which plans each exists."""

from enum import StrEnum

from bailee.policy.flows import FlowId
from bailee.policy.plans import Plan, Provider, is_consumer, treated_as
from bailee.policy.problems import Problem


class Consent(StrEnum):
    """A grant only the right person can make."""

    TRAINING = "training"
    DPP = "dpp"


class Grantor(StrEnum):
    """Who asks for a consent to be recorded."""

    ACCOUNT_HOLDER = "account_holder"
    ORGANIZATION_ADMIN = "organization_admin"
    ORGANIZATION_MEMBER = "organization_member"


# Specification: "We give you the choice ..." (the account holder's); "An organization admin can expressly
# opt-in to the Development Partner Program for their organization".
GRANTOR = {Consent.TRAINING: Grantor.ACCOUNT_HOLDER, Consent.DPP: Grantor.ORGANIZATION_ADMIN}

# Flows of which an account or an organization may have nothing taken: none is needed to answer a prompt.
REFUSABLE = (FlowId.METRICS, FlowId.ERRORS, FlowId.FEEDBACK, FlowId.SURVEY, FlowId.FORWARDING)

DPP_PLANS = frozenset({Plan.TEAM, Plan.ENTERPRISE, Plan.API})


def offers_training(plan: Plan, provider: Provider = Provider.ANTHROPIC) -> bool:
    """Tell whether a plan has the training switch: consumer plans on the Claude API."""
    return is_consumer(treated_as(plan, provider))


def offers_dpp(plan: Plan, provider: Provider = Provider.ANTHROPIC) -> bool:
    """Tell whether the partner program is open: team, enterprise and api on the first-party API."""
    return treated_as(plan, provider) in DPP_PLANS


def offers_zdr(plan: Plan, provider: Provider = Provider.ANTHROPIC) -> bool:
    """Tell whether zero data retention can be had: any commercial plan, no consumer plan."""
    return not is_consumer(treated_as(plan, provider))


def require_available(
    plan: Plan,
    provider: Provider = Provider.ANTHROPIC,
    *,
    training: bool = False,
    dpp: bool = False,
    zdr: bool = False,
) -> None:
    """Refuse what a plan does not have.

    An organization's partner program that does not reach some traffic (Bedrock, Claude Gov) is no error:
    the program exists, that traffic is just not in it.

    Raises:
        Problem: saying why, for training on a commercial plan and for dpp or zdr on a consumer plan.
    """
    through = "" if treated_as(plan, provider) is plan else f" through {provider}, a third-party platform,"
    if training and not offers_training(plan, provider):
        raise Problem(
            f"the {plan} plan{through} has no training switch: under commercial terms code and prompts do "
            "not train models",
            where="training",
            fix="leave training off, or name a consumer plan (free, pro, max) on the Claude API",
        )
    if not is_consumer(treated_as(plan, provider)):
        return
    if dpp:
        raise Problem(
            f"the {plan} plan has no development partner program: an organization admin grants it, and a "
            "consumer has no organization",
            where="dpp",
            fix="leave dpp off, or name one of the plans team, enterprise, api",
        )
    if zdr:
        raise Problem(
            f"the {plan} plan has no zero data retention: it takes appropriately configured API keys under "
            "commercial terms",
            where="zdr",
            fix="leave zdr off, or name a commercial plan such as api",
        )


def require_grant(consent: Consent, plan: Plan, grantor: Grantor) -> None:
    """Refuse a consent that this person cannot grant for this plan.

    Raises:
        Problem: when the plan does not have the consent, or the grantor is not the one who may give it.
    """
    require_available(plan, training=consent is Consent.TRAINING, dpp=consent is Consent.DPP)
    if consent is Consent.DPP and not offers_dpp(plan):
        raise Problem(
            f"the development partner program is not open to the {plan} plan",
            where="dpp",
            fix="it is open to team, enterprise and api on the first-party API",
        )
    if GRANTOR[consent] is not grantor:
        needed = {
            Consent.TRAINING: "the account holder can allow training on their own data",
            Consent.DPP: "an organization admin can join the development partner program",
        }[consent]
        raise Problem(
            f"only {needed}", where=str(consent), fix=f"ask the {GRANTOR[consent].replace('_', ' ')}"
        )
