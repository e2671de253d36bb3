"""What `bailee code -p` prints: the answer as text, the turn as one JSON object, or each event as a line."""

import sys
from collections.abc import Iterator
from enum import StrEnum
from typing import TextIO

import msgspec

from bailee.agent.events import Answered, Called, Compacted, Ended, Event, Result, Text, Thinking, Usage
from bailee.characters import make_visible


class Output(StrEnum):
    """The form of the output."""

    TEXT = "text"
    JSON = "json"
    STREAM = "stream"


class Outcome(msgspec.Struct, kw_only=True):
    """What came of a turn.

    Attributes:
        text: the last answer.
        reason: see `events.Ended`.
        refused: calls that were not allowed, or failed.
    """

    session: str
    text: str = ""
    reason: str = ""
    model: str = ""
    rounds: int = 0
    calls: int = 0
    failed_calls: int = 0
    usage: Usage = Usage()
    cost_usd: float | None = None
    is_kept: bool = False


def print_turn(
    events: Iterator[Event],
    output: Output,
    outcome: Outcome,
    *,
    out: TextIO = sys.stdout,
    err: TextIO = sys.stderr,
) -> Outcome:
    """Print a turn as it goes and return what came of it; what is besides the answer is told on `err`."""
    said: list[str] = []
    for event in events:
        if output is Output.STREAM:
            out.write(msgspec.json.encode(event).decode() + "\n")
            out.flush()
        match event:
            case Text(text=text):
                said.append(text)
                if output is Output.TEXT:
                    out.write(text)
                    out.flush()
            case Called(tool=tool, subject=subject):
                outcome.calls += 1
                if output is Output.TEXT:
                    _end_line(said, out)
                    err.write(f"[{tool}] {make_visible(subject)[:200]}\n")
                said.clear()
            case Result(is_error=True, text=text):
                outcome.failed_calls += 1
                if output is Output.TEXT:
                    lines = text.strip().splitlines() or [""]
                    err.write(f"  failed: {make_visible(lines[-1])[:300]}\n")
            case Answered(model=model):
                outcome.model = model
            case Ended(reason=reason, rounds=rounds, usage=usage):
                outcome.reason, outcome.rounds, outcome.usage = reason, rounds, usage
            case Compacted() | Thinking() | Result():
                pass
    outcome.text = "".join(said).strip()
    if output is Output.TEXT:
        _end_line(said, out)
    return outcome


def _end_line(said: list[str], out: TextIO) -> None:
    if said and not said[-1].endswith("\n"):
        out.write("\n")
        out.flush()
