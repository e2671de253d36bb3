"""Who an account is and where the model is reached (specification, "Data training policy")."""

from enum import StrEnum


class Plan(StrEnum):
    """The plan of an account: free, pro and max are consumer plans, the others commercial."""

    FREE = "free"
    PRO = "pro"
    MAX = "max"
    TEAM = "team"
    ENTERPRISE = "enterprise"
    API = "api"
    THIRD_PARTY_PLATFORM = "third_party_platform"
    GOV = "gov"


class Provider(StrEnum):
    """Where the model is reached: the Claude API, Amazon Bedrock or Google Vertex."""

    ANTHROPIC = "anthropic"
    BEDROCK = "bedrock"
    VERTEX = "vertex"


class Location(StrEnum):
    """Where a session runs: on the user's machine or in an isolated machine of ours."""

    LOCAL = "local"
    CLOUD = "cloud"


CONSUMER = frozenset({Plan.FREE, Plan.PRO, Plan.MAX})


def is_consumer(plan: Plan) -> bool:
    """Tell whether a plan is a consumer plan ("Free, Pro, and Max plans")."""
    return plan in CONSUMER


def treated_as(plan: Plan, provider: Provider) -> Plan:
    """Return the plan whose terms govern traffic of `plan` that reaches the model at `provider`.

    Any plan that goes through Bedrock or Vertex is under the terms of a third-party platform.
    """
    return plan if provider is Provider.ANTHROPIC else Plan.THIRD_PARTY_PLATFORM
