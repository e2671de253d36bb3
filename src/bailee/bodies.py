"""Reads the body of a request, and no more of it than was asked for, before and after its coding is off."""

from collections.abc import AsyncIterator

from bailee.codings import Overlong, Undecodable, open_decoder


class TooLong(Exception):
    """A body is longer than what is taken."""


async def read_body(chunks: AsyncIterator[bytes], coding: str, *, most: int, most_decoded: int) -> bytes:
    """Return a body without its content coding.

    Args:
        chunks: as they come.
        coding: the header's value.
        most, most_decoded: bytes that are taken, and what they may become.

    Raises:
        TooLong: it is longer, or becomes longer.
        Undecodable: it is not of that coding, or nobody knows the coding.
    """
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
