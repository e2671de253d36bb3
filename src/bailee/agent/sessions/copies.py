"""A session that another machine's agent wrote, read as hostile: nothing of it comes along but what was said.

Head and facts (folder, model, name, pin) are that machine's and stay there. Of a message come its role and
blocks of the kinds that the agent itself makes, each made anew with the fields that are known, so that no
other field, mode or permission can stand in it. What is not of this form refuses the whole: a conversation
without some of what was said is another one.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import msgspec

from bailee.agent.conversations import Message, calls, repaired
from bailee.agent.sessions.journals import Kind, read_copy
from bailee.agent.turns import summarized
from bailee.characters import make_visible
from bailee.policy.problems import Problem
from bailee.sealing.envelopes import KEY_BYTES

MOST_BYTES = 64_000_000  # unpacked
MOST_ENTRIES = 20_000
DEEPEST = 40  # levels of a call's input
# The form that the Messages API gives to ids and names of tools.
_NAME = re.compile(r"[A-Za-z0-9_-]{1,200}")
# What of a call's input is a path, as the tools have it.
_PATHS = ("path",)


class _Text(msgspec.Struct, tag="text", forbid_unknown_fields=True):
    text: str


class _Call(msgspec.Struct, tag="tool_use", forbid_unknown_fields=True):
    id: str
    name: str
    input: dict[str, Any]


class _Result(msgspec.Struct, tag="tool_result", forbid_unknown_fields=True, omit_defaults=True):
    tool_use_id: str
    content: str
    is_error: bool = False


class _Said(msgspec.Struct, forbid_unknown_fields=True):
    role: Literal["user", "assistant"]
    content: str | list[_Text | _Call | _Result]


class Taken(msgspec.Struct, frozen=True):
    """What was said in a session: messages, and summaries in the place of those before, in their order."""

    entries: tuple[Message | str, ...]

    @property
    def messages(self) -> int:
        """How many messages there are."""
        return sum(not isinstance(entry, str) for entry in self.entries)


def take_copy(id: str, key: bytes, journal: bytes, *, there: str, here: Path) -> Taken:
    """Return what was said in a session of another machine.

    Args:
        id, key, journal: as `journals.read_copy` takes them.
        there: the project's folder in that machine.
        here: the project's folder in this one, which stands in its place where a call names a path.

    Raises:
        Problem: it is not what the agent writes, or more than anybody would go on with.
    """
    try:
        entries = tuple(_read(id, key, journal, there, here))
        _check_order(_sent(entries))
    except (Problem, msgspec.ValidationError, ValueError) as fault:
        what = fault.what if isinstance(fault, Problem) else str(fault)
        raise Problem(
            f"the conversation is not one that can be gone on with: {make_visible(what)[:300]}",
            where=f"the session's machine: {id}",
            fix="its work is on its branch; see what it said: bailee cloud logs",
        ) from None
    if not any(not isinstance(entry, str) for entry in entries):
        raise Problem("nothing was said in it", where=f"the session's machine: {id}", fix="begin anew")
    return Taken(entries)


def _read(id: str, key: bytes, journal: bytes, there: str, here: Path) -> Iterator[Message | str]:
    if len(key) != KEY_BYTES:
        raise Problem("its key is none")
    for number, entry in enumerate(read_copy(journal, id, key, most=MOST_BYTES)):
        if number >= MOST_ENTRIES:
            raise Problem(f"it has more than {MOST_ENTRIES} entries")
        if entry.kind is Kind.MESSAGE:
            yield _take_message(msgspec.convert(entry.value, _Said), there, here)
        elif entry.kind is Kind.SUMMARY:
            yield _take_text(msgspec.convert(entry.value, str))


def _take_message(said: _Said, there: str, here: Path) -> Message:
    if isinstance(said.content, str):
        return {"role": said.role, "content": _take_text(said.content)}
    others = _Result if said.role == "assistant" else _Call
    for block in said.content:
        if isinstance(block, others):
            raise Problem(f"the {said.role} says what only the other side can")
        if isinstance(block, _Call):
            _check_name(block.id, block.name)
            _check_value(block.input)
            block.input = {
                name: _map(value, there, here) if name in _PATHS else value
                for name, value in block.input.items()
            }
        elif isinstance(block, _Result):
            _check_name(block.tool_use_id)
            _take_text(block.content)
        else:
            _take_text(block.text)
    taken: Message = msgspec.to_builtins(said)
    return taken


def _take_text(text: str) -> str:
    # JSON can write half of a pair of surrogates, which no request and no file can hold.
    text.encode()
    return text


def _check_name(*names: str) -> None:
    for name in names:
        if not _NAME.fullmatch(name):
            raise Problem("a call has an id or a name that is none")


def _check_value(value: object) -> None:
    """Raise Problem where an input is nested deeper than anything that goes on with it could follow."""
    level: list[object] = [value]
    for _ in range(DEEPEST):
        inner: list[object] = []
        for one in level:
            if isinstance(one, dict):
                for name in one:
                    _take_text(name)
                inner += one.values()
            elif isinstance(one, list):
                inner += one
            elif isinstance(one, str):
                _take_text(one)
        if not inner:
            return
        level = inner
    raise Problem("a call's input is nested too deep")


def _map(value: object, there: str, here: Path) -> object:
    """Return a path of the machine's project as one of the project here; anything else as it is."""
    if not isinstance(value, str) or not (value == there or value.startswith(f"{there}/")):
        return value
    inner = PurePosixPath(value).relative_to(there)
    return value if ".." in inner.parts else str(here / inner)


def _sent(entries: Sequence[Message | str]) -> list[Message]:
    sent: list[Message] = []
    for entry in entries:
        if isinstance(entry, str):
            sent = summarized(entry)
        else:
            sent.append(entry)
    return sent


def _check_order(messages: Sequence[Message]) -> None:
    """Raise Problem where the API would refuse the conversation for ever."""
    before: Message | None = None
    for message in repaired(messages):
        ids = [block["id"] for block in calls(message)]
        asked = [block["id"] for block in calls(before)] if before is not None else []
        told = [block["tool_use_id"] for block in message["content"] if block["type"] == "tool_result"]
        if len(set(ids)) != len(ids) or len(set(told)) != len(told) or not set(told) <= set(asked):
            raise Problem("calls and results do not belong to each other")
        before = message
