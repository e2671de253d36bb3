"""The head of a request to the proxy, read strictly: RFC 9112 without anything that it merely tolerates."""

import re

import msgspec

LONGEST = 64 * 1024
_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,30}) ([\x21-\x7e]{1,8000}) HTTP/1\.([01])")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e\x80-\xff\t]*?)[ \t]*")


class Head(msgspec.Struct, frozen=True):
    """A request's first line and headers; names in lower case."""

    method: str
    asked: str
    headers: tuple[tuple[str, str], ...]

    def all(self, name: str) -> list[str]:
        """Return all values of a header."""
        return [value for known, value in self.headers if known == name]


class Malformed(ValueError):
    """It is no head of HTTP/1."""


def find_end(data: bytes | bytearray) -> int:
    """Return how many bytes the head has; 0 while it is not whole.

    Raises:
        Malformed: it is too long.
    """
    end = data.find(b"\r\n\r\n", 0, LONGEST)
    if end < 0:
        if len(data) >= LONGEST:
            raise Malformed("a head that is too long")
        return 0
    return end + 4


def read_head(data: bytes) -> Head:
    """Read a whole head, its empty line included.

    Raises:
        Malformed: naming what is wrong and nothing of the text.
    """
    first, *lines = data[:-4].split(b"\r\n")
    found = _LINE.fullmatch(first)
    if found is None:
        raise Malformed("a first line that is not HTTP/1")
    headers = []
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise Malformed("a header that is malformed")
        headers.append((field[1].decode("ascii").lower(), field[2].decode("latin-1")))
    return Head(found[1].decode("ascii"), found[2].decode("ascii"), tuple(headers))
