"""The full table of plan, training, provider, partner program and zero data retention.

The expectation is written out here from the specification's sentences; it uses no table of the program.
"""

from itertools import product

import pytest

from bailee.manifests import load_manifest
from bailee.policy.contexts import Context, describe
from bailee.policy.decisions import decide
from bailee.policy.plans import Plan, Provider
from bailee.policy.problems import Problem

PLANS = ("free", "pro", "max", "team", "enterprise", "api", "third_party_platform", "gov")
PROVIDERS = ("anthropic", "bedrock", "vertex")
SWITCH = ("off", "on")
ROWS = list(product(PLANS, SWITCH, PROVIDERS, SWITCH, SWITCH))


def expected(plan: str, training: str, provider: str, dpp: str, zdr: str) -> tuple[str, bool] | None:
    """Retention and trainability of a conversation, or None where asking is an error."""
    if provider in ("bedrock", "vertex"):
        plan = "third_party_platform"
    if plan in ("free", "pro", "max"):
        if dpp == "on" or zdr == "on":
            return None
        return ("5y", True) if training == "on" else ("30d", False)
    if training == "on":
        return None
    if zdr == "on":
        return ("none", False)
    return ("30d", dpp == "on" and plan in ("team", "enterprise", "api"))


@pytest.mark.parametrize(("plan", "training", "provider", "dpp", "zdr"), ROWS)
@pytest.mark.parametrize("agent", ["bailee", "claude-code"])
def test_conversation_terms(agent: str, plan: str, training: str, provider: str, dpp: str, zdr: str) -> None:
    """Every cell of the table has the retention and trainability of the specification, or says why not."""
    words = [f"plan={plan}", f"training={training}", f"provider={provider}", f"dpp={dpp}", f"zdr={zdr}"]
    answer = expected(plan, training, provider, dpp, zdr)
    if answer is None:
        with pytest.raises(Problem) as refused:
            describe(words)
        assert refused.value.where in ("training", "dpp", "zdr")
        assert refused.value.fix
        assert len(refused.value.what.split(": ", 1)) == 2, "says why"
        return
    decision = decide(load_manifest(agent).flow("messages"), describe(words))
    assert (str(decision.terms.retention), decision.terms.trainable) == answer
    assert decision.allowed
    assert decision.required


@pytest.mark.parametrize(("plan", "training", "provider", "dpp", "zdr"), ROWS)
def test_other_flows(plan: str, training: str, provider: str, dpp: str, zdr: str) -> None:
    """In every cell the non-essential flows follow the provider, reports also follow zdr, none may train."""
    if expected(plan, training, provider, dpp, zdr) is None:
        return
    context = describe(
        [f"plan={plan}", f"training={training}", f"provider={provider}", f"dpp={dpp}", f"zdr={zdr}"]
    )
    first_party = provider == "anthropic"
    allowed = {
        "metrics": first_party,
        "errors": first_party,
        "survey": first_party,
        "update": first_party,
        "feedback": first_party and zdr == "off",
        "local_cache": True,
        "git": True,
        "web": True,
    }
    for name, is_allowed in allowed.items():
        decision = decide(load_manifest("bailee").flow(name), context)
        assert decision.allowed is is_allowed, name
        assert not decision.terms.trainable, name
        assert decision.required is False, name
    if allowed["feedback"]:
        assert str(decide(load_manifest("bailee").flow("feedback"), context).terms.retention) == "5y"


@pytest.mark.parametrize(("plan", "training", "provider", "dpp", "zdr"), ROWS)
def test_an_unchecked_context_never_loosens(
    plan: str, training: str, provider: str, dpp: str, zdr: str
) -> None:
    """A consent that a plan does not have counts for nothing when decided unchecked."""
    if expected(plan, training, provider, dpp, zdr) is not None:
        return
    context = Context(
        plan=Plan(plan),
        provider=Provider(provider),
        training=training == "on",
        dpp=dpp == "on",
        zdr=zdr == "on",
    )
    terms = decide(load_manifest("bailee").flow("messages"), context).terms
    consented = (
        plan in ("free", "pro", "max") and training == "on" and provider == "anthropic" and zdr == "off"
    )
    commercial = expected(plan, "off", provider, dpp, zdr) == ("30d", True)
    assert terms.trainable is (consented or commercial)
    assert str(terms.retention) == ("none" if zdr == "on" else "5y" if consented else "30d")


def test_the_table_is_not_constant() -> None:
    """The expectation itself tells cells apart: errors, 5y, 30d with and without training, none."""
    answers = [expected(*row) for row in ROWS]
    assert set(answers) == {None, ("5y", True), ("30d", False), ("30d", True), ("none", False)}
    assert len(answers) == 192
