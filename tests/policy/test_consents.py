"""Who may grant which consent, and how a context is described."""

import pytest

from bailee.policy.consents import Consent, Grantor, require_grant
from bailee.policy.contexts import Context, describe
from bailee.policy.plans import Location, Plan
from bailee.policy.problems import Problem

CONSUMER = {"free", "pro", "max"}
PROGRAM = {"team", "enterprise", "api"}


@pytest.mark.parametrize("grantor", list(Grantor))
@pytest.mark.parametrize("plan", list(Plan))
@pytest.mark.parametrize("consent", list(Consent))
def test_only_the_right_person_grants(consent: Consent, plan: Plan, grantor: Grantor) -> None:
    """Training is the account holder's to grant, the partner program an organization admin's."""
    may = (consent == "training" and plan in CONSUMER and grantor == "account_holder") or (
        consent == "dpp" and plan in PROGRAM and grantor == "organization_admin"
    )
    if may:
        require_grant(consent, plan, grantor)
        return
    with pytest.raises(Problem) as refused:
        require_grant(consent, plan, grantor)
    assert refused.value.fix


def test_a_described_context_starts_tight() -> None:
    """What is not said is the api plan on the Claude API, local, with everything off."""
    assert describe([]) == Context()
    assert describe(["location=cloud"]).location is Location.CLOUD


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["plan"], "plan"),
        (["plan=gold"], "plan=gold"),
        (["colour=red"], "colour"),
        (["training=yes"], "training=yes"),
        (["training="], "training="),
        (["plan=pro", "plan=max"], "plan=max"),
        (["env.=1"], "env."),
        (["env.NAME=1", "env.NAME=2"], "env.NAME"),
        (["location=moon"], "location=moon"),
        (["provider=openai"], "provider=openai"),
        (["=x"], "=x"),
    ],
)
def test_bad_words_are_refused_by_name(words: list[str], names: str) -> None:
    """An unknown key or value, or one given twice, is an error that names it and the fix."""
    with pytest.raises(Problem) as refused:
        describe(words)
    assert names in refused.value.where
    assert refused.value.fix
