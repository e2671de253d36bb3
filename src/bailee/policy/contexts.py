"""The context a decision is made in: who, where, with which consents, under which settings."""

from collections.abc import Sequence
from enum import StrEnum
from typing import TypeVar

import msgspec

from bailee.policy.consents import require_available
from bailee.policy.flows import FlowId
from bailee.policy.layers import Layer, LayerName
from bailee.policy.periods import Period
from bailee.policy.plans import Location, Plan, Provider, treated_as
from bailee.policy.problems import Problem
from bailee.policy.switches import SELECTORS, select_provider


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a decision depends on.

    Attributes:
        plan: the plan of the account.
        provider: where the model is reached.
        is_first_party: with the Claude API, whether it is known to be that and not what speaks like it.
        location: where the session runs.
        training: whether the account holder of a consumer plan consented to training.
        dpp: whether an organization admin consented to the development partner program.
        zdr: whether zero data retention is in force.
        organization_limit: the longest time the organization lets records be held; None for no wish.
        account_limit: the longest time the account holder lets records be held; None for no wish.
        organization_refuses, account_refuses: flows of which they let nothing be taken.
        has_next_hop: whether the operator of the service named where metrics or errors are forwarded to.
        layers: settings, in any order.
    """

    plan: Plan = Plan.API
    provider: Provider = Provider.ANTHROPIC
    is_first_party: bool = True
    location: Location = Location.LOCAL
    training: bool = False
    dpp: bool = False
    zdr: bool = False
    organization_limit: Period | None = None
    account_limit: Period | None = None
    organization_refuses: tuple[FlowId, ...] = ()
    account_refuses: tuple[FlowId, ...] = ()
    has_next_hop: bool = False
    layers: tuple[Layer, ...] = ()

    def every_layer(self) -> tuple[Layer, ...]:
        """Return the layers, with what the organization and the account asked as layers of their own."""
        asked = (
            (LayerName.ORGANIZATION, "the organization", self.organization_limit),
            (LayerName.ACCOUNT, "the account", self.account_limit),
        )
        own = tuple(
            Layer(name=name, origin=origin, retention=limit) for name, origin, limit in asked if limit
        )
        return own + self.layers

    @property
    def terms_plan(self) -> Plan:
        """The plan whose terms govern: a third-party platform's if the model is reached through one."""
        return treated_as(self.plan, self.provider)


def check(context: Context) -> Context:
    """Return the context unchanged if each consent and setting in it exists for its plan.

    `decide` is safe without this: a consent that does not exist counts for nothing. This tells the person
    who asked for one.

    Raises:
        Problem: a consumer with the partner program or zero data retention, or a commercial account with
            the training switch.
    """
    require_available(
        context.plan, context.provider, training=context.training, dpp=context.dpp, zdr=context.zdr
    )
    return context


def choose_provider(layers: Sequence[Layer]) -> Provider:
    """Return the provider that the variables in these layers select; by default the Claude API.

    A repository's file does not get to choose where data goes. Of the others a managed file overrides the
    user's file, and that the environment, as the agent itself reads them.

    Raises:
        Problem: when a selector cannot be read, or two providers are selected.
    """
    variables: dict[str, str] = {}
    origins: dict[str, str] = {}
    for name in (LayerName.ENVIRONMENT, LayerName.USER, LayerName.MANAGED):
        for layer in layers:
            if layer.name is name:
                variables.update(layer.variables)
                origins.update(dict.fromkeys(layer.variables, layer.origin))
    where = ", ".join(sorted({origins[name] for name in SELECTORS if variables.get(name)}))
    return select_provider(variables, where=where) or Provider.ANTHROPIC


def variable(layers: Sequence[Layer], name: str, *, with_repository: bool = False) -> tuple[str, str]:
    """Return the value a variable has for the agent and where that stands; empty if it is unset.

    Args:
        with_repository: whether the agent lets a repository's files set it.
    """
    repository = (LayerName.LOCAL, LayerName.PROJECT) if with_repository else ()
    own = (LayerName.USER, LayerName.COMMAND_LINE, LayerName.ENVIRONMENT)
    for place in (LayerName.MANAGED, *repository, *own):
        # Of two managed files the later one overrides, as the agent reads them.
        for layer in reversed(layers):
            if layer.name is place and layer.variables.get(name):
                return layer.variables[name], layer.origin
    return "", ""


KEYS = ("plan", "training", "provider", "dpp", "zdr", "location", "forwarding", "env.NAME")
_SWITCHED = {"on": True, "off": False}
_Choice = TypeVar("_Choice", bound=StrEnum)


def describe(assignments: Sequence[str], *, where: str = "--as") -> Context:
    """Build a context from `key=value` words; what is not said is api, anthropic, local, everything off.

    Keys: plan, training (on, off), provider, dpp (on, off), zdr (on, off), location, forwarding (on, off: is
    there a next hop), env.NAME.

    Raises:
        Problem: for a word without `=`, an unknown key or value, a key given twice, a provider that
            contradicts a selector variable, or a combination `check` refuses.
    """
    said: dict[str, str] = {}
    variables: dict[str, str] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        place = f"{where} {assignment}"
        if not equals:
            raise Problem(f"{assignment!r} says no value", where=place, fix=f"write {where} {key}=VALUE")
        is_variable = key.startswith("env.") and len(key) > len("env.")
        if key in said or (is_variable and key.removeprefix("env.") in variables):
            raise Problem(f"{key} is given twice", where=place, fix="give it once")
        if is_variable:
            variables[key.removeprefix("env.")] = value
        elif key in KEYS:
            said[key] = value
        else:
            raise Problem(f"unknown key {key!r}", where=place, fix=f"use one of {', '.join(KEYS)}")

    layers = (Layer(name=LayerName.ENVIRONMENT, origin=where, variables=variables),) if variables else ()
    provider = choose_provider(layers)
    if "provider" in said:
        named = _choice(Provider, said["provider"], "provider", where)
        if provider not in (Provider.ANTHROPIC, named):
            raise Problem(
                f"provider={named} contradicts the variable that selects {provider}",
                where=where,
                fix="give one of the two",
            )
        provider = named
    return check(
        Context(
            plan=_choice(Plan, said.get("plan", Plan.API), "plan", where),
            provider=provider,
            location=_choice(Location, said.get("location", Location.LOCAL), "location", where),
            training=_switched(said.get("training", "off"), "training", where),
            dpp=_switched(said.get("dpp", "off"), "dpp", where),
            zdr=_switched(said.get("zdr", "off"), "zdr", where),
            has_next_hop=_switched(said.get("forwarding", "off"), "forwarding", where),
            layers=layers,
        )
    )


def _choice(kind: type[_Choice], value: str, key: str, where: str) -> _Choice:
    try:
        return kind(value)
    except ValueError:
        raise Problem(
            f"unknown {key} {value!r}",
            where=f"{where} {key}={value}",
            fix=f"use one of {', '.join(kind)}",
        ) from None


def _switched(value: str, key: str, where: str) -> bool:
    if value not in _SWITCHED:
        raise Problem(
            f"{key} is {value!r}", where=f"{where} {key}={value}", fix=f"write {key}=on or {key}=off"
        )
    return _SWITCHED[value]
