"""The file in which a person writes what an agent may reach: `boundary.toml`.

It lies in the home, which a boundary hides: what an agent can write cannot open anything to it.
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from bailee.files import replace_file
from bailee.flows.web.abuse import Limits, check_limits
from bailee.flows.web.placeholders import Secret, make_secret
from bailee.flows.web.rules import Rule, Wire, check_rule, read_rule
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


def add_rule(path: Path, host: str, port: int, *, is_plain: bool = False) -> Rule:
    """Let agents reach a host and port from now on: write it into a file of rules.

    What stands in the file stays as it is. The whole is read as it will be before it takes the file's place.

    Args:
        is_plain: whether plain HTTP is spoken there, and not TLS.

    Raises:
        Problem: the host cannot be meant, is allowed or forbidden there already, or the file is not readable.
    """
    rule = read_rule(f"{'http://' if is_plain else ''}{host}:{port}", path.name)
    present = read_rules_file(path) if path.exists() else RulesFile()
    if any(one.host == rule.host and port in one.ports for one in present.forbid):
        raise Problem(
            f"{rule.host} is forbidden there", where=str(path), fix="take the rule that forbids it out first"
        )
    if any(one.host == rule.host and port in one.ports and one.wire == rule.wire for one in present.allow):
        raise Problem(f"{rule.host} port {port} is allowed already", where=str(path))
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    added = _write(rule)
    _put(path, f"{text.rstrip()}\n\n{added}" if text.strip() else added)
    return rule


def has_added(text: str, rule: Rule) -> bool:
    """Tell whether a rule of a file stands in its text as `add_rule` writes it, and says nothing besides."""
    block = _write(rule)
    (plain,) = msgspec.convert(tomllib.loads(block), RulesFile).allow
    is_plain = len(rule.ports) == 1 and msgspec.structs.replace(plain, origin=rule.origin) == rule
    return is_plain and _find(text, block) is not None


def _find(text: str, block: str) -> "re.Match[str] | None":
    # Whole: of a table that goes on with other keys what is left would be the table's before it.
    return re.search(rf"(?m)^{re.escape(block)}(?=\n|\[|\Z)", f"{text.rstrip()}\n")


def remove_rule(path: Path, rule: Rule) -> None:
    """Take a rule that `add_rule` wrote out of a file of rules; what else stands there stays as it is.

    Raises:
        Problem: it is not there as it was written, or the file is not readable.
    """
    text = f"{path.read_text(encoding='utf-8').rstrip()}\n" if path.exists() else ""
    found = _find(text, _write(rule)) if has_added(text, rule) else None
    if found is None:
        raise Problem(
            f"no rule for {rule.host} stands there as the console writes them",
            where=str(path),
            fix="take it out of the file by hand",
        )
    before, after = text[: found.start()], text[found.end() :]
    _put(path, "\n\n".join(part for part in (before.rstrip(), after.strip("\n")) if part).rstrip() + "\n")


def _write(rule: Rule) -> str:
    # Of a name that `read_rule` took nothing needs to be escaped.
    ports = ", ".join(map(str, rule.ports))
    wire = "" if rule.wire is Wire.TLS else f'wire = "{rule.wire}"\n'
    private = "private = true\n" if rule.is_private else ""
    return f'[[allow]]\nhost = "{rule.host}"\nports = [{ports}]\n{wire}{private}'


def _put(path: Path, text: str) -> None:
    """Put a text into a file's place, if it can be read as rules."""
    draft = path.with_name(f"{path.name}.draft")
    try:
        replace_file(draft, text.lstrip("\n").encode())
        read_rules_file(draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
