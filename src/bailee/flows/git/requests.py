"""A session's requests: what is read of every one, and what is noted of it for the log."""

import base64
import binascii
from collections.abc import Iterable

import msgspec

from bailee.accounts.credentials import read_key

# What passed; and what git-lfs asks with each push, and goes on without.
_NOT_REFUSED = ("passed", "cut off", "answered_here", "no_locks")


class GitRequest(msgspec.Struct, frozen=True):
    """One request, for the log: never its content.

    Attributes:
        at_ms: milliseconds since 1970 UTC.
        what: `refs`, `fetch`, `push`, `large files` (a batch), `large file` (an object), `api read` or
            `api write`; `abuse` where something was done about many of them.
        outcome: `passed`, or the rule that refused it; of abuse what was done.
        refs: what it would update.
        sent, received: bytes of bodies, to the host and from it.
        route: of GitHub's API, what was asked for, without any name; of abuse what was counted.
        reason: of abuse, in words.
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
    reason: str = ""

    @property
    def is_failed(self) -> bool:
        """Whether the host did not do it."""
        return self.outcome == "unreachable" or self.outcome.partition(" ")[0] == "host"

    @property
    def is_refused(self) -> bool:
        """Whether it was not passed on."""
        return self.what != "abuse" and not self.is_failed and self.outcome not in _NOT_REFUSED


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
