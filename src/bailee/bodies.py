"""Reads the body of a request, and no more of it than was asked for, before and after its coding is off."""

import asyncio
from collections.abc import AsyncIterator

from bailee.codings import Overlong, Undecodable, open_decoder

# An export is small, and a client sends it again.
SECONDS = 60.0


class TooSlow(Exception):
    """A body did not come to its end in time."""


class TooLong(Exception):
    """A body is longer than what is taken."""


async def read_body(
    chunks: AsyncIterator[bytes],
    coding: str,
    *,
    most: int,
    most_decoded: int,
    seconds: float | None = None,
) -> bytes:
    """Return a body without its content coding.

    Whoever sends a byte now and then is not waited for longer than that.

    Args:
        chunks: as they come.
        coding: the header's value.
        most, most_decoded: bytes that are taken, and what they may become.
        seconds: how long it may take; SECONDS if not said.

    Raises:
        TooLong: it is longer, or becomes longer.
        TooSlow: it did not come in time.
        Undecodable: it is not of that coding, or nobody knows the coding.
    """
    try:
        async with asyncio.timeout(SECONDS if seconds is None else seconds):
            return await _read(chunks, coding, most=most, most_decoded=most_decoded)
    except TimeoutError:
        raise TooSlow from None


async def _read(chunks: AsyncIterator[bytes], coding: str, *, most: int, most_decoded: int) -> bytes:
    try:
        return await _collect(chunks, coding, most=most, most_decoded=most_decoded)
    except (TooLong, Undecodable):
        # A connection that is closed with bytes of it unread is reset, and the answer with it.
        left = 2 * most
        async for chunk in chunks:
            left -= len(chunk)
            if left < 0:
                break
        raise


async def _collect(chunks: AsyncIterator[bytes], coding: str, *, most: int, most_decoded: int) -> bytes:
    names = [name for name in coding.split(",") if name.strip()]
    if len(names) > 1:
        raise Undecodable("more than one coding")
    decode = open_decoder(names[0].encode("latin-1", "replace"), most_decoded + 1) if names else None
    taken, body = 0, bytearray()
    async for chunk in chunks:
        taken += len(chunk)
        if taken > most:
            raise TooLong
        if chunk:
            try:
                body += decode(chunk) if decode else chunk
            except Overlong:
                raise TooLong from None
        if len(body) > most_decoded:
            raise TooLong
    return bytes(body)
