"""A session's requests: what is read of every one, and what is noted of it for the log."""

import base64
import binascii
from collections.abc import AsyncIterator, Iterable

import msgspec

from bailee.accounts.credentials import read_key


class GitRequest(msgspec.Struct, frozen=True):
    """One request, for the log: never its content.

    Attributes:
        at_ms: milliseconds since 1970 UTC.
        what: `refs`, `fetch`, `push`, `large files` (a batch), `large file` (an object), `api read` or
            `api write`.
        outcome: `passed`, or the rule that refused it.
        refs: what it would update.
        sent, received: bytes of bodies, to the host and from it.
        route: of GitHub's API, what was asked for, without any name.
    """

    at_ms: int
    session: str
    repository: str
    what: str
    outcome: str
    status: int
    refs: tuple[str, ...] = ()
    sent: int = 0
    received: int = 0
    route: str = ""


class Counted:
    """Counts what streams by."""

    def __init__(self) -> None:
        self.count = 0

    async def over(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Give the pieces on."""
        async for piece in pieces:
            self.count += len(piece)
            yield piece


def read_token(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a session's token: as Git sends it, the password of Basic, or as other clients do."""
    listed = list(headers)
    for name, value in listed:
        scheme, _, coded = value.partition(b" ")
        if name.lower() == b"authorization" and scheme.lower() == b"basic":
            try:
                return base64.b64decode(coded.strip(), validate=True).partition(b":")[2]
            except binascii.Error:
                return b""
    return read_key(listed)
