"""Tells a recorded exchange as a conversation: what was new in the request, and the answer.

Everything here is text that an agent or a model wrote, and so may be hostile: control characters are
made visible before a terminal sees them.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from bailee.characters import make_visible
from bailee.codings import Undecodable, open_decoder
from bailee.sealing.content import Content
from bailee.vault.datasets.items import Conversation
from bailee.vault.reader import Transcript

LINE_LENGTH = 160
# Ten times the longest answer a model can write.
LONGEST_BODY_BYTES = 64 * 1024 * 1024
_NOTHING = msgspec.Raw(b"null")


class _Request(msgspec.Struct):
    """What of a request belongs to the conversation; `metadata`, which names the user, does not."""

    messages: list[msgspec.Raw]
    system: msgspec.Raw = _NOTHING
    tools: msgspec.Raw = _NOTHING


_request_decoder = msgspec.json.Decoder(_Request)


Said = tuple[str, str]


def read_conversation(transcript: Transcript) -> Iterator[str]:
    """Give what one exchange said, a line each, cut where it is long; see `read_said`."""
    return (_line(speaker, text) for speaker, text in read_said(transcript))


def read_said(transcript: Transcript) -> Iterator[Said]:
    """Give who said what in one exchange: what came since the model spoke last, then the answer's blocks.

    An agent may put reminders of its own after what its user said, so that the last message alone would
    hide it.
    """
    try:
        request = msgspec.json.decode(transcript.request.reveal())
    except msgspec.MsgspecError:
        request = None
    messages = request.get("messages") if isinstance(request, dict) else None
    if isinstance(messages, list) and (new := _since_last_answer(messages)):
        for message in new:
            yield from _tell_message(str(message.get("role", "?")), message.get("content"))
    else:
        yield "request", f"{len(transcript.request)} bytes"
    answer = decode_body(transcript.response_headers, transcript.response)
    yield from _tell_answer(answer)


def _since_last_answer(messages: list[Any]) -> list[dict[str, Any]]:
    new: list[dict[str, Any]] = []
    for message in reversed(messages):
        if not isinstance(message, dict) or message.get("role") == "assistant":
            break
        new.insert(0, message)
    return new or [message for message in messages[-1:] if isinstance(message, dict)]


def read_text(transcript: Transcript) -> dict[str, bytes]:
    """Return the content of an exchange for a person to read: content encodings are taken off."""
    return {
        "request_headers": transcript.request_headers.reveal(),
        "request": decode_body(transcript.request_headers, transcript.request),
        "response_headers": transcript.response_headers.reveal(),
        "response": decode_body(transcript.response_headers, transcript.response),
    }


def read_messages(transcript: Transcript) -> Conversation | None:
    """Return an exchange as a conversation; None where it is none, such as a count of tokens or an error.

    An answer that was cut off is told as far as it came.
    """
    try:
        request = _request_decoder.decode(decode_body(transcript.request_headers, transcript.request))
    except (msgspec.MsgspecError, UnicodeError):
        return None
    answer = decode_body(transcript.response_headers, transcript.response)
    blocks: object
    if answer.lstrip().startswith(b"{"):
        try:
            message = msgspec.json.decode(answer)
        except (msgspec.MsgspecError, UnicodeError):
            return None
        blocks = message.get("content")
    else:
        blocks = _collect_blocks(answer)
    if not request.messages or not isinstance(blocks, list) or not blocks:
        return None
    return Conversation(
        system=bytes(request.system),
        tools=bytes(request.tools),
        messages=[bytes(message) for message in request.messages],
        answer=msgspec.json.encode(blocks),
    )


def decode_body(headers: Content, body: Content) -> bytes:
    """Return a body with its content encoding taken off; as it is, if that fails or it would be too long."""
    encoding = b""
    for line in headers.reveal().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-encoding":
            encoding = value
    data = body.reveal()
    try:
        decode = open_decoder(encoding, LONGEST_BODY_BYTES)
        return decode(data) if decode else data
    except Undecodable:
        return data


def _tell_message(role: str, content: object) -> Iterator[Said]:
    if isinstance(content, str):
        yield role, content
    elif isinstance(content, list):
        for block in content:
            if isinstance(block, dict):
                yield from _tell_block(role, block)


def _tell_block(role: str, block: dict[str, Any]) -> Iterator[Said]:
    kind = str(block.get("type", "?"))
    if kind == "text":
        yield role, str(block.get("text", ""))
    elif kind == "tool_use":
        call = msgspec.json.encode(block.get("input")).decode()
        yield f"{role} calls {block.get('name', '?')}", call
    elif kind == "tool_result":
        result = block.get("content")
        if isinstance(result, list):
            result = " ".join(str(part.get("text", "")) for part in result if isinstance(part, dict))
        yield "tool result", str(result)
    else:
        yield role, f"[{kind}]"


def _tell_answer(answer: bytes) -> Iterator[Said]:
    if answer.startswith(b"{"):
        try:
            message = msgspec.json.decode(answer)
        except msgspec.MsgspecError:
            message = None
        if isinstance(message, dict) and "content" in message:
            yield from _tell_message("assistant", message["content"])
        elif isinstance(message, dict) and isinstance(message.get("error"), dict):
            yield "error", str(message["error"].get("message", ""))
        return
    for block in _collect_blocks(answer):
        yield from _tell_block("assistant", block)


def _collect_blocks(stream: bytes) -> list[dict[str, Any]]:
    """Put the content blocks of an event stream together; an unfinished one is told as far as it came."""
    blocks: dict[int, dict[str, Any]] = {}
    calls: dict[int, str] = {}
    for line in stream.split(b"\n"):
        if not line.startswith(b"data:"):
            continue
        try:
            event = msgspec.json.decode(line[5:].strip())
        except msgspec.MsgspecError:
            continue
        if not isinstance(event, dict):
            continue
        index = event.get("index", 0)
        if event.get("type") == "content_block_start" and isinstance(event.get("content_block"), dict):
            blocks[index] = dict(event["content_block"])
        elif event.get("type") == "content_block_delta" and index in blocks:
            delta = event.get("delta") or {}
            if delta.get("type") == "text_delta":
                blocks[index]["text"] = blocks[index].get("text", "") + delta.get("text", "")
            elif delta.get("type") == "thinking_delta":
                blocks[index]["thinking"] = blocks[index].get("thinking", "") + delta.get("thinking", "")
            elif delta.get("type") == "input_json_delta":
                calls[index] = calls.get(index, "") + delta.get("partial_json", "")
    for index, call in calls.items():
        try:
            blocks[index]["input"] = msgspec.json.decode(call)
        except msgspec.MsgspecError:
            blocks[index]["input"] = call
    return [blocks[index] for index in sorted(blocks)]


def _line(speaker: str, text: str) -> str:
    shown = make_visible(" ".join(text.split()))
    if len(shown) > LINE_LENGTH:
        shown = f"{shown[:LINE_LENGTH]}… ({len(text)} characters)"
    return f"{make_visible(speaker)}: {shown}"
