"""What an answer says about itself: model, tokens, why it stopped. Facts only, never its text.

They are stored in clear, so they are read where the API puts them and nowhere else: from the top level of a
whole message or event, by name and type. What a model wrote stands deeper, or within a string, whatever it
looks like; and of an answer in JSON that was cut off nothing is read.

Source: Messages API reference, the message object, `message_start` and `message_delta` events and the
`usage` object; Bedrock's `chunk` event (`eventstream.py`).
"""

import re
from binascii import a2b_base64
from collections.abc import Iterable, Iterator
from typing import Annotated, TypeVar

import msgspec

from bailee.codings import Undecodable, open_decoder

# message_start is the first event; message_delta, with the final counts, is one of the last.
HEAD_BYTES = 8192
TAIL_BYTES = 8192
# Events are put together this much at a time: doing it for each of them took longer than parsing.
STRETCH_BYTES = 32 * 1024
# An answer in JSON is parsed whole. The longest a model can write is a sixth of this.
LONGEST_JSON_BYTES = 4 * 1024 * 1024
# What one read of a socket may become: 15 ms of unpacking, and far beyond what answers compress to.
LONGEST_PIECE_BYTES = 4 * 1024 * 1024
# Messages API reference, "Stop reasons"; a value that is not among them is told as `other`.
STOP_REASONS = frozenset(
    {
        "end_turn",
        "max_tokens",
        "stop_sequence",
        "tool_use",
        "pause_turn",
        "refusal",
        "model_context_window_exceeded",
    }
)
_MODEL = re.compile(r"[A-Za-z0-9._:/@-]{1,128}")
# Bedrock's streams carry each event as base64 in an event of their own (InvokeModelWithResponseStream).
_WRAPPED = re.compile(rb'\{"bytes":"([A-Za-z0-9+/]+={0,2})"')


class Usage(msgspec.Struct, frozen=True):
    """Counts of one answer; None where the answer does not say."""

    model: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_creation_tokens: int | None = None
    stop_reason: str | None = None


_DATA = b"data:"
_NEWLINE = ord("\n")
_T = TypeVar("_T")
_Count = Annotated[int, msgspec.Meta(ge=0, lt=10**12)] | None


class _Counts(msgspec.Struct):
    input_tokens: _Count = None
    output_tokens: _Count = None
    cache_read_input_tokens: _Count = None
    cache_creation_input_tokens: _Count = None


class _Delta(msgspec.Struct):
    stop_reason: str | None = None


class _Message(msgspec.Struct):
    model: str | None = None
    stop_reason: str | None = None
    usage: _Counts | None = None


class _Start(msgspec.Struct, tag="message_start"):
    message: _Message


class _End(msgspec.Struct, tag="message_delta"):
    delta: _Delta | None = None
    usage: _Counts | None = None


_message_decoder = msgspec.json.Decoder(_Message)
_start_decoder = msgspec.json.Decoder(_Start)
_end_decoder = msgspec.json.Decoder(_End)


class UsageReader:
    """Keeps what the facts stand in: the two ends of a stream, or the whole of a message.

    Args:
        content_type: the answer's; streams are told from messages by it.
        content_encoding: the answer's; it is taken off for reading.
    """

    __slots__ = ("_decode", "_head", "_held", "_is_lost", "_is_stream", "_is_wrapped", "_limit", "_pieces")

    def __init__(self, content_type: bytes = b"", content_encoding: bytes = b"") -> None:
        self._is_wrapped = content_type.startswith(b"application/vnd.amazon.eventstream")
        self._is_stream = self._is_wrapped or content_type.startswith(b"text/event-stream")
        self._limit = STRETCH_BYTES if self._is_stream else LONGEST_JSON_BYTES
        self._is_lost = False
        self._head = b""
        self._pieces: list[bytes] = []
        self._held = 0
        try:
            self._decode = open_decoder(content_encoding, LONGEST_PIECE_BYTES)
        except Undecodable:
            self._lose()

    def feed(self, data: bytes) -> None:
        """Take in the next bytes of the answer; one that does not decode is relayed all the same."""
        if self._is_lost:
            return
        if self._decode is not None:
            try:
                data = self._decode(data)
            except Undecodable:
                self._lose()
                return
        self._pieces.append(data)
        self._held += len(data)
        if self._held > self._limit:
            self._trim()

    def read(self) -> Usage:
        """Return what the answer said so far."""
        text = b"".join(self._pieces)
        if not self._is_stream:
            message = _read_one(_message_decoder, text)
            return _tell(message, None) if message else Usage()
        head, tail = self._head or text[:HEAD_BYTES], text[-TAIL_BYTES:]
        if (tail != text or self._head) and not self._is_wrapped:
            tail = tail[tail.find(b"\n") + 1 :]  # it begins within a line
        first: Iterator[bytes]
        last: Iterator[bytes]
        if self._is_wrapped:
            first = map(_unwrap, _WRAPPED.findall(head))
            last = map(_unwrap, reversed(_WRAPPED.findall(tail)))
        else:
            first, last = _find_data(head), _find_data_backwards(tail)
        start = next(_read_events(_start_decoder, b"message_start", first), None)
        end = next(_read_events(_end_decoder, b"message_delta", last), None)
        return _tell(start.message if start else _Message(), end)

    def _trim(self) -> None:
        """Keep the two ends of a stream, and nothing of a message that is too long."""
        if not self._is_stream:
            self._lose()
            return
        text = b"".join(self._pieces)
        self._head = self._head or text[:HEAD_BYTES]
        self._pieces = [text[-TAIL_BYTES:]]
        self._held = TAIL_BYTES

    def _lose(self) -> None:
        self._is_lost = True
        self._decode = None
        self._pieces = []


def _tell(message: _Message, end: _End | None) -> Usage:
    """Put the facts together; the counts of message_delta are cumulative and replace the first."""
    model = message.model
    first = message.usage or _Counts()
    last = end.usage if end and end.usage else first
    stop = end.delta.stop_reason if end and end.delta else message.stop_reason
    return Usage(
        model if model is not None and _MODEL.fullmatch(model) else None,
        _later(last.input_tokens, first.input_tokens),
        _later(last.output_tokens, first.output_tokens),
        _later(last.cache_read_input_tokens, first.cache_read_input_tokens),
        _later(last.cache_creation_input_tokens, first.cache_creation_input_tokens),
        None if stop is None else stop if stop in STOP_REASONS else "other",
    )


def _find_data(stream: bytes) -> Iterator[bytes]:
    """Give what stands in the data lines of a stream of events, the first one first."""
    end = -1
    while (start := stream.find(_DATA, end + 1)) != -1:
        end = stream.find(b"\n", start)
        end = len(stream) if end == -1 else end
        if start == 0 or stream[start - 1] == _NEWLINE:
            yield stream[start + len(_DATA) : end]


def _find_data_backwards(stream: bytes) -> Iterator[bytes]:
    """Give what stands in the data lines of a stream of events, the last one first."""
    end = len(stream)
    while end >= 0:
        start = stream.rfind(b"\n", 0, end) + 1
        if stream.startswith(_DATA, start):
            yield stream[start + len(_DATA) : end]
        end = start - 1


def _later(last: int | None, first: int | None) -> int | None:
    return first if last is None else last


def _read_events(decoder: "msgspec.json.Decoder[_T]", name: bytes, events: Iterable[bytes]) -> Iterator[_T]:
    """Give the events of one type; what is cut off, or of another type, is none."""
    for event in events:
        if name in event and (read := _read_one(decoder, event)) is not None:
            yield read


def _read_one(decoder: "msgspec.json.Decoder[_T]", text: bytes) -> _T | None:
    try:
        return decoder.decode(text)
    except msgspec.MsgspecError:
        return None


def _unwrap(event: bytes) -> bytes:
    try:
        return a2b_base64(event)
    except ValueError:
        return b""
