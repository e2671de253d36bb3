"""Secrets an agent uses and never sees: it gets placeholders, the proxy puts values in for the bound hosts.

A placeholder is as long as its value, so that nothing else of a request or an answer changes. It is replaced
in headers alone: where a body goes, an agent could have it stored and read it back.
"""

import base64
import binascii
import secrets
import string
from collections.abc import Callable, Iterable, Iterator

import msgspec

from bailee.flows.web.rules import covers_host
from bailee.flows.web.targets import Target
from bailee.policy.problems import Problem

_PREFIX = "bailee-placeholder-"
# Below this a placeholder could be guessed, or be met by chance.
SHORTEST = 16
_LETTERS = string.ascii_letters + string.digits
Header = tuple[bytes, bytes]


class Secret(msgspec.Struct, frozen=True):
    """A secret and the hosts that may have it.

    Attributes:
        name: the variable that holds the placeholder for the agent.
        hosts: as in rules; only over TLS.
    """

    name: str
    value: str
    placeholder: str
    hosts: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Secret({self.name}, for {', '.join(self.hosts)})"


def make_secret(
    name: str, value: str, hosts: Iterable[str], choose: Callable[[str], str] = secrets.choice
) -> Secret:
    """Return a secret with a new placeholder.

    Raises:
        Problem: the value cannot stand in a header, is too short, or nobody may have it.
    """
    bound = tuple(hosts)
    if not bound or "*" in bound:
        raise Problem("a secret is for named hosts", where=name, fix="name the hosts that may have it")
    if len(value) < SHORTEST or not value.isascii() or not value.isprintable():
        what = f"the secret has fewer than {SHORTEST} characters, or some that a header does not take"
        raise Problem(what, where=name, fix="give the secret as it stands in a header")
    start = _PREFIX[: len(value) - SHORTEST]
    drawn = "".join(choose(_LETTERS) for _ in range(len(value) - len(start)))
    return Secret(name, value, start + drawn, bound)


class Secrets:
    """All secrets of a session."""

    def __init__(self, held: Iterable[Secret]) -> None:
        self._held = tuple(held)

    def for_host(self, target: Target) -> "Secrets":
        """Return those that a host may have."""
        return Secrets(
            secret for secret in self._held if any(covers_host(host, target) for host in secret.hosts)
        )

    def __bool__(self) -> bool:
        return bool(self._held)

    def __iter__(self) -> Iterator[Secret]:
        return iter(self._held)

    def put_in(self, headers: Iterable[Header]) -> list[Header]:
        """Return a request's headers with the values for their placeholders."""
        return [(name, self._put_in(value)) for name, value in headers]

    def _put_in(self, value: bytes) -> bytes:
        scheme, space, rest = value.partition(b" ")
        if scheme.lower() == b"basic" and space:
            try:
                plain = base64.b64decode(rest.strip(), validate=True)
            except binascii.Error:
                return self._swap(value)
            changed = self._swap(plain)
            return scheme + b" " + base64.b64encode(changed) if changed != plain else value
        return self._swap(value)

    def _swap(self, text: bytes) -> bytes:
        for secret in self._held:
            text = text.replace(secret.placeholder.encode(), secret.value.encode())
        return text

    def take_out(self, text: bytes) -> bytes:
        """Return text of an answer with placeholders for their values."""
        for secret in self._held:
            text = text.replace(secret.value.encode(), secret.placeholder.encode())
        return text

    def taking_out(self) -> "TakingOut":
        """Return what does so for a body that comes in pieces."""
        return TakingOut(self)

    def pairs(self) -> list[tuple[bytes, bytes]]:
        """Return values and placeholders."""
        return [(secret.value.encode(), secret.placeholder.encode()) for secret in self._held]


class TakingOut:
    """Takes values out of a body, also where they are split between pieces."""

    def __init__(self, held: Secrets) -> None:
        self._held = held
        self._rest = b""

    def feed(self, piece: bytes) -> bytes:
        """Return what can be passed on; the end of it may be the beginning of a value and is kept."""
        text = self._held.take_out(self._rest + piece)
        keep = 0
        for value, _ in self._held.pairs():
            for length in range(min(len(value) - 1, len(text)), 0, -1):
                if text.endswith(value[:length]):
                    keep = max(keep, length)
                    break
        self._rest = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> bytes:
        """Return the rest."""
        rest, self._rest = self._rest, b""
        return rest
