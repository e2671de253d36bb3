"""Answers of the Messages API, as bytes (Messages API reference, "Streaming")."""

import json
from typing import Any


def event(name: str, **fields: Any) -> bytes:
    """Return one event of the Messages API's stream."""
    return f"event: {name}\ndata: {json.dumps({'type': name, **fields})}\n\n".encode()


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
)
LAST_EVENT = event("message_stop")


def stream_start() -> bytes:
    """Return the first event of a stream."""
    return event(
        "message_start",
        message={
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude-scripted-1",
            "content": [],
            "usage": {"input_tokens": 11, "output_tokens": 1},
        },
    )


def stream_text(text: str) -> bytes:
    """Return one event with text."""
    return event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})


def stream_end() -> bytes:
    """Return the last two events of a stream."""
    usage = {"output_tokens": 22}
    return event("message_delta", delta={"stop_reason": "end_turn"}, usage=usage) + LAST_EVENT


def whole_answer(text: str) -> bytes:
    """Return an answer in JSON, head and body."""
    body = json.dumps(
        {
            "model": "claude-scripted-1",
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn",
            "usage": {"input_tokens": 11, "output_tokens": 22},
        }
    ).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    return head + body
