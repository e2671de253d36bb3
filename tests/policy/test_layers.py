"""Settings compose by tightening: the algebra of layers, on the decision itself."""

from datetime import date

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bailee.manifests import load_manifest
from bailee.policy.contexts import Context
from bailee.policy.decisions import Decision, decide
from bailee.policy.flows import Flow, FlowId
from bailee.policy.layers import OWNER, Layer, LayerName
from bailee.policy.periods import NONE, UNLIMITED, Period
from bailee.policy.plans import Location, Plan, Provider

MANIFEST = load_manifest("claude-code")
ASKING = [name for name in LayerName if name not in (LayerName.SPECIFICATION, LayerName.PROVIDER)]

periods = st.one_of(
    st.none(),
    st.sampled_from([NONE, UNLIMITED, Period.years(5)]),
    st.integers(1, 3000).map(Period.days),
)
layers = st.builds(
    Layer,
    name=st.sampled_from(ASKING),
    origin=st.sampled_from(["a", "b"]),
    variables=st.dictionaries(
        st.sampled_from(sorted(MANIFEST.variables)),
        st.sampled_from(["", "0", "1", "false", "maybe"]),
        max_size=3,
    ),
    off=st.dictionaries(st.just("survey"), st.just("feedbackSurveyRate"), max_size=1),
    retention=periods,
    cache=periods,
)
contexts = st.builds(
    Context,
    plan=st.sampled_from(Plan),
    provider=st.sampled_from(Provider),
    location=st.sampled_from(Location),
    training=st.booleans(),
    dpp=st.booleans(),
    zdr=st.booleans(),
    organization_limit=periods,
    account_limit=periods,
    layers=st.lists(layers, max_size=4).map(tuple),
)
flows = st.sampled_from(MANIFEST.flows)
DAYS = (date(2024, 2, 29), date(2026, 1, 1), date(2097, 3, 1))


def with_layers(context: Context, *more: Layer) -> Context:
    return msgspec.structs.replace(context, layers=context.layers + more)


def is_no_looser(tight: Decision, loose: Decision) -> bool:
    if tight.allowed and not loose.allowed:
        return False
    if not loose.allowed or not tight.allowed:
        return True
    if tight.terms.trainable and not loose.terms.trainable:
        return False
    for day in DAYS:
        limit = loose.terms.retention.expires_on(day)
        ends = tight.terms.retention.expires_on(day)
        if limit is not None and (ends is None or ends > limit):
            return False
    return True


@given(flows, contexts, st.randoms())
def test_the_order_of_layers_does_not_matter(flow: Flow, context: Context, random: object) -> None:
    """Commutative and associative: any order of the layers gives the same decision and the same rules."""
    shuffled = list(context.layers)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    other = decide(flow, msgspec.structs.replace(context, layers=tuple(shuffled)))
    assert other == decide(flow, context)


@given(flows, contexts, layers)
def test_a_layer_said_twice_changes_nothing(flow: Flow, context: Context, layer: Layer) -> None:
    """Idempotent: a layer given twice allows, keeps and trains what it did once."""
    once = decide(flow, with_layers(context, layer))
    twice = decide(flow, with_layers(context, layer, layer))
    assert (once.allowed, once.terms, once.decided_by) == (twice.allowed, twice.terms, twice.decided_by)


@given(flows, contexts, layers)
def test_a_layer_never_loosens(flow: Flow, context: Context, layer: Layer) -> None:
    """Monotone: with one layer more nothing is allowed, kept longer or trained on that was not before.

    The owner of a machine may keep its own session cache longer; that one grant has its own test.
    """
    if flow.id is FlowId.LOCAL_CACHE and layer.name in OWNER:
        return
    assert is_no_looser(decide(flow, with_layers(context, layer)), decide(flow, context))


def test_control_where_the_last_layer_wins() -> None:
    """Control: composed as most programs do it, a repository's file loosens what its user had tightened."""
    strict = Layer(name=LayerName.USER, variables={"DISABLE_TELEMETRY": "1"}, retention=Period.days(7))
    lax = Layer(name=LayerName.PROJECT, retention=Period.days(90))

    def decide_by_last(context: Context) -> Decision:
        return decide(MANIFEST.flow("messages"), msgspec.structs.replace(context, layers=context.layers[-1:]))

    held = Context(layers=(strict,))
    assert is_no_looser(
        decide(MANIFEST.flow("messages"), with_layers(held, lax)), decide(MANIFEST.flow("messages"), held)
    )
    assert not is_no_looser(decide_by_last(with_layers(held, lax)), decide_by_last(held))


@given(flows, contexts, periods, periods)
def test_limits_of_organization_and_account_never_loosen(
    flow: Flow, context: Context, organization: Period | None, account: Period | None
) -> None:
    """What an organization or an account asks for can only shorten."""
    free = msgspec.structs.replace(context, organization_limit=None, account_limit=None)
    asked = msgspec.structs.replace(context, organization_limit=organization, account_limit=account)
    assert is_no_looser(decide(flow, asked), decide(flow, free))


@given(flows, contexts)
def test_every_decision_names_its_rules(flow: Flow, context: Context) -> None:
    """A decision names the rule that settled it among its rules, and each rule has a source sentence."""
    decision = decide(flow, context)
    assert decision.decided_by in {f"{rule.layer}/{rule.id}" for rule in decision.rules}
    assert all(rule.id and rule.text and rule.source for rule in decision.rules)
    assert decision == decide(flow, context)


@given(flows, contexts)
def test_refused_means_hold_nothing(flow: Flow, context: Context) -> None:
    """The terms of a refused flow hold nothing, and a flow that holds nothing trains nothing."""
    decision = decide(flow, context)
    if not decision.allowed:
        assert decision.terms.retention.is_none
    if decision.terms.retention.is_none:
        assert not decision.terms.trainable


@given(contexts)
def test_messages_are_always_required(context: Context) -> None:
    """No layer can refuse model traffic; there is no switch for what the agent cannot work without."""
    decision = decide(MANIFEST.flow("messages"), context)
    assert decision.allowed
    assert decision.required


def cache_kept(*said: tuple[LayerName, str]) -> str:
    found = tuple(Layer(name=name, cache=Period.parse(text)) for name, text in said)
    return str(decide(MANIFEST.flow("local_cache"), Context(layers=found)).terms.retention)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ([], "30d"),
        ([(LayerName.USER, "90d")], "90d"),
        ([(LayerName.USER, "unlimited")], "unlimited"),
        ([(LayerName.MANAGED, "unlimited"), (LayerName.USER, "60d")], "60d"),
        ([(LayerName.MANAGED, "10d"), (LayerName.USER, "unlimited")], "10d"),
        ([(LayerName.PROJECT, "unlimited")], "30d"),
        ([(LayerName.LOCAL, "90d")], "30d"),
        ([(LayerName.PROJECT, "7d")], "7d"),
        ([(LayerName.USER, "90d"), (LayerName.PROJECT, "unlimited")], "90d"),
        ([(LayerName.USER, "90d"), (LayerName.PROJECT, "7d")], "7d"),
        ([(LayerName.USER, "none")], "none"),
    ],
)
def test_the_owner_of_a_machine_sets_its_cache(said: list[tuple[LayerName, str]], kept: str) -> None:
    """A managed or user file may keep the cache longer than 30 days; a repository's file only shorter."""
    assert cache_kept(*said) == kept


def test_limits_do_not_reach_the_users_own_cache() -> None:
    """An organization's limit on what the service holds deletes nothing on the user's machine."""
    context = Context(organization_limit=Period.days(1))
    assert str(decide(MANIFEST.flow("local_cache"), context).terms.retention) == "30d"
    assert str(decide(MANIFEST.flow("messages"), context).terms.retention) == "1d"


@pytest.mark.parametrize(
    ("organization", "account", "kept"),
    [
        ("7d", None, "7d"),
        (None, "1d", "1d"),
        ("7d", "1d", "1d"),
        ("unlimited", "1y", "30d"),
        ("none", None, "none"),
    ],
)
def test_tighter_where_asked(organization: str | None, account: str | None, kept: str) -> None:
    """The shortest of rule, organization and account holds."""
    context = Context(
        organization_limit=Period.parse(organization) if organization else None,
        account_limit=Period.parse(account) if account else None,
    )
    assert str(decide(MANIFEST.flow("messages"), context).terms.retention) == kept
