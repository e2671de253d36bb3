"""An answer of the model and its two forms: one message, or the stream of events that makes the same message.

Source of the events and their order: the Messages API's reference on streaming.
"""

from base64 import b64encode
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any, Literal

import msgspec

from bailee.flows.messages.eventstream import encode_chunk
from bailee.flows.messages.rehearsal.scenarios import Turn
from bailee.flows.messages.wires import Wire

Json = dict[str, Any]


class Part(msgspec.Struct, frozen=True):
    """Bytes to send after a pause in seconds."""

    pause: float
    data: bytes


class Delta(msgspec.Struct, frozen=True):
    """A block of text or of thinking, in the pieces in which it is said."""

    kind: Literal["text", "thinking"]
    pieces: tuple[str, ...]

    @property
    def whole(self) -> str:
        return "".join(self.pieces)


class Call(msgspec.Struct, frozen=True):
    """The use of a tool."""

    name: str
    arguments: Mapping[str, Any]


class Pause(msgspec.Struct, frozen=True):
    """Some seconds with nothing but pings."""

    seconds: float
    ping_every: float


class Reply(msgspec.Struct, frozen=True):
    """Everything the model says in one turn.

    Attributes:
        is_cut: the connection ends inside the last act.
        is_truncated: the answer reached the limit the request set.
    """

    acts: tuple[Delta | Call | Pause, ...]
    is_cut: bool = False
    is_truncated: bool = False

    @property
    def stop_reason(self) -> str:
        if self.is_truncated:
            return "max_tokens"
        return "tool_use" if any(isinstance(act, Call) for act in self.acts) else "end_turn"

    @property
    def silence(self) -> float:
        """All pauses together, in seconds."""
        return sum(act.seconds for act in self.acts if isinstance(act, Pause))

    @property
    def output_tokens(self) -> int:
        return count_tokens("".join(map(_wording, self.acts)).encode())

    def limit(self, tokens: int) -> "Reply":
        """Return the reply cut to a number of tokens; a call that does not fit is left out whole."""
        remaining = tokens * 4
        acts: list[Delta | Call | Pause] = []
        for act in self.acts:
            length = len(_wording(act).encode())
            if length <= remaining:
                acts.append(act)
                remaining -= length
                continue
            if isinstance(act, Delta):
                shortened = act.whole.encode()[:remaining].decode(errors="ignore")
                acts.append(Delta(act.kind, (shortened,)))
            return Reply(tuple(acts), is_cut=False, is_truncated=True)
        return self


def count_tokens(data: bytes) -> int:
    """The rehearsal's count of tokens: bytes / 4, rounded up."""
    return -(-len(data) // 4)


def render_message(reply: Reply, *, digest: str, model: str, input_tokens: int) -> Json:
    """The answer as one message."""
    content = [_block(act, digest, index) for index, act in enumerate(_blocks(reply))]
    message = _envelope(digest, model, input_tokens)
    message |= {"content": content, "stop_reason": reply.stop_reason}
    message["usage"]["output_tokens"] = reply.output_tokens
    return message


def render_stream(
    reply: Reply, *, wire: Wire, digest: str, model: str, input_tokens: int, turn: Turn
) -> tuple[Part, ...]:
    """The answer as a stream: server-sent events, or Bedrock's messages, which know no ping."""
    parts: list[Part] = []
    waited = 0.0
    for pause, event in _events(reply, digest, model, input_tokens, turn):
        waited += pause
        if wire is Wire.BEDROCK:
            if event["type"] == "ping":
                continue
            data = encode_chunk(msgspec.json.encode(event))
        else:
            data = b"event: %b\ndata: %b\n\n" % (event["type"].encode(), msgspec.json.encode(event))
        parts.append(Part(waited, data))
        waited = 0.0
    return tuple(parts)


def _events(
    reply: Reply, digest: str, model: str, input_tokens: int, turn: Turn
) -> Iterator[tuple[float, Json]]:
    pace = turn.pace / 1000
    said = 0
    index = 0
    has_opened = False
    yield 0.0, {"type": "message_start", "message": _envelope(digest, model, input_tokens)}
    for position, act in enumerate(reply.acts):
        if isinstance(act, Pause):
            yield from _keep_silence(act)
            continue
        yield (
            0.0,
            {"type": "content_block_start", "index": index, "content_block": _empty(act, digest, index)},
        )
        if not has_opened:
            yield 0.0, {"type": "ping"}
            has_opened = True
        for delta in _deltas(act, digest, index, turn.chunk):
            yield pace, {"type": "content_block_delta", "index": index, "delta": delta}
            said += 1
            if turn.ping_every and said % turn.ping_every == 0:
                yield 0.0, {"type": "ping"}
        if reply.is_cut and position == len(reply.acts) - 1:
            return
        yield 0.0, {"type": "content_block_stop", "index": index}
        index += 1
    usage = {**_usage(input_tokens), "output_tokens": reply.output_tokens}
    ending = {"stop_reason": reply.stop_reason, "stop_sequence": None}
    yield 0.0, {"type": "message_delta", "delta": ending, "usage": usage}
    yield 0.0, {"type": "message_stop"}


def _keep_silence(pause: Pause) -> Iterator[tuple[float, Json]]:
    remaining = pause.seconds
    while remaining > 0:
        step = min(remaining, pause.ping_every)
        remaining -= step
        yield step, {"type": "ping"}


def _deltas(act: Delta | Call, digest: str, index: int, chunk: int) -> Iterator[Json]:
    if isinstance(act, Call):
        # The API opens the input of a tool with an empty piece.
        yield {"type": "input_json_delta", "partial_json": ""}
        text = _wording(act)
        for start in range(0, len(text), chunk):
            yield {"type": "input_json_delta", "partial_json": text[start : start + chunk]}
        return
    for piece in act.pieces:
        yield {"type": f"{act.kind}_delta", act.kind: piece}
    if act.kind == "thinking":
        yield {"type": "signature_delta", "signature": _sign(digest, index)}


def _envelope(digest: str, model: str, input_tokens: int) -> Json:
    return {
        "id": f"msg_{digest[:24]}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {**_usage(input_tokens), "output_tokens": 1},
    }


def _usage(input_tokens: int) -> Json:
    return {"input_tokens": input_tokens, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}


def _blocks(reply: Reply) -> Iterator[Delta | Call]:
    return (act for act in reply.acts if not isinstance(act, Pause))


def _block(act: Delta | Call, digest: str, index: int) -> Json:
    block = _empty(act, digest, index)
    if isinstance(act, Call):
        return {**block, "input": dict(act.arguments)}
    if act.kind == "thinking":
        return {**block, "thinking": act.whole, "signature": _sign(digest, index)}
    return {**block, "text": act.whole}


def _empty(act: Delta | Call, digest: str, index: int) -> Json:
    if isinstance(act, Call):
        return {"type": "tool_use", "id": f"toolu_{digest[24:46]}{index:02}", "name": act.name, "input": {}}
    if act.kind == "thinking":
        return {"type": "thinking", "thinking": "", "signature": ""}
    return {"type": "text", "text": ""}


def _wording(act: Delta | Call | Pause) -> str:
    if isinstance(act, Call):
        return msgspec.json.encode(act.arguments).decode()
    return act.whole if isinstance(act, Delta) else ""


def _sign(digest: str, index: int) -> str:
    # Agents send a signature back unread, so any stable bytes will do.
    return b64encode(sha256(f"{digest}{index}".encode()).digest() * 4).decode()
