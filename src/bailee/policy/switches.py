"""Environment variables that switch a flow off or select where the model is reached."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from enum import StrEnum

import msgspec

from bailee.policy.plans import Provider
from bailee.policy.problems import Problem

TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"", "0", "false", "no", "off"})


# How like two names are, as difflib tells it, where one is taken for a slip of the other. The likest that
# means something else is Claude Code's DISABLE_UPGRADE_COMMAND: 0.857 of DISABLE_BUG_COMMAND.
_LIKE = 0.87


class Reading(StrEnum):
    """How the value of a switch variable is read."""

    ANY_VALUE = "any_value"
    BOOLEAN = "boolean"
    FALSE_VALUE = "false_value"


class Switch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A variable that stops a flow.

    Read as `any_value`, every non-empty value stops it, `0` and `false` included: the name says
    DISABLE, so whoever sets it at all has asked. Read as `boolean` (DO_NOT_TRACK), false values do not
    stop it; a value that is neither true nor false does, because doubt never loosens. Read as `false_value`
    (AIDER_ANALYTICS), the name switches something on, and every value but a true one stops it.
    """

    name: str
    reading: Reading = Reading.ANY_VALUE

    def is_thrown(self, variables: Mapping[str, str]) -> bool:
        """Tell whether these variables stop the flow."""
        value = variables.get(self.name, "")
        match self.reading:
            case Reading.BOOLEAN:
                return value.strip().lower() not in FALSE
            case Reading.FALSE_VALUE:
                return value != "" and value.strip().lower() not in TRUE
            case Reading.ANY_VALUE:
                return value != ""

    @property
    def stopping_value(self) -> str:
        """The value a person gives it to stop the flow."""
        return "false" if self.reading is Reading.FALSE_VALUE else "1"


# Specification, "Default behaviors by API provider": the variable "must be 1".
SELECTORS: Mapping[str, Provider] = {
    "CLAUDE_CODE_USE_BEDROCK": Provider.BEDROCK,
    "CLAUDE_CODE_USE_VERTEX": Provider.VERTEX,
}


def find_meant(name: str, known: Iterable[str]) -> str | None:
    """Return the variable that somebody may have meant by another name; None where it is one, or like none.

    Another program's own, such as `NX_DISABLE_TELEMETRY`, is meant as it stands.
    """
    names = set(known)
    if name in names or any(name.endswith(f"_{one}") for one in names):
        return None
    return next(iter(get_close_matches(name.upper(), names, 1, cutoff=_LIKE)), None)


def select_provider(variables: Mapping[str, str], *, where: str = "") -> Provider | None:
    """Return the provider these variables select, or None if they select none.

    Raises:
        Problem: when a selector is neither true nor false, or two providers are selected at once.
    """
    chosen: dict[str, Provider] = {}
    for name, provider in SELECTORS.items():
        value = variables.get(name, "").strip().lower()
        if value in TRUE:
            chosen[name] = provider
        elif value not in FALSE:
            raise Problem(
                f"{name} is {variables[name]!r}, which neither selects {provider} nor does not",
                where=where,
                fix=f"set {name}=1 to select {provider}, or unset it",
            )
    if len(chosen) > 1:
        raise Problem(
            f"two providers are selected at once: {' and '.join(chosen)}",
            where=where,
            fix="unset one of them",
        )
    return next(iter(chosen.values()), None)
