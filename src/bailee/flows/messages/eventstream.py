"""The framing in which Bedrock streams: application/vnd.amazon.eventstream.

A message is: total length and header length (4 bytes each, big-endian), CRC-32 of those 8 bytes, headers,
payload, CRC-32 of all before it. A header is: length of the name (1 byte), name, type (7 = string), length
of the value (2 bytes), value. Source: AWS "Event stream encoding" (Transcribe and S3 Select developer guides
and the Smithy specification of the format); the `chunk` event is that of InvokeModelWithResponseStream.
"""

from base64 import b64encode
from collections.abc import Iterable
from zlib import crc32

import msgspec

CONTENT_TYPE = "application/vnd.amazon.eventstream"
PRELUDE_LENGTH = 12
_OVERHEAD = PRELUDE_LENGTH + 4
_STRING = 7
# The format's limits are 16 MiB of payload and 128 KiB of headers; a longer length is a stream we misread.
LONGEST_MESSAGE = 16 * 1024 * 1024 + 128 * 1024 + _OVERHEAD


def encode_message(headers: Iterable[tuple[str, str]], payload: bytes) -> bytes:
    """Frame one message whose headers are all strings."""
    block = b"".join(
        bytes((len(name),)) + name + bytes((_STRING,)) + len(value).to_bytes(2, "big") + value
        for name, value in ((name.encode(), value.encode()) for name, value in headers)
    )
    prelude = (_OVERHEAD + len(block) + len(payload)).to_bytes(4, "big") + len(block).to_bytes(4, "big")
    message = prelude + crc32(prelude).to_bytes(4, "big") + block + payload
    return message + crc32(message).to_bytes(4, "big")


def encode_chunk(event: bytes) -> bytes:
    """Frame one event of the Messages API (its JSON) as the `chunk` event of a Bedrock stream."""
    payload = msgspec.json.encode({"bytes": b64encode(event).decode()})
    headers = ((":event-type", "chunk"), (":content-type", "application/json"), (":message-type", "event"))
    return encode_message(headers, payload)


def encode_ping() -> bytes:
    """Frame a ping: Bedrock sends none, and an agent takes a long silence for a dead connection."""
    return _PING


_PING = encode_chunk(b'{"type":"ping"}')


class MessageBoundary:
    """Follows a stream of messages and knows whether all that was fed ends with a complete message.

    It reads lengths only and copies nothing but an unfinished prelude. Where the bytes cannot be this format
    it stays off the boundary for good, so that nothing is ever put into what it misreads.
    """

    def __init__(self) -> None:
        self._prelude = b""
        self._remaining = 0
        self._is_lost = False

    @property
    def at_boundary(self) -> bool:
        """Whether a message may be inserted here."""
        return not self._is_lost and not self._remaining and not self._prelude

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream, cut anywhere."""
        position = 0
        while position < len(data) and not self._is_lost:
            if self._remaining:
                step = min(self._remaining, len(data) - position)
                self._remaining -= step
                position += step
                continue
            missing = PRELUDE_LENGTH - len(self._prelude)
            self._prelude += data[position : position + missing]
            position += missing
            if len(self._prelude) == PRELUDE_LENGTH:
                self._begin(self._prelude)
                self._prelude = b""

    def _begin(self, prelude: bytes) -> None:
        total = int.from_bytes(prelude[:4], "big")
        is_intact = crc32(prelude[:8]) == int.from_bytes(prelude[8:], "big")
        self._is_lost = not is_intact or not _OVERHEAD <= total <= LONGEST_MESSAGE
        self._remaining = total - PRELUDE_LENGTH
