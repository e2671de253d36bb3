"""The authorization server of agents' logins, by Authlib: device grant (RFC 8628), revocation (RFC 7009).

Imported at the first login and not when a service starts: Authlib takes 40 ms. One public client is known; a
login has no scope, no refresh token and no end but its revocation.
"""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from authlib.oauth2.rfc6749 import AuthorizationServer, ClientMixin, OAuth2Error, OAuth2Request, TokenMixin
from authlib.oauth2.rfc6749.errors import InvalidGrantError, InvalidRequestError
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc8628 import (
    DEVICE_CODE_GRANT_TYPE,
    DeviceAuthorizationEndpoint,
    DeviceCodeGrant,
    DeviceCredentialMixin,
)

from bailee.accounts.directory import Directory
from bailee.accounts.keys import LOGIN_DAYS, Key, find_key, revoke_key
from bailee.accounts.logins import (
    LIFETIME_MS,
    Login,
    LoginState,
    TooManyLogins,
    begin_login,
    find_login,
    redeem_login,
)
from bailee.accounts.tables import KeyOrigin
from bailee.console.paths import lead_browsers
from bailee.policy.problems import Problem

# At its most talkative Authlib writes tokens down.
logging.getLogger("authlib").setLevel(logging.WARNING)

CLIENT_ID = "bailee-agent"
# RFC 8628 leaves it to the server. Whoever has approved waits for the rest of it; a poll costs one look-up.
INTERVAL_SECONDS = 2
# RFC 8628, 3.5: "the interval MUST be increased by 5 seconds for this and all subsequent requests".
SLOWER_SECONDS = 5
# A clock's granularity and a network's jitter are no reason to slow somebody down.
TOLERANCE_SECONDS = 0.5

Answer = tuple[int, Any, list[tuple[str, str]]]


class SlowDown(OAuth2Error):  # type: ignore[misc]
    """Too many logins wait already; 429 says so to whoever does not read the body (RFC 6585)."""

    error = "slow_down"
    status_code = 429

    def get_headers(self) -> list[tuple[str, str]]:
        """Return the headers, with when to try again."""
        return [*super().get_headers(), ("Retry-After", "60")]


class Client(ClientMixin):  # type: ignore[misc]
    """The one client there is: public, with nothing to authenticate it."""

    def get_client_id(self) -> str:
        """Return its id."""
        return CLIENT_ID

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        """Tell whether it may come without a secret: in no other way."""
        return method == "none"

    def check_grant_type(self, grant_type: str) -> bool:
        """Tell whether it may ask for a grant."""
        return bool(grant_type == DEVICE_CODE_GRANT_TYPE)


class Credential(DeviceCredentialMixin):  # type: ignore[misc]
    """A login as Authlib looks at it."""

    def __init__(self, login: Login, now_ms: int) -> None:
        self.login = login
        self._now_ms = now_ms

    def get_client_id(self) -> str:
        """Return who asked."""
        return self.login.client

    def get_scope(self) -> str:
        """Return nothing: a login has no scope."""
        return ""

    def get_user_code(self) -> str:
        """Return nothing: only its digest is kept."""
        return ""

    def is_expired(self) -> bool:
        """Tell whether its ten minutes are over."""
        return self.login.expires_ms <= self._now_ms


class Token(TokenMixin):  # type: ignore[misc]
    """A key that is presented to be revoked."""

    def __init__(self, key: Key) -> None:
        self.key = key

    def check_client(self, client: Client) -> bool:
        """Tell whether it was issued to the client: keys of logins are, and no others."""
        return self.key.origin is KeyOrigin.LOGIN


class Polls:
    """How often each login is asked about; in memory, as nothing rests on it but the service's own load.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[float, float]] = {}

    def is_too_fast(self, login: str) -> bool:
        """Note a poll, and tell whether it came before the interval was over; the interval grows then."""
        now = self._clock()
        last, interval = self._seen.get(login, (float("-inf"), float(INTERVAL_SECONDS)))
        is_too_fast = now - last < interval - TOLERANCE_SECONDS
        if last == float("-inf"):
            age = 2 * LIFETIME_MS / 1000
            self._seen = {id: seen for id, seen in self._seen.items() if now - seen[0] < age}
        self._seen[login] = (now, interval + SLOWER_SECONDS if is_too_fast else interval)
        return is_too_fast


class _DeviceAuthorization(DeviceAuthorizationEndpoint):  # type: ignore[misc]
    """RFC 8628, 3.1 and 3.2."""

    CLIENT_AUTH_METHODS = ("none",)
    server: "Server"

    def create_endpoint_response(self, request: "Request") -> Answer:
        self.authenticate_client(request)
        try:
            codes = begin_login(
                self.server.directory,
                client=CLIENT_ID,
                label=request.form.get("machine", ""),
                address=request.address,
            )
        except TooManyLogins:
            raise SlowDown("Too many logins are waiting. Try again later.") from None
        except Problem:
            raise InvalidRequestError("'machine' is one printable line of up to 100 characters.") from None
        told = {
            "device_code": codes.device_code,
            "user_code": codes.user_code,
            "verification_uri": f"{lead_browsers(request.base)}/oauth/device",
            "expires_in": LIFETIME_MS // 1000,
            "interval": INTERVAL_SECONDS,
        }
        return 200, told, UNSTORED


class _DeviceCode(DeviceCodeGrant):  # type: ignore[misc]
    """RFC 8628, 3.4 and 3.5."""

    TOKEN_ENDPOINT_AUTH_METHODS = ("none",)
    server: "Server"

    def query_device_credential(self, device_code: str) -> Credential:
        directory = self.server.directory
        login = find_login(directory, device_code)
        # RFC 6749, 5.2: "The provided authorization grant [...] is invalid, expired, revoked"; Authlib would
        # call an unknown code an invalid request.
        if login is None or login.state is LoginState.REDEEMED:
            raise InvalidGrantError("The device code is unknown or was redeemed already.")
        return Credential(login, directory.now_ms())

    def validate_device_credential(self, credential: Credential) -> Login:
        self.request.credential = credential
        login: Login = super().validate_device_credential(credential)
        return login

    def query_user_grant(self, user_code: str) -> tuple[Login, bool] | None:
        login: Login = self.request.credential.login
        if login.state is LoginState.WAITING:
            return None
        return login, login.state is LoginState.APPROVED

    def should_slow_down(self, credential: Credential) -> bool:
        return self.server.polls.is_too_fast(credential.login.id)


class _Revocation(RevocationEndpoint):  # type: ignore[misc]
    """RFC 7009."""

    CLIENT_AUTH_METHODS = ("none",)
    SUPPORTED_TOKEN_TYPES = ("access_token",)
    server: "Server"

    def check_params(self, request: "Request", client: Client) -> None:
        # RFC 7009, 2.1: a hint that is wrong or unknown only makes the search longer; here there is none.
        if not request.form.get("token"):
            raise InvalidRequestError("Missing 'token' in payload")

    def query_token(self, token: str, hint: str | None) -> Token | None:
        key = find_key(self.server.directory, token.encode("utf-8", "replace"))
        return None if key is None else Token(key)

    def revoke_token(self, token: Token, request: "Request") -> None:
        self.server.revoke(token.key.id)


class Request(OAuth2Request):  # type: ignore[misc]
    """A request as Authlib reads it.

    Args:
        base: the URL that the service was reached at.
        address: where the request came from.
    """

    def __init__(self, form: Mapping[str, str], headers: Mapping[str, str], base: str, address: str) -> None:
        # Authlib refuses what is not TLS. Here it is the listener that sees to that: without TLS it is bound
        # to the loopback interface, whatever name or proxy leads there.
        super().__init__("POST", "https://service.invalid/", headers=headers)
        self._form = dict(form)
        self.payload = BasicOAuth2Payload(self._form)
        self.base = base
        self.address = address

    @property
    def form(self) -> dict[str, str]:
        """What was sent."""
        return self._form


class Server(AuthorizationServer):  # type: ignore[misc]
    """The authorization server of a home."""

    def __init__(self, directory: Directory, polls: Polls) -> None:
        super().__init__()
        self.directory = directory
        self.polls = polls
        self.register_grant(_DeviceCode)
        self.register_endpoint(_DeviceAuthorization)
        self.register_endpoint(_Revocation)
        self.register_token_generator("default", self._redeem)

    def query_client(self, client_id: str) -> Client | None:
        """Return the client of that id."""
        return Client() if client_id == CLIENT_ID else None

    def save_token(self, token: object, request: Request) -> None:
        """Do nothing: a key is made and its login redeemed in one transaction."""

    def revoke(self, key_id: str) -> None:
        """Revoke the key of a login; one that is revoked already is (RFC 7009, 2.2)."""
        try:
            revoke_key(self.directory, key_id)
        except Problem:
            return

    def _redeem(self, *, user: Login, **_: object) -> dict[str, str | int]:
        made = redeem_login(self.directory, user)
        if made is None:
            raise InvalidGrantError("The device code was redeemed already.")
        return {"access_token": made[1], "token_type": "Bearer", "expires_in": LOGIN_DAYS * 86_400}

    def send_signal(self, name: str, *args: object, **kwargs: object) -> None:
        """Do nothing: the ledger tells."""

    def create_oauth2_request(self, request: Request) -> Request:
        """Return the request: it has the form already."""
        return request

    def handle_response(self, status: int, body: Any, headers: list[tuple[str, str]]) -> Answer:
        """Return what is to be answered."""
        return status, body, headers


UNSTORED = [("Content-Type", "application/json"), ("Cache-Control", "no-store"), ("Pragma", "no-cache")]
