"""What the rehearsal model understands of a request: prompts, how far they are answered, tools, the folder.

Nothing is remembered between requests. A conversation sends all of itself each time, so everything is derived
from the one request, and a conversation can be resumed anywhere.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

Json = Mapping[str, Any]

# Agents put what they want the model to know, and nobody said, into this element of the user's message.
_REMINDER = re.compile(r"<system-reminder>.*?</system-reminder>", re.DOTALL)
_DIRECTORY = re.compile(
    r"^\W*(?:primary |current )?working directory:[ \t]*`?([^`\n]+?)`?[ \t]*$", re.I | re.M
)


class Prompt(msgspec.Struct, frozen=True):
    """Something the user said.

    Attributes:
        answered: how many times the model has answered since.
    """

    text: str
    answered: int


class Conversation(msgspec.Struct, frozen=True):
    """What a request says, as far as a script needs it.

    Attributes:
        prompts: what the user said, the newest first; results of tools and reminders are not prompts.
        results: for each tool result of the last message, whether it is an error, and its text.
        tools: the JSON schema of the input of each tool offered, by name.
        directory: the agent's working directory, or "." if the request does not tell.
        answer_schema: the JSON schema that the answer has to follow, if there is one.
        forced_tool: the tool that must be used, if there is one.
        thinks: whether the answer may hold thinking.
        longest_answer: the limit of the answer in tokens.
    """

    prompts: tuple[Prompt, ...]
    results: tuple[tuple[bool, str], ...]
    tools: Mapping[str, Json]
    directory: str
    answer_schema: Json | None
    forced_tool: str
    thinks: bool
    longest_answer: int


def read_conversation(body: Json) -> Conversation:
    """Read the body of a Messages request, which need not be complete."""
    messages = [message for message in _items(body.get("messages")) if isinstance(message, Mapping)]
    choice = _mapping(body.get("tool_choice"))
    output = _mapping(_mapping(body.get("output_config")).get("format")) or _mapping(
        body.get("output_format")
    )
    limit = body.get("max_tokens")
    return Conversation(
        prompts=tuple(_find_prompts(messages)),
        results=tuple(_find_results(messages[-1])) if messages else (),
        tools={
            str(tool.get("name")): _mapping(tool.get("input_schema"))
            for tool in map(_mapping, _items(body.get("tools")))
        },
        directory=_find_directory(body, messages),
        answer_schema=_mapping(output.get("schema")) if output.get("type") == "json_schema" else None,
        forced_tool=str(choice.get("name", "")) if choice.get("type") == "tool" else "",
        thinks=_mapping(body.get("thinking")).get("type") in ("enabled", "adaptive"),
        longest_answer=limit if isinstance(limit, int) and limit > 0 else 1 << 20,
    )


def _find_prompts(messages: Sequence[Json]) -> Iterator[Prompt]:
    answered = 0
    previous = ""
    for message in reversed(messages):
        role = message.get("role")
        # Some agents send one answer as several messages, one for each of its blocks.
        answered += role == "assistant" and previous != "assistant"
        previous = str(role)
        if role != "user" or any(True for _ in _find_results(message)):
            continue
        text = "\n".join(_REMINDER.sub("", text).strip() for text in _texts(message.get("content"))).strip()
        if text:
            yield Prompt(text, answered)


def _find_results(message: Json) -> Iterator[tuple[bool, str]]:
    for block in map(_mapping, _items(message.get("content"))):
        if block.get("type") == "tool_result":
            yield bool(block.get("is_error")), "\n".join(_texts(block.get("content")))


def _find_directory(body: Json, messages: Sequence[Json]) -> str:
    places = [body.get("system"), *(message.get("content") for message in messages[:3])]
    for place in places:
        for text in _texts(place):
            if found := _DIRECTORY.search(text):
                return found[1]
    return "."


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    for block in map(_mapping, _items(content)):
        if block.get("type") == "text":
            yield str(block.get("text", ""))


def _items(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _mapping(value: Any) -> Json:
    return value if isinstance(value, Mapping) else {}
