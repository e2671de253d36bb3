"""The file in which a person writes what an agent may reach: `boundary.toml`.

It lies in the home, which a boundary hides: what an agent can write cannot open anything to it.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from bailee.flows.web.abuse import Limits, check_limits
from bailee.flows.web.placeholders import Secret, make_secret
from bailee.flows.web.rules import Rule, check_rule
from bailee.policy.problems import Problem

NAME = "boundary.toml"
LONGEST = 1_000_000


class SecretRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A secret that the agent uses without seeing it.

    Attributes:
        variable: holds it around `bailee run`, and a placeholder inside.
        hosts: which may have it.
    """

    variable: str
    hosts: tuple[str, ...]


class RulesFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a file says."""

    allow: tuple[Rule, ...] = ()
    forbid: tuple[Rule, ...] = ()
    secret: tuple[SecretRule, ...] = ()
    abuse: Limits = Limits()


def read_rules_file(path: Path) -> RulesFile:
    """Read a file of rules.

    Raises:
        Problem: it cannot be read, or says something that cannot be meant. Then nothing of it counts.
    """
    where = str(path)
    try:
        data = path.read_bytes()[: LONGEST + 1]
        if len(data) > LONGEST:
            raise Problem(
                "the file of rules is too long", where=where, fix=f"keep it below {LONGEST:,} bytes"
            )
        read = msgspec.convert(tomllib.loads(data.decode("utf-8")), RulesFile)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as fault:
        raise Problem(
            f"the rules cannot be read: {fault}", where=where, fix="mend the file; it is UTF-8 TOML"
        ) from None
    except msgspec.ValidationError as fault:
        what, _, key = str(fault).partition(" - at ")
        place = key.strip("`").removeprefix("$.") or "top level"
        raise Problem(
            f"the rules are refused: {what}", where=f"{where}: {place}", fix="see docs/boundary.md"
        ) from None
    for number, rule in enumerate((*read.allow, *read.forbid)):
        if rule.origin:
            raise Problem(
                "a rule has no origin of its own", where=f"{where}: rule {number}", fix="leave it out"
            )

    def check(rule: Rule) -> Rule:
        return check_rule(msgspec.structs.replace(rule, origin=path.name))

    check_limits(read.abuse, where)
    return RulesFile(tuple(map(check, read.allow)), tuple(map(check, read.forbid)), read.secret, read.abuse)


def find_secrets(file: RulesFile, environment: Mapping[str, str]) -> list[Secret]:
    """Return the secrets of a file that are set.

    Raises:
        Problem: one cannot be used.
    """
    return [
        make_secret(one.variable, environment[one.variable], one.hosts)
        for one in file.secret
        if environment.get(one.variable)
    ]
