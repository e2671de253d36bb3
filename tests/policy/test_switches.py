"""Switch variables and provider selectors."""

import pytest

from bailee.manifests import load_manifest
from bailee.policy.contexts import describe
from bailee.policy.decisions import decide
from bailee.policy.plans import Provider
from bailee.policy.problems import Problem
from bailee.policy.switches import select_provider

STOPS = {
    "DISABLE_TELEMETRY": {"metrics"},
    "DISABLE_ERROR_REPORTING": {"errors"},
    "DISABLE_BUG_COMMAND": {"feedback"},
    "DISABLE_FEEDBACK_COMMAND": {"feedback"},
    "CLAUDE_CODE_DISABLE_FEEDBACK_SURVEY": {"survey"},
    "DISABLE_AUTOUPDATER": {"update"},
    "CLAUDE_CODE_SKIP_PROMPT_HISTORY": {"local_cache"},
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": {
        *("metrics", "errors", "feedback", "survey", "update", "forwarding")
    },
    "BAILEE_DISABLE_FORWARDING": {"forwarding"},
    "DO_NOT_TRACK": {"metrics", "errors", "survey"},
}


def stopped(*words: str, agent: str = "bailee") -> set[str]:
    # With a next hop: without one nothing is forwarded anyway.
    context = describe([*words, "forwarding=on"])
    return {str(flow.id) for flow in load_manifest(agent).flows if not decide(flow, context).allowed}


@pytest.mark.parametrize("value", ["1", "0", "false", "no", "off", " ", "x"])
@pytest.mark.parametrize("name", sorted(set(STOPS) - {"DO_NOT_TRACK"}))
def test_any_value_switches_off(name: str, value: str) -> None:
    """A switch set to anything, `0` and `false` included, stops its flows and no others."""
    assert stopped(f"env.{name}={value}") == STOPS[name]


@pytest.mark.parametrize("name", sorted(STOPS))
def test_an_empty_value_is_unset(name: str) -> None:
    """A switch set to nothing stops nothing."""
    assert stopped(f"env.{name}=") == set()


@pytest.mark.parametrize(
    ("value", "is_off"),
    [
        ("1", True),
        ("true", True),
        ("YES", True),
        ("on", True),
        ("0", False),
        ("false", False),
        ("no", False),
        ("OFF", False),
        ("perhaps", True),
    ],
)
def test_do_not_track_is_a_boolean(value: str, is_off: bool) -> None:
    """DO_NOT_TRACK stops tracking when true, not when false; what is neither counts as true."""
    assert stopped(f"env.DO_NOT_TRACK={value}") == (STOPS["DO_NOT_TRACK"] if is_off else set())


def test_the_rating_of_claude_code_also_ends_with_its_telemetry() -> None:
    """Claude Code shows no survey when its telemetry is off; Bailee keeps the two switches apart."""
    assert stopped("env.DISABLE_TELEMETRY=1", agent="claude-code") == {"metrics", "survey"}


def test_the_deciding_rule_names_the_switch() -> None:
    """The decision says which variable stopped the flow and in which layer."""
    decision = decide(load_manifest("bailee").flow("metrics"), describe(["env.DISABLE_TELEMETRY=0"]))
    assert decision.decided_by == "environment/switch.DISABLE_TELEMETRY"


@pytest.mark.parametrize(
    ("variables", "provider"),
    [
        ({}, None),
        ({"CLAUDE_CODE_USE_BEDROCK": "1"}, Provider.BEDROCK),
        ({"CLAUDE_CODE_USE_VERTEX": "true"}, Provider.VERTEX),
        ({"CLAUDE_CODE_USE_BEDROCK": "0", "CLAUDE_CODE_USE_VERTEX": ""}, None),
    ],
)
def test_selectors(variables: dict[str, str], provider: Provider | None) -> None:
    """A selector that is true chooses its provider; a false or empty one chooses none."""
    assert select_provider(variables) is provider


@pytest.mark.parametrize(
    "variables",
    [
        {"CLAUDE_CODE_USE_BEDROCK": "perhaps"},
        {"CLAUDE_CODE_USE_BEDROCK": "1", "CLAUDE_CODE_USE_VERTEX": "1"},
    ],
)
def test_unclear_selectors_are_refused(variables: dict[str, str]) -> None:
    """Where the data would go must be clear: a doubtful value and two providers at once are errors."""
    with pytest.raises(Problem):
        select_provider(variables)


@pytest.mark.parametrize("provider", ["bedrock", "vertex"])
def test_a_selector_makes_the_provider(provider: str) -> None:
    """The selector variable and the provider key give the same answer."""
    selected = stopped(f"env.CLAUDE_CODE_USE_{provider.upper()}=1")
    assert (
        selected == stopped(f"provider={provider}") == {"metrics", "errors", "feedback", "survey", "update"}
    )


def test_provider_that_contradicts_a_selector_is_refused() -> None:
    """Two different answers to where the model is reached are an error."""
    with pytest.raises(Problem):
        describe(["provider=vertex", "env.CLAUDE_CODE_USE_BEDROCK=1"])


@pytest.mark.parametrize(
    ("value", "is_off"),
    [("false", True), ("0", True), ("no", True), ("perhaps", True), ("true", False), ("1", False)],
)
def test_a_name_that_switches_on_stops_when_it_is_not_true(value: str, is_off: bool) -> None:
    """AIDER_CHECK_UPDATE stops the check with any value but a true one; doubt never loosens."""
    assert ("update" in stopped(f"env.AIDER_CHECK_UPDATE={value}", agent="aider")) is is_off
    assert "update" not in stopped("env.AIDER_CHECK_UPDATE=", agent="aider")
