"""What the rehearsal model plays: one TOML file per scenario, read into these types."""

import tomllib
from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from importlib.resources import files

import msgspec

from bailee.policy.problems import Problem


class Block(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    """One thing that a turn does; every string may hold `{cwd}` and the scenario's parameters in braces."""


class Text(Block, frozen=True, tag="text"):
    """Say something.

    Attributes:
        repeat: how often the text is said, each time as one delta, `{n}` counting from 1; empty = once, in
            deltas of the turn's chunk size.
        cut: end the connection after the last delta, with nothing closed.
    """

    text: str
    repeat: str = ""
    cut: bool = False


class Thought(Block, frozen=True, tag="thought"):
    """Think aloud; left out where the request did not ask for thinking."""

    text: str


class Silence(Block, frozen=True, tag="silence"):
    """Send only pings for some seconds."""

    seconds: str
    ping_every: float


class Run(Block, frozen=True, tag="run"):
    """Ask the agent to run a shell command."""

    command: str
    why: str = ""


class Read(Block, frozen=True, tag="read"):
    """Ask the agent to read a file."""

    path: str


class Write(Block, frozen=True, tag="write"):
    """Ask the agent to write a file."""

    path: str
    content: str


class Edit(Block, frozen=True, tag="edit"):
    """Ask the agent to replace a passage of a file."""

    path: str
    old: str
    new: str


Intent = Run | Read | Write | Edit
AnyBlock = Text | Thought | Silence | Run | Read | Write | Edit


class Outcome(StrEnum):
    """What the results of a turn's tools must have been for the next turn to be played."""

    SUCCESS = "success"
    FAILURE = "failure"
    ANY = "any"


class Turn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One answer of the model.

    Attributes:
        pace: milliseconds before each delta.
        chunk: characters of text or of tool input per delta.
        ping_every: deltas between two pings; 0 = only the one ping that opens every stream.
        needs: what must come of the tools for the scenario to go on.
        shows: what a failure that is needed must say, so that a refused permission is not taken for one.
    """

    blocks: tuple[AnyBlock, ...]
    pace: float = 2.0
    chunk: int = 24
    ping_every: int = 0
    needs: Outcome = Outcome.SUCCESS
    shows: str = ""


class Refusal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An error the model answers instead of a message, in the Messages API's error types.

    Attributes:
        retry_after: seconds for the retry-after header; 0 = no such header.
    """

    status: int
    type: str
    message: str
    retry_after: int = 0


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A script.

    Attributes:
        when: phrases in a prompt that select it, whatever their case; `rehearse NAME` always does.
        parameters: numbers a prompt may change, as in `rehearse stall seconds=3`, with their defaults.
        on_failure: the last words when a tool failed that had to succeed; `{failure}` is what it answered.
        on_success: the last words when a tool succeeded that had to fail.
    """

    name: str
    description: str
    when: tuple[str, ...] = ()
    parameters: Mapping[str, float] = {}
    turns: tuple[Turn, ...] = ()
    refusal: Refusal | None = None
    on_failure: str = "I stop here, because a tool failed:\n\n{failure}"
    on_success: str = "I stop here, because a step that was meant to fail did not."


def parse_scenario(text: str, *, where: str) -> Scenario:
    """Read one scenario's TOML.

    Raises:
        Problem: not TOML, an unknown key, a missing key, or neither turns nor a refusal.
    """
    try:
        scenario = msgspec.convert(tomllib.loads(text), Scenario)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise Problem(f"a scenario cannot be read: {error}", where=where, fix="correct the file") from error
    if bool(scenario.turns) == (scenario.refusal is not None):
        raise Problem("a scenario has either turns or a refusal", where=where, fix="give one of the two")
    return scenario


@cache
def load_scenarios() -> Mapping[str, Scenario]:
    """All scenarios of this folder by name, in the order of their names."""
    found = (
        parse_scenario(entry.read_text(encoding="utf-8"), where=entry.name)
        for entry in files(__package__).iterdir()
        if entry.name.endswith(".toml")
    )
    return {scenario.name: scenario for scenario in sorted(found, key=lambda scenario: scenario.name)}
