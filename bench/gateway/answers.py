"""Answers of the stub upstream: event streams as the Messages API sends them."""

import json

MESSAGE_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'

# Replaced by the time of sending, so that the reader can tell how late each event is.
TIME_MARK = "@0000000000000000000"
TIME_DIGITS = len(TIME_MARK) - 1

_TEXT = (
    "the function reads its limit from the connection and raises when an incomplete event grows past it so"
    " the caller sees a protocol error before memory does and the default is documented next to the constant"
)
_WORDS = _TEXT.split()


def write_event(kind: str, **fields: object) -> bytes:
    """Write one server-sent event of the Messages API."""
    data = json.dumps({"type": kind, **fields}, separators=(",", ":"))
    return f"event: {kind}\ndata: {data}\n\n".encode()


def write_deltas(count: int, text_bytes: int, *, timed: bool = False) -> list[bytes]:
    """Write the events of an answer of `count` text deltas of about `text_bytes` bytes of text each."""
    usage = {"input_tokens": 4, "cache_read_input_tokens": 20093, "output_tokens": 1}
    message: dict[str, object] = {
        "id": "msg_01bench",
        "type": "message",
        "role": "assistant",
        "model": "claude-opus-4-8",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }
    events = [
        write_event("message_start", message=message),
        write_event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        write_event("ping"),
    ]
    for number in range(count):
        text = " "
        while len(text) < text_bytes:
            text += _WORDS[(number * 7 + len(text)) % len(_WORDS)] + " "
        text = text[:text_bytes] + (TIME_MARK if timed else "")
        delta = {"type": "text_delta", "text": text}
        events.append(write_event("content_block_delta", index=0, delta=delta))
    events.append(write_event("content_block_stop", index=0))
    ending = {"stop_reason": "end_turn", "stop_sequence": None}
    events.append(write_event("message_delta", delta=ending, usage={"output_tokens": count}))
    events.append(MESSAGE_STOP)
    return events


def frame(body: bytes) -> bytes:
    """Frame a body as one chunk of HTTP/1.1 chunked coding (RFC 9112 section 7.1), without the last chunk."""
    return b"%x\r\n%b\r\n" % (len(body), body)


HEAD = (
    b"HTTP/1.1 200 OK\r\n"
    b"content-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\n"
    b"request-id: req_01bench\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
LAST_CHUNK = b"0\r\n\r\n"


def write_answer(body: bytes) -> bytes:
    """Write a whole answer: head, the body as one chunk, end."""
    return HEAD + frame(body) + LAST_CHUNK
