"""How long each kind of record is held: the retention section of the specification as a table."""

from enum import StrEnum

import msgspec

from bailee.policy.periods import NONE, UNLIMITED, Period
from bailee.policy.plans import Plan, is_consumer


class Holding(StrEnum):
    """What kind of record comes of a flow: the classes that have retention rules of their own."""

    CONVERSATION = "conversation"
    FEEDBACK = "feedback"
    OPERATIONAL = "operational"
    CACHE = "cache"
    AUDIT = "audit"
    AGENT = "agent"  # what an agent of another maker keeps on the machine itself
    NOTHING = "nothing"


class RetentionRule(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table. None in a condition means that it does not matter."""

    id: str
    holding: Holding
    consumer: bool | None = None
    training: bool | None = None
    zdr: bool | None = None
    period: Period
    text: str
    source: str


# Exactly one row answers for each holding, plan, training and zdr; tests/policy checks that.
RETENTION: tuple[RetentionRule, ...] = (
    RetentionRule(
        id="retention.zdr",
        holding=Holding.CONVERSATION,
        zdr=True,
        period=NONE,
        text="Zero data retention: no transcript is held.",
        source="Zero data retention: Available with appropriately configured API keys - Claude Code will not "
        "retain chat transcripts on servers",
    ),
    RetentionRule(
        id="retention.consumer.training",
        holding=Holding.CONVERSATION,
        consumer=True,
        training=True,
        zdr=False,
        period=Period.years(5),
        text="A consumer who allows use for model improvement: 5 years.",
        source="Users who allow data use for model improvement: 5-year retention period to support model "
        "development and safety improvements",
    ),
    RetentionRule(
        id="retention.consumer",
        holding=Holding.CONVERSATION,
        consumer=True,
        training=False,
        zdr=False,
        period=Period.days(30),
        text="A consumer who does not allow use for model improvement: 30 days.",
        source="Users who don’t allow data use for model improvement: 30-day retention period",
    ),
    RetentionRule(
        id="retention.commercial",
        holding=Holding.CONVERSATION,
        consumer=False,
        zdr=False,
        period=Period.days(30),
        text="Commercial standard: 30 days.",
        source="Standard: 30-day retention period",
    ),
    RetentionRule(
        id="retention.feedback",
        holding=Holding.FEEDBACK,
        period=Period.years(5),
        text="Reports a user sends: 5 years.",
        source="Transcripts shared via /bug are retained for 5 years.",
    ),
    RetentionRule(
        id="retention.cache",
        holding=Holding.CACHE,
        period=Period.days(30),
        text="Sessions kept on the machine for resumption: 30 days unless configured.",
        source="Claude Code clients may store sessions locally for up to 30 days to enable session "
        "resumption (configurable)",
    ),
    RetentionRule(
        id="retention.operational",
        holding=Holding.OPERATIONAL,
        period=Period.days(30),
        text="Operational data and ratings: the standard 30 days.",
        source="Standard: 30-day retention period",
    ),
    RetentionRule(
        id="retention.audit",
        holding=Holding.AUDIT,
        period=Period.days(30),
        text="The log of outbound connections, never their content: the standard 30 days.",
        source="All outbound traffic goes through a security proxy for audit logging and abuse prevention",
    ),
    RetentionRule(
        id="retention.agent",
        holding=Holding.AGENT,
        period=UNLIMITED,
        text="Kept on the machine by the agent itself, as long as it sees fit; Bailee has no hand in it.",
        source="(configurable)",
    ),
    RetentionRule(
        id="retention.nothing",
        holding=Holding.NOTHING,
        period=NONE,
        text="Nothing of this is held.",
        source="Claude Code is installed from NPM.",
    ),
)


def applies(rule: RetentionRule, plan: Plan, *, training: bool, zdr: bool) -> bool:
    """Tell whether a row's conditions hold."""
    return (
        rule.consumer in (None, is_consumer(plan))
        and rule.training in (None, training)
        and rule.zdr in (None, zdr)
    )


def retention_rule(holding: Holding, plan: Plan, *, training: bool, zdr: bool) -> RetentionRule:
    """Return the row that governs a holding under a plan (as treated) and its settings."""
    return next(
        rule
        for rule in RETENTION
        if rule.holding is holding and applies(rule, plan, training=training, zdr=zdr)
    )
