"""What the service says to the recorder over a socket pair, and what the recorder answers.

A frame is four bytes of length, little-endian, and a MessagePack body. Content in frames lives in
the memory of two processes of the same user and in the kernel's socket buffer between them.
"""

import struct
from collections.abc import Iterator

import msgspec

from bailee.policy.decisions import Terms

MAX_FRAME_BYTES = 80 * 1024 * 1024
_LENGTH = struct.Struct("<I")


class Decided(msgspec.Struct, frozen=True, tag="d", array_like=True):
    """A decision that later frames name by digest, and the terms it makes."""

    digest: bytes
    body: str
    terms: Terms


class Begin(msgspec.Struct, frozen=True, tag="b", array_like=True):
    """A request that is about to be sent upstream.

    Attributes:
        flow: the declared flow it belongs to.
        keep: whether content is kept; without it `headers` and `body` are empty.
        headers: end-to-end request headers as `name: value` lines, credentials left out.
        started_ms: milliseconds since 1970 UTC; its UTC day chooses the segment.
    """

    exchange: int
    account: str
    session: str
    key: str
    decision: bytes
    flow: str
    keep: bool
    started_ms: int
    upstream: str
    path: str
    request_bytes: int
    headers: bytes
    body: bytes


class Part(msgspec.Struct, frozen=True, tag="p", array_like=True):
    """The next bytes of an answer, as they were relayed."""

    exchange: int
    data: bytes


class Finish(msgspec.Struct, frozen=True, tag="f", array_like=True):
    """The end of an exchange; the recorder answers once all of it is durable."""

    exchange: int
    state: str
    reason: str | None
    status: int | None
    first_byte_ms: int | None
    duration_ms: int
    response_bytes: int
    model: str | None
    input_tokens: int | None
    output_tokens: int | None
    cache_read_tokens: int | None
    cache_creation_tokens: int | None
    stop_reason: str | None
    headers: bytes
    data: bytes


class Again(msgspec.Struct, frozen=True, tag="a", array_like=True):
    """An exchange that an earlier recorder was given and did not say was durable, from request to end.

    The recorder writes it unless it is there, and answers as for `Finish`.
    """

    begin: Begin
    finish: Finish


class Committed(msgspec.Struct, frozen=True, tag="c", array_like=True):
    """Exchanges whose end is durable, and how many bytes of frames were taken in since the last answer."""

    exchanges: list[int]
    taken_bytes: int


class Failed(msgspec.Struct, frozen=True, tag="x", array_like=True):
    """The recorder cannot write, says why, and ends."""

    reason: str


Frame = Decided | Begin | Part | Finish | Again
Answer = Committed | Failed

_encoder = msgspec.msgpack.Encoder()
frame_decoder = msgspec.msgpack.Decoder(Frame)
answer_decoder = msgspec.msgpack.Decoder(Answer)


def encode(message: Frame | Answer) -> bytes:
    """Encode one message with its length before it."""
    buffer = bytearray(4)
    _encoder.encode_into(message, buffer, 4)
    _LENGTH.pack_into(buffer, 0, len(buffer) - 4)
    return bytes(buffer)


class FrameBuffer:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take in bytes and give out the bodies of the frames that are whole.

        Raises:
            ValueError: a frame announces more than MAX_FRAME_BYTES.
        """
        self._buffer += data
        start = 0
        try:
            while len(self._buffer) - start >= 4:
                (length,) = _LENGTH.unpack_from(self._buffer, start)
                if length > MAX_FRAME_BYTES:
                    raise ValueError(f"a frame of {length} bytes")
                if len(self._buffer) - start - 4 < length:
                    break
                yield bytes(memoryview(self._buffer)[start + 4 : start + 4 + length])
                start += 4 + length
        finally:
            del self._buffer[:start]
