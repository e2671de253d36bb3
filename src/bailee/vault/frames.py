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
# Some ten requests of an agent; a buffer that grew for a larger frame shrinks to this again.
_ROOM_BYTES = 1024 * 1024
_LEAST_ROOM_BYTES = 256 * 1024


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


def encode(message: Frame | Answer) -> bytearray:
    """Encode one message with its length before it."""
    buffer = bytearray(4)
    _encoder.encode_into(message, buffer, 4)
    _LENGTH.pack_into(buffer, 0, len(buffer) - 4)
    return buffer


class FrameBuffer:
    """Cuts a byte stream into frames.

    A socket writes into its room and a decoder reads out of it, so that a body of 80 KB is copied once on its
    way. Taken in as bytes, put together and cut out again it was copied four times: a sixth of the recorder's
    work.
    """

    def __init__(self) -> None:
        self._buffer = bytearray(_ROOM_BYTES)
        self._start = self._end = 0

    def room(self) -> memoryview:
        """Return where the next bytes are to be written; `grow` then tells how many there are."""
        held = self._end - self._start
        if self._start and self._start == self._end:
            self._start = self._end = 0
        need = max(held + _LEAST_ROOM_BYTES, self._next_length())
        if need > len(self._buffer) or (not held and len(self._buffer) > _ROOM_BYTES):
            grown = bytearray(max(need, _ROOM_BYTES))
            grown[:held] = memoryview(self._buffer)[self._start : self._end]
            self._buffer, self._start, self._end = grown, 0, held
        elif self._start + need > len(self._buffer):
            self._buffer[:held] = self._buffer[self._start : self._end]
            self._start, self._end = 0, held
        return memoryview(self._buffer)[self._end :]

    def grow(self, count: int) -> None:
        """Take note that so many bytes were written into the room."""
        self._end += count

    def bodies(self) -> Iterator[memoryview]:
        """Give out the bodies of the frames that are whole; each is good until the next `room`.

        Raises:
            ValueError: a frame announces more than MAX_FRAME_BYTES.
        """
        view = memoryview(self._buffer)
        while (length := self._next_length()) and self._end - self._start >= length:
            start, self._start = self._start + 4, self._start + length
            yield view[start : self._start]

    def feed(self, data: bytes) -> Iterator[memoryview]:
        """Take in bytes and give out the bodies of the frames that are whole.

        Raises:
            ValueError: a frame announces more than MAX_FRAME_BYTES.
        """
        rest = memoryview(data)
        while rest:
            room = self.room()
            count = min(len(rest), len(room))
            room[:count] = rest[:count]
            rest = rest[count:]
            self.grow(count)
            yield from self.bodies()

    def _next_length(self) -> int:
        """Return how long the next frame is, its length included, or 0 while that is not known."""
        if self._end - self._start < 4:
            return 0
        length: int = _LENGTH.unpack_from(self._buffer, self._start)[0]
        if length > MAX_FRAME_BYTES:
            raise ValueError(f"a frame of {length} bytes")
        return length + 4
