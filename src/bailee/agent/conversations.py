"""A conversation as the Messages API has it: messages of blocks, always in a state in which it can go on."""

from collections.abc import Iterator, Sequence
from typing import Any

Message = dict[str, Any]
Block = dict[str, Any]

INTERRUPTED = "The user interrupted before this was done."


def say(text: str, context: str = "") -> Message:
    """Return what the user says, with what was piped in before it."""
    blocks: list[Block] = []
    if context:
        blocks.append({"type": "text", "text": f"<input>\n{context}\n</input>"})
    blocks.append({"type": "text", "text": text})
    return {"role": "user", "content": blocks}


def result(call: str, text: str, *, is_error: bool) -> Block:
    """Return what a tool answered."""
    block: Block = {"type": "tool_result", "tool_use_id": call, "content": text or "(nothing)"}
    return block | ({"is_error": True} if is_error else {})


def calls(message: Message) -> Sequence[Block]:
    """Return the calls of tools in an answer."""
    return [block for block in message["content"] if block.get("type") == "tool_use"]


def texts(message: Message) -> Iterator[str]:
    """Give the texts that a person said or read."""
    content = message["content"]
    if isinstance(content, str):
        yield content
        return
    for block in content:
        if block.get("type") == "text":
            yield block["text"]


def repaired(messages: Sequence[Message]) -> list[Message]:
    """Return a conversation that the API takes, whatever moment it was cut off at.

    Calls without results get results that say so; neighbours of one role become one message; an answer
    without blocks goes.
    """
    whole: list[Message] = []
    for message in messages:
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
        if not blocks:
            continue
        waiting = calls(whole[-1]) if whole and whole[-1]["role"] == "assistant" else ()
        if message["role"] == "user" and waiting:
            answered = {block.get("tool_use_id") for block in blocks if block.get("type") == "tool_result"}
            missing = [
                result(one["id"], INTERRUPTED, is_error=True) for one in waiting if one["id"] not in answered
            ]
            # Results come first in the message that follows their calls.
            blocks = [*missing, *blocks]
        if whole and whole[-1]["role"] == message["role"]:
            whole[-1] = {"role": message["role"], "content": [*whole[-1]["content"], *blocks]}
        else:
            whole.append({"role": message["role"], "content": blocks})
    if whole and whole[-1]["role"] == "assistant" and (waiting := calls(whole[-1])):
        content = [result(one["id"], INTERRUPTED, is_error=True) for one in waiting]
        whole.append({"role": "user", "content": content})
    return whole


def first_prompt(messages: Sequence[Message]) -> str:
    """Return the first thing the user said, in one line; empty if there is none."""
    for message in messages:
        if message["role"] == "user" and (found := [text for text in texts(message) if text.strip()]):
            return " ".join(found[-1].split())
    return ""
