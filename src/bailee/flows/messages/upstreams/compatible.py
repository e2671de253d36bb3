"""Any server that speaks the Messages API, by its URL; the rehearsal model is reached in this way too."""

from enum import StrEnum

from bailee.flows.messages.upstreams import Headers, Origin, Request
from bailee.flows.messages.wires import Wire
from bailee.policy.plans import Provider
from bailee.policy.problems import Problem

_CREDENTIALS = frozenset({b"authorization", b"x-api-key"})


class Credential(StrEnum):
    """How a key is presented: in x-api-key, as an Authorization bearer (RFC 6750), or there is none."""

    API_KEY = "x-api-key"
    BEARER = "bearer"
    NONE = "none"


def present_key(headers: Headers, credential: Credential, key: str) -> Headers:
    """Return the headers with the key as their only credential."""
    rest = [(name, value) for name, value in headers if name.lower() not in _CREDENTIALS]
    match credential:
        case Credential.API_KEY:
            return [*rest, (b"x-api-key", key.encode("ascii"))]
        case Credential.BEARER:
            return [*rest, (b"Authorization", b"Bearer " + key.encode("ascii"))]
        case Credential.NONE:
            return rest


def check_key(key: str, *, where: str) -> str:
    """Return the key without the white space around it.

    Raises:
        Problem: it is empty or holds what a header may not hold (RFC 9110 section 5.5). It is not shown.
    """
    cleaned = key.strip()
    if not cleaned:
        raise Problem(
            "the upstream's key is missing",
            where=where,
            fix="set it in the environment; or try --upstream rehearsal, which needs none",
        )
    if not (cleaned.isascii() and cleaned.isprintable()) or " " in cleaned:
        raise Problem("the upstream's key holds characters no key has", where=where, fix="copy the key again")
    return cleaned


class Compatible:
    """A Messages-compatible upstream.

    Args:
        origin: scheme, host, port and the path before every target.
        key: the operator's key, sent as `credential` says; unused with Credential.NONE.
        provider: whose terms hold there.
        is_first_party: whether it is the Claude API; of any other server nobody knows.
        zero_data_retention: the operator's declaration that nothing is retained there.
        wires: the formats it understands.
        where: the setting the key comes from, for the text of a problem.

    Raises:
        Problem: a key is needed and missing, or cannot be one.
    """

    def __init__(
        self,
        origin: Origin,
        *,
        credential: Credential = Credential.NONE,
        key: str = "",
        name: str = "compatible",
        provider: Provider = Provider.ANTHROPIC,
        is_first_party: bool = False,
        zero_data_retention: bool = False,
        wires: frozenset[Wire] = frozenset({Wire.MESSAGES}),
        where: str = "",
    ) -> None:
        self.name = name
        self.provider = provider
        self.is_first_party = is_first_party
        self.origin = origin
        self.zero_data_retention = zero_data_retention
        self.wires = wires
        self._credential = credential
        self._key = "" if credential is Credential.NONE else check_key(key, where=where)

    async def authorize(self, request: Request) -> tuple[bytes, Headers]:
        """Return the target below the origin's base path, and the headers with the operator's key."""
        target = self.origin.base.encode("ascii") + request.target
        return target, present_key(request.headers, self._credential, self._key)
