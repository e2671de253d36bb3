"""Takes content codings off (RFC 9110 section 8.4.1): gzip, deflate, zstd and br, as they come, and no more
than was asked for: a few kilobytes of zeros, compressed, would otherwise fill the memory.
"""

import zlib
from collections.abc import Callable


class Undecodable(Exception):
    """Bytes that are not of their coding, or become more than was asked for, or a coding nobody knows."""


class Overlong(Undecodable):
    """Bytes that become more than was asked for."""


def open_decoder(content_encoding: bytes, limit: int) -> Callable[[bytes], bytes] | None:
    """Return a function that decodes the next bytes of a body, or None where there is nothing to take off.

    Args:
        content_encoding: the header's value.
        limit: how many bytes one call may return.

    Raises:
        Undecodable: the coding is not known. The function raises it too, and is of no use after that.
    """
    name = content_encoding.strip().lower()
    if name in (b"", b"identity"):
        return None
    decode = _open(name, limit)

    def decode_or_raise(data: bytes) -> bytes:
        try:
            return decode(data)
        except Undecodable:
            raise
        except Exception as error:  # each library has an error of its own, and none of them tells more
            raise Undecodable(type(error).__name__) from None

    return decode_or_raise


def _open(name: bytes, limit: int) -> Callable[[bytes], bytes]:
    if name in (b"gzip", b"x-gzip"):
        return _open_zlib(47, limit)
    if name == b"deflate":
        return _open_zlib(15, limit)
    if name == b"zstd":
        return _open_zstd(limit)
    if name == b"br":
        return _open_brotli(limit)
    raise Undecodable("a coding nobody knows")


def _open_zlib(window: int, limit: int) -> Callable[[bytes], bytes]:
    decompressor = zlib.decompressobj(window)

    def decode(data: bytes) -> bytes:
        decoded = decompressor.decompress(data, limit)
        if decompressor.unconsumed_tail:
            raise Overlong("too long")
        return decoded

    return decode


def _open_zstd(limit: int) -> Callable[[bytes], bytes]:
    import zstandard

    collector = _Collector(limit)
    writer = zstandard.ZstdDecompressor().stream_writer(collector)  # type: ignore[arg-type]

    def decode(data: bytes) -> bytes:
        writer.write(data)
        return collector.take()

    return decode


class _Collector:
    """The file that zstandard writes to, for it has no other way to stop at a length."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = bytearray()

    def write(self, data: bytes) -> int:
        self._data += data
        if len(self._data) > self._limit:
            raise Overlong("too long")
        return len(data)

    def take(self) -> bytes:
        data = bytes(self._data)
        self._data.clear()
        return data


def _open_brotli(limit: int) -> Callable[[bytes], bytes]:
    import brotli

    decompressor = brotli.Decompressor()

    def decode(data: bytes) -> bytes:
        decoded: bytes = decompressor.process(data, output_buffer_limit=limit)
        if not decompressor.can_accept_more_data():
            raise Overlong("too long")
        return decoded

    return decode
