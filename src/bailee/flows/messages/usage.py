"""What an answer says about itself: model, tokens, why it stopped. Counts only, never its text.

Source: Messages API reference, `message_start` and `message_delta` events and the `usage` object.
"""

import re
import zlib
from binascii import a2b_base64
from collections.abc import Callable

import msgspec

# message_start is the first event; message_delta, with the final counts, is one of the last.
HEAD_BYTES = 8192
TAIL_BYTES = 8192
# A whole answer in JSON is read at its two ends as well: model first, usage last.
_FIELD = re.compile(
    rb'"(input_tokens|output_tokens|cache_read_input_tokens|cache_creation_input_tokens)"\s*:\s*(\d{1,12})'
)
_MODEL = re.compile(rb'"model"\s*:\s*"([A-Za-z0-9._:/@-]{1,128})"')
# Bedrock's streams carry each event as base64 in an event of their own (InvokeModelWithResponseStream).
_WRAPPED = re.compile(rb'\{"bytes":"([A-Za-z0-9+/]+={0,2})"')
_STOP = re.compile(rb'"stop_reason"\s*:\s*"([a-z_]{1,40})"')


class Usage(msgspec.Struct, frozen=True):
    """Counts of one answer; None where the answer does not say."""

    model: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_creation_tokens: int | None = None
    stop_reason: str | None = None


class UsageReader:
    """Keeps the first and the last few kilobytes of an answer, and reads the counts out of them."""

    __slots__ = ("_decode", "_head", "_tail")

    def __init__(self, content_encoding: bytes = b"") -> None:
        self._decode = _decoder(content_encoding)
        self._head = b""
        self._tail = b""

    def feed(self, data: bytes) -> None:
        """Take in the next bytes of the answer."""
        if self._decode is not None:
            data = self._decode(data)
        if len(self._head) < HEAD_BYTES:
            self._head += data[: HEAD_BYTES - len(self._head)]
        self._tail = data[-TAIL_BYTES:] if len(data) >= TAIL_BYTES else (self._tail + data)[-TAIL_BYTES:]

    def read(self) -> Usage:
        """Return what the answer said so far."""
        counts: dict[bytes, int] = {}
        head, tail = _unwrap(self._head), _unwrap(self._tail)
        for text in (head, tail):
            # Later counts replace earlier ones: message_delta's are cumulative.
            counts |= {name: int(count) for name, count in _usage_fields(text)}
        model = _MODEL.search(head)
        stops = _STOP.findall(tail)
        return Usage(
            model[1].decode() if model else None,
            counts.get(b"input_tokens"),
            counts.get(b"output_tokens"),
            counts.get(b"cache_read_input_tokens"),
            counts.get(b"cache_creation_input_tokens"),
            stops[-1].decode() if stops else None,
        )


def _unwrap(text: bytes) -> bytes:
    wrapped = _WRAPPED.findall(text)
    if not wrapped:
        return text
    try:
        return b"".join(map(a2b_base64, wrapped))
    except ValueError:
        return b""


def _usage_fields(text: bytes) -> list[tuple[bytes, bytes]]:
    """Find the counts that stand in `usage` objects, not those of a tool's text that happens to name them."""
    fields: list[tuple[bytes, bytes]] = []
    at = text.find(b'"usage"')
    while at != -1:
        fields += _FIELD.findall(text, at, at + 1024)
        at = text.find(b'"usage"', at + 7)
    return fields


def _decoder(content_encoding: bytes) -> Callable[[bytes], bytes] | None:
    """Return a decoder that never raises: an answer that does not decode is relayed all the same."""
    name = content_encoding.strip().lower()
    if name in (b"", b"identity"):
        return None
    decode: Callable[[bytes], bytes]
    if name in (b"gzip", b"x-gzip", b"deflate"):
        decode = zlib.decompressobj(47 if b"gzip" in name else 15).decompress
    elif name == b"zstd":
        import zstandard

        decode = zstandard.ZstdDecompressor().decompressobj().decompress
    elif name == b"br":
        import brotli

        decode = brotli.Decompressor().process
    else:
        return lambda data: b""

    def decode_or_nothing(data: bytes) -> bytes:
        try:
            return decode(data)
        except Exception:  # each library has an error of its own, and none of them matters here
            return b""

    return decode_or_nothing
