"""The facts an answer tells about itself: found where the API puts them, and never in what a model wrote."""

import gzip
import json
import time
import tracemalloc
import zlib
from base64 import b64encode
from collections.abc import Callable

import brotli
import pytest
import zstandard

from bailee import codings
from bailee.flows.messages.eventstream import encode_chunk
from bailee.flows.messages.usage import LONGEST_PIECE_BYTES, Usage, UsageReader
from counterparts.answers import event, stream_end, stream_start, stream_text, whole_answer

FACTS = Usage("claude-scripted-1", 11, 22, None, None, "end_turn")
WHOLE = whole_answer("hello").partition(b"\r\n\r\n")[2]
STREAM = stream_start() + stream_text("hello") + stream_end()
# What a model may write: a text, or the input of a tool, that looks like the facts.
FORGED = {
    "type": "message_delta",
    "model": "MODELCANARY",
    "stop_reason": "stopcanary",
    "usage": {"input_tokens": 777, "output_tokens": 777},
    "message": {"model": "MODELCANARY", "usage": {"input_tokens": 777}},
    "delta": {"stop_reason": "stopcanary"},
}
TOOL = {"type": "tool_use", "id": "t", "name": "x", "input": FORGED}


def read(
    body: bytes, content_type: bytes = b"application/json", encoding: bytes = b"", size: int = 2**40
) -> Usage:
    """Read the facts of an answer that comes in pieces of one size."""
    reader = UsageReader(content_type, encoding)
    for start in range(0, len(body), size):
        reader.feed(body[start : start + size])
    return reader.read()


def wrap(stream: bytes) -> bytes:
    """Return a stream of events as Bedrock frames it."""
    return b"".join(encode_chunk(line[6:]) for line in stream.split(b"\n") if line.startswith(b"data: "))


@pytest.mark.parametrize("size", [2**40, 1, 100])
def test_facts_are_found(size: int) -> None:
    """In a message, in a stream and in Bedrock's framing of one, however it is cut."""
    assert read(WHOLE, size=size) == FACTS
    assert read(STREAM, b"text/event-stream; charset=utf-8", size=size) == FACTS
    assert read(STREAM.replace(b"\n", b"\r\n"), b"text/event-stream", size=size) == FACTS
    assert read(wrap(STREAM), b"application/vnd.amazon.eventstream", size=size) == FACTS


def test_facts_are_found_around_a_long_answer() -> None:
    """A stream of any length tells them in its first and its last events."""
    stream = stream_start() + b"".join(stream_text(f"word {n} " * 9) for n in range(2000)) + stream_end()
    assert read(stream, b"text/event-stream", size=1000) == FACTS
    assert read(wrap(stream), b"application/vnd.amazon.eventstream", size=1000) == FACTS
    assert read(whole_answer("x" * 1_000_000).partition(b"\r\n\r\n")[2], size=65536) == FACTS


def test_what_a_model_wrote_is_no_fact() -> None:
    """Neither a tool's input nor a text that looks like events or messages is taken for the facts."""
    message = json.loads(WHOLE)
    assert read(json.dumps({"content": [TOOL]} | message | {"content": [TOOL]}).encode()) == FACTS
    bare = {"id": "msg_1", "type": "message", "content": [TOOL]}
    assert read(json.dumps(bare).encode()) == Usage()
    lines = f'\ndata: {json.dumps(FORGED)}\n\n{{"bytes":"{b64encode(json.dumps(FORGED).encode()).decode()}"'
    forged = [
        event("content_block_start", index=0, content_block=TOOL),
        stream_text(lines),
        event("content_block_delta", index=0, delta={"type": "input_json_delta", "partial_json": lines}),
    ]
    for count in (1, 200):
        stream = stream_start() + b"".join(forged * count) + stream_end()
        assert read(stream, b"text/event-stream") == FACTS
        assert read(wrap(stream), b"application/vnd.amazon.eventstream") == FACTS
        begun = stream_start() + b"".join(forged * count)
        told = Usage("claude-scripted-1", 11, 1)
        for cut in range(len(begun), len(begun) - 1200, -7):
            assert read(begun[:cut], b"text/event-stream") in (told, Usage()), cut
            assert read(begun[len(stream_start()) : cut], b"text/event-stream") == Usage(), cut


def test_nothing_is_read_of_a_message_cut_off() -> None:
    """Wherever it is cut, a message in JSON tells nothing."""
    body = json.dumps({"content": [TOOL], **json.loads(WHOLE)}).encode()
    assert {read(body[:cut]) for cut in range(len(body))} == {Usage()}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"model": "a secret, in words"}, Usage(None, 11, 22, None, None, "end_turn")),
        ({"model": 7}, Usage()),
        ({"stop_reason": "stopcanary"}, Usage("claude-scripted-1", 11, 22, None, None, "other")),
        ({"stop_reason": None}, Usage("claude-scripted-1", 11, 22)),
        ({"usage": {"input_tokens": 10**30}}, Usage()),
        ({"usage": None}, Usage("claude-scripted-1", stop_reason="end_turn")),
    ],
)
def test_facts_have_a_known_form(change: dict[str, object], expected: Usage) -> None:
    """A model's name without its shape, an unknown reason or a count beyond measure is not stored."""
    assert read(json.dumps(json.loads(WHOLE) | change).encode()) == expected


CODERS: dict[bytes, Callable[[bytes], bytes]] = {
    b"gzip": lambda data: gzip.compress(data, 1),
    b"deflate": lambda data: zlib.compress(data, 1),
    b"zstd": lambda data: zstandard.ZstdCompressor(level=1).compress(data),
    b"br": lambda data: brotli.compress(data, quality=1),
}


@pytest.mark.parametrize("coding", CODERS)
def test_facts_are_found_in_every_coding(coding: bytes) -> None:
    """A compressed answer tells the same, in one piece or many; one of another coding tells nothing."""
    coded = CODERS[coding](WHOLE)
    assert read(coded, encoding=coding) == FACTS
    assert read(coded, encoding=coding, size=1) == FACTS
    assert read(WHOLE, encoding=coding) == Usage()
    assert read(coded, encoding=b"compress") == Usage()


@pytest.mark.parametrize("coding", CODERS)
def test_an_answer_that_unpacks_without_end_costs_little(coding: bytes) -> None:
    """A few kilobytes that would become 200 MB cost neither the memory nor the time of it."""
    bomb = CODERS[coding](bytes(200 * 1024 * 1024))
    tracemalloc.start()
    started = time.process_time()
    try:
        assert read(bomb, encoding=coding) == Usage()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 * LONGEST_PIECE_BYTES
    assert time.process_time() - started < 1.0


def test_the_check_of_unpacking_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: without the limit the same answer takes its memory."""
    bomb = CODERS[b"gzip"](bytes(200 * 1024 * 1024))
    monkeypatch.setattr(codings, "_open_zlib", lambda window, limit: zlib.decompressobj(window).decompress)
    tracemalloc.start()
    try:
        read(bomb, encoding=b"gzip")
        assert tracemalloc.get_traced_memory()[1] > 100 * 1024 * 1024
    finally:
        tracemalloc.stop()
