"""What a tool call may do: go ahead, ask a person, or not at all. Pure; a refusal says why to the model."""

import re
from collections.abc import Sequence
from enum import StrEnum
from fnmatch import fnmatchcase

import msgspec

from bailee.agent.settings import Mode
from bailee.policy.problems import Problem


class Reach(StrEnum):
    """What a tool does to the world: looks, changes files, or runs whatever it is told."""

    LOOK = "look"
    CHANGE = "change"
    RUN = "run"


class Answer(StrEnum):
    """What is to be done with a call."""

    GO = "go"
    ASK = "ask"
    REFUSE = "refuse"


class Call(msgspec.Struct, frozen=True):
    """A call as rules see it.

    Attributes:
        tool: the name of the tool.
        reach: what the tool does to the world.
        subject: what it is about: a path relative to the project, or a command line.
        is_sensitive: it changes what later runs by itself or governs the agent: hooks of Git, settings.
    """

    tool: str
    reach: Reach
    subject: str
    is_sensitive: bool = False


class Verdict(msgspec.Struct, frozen=True):
    """An answer and the reason for it, in words."""

    answer: Answer
    reason: str


class Rule(msgspec.Struct, frozen=True):
    """`tool` or `tool(pattern)`; in a pattern `*` stands for anything, unless the rule is an exact one.

    A pattern with a `*` never covers a command that a shell would take apart: `bash(git *)` does not allow
    `git status; rm -rf .`, nor `git $(...)`.
    """

    tool: str
    pattern: str
    is_exact: bool = False

    def covers(self, call: Call) -> bool:
        """Tell whether a call is allowed by this rule."""
        if self.tool != call.tool:
            return False
        if self.is_exact or self.pattern == call.subject:
            return self.pattern == call.subject
        if not self.pattern:
            return True
        if "*" not in self.pattern or (call.reach is Reach.RUN and is_compound(call.subject)):
            return False
        return fnmatchcase(call.subject, _escaped(self.pattern))

    def touches(self, call: Call) -> bool:
        """Tell whether a call is refused by this rule: any part of a compound command suffices.

        What may not be read may not be searched either, where it is named.
        """
        if self.tool != call.tool and (self.tool, call.tool) != ("read", "search"):
            return False
        if not self.pattern:
            return self.tool == call.tool
        parts = [call.subject]
        if call.reach is Reach.RUN:
            parts += _take_apart(call.subject)
        return any(fnmatchcase(part, _escaped(self.pattern)) for part in parts)

    def __str__(self) -> str:
        return f"{self.tool}({self.pattern})" if self.pattern else self.tool


_WRITTEN = re.compile(r"([a-z]+)(?:\((.+)\))?", re.DOTALL)
# What makes a line more than one command, or do more than it says (POSIX, "Shell Command Language").
_COMPOUND = re.compile(r"[;&|<>`\n(){}]|\$[({\w]")


# What stands before a program without being one: assignments, negation, words of the shell, other programs
# that run what follows.
_LEADING = re.compile(
    r"^(?:[A-Za-z_]\w*=\S*|!|if|then|elif|else|while|until|do|time|exec|eval|command|builtin|env|nohup|nice|sudo|"
    r"xargs|(?:\S*/)?(?:ba|da|z)?sh(?:\s+-\w+)*)\s+"
)


def _take_apart(command: str) -> list[str]:
    """Return what a refusal is compared with: each part of a command line, plainly written.

    It is a courtesy and no boundary: a shell has more ways to say something than can be listed.
    """
    parts = []
    for part in re.split(r"[;&|\n()`{}'\"]+|\$\(", command):
        plain = " ".join(part.split())
        while (shorter := _LEADING.sub("", plain)) != plain:
            parts.append(plain)
            plain = shorter
        program, _, rest = plain.partition(" ")
        parts += [plain, f"{program.rpartition('/')[2]} {rest}".strip()]
    return parts


def is_compound(command: str) -> bool:
    """Tell whether a shell would do more with this line than run one program."""
    return _COMPOUND.search(command) is not None


def _escaped(pattern: str) -> str:
    """Leave `*` its meaning and take it from `?` and `[`, which people write in commands."""
    return pattern.replace("[", "[[]").replace("?", "[?]")


def read_rule(text: str, tools: Sequence[str], *, where: str = "") -> Rule:
    """Read `bash(git *)` or `read`.

    Raises:
        Problem: it is written otherwise, or names no tool there is.
    """
    found = _WRITTEN.fullmatch(text.strip())
    if found is None or found[1] not in tools:
        raise Problem(
            f"{text!r} is no rule for a tool",
            where=where,
            fix=f"write one of {', '.join(tools)}, or such a name with a pattern: bash(git *)",
        )
    return Rule(found[1], found[2] or "")


def judge(call: Call, mode: Mode, *, allow: Sequence[Rule], deny: Sequence[Rule]) -> Verdict:
    """Decide about a call. Refusals come first, then the mode `plan`, then what is allowed by name."""
    for rule in deny:
        if rule.touches(call):
            return Verdict(Answer.REFUSE, f"the rule {rule} refuses it")
    if call.reach is Reach.LOOK:
        return Verdict(Answer.GO, "it only looks")
    if mode is Mode.PLAN:
        return Verdict(Answer.REFUSE, "in the mode `plan` nothing is changed or run: tell what you would do")
    for rule in allow:
        if rule.covers(call) and not call.is_sensitive:
            return Verdict(Answer.GO, f"the rule {rule} allows it")
    if mode is Mode.ALL:
        return Verdict(Answer.GO, "the mode `all` asks nothing")
    if mode is Mode.EDITS and call.reach is Reach.CHANGE and not call.is_sensitive:
        return Verdict(Answer.GO, "the mode `edits` changes files of the project without asking")
    return Verdict(Answer.ASK, "it is asked about in this mode")


def propose_rule(call: Call) -> Rule:
    """Return the rule that `always` makes of a call.

    Of a change it is every change of the project. Of a command that a shell would take apart, or that holds a
    `*` itself, it is that command and no other; of any other its program and the word after it.
    """
    if call.reach is not Reach.RUN:
        return Rule(call.tool, "**")
    found = _PROGRAM.match(call.subject)
    if found is None or found.end() == len(call.subject) or "*" in found[0] or is_compound(call.subject):
        return Rule(call.tool, call.subject, is_exact=True)
    return Rule(call.tool, found[0] + "*")


_PROGRAM = re.compile(r"\S+\s(?:[^-\s]\S*\s)?")
