"""OpenID Connect, from the side of who relies on a provider's word: the code flow, with PKCE.

Sources: OpenID Connect Core 1.0 and Discovery 1.0, RFC 6749, RFC 7636 (PKCE), RFC 9207 (`iss`). Requests go
to the issuer that an admin named, and to the addresses that it names itself; no redirect is followed, and
nothing of an answer is kept but who it is about.
"""

import ipaddress
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from bailee.characters import make_visible
from bailee.policy.problems import Problem

if TYPE_CHECKING:
    from joserfc.jwk import KeySet

SECONDS = 10.0
LARGEST = 1_000_000
KEPT_SECONDS = 600.0
LEEWAY_SECONDS = 60
# Signatures by the provider's private key: none, and none that whoever has the client's secret could make.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_WHERE = "your organization's sign-in"
_LOG = logging.getLogger(__name__)

_T = TypeVar("_T")


class Discovered(msgspec.Struct, frozen=True):
    """What a provider says of itself (Discovery 1.0, 3); what else it says is left aside."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)
    authorization_response_iss_parameter_supported: bool = False


class Providers:
    """Asks providers, and keeps for some minutes what they say of themselves and their keys.

    Args:
        clock: seconds since 1970 UTC.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._kept: dict[str, tuple[float, Any]] = {}
        self._lock = threading.Lock()

    def discover(self, issuer: str) -> Discovered:
        """Return what a provider says of itself.

        Raises:
            Problem: it cannot be asked, or does not say what is needed.
        """
        check_address(issuer)
        found: Discovered = self._keep(f"said {issuer}", lambda: _hushed(issuer, lambda: _discover(issuer)))
        return found

    def make_address(
        self, issuer: str, client: str, *, back: str, state: str, nonce: str, verifier: str
    ) -> str:
        """Return where a browser goes on to.

        Args:
            back: where it comes back to.
        """
        from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
        from authlib.oauth2.rfc7636 import create_s256_code_challenge

        found = self.discover(issuer)
        told: str = prepare_grant_uri(
            found.authorization_endpoint,
            client,
            "code",
            back,
            "openid profile email",
            state,
            nonce=nonce,
            code_challenge=create_s256_code_challenge(verifier),
            code_challenge_method="S256",
        )
        return told

    def redeem(
        self, issuer: str, client: str, secret: str, *, code: str, back: str, nonce: str, verifier: str
    ) -> dict[str, Any]:
        """Exchange a code for a provider's word on who somebody is, and return its claims.

        Raises:
            Problem: the provider gives none, or it is not good.
        """
        found = self.discover(issuer)
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": back}
        form |= {"code_verifier": verifier}
        basic: tuple[str, str] | None = None
        if secret and "client_secret_basic" in found.token_endpoint_auth_methods_supported:
            basic = (client, secret)
        else:
            form |= {"client_id": client} | ({"client_secret": secret} if secret else {})
        answer = _hushed(found.token_endpoint, lambda: _ask("POST", found.token_endpoint, form, basic))
        token = answer.get("id_token")
        if not isinstance(token, str):
            why = str(answer.get("error_description") or answer.get("error") or "it gives no word")[:300]
            raise _refuse(f"the identity provider does not sign you in: {why}")
        try:
            return self._read(found, client, token, nonce, is_fresh=False)
        except _UnknownKey:
            try:
                return self._read(found, client, token, nonce, is_fresh=True)
            except _UnknownKey:
                raise _refuse(
                    "what the identity provider says is signed with a key of none of its own"
                ) from None

    def check_issuer(self, issuer: str, told: str | None) -> None:
        """Refuse an answer that another provider gave in the place of this one (RFC 9207).

        Args:
            told: `iss` of the answer.
        """
        is_told = self.discover(issuer).authorization_response_iss_parameter_supported
        if told != issuer and (told is not None or is_told):
            raise _refuse("another identity provider answers than the one you were sent to")

    def _read(
        self, found: Discovered, client: str, token: str, nonce: str, *, is_fresh: bool
    ) -> dict[str, Any]:
        from joserfc import errors, jwt

        keys = self._keep(f"keys {found.issuer}", lambda: _read_keys(found.jwks_uri), is_fresh=is_fresh)
        try:
            read = jwt.decode(token, keys, algorithms=list(ALGORITHMS))
            claims: dict[str, Any] = dict(read.claims)
            registry = jwt.JWTClaimsRegistry(
                now=int(self._clock()),
                leeway=LEEWAY_SECONDS,
                iss={"essential": True, "value": found.issuer},
                aud={"essential": True, "value": client},
                sub={"essential": True},
                exp={"essential": True},
                iat={"essential": True},
                nonce={"essential": True, "value": nonce},
            )
            registry.validate(claims)
        except (errors.InvalidKeyIdError, errors.MissingKeyError):
            raise _UnknownKey from None
        except (errors.JoseError, ValueError, TypeError, KeyError) as fault:
            raise _refuse(f"what the identity provider says is not good: {type(fault).__name__}") from None
        audiences = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
        if (len(audiences) > 1 and claims.get("azp") != client) or claims.get("azp", client) != client:
            raise _refuse("what the identity provider says is meant for another service")
        return claims

    def _keep(self, name: str, make: Callable[[], Any], *, is_fresh: bool = False) -> Any:
        with self._lock:
            at, value = self._kept.get(name, (0.0, None))
        if is_fresh or value is None or self._clock() - at > KEPT_SECONDS:
            value = make()
            with self._lock:
                self._kept[name] = self._clock(), value
        return value


class _UnknownKey(Exception):
    """A token is signed with a key that is not known yet."""


def check_address(address: str) -> None:
    """Refuse an address that words about people would go to in clear.

    Raises:
        Problem: it is none of https, but for this machine's own, or has more in it than an address.
    """
    try:
        parts = urlsplit(address)
        is_own = parts.hostname in ("127.0.0.1", "::1", "localhost")
        is_plain = not (parts.username or parts.password or parts.fragment or parts.query)
    except ValueError:
        parts, is_own, is_plain = urlsplit(""), False, False
    if (
        not parts.hostname
        or not is_plain
        or not (parts.scheme == "https" or (parts.scheme == "http" and is_own))
    ):
        raise Problem(
            "this is no address of an identity provider",
            where="Issuer",
            fix="write https://HOST, as it is named there",
        )


def _hushed(address: str, ask: Callable[[], _T]) -> _T:
    """Ask, and tell of what is not public only that it is no provider: why not goes to the operator's log.

    Whoever may name an issuer could learn from it which ports are open in the network of the service.
    """
    try:
        return ask()
    except Problem as fault:
        if _is_public(address):
            raise
        _LOG.warning("No identity provider at %s: %s", make_visible(address), make_visible(fault.what))
        raise _refuse("no identity provider answers there; the log of the service says why") from None


def _is_public(address: str) -> bool:
    """Tell whether all that a name leads to is in the public internet; one that leads nowhere is."""
    # It decides what is said, not where anything goes: the security proxy, which does, has a stricter list.
    parts = urlsplit(address)
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_STREAM)
    except OSError:
        return True
    return all(ipaddress.ip_address(str(one[4][0]).partition("%")[0]).is_global for one in found)


def _discover(issuer: str) -> Discovered:
    told = _ask("GET", f"{issuer.rstrip('/')}/.well-known/openid-configuration")
    try:
        found = msgspec.convert(told, Discovered)
    except msgspec.ValidationError as fault:
        raise _refuse(f"the identity provider does not say what is needed: {fault}") from None
    if found.issuer != issuer:
        raise _refuse("the identity provider calls itself otherwise than it is named here")
    for address in (found.authorization_endpoint, found.token_endpoint, found.jwks_uri):
        check_address(address)
    return found


def _read_keys(address: str) -> "KeySet":
    from joserfc import errors
    from joserfc.jwk import KeySet

    told = _hushed(address, lambda: _ask("GET", address))
    try:
        return KeySet.import_key_set(told)  # type: ignore[arg-type]
    except (errors.JoseError, ValueError, TypeError, KeyError):
        raise _refuse("the keys of the identity provider cannot be read") from None


def _ask(
    method: str, address: str, form: dict[str, str] | None = None, basic: tuple[str, str] | None = None
) -> dict[str, Any]:
    import httpx2

    data = b""
    try:
        with (
            httpx2.Client(timeout=SECONDS, follow_redirects=False) as client,
            client.stream(
                method, address, data=form, auth=basic, headers={"accept": "application/json"}
            ) as answer,
        ):
            for piece in answer.iter_bytes():
                data += piece
                if len(data) > LARGEST:
                    raise _refuse("the identity provider answers without end")
            status = answer.status_code
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as fault:
        raise _refuse(f"the identity provider cannot be reached ({type(fault).__name__})") from None
    try:
        told = msgspec.json.decode(data)
    except (msgspec.MsgspecError, RecursionError):
        told = None
    # A token endpoint refuses with 400 and says why (RFC 6749, 5.2).
    if not isinstance(told, dict) or (status != 200 and "error" not in told):
        raise _refuse(f"the identity provider answers {status}, and nothing that can be read")
    return told


def _refuse(what: str) -> Problem:
    return Problem(what, where=_WHERE, fix="try again; if it stays, an admin of the organization sees to it")
