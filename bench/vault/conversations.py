"""A conversation of many turns: a recorded one, gone on with as it began.

Further turns have messages of the sizes that the recorded ones have, each with text of its own: words drawn
as often as they stand in the recording. As agents do, each turn repeats all before it and moves the cache
marker to its newest message.
"""

import json
import random
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from bench.gateway.answers import MESSAGE_STOP, write_event
from bench.gateway.corpus import MAIN_LOOP_BYTES, Corpus

_MARKER = {"type": "ephemeral"}
_DELTA_CHARACTERS = 24
_LEAST_CHARACTERS = 40
_WORD = re.compile(r"\s*\S+")


@dataclass(frozen=True)
class Exchange:
    """One turn: the body of its request and of its answer."""

    request: bytes
    answer: bytes


def make_conversation(corpus: Corpus, turns: int, seed: int = 7) -> list[Exchange]:
    """Return a conversation of so many turns."""
    chance = random.Random(seed)
    document = json.loads(max((turn.body for turn in corpus.turns), key=len))
    recorded = document["messages"]
    first = json.loads(corpus.first_main_loop.body)["messages"]
    said = [text for message in recorded[len(first) :] for text in _texts(message)]
    sizes: dict[str, list[int]] = {
        role: [
            sum(map(len, _texts(message)))
            for message in recorded[len(first) :]
            if message["role"] == role and _texts(message)
        ]
        or [600]
        for role in ("assistant", "user")
    }
    counted = Counter(word for text in said for word in _WORD.findall(text))
    words, weights = list(counted) or [" word"], list(counted.values()) or [1]

    def write(size: int) -> str:
        drawn = "".join(chance.choices(words, weights, k=max(1, size // 3)))
        return drawn[: max(size, _LEAST_CHARACTERS)]

    messages = [_unmarked(message) for message in first]
    exchanges = []
    for number in range(turns):
        sent = [*messages[:-1], _marked(messages[-1])]
        body = json.dumps({**document, "messages": sent}, separators=(",", ":"), ensure_ascii=False)
        text, use = write(chance.choice(sizes["assistant"])), f"toolu_{chance.getrandbits(96):024x}"
        exchanges.append(Exchange(body.encode(), _answer(number, text)))
        called = {
            "type": "tool_use",
            "id": use,
            "name": "Read",
            "input": {"file_path": f"/work/{use[-8:]}.py"},
        }
        result = {"type": "tool_result", "tool_use_id": use, "content": write(chance.choice(sizes["user"]))}
        messages.append({"role": "assistant", "content": [{"type": "text", "text": text}, called]})
        messages.append({"role": "user", "content": [result]})
    return exchanges


def is_recorded(corpus: Corpus) -> bool:
    """Tell whether the conversation begins with a real agent's."""
    return "SYNTHETIC" not in corpus.origin and len(corpus.first_main_loop.body) >= MAIN_LOOP_BYTES


def _texts(message: dict[str, Any]) -> list[str]:
    """Return what a message says, in its blocks, tool calls and results."""
    content = message["content"]
    if isinstance(content, str):
        return [content]
    found = []
    for block in content:
        inner = block.get("content", "")
        if isinstance(inner, list):
            found += [part.get("text", "") for part in inner]
        elif inner:
            found.append(inner)
        found += [block["text"]] if "text" in block else []
        found += [json.dumps(block["input"])] if block.get("input") else []
    return [text for text in found if text]


def _unmarked(message: dict[str, Any]) -> dict[str, Any]:
    if isinstance(message["content"], str):
        return message
    blocks = [
        {name: value for name, value in block.items() if name != "cache_control"}
        for block in message["content"]
    ]
    return {**message, "content": blocks}


def _marked(message: dict[str, Any]) -> dict[str, Any]:
    if isinstance(message["content"], str):
        return message
    *others, last = message["content"]
    return {**message, "content": [*others, {**last, "cache_control": _MARKER}]}


def _answer(number: int, text: str) -> bytes:
    message = {"id": f"msg_{number:06}", "type": "message", "role": "assistant", "content": []}
    events = [write_event("message_start", message=message)]
    events += [
        write_event(
            "content_block_delta",
            index=0,
            delta={"type": "text_delta", "text": text[at : at + _DELTA_CHARACTERS]},
        )
        for at in range(0, len(text), _DELTA_CHARACTERS)
    ]
    return b"".join([*events, MESSAGE_STOP])
