"""Logs in as RFC 8628 has it: asks for codes, shows one to a person, polls with the other. HTTP only."""

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any
from urllib.parse import urlencode

import msgspec

from bailee.agent.service import Service
from bailee.policy.problems import Problem

CLIENT_ID = "bailee-agent"
GRANT = "urn:ietf:params:oauth:grant-type:device_code"
# RFC 8628, 3.5: so much longer for every `slow_down`.
SLOWER_SECONDS = 5
# Where the service does not answer the wait doubles (RFC 8628, 3.5), up to this.
LONGEST_WAIT = 60.0

# Sends a form to a path and gives status and body; OSError where the service cannot be reached.
Post = Callable[[str, Mapping[str, str]], tuple[int, bytes]]


class Codes(msgspec.Struct, frozen=True):
    """What a service answers to somebody who wants to log in (RFC 8628, 3.2). Times are seconds."""

    device_code: str
    user_code: Annotated[str, msgspec.Meta(max_length=40)]
    verification_uri: Annotated[str, msgspec.Meta(max_length=2000)]
    expires_in: Annotated[int, msgspec.Meta(ge=1)]
    interval: Annotated[int, msgspec.Meta(ge=0)] = 5

    def __repr__(self) -> str:
        return "Codes(...)"


class Granted(msgspec.Struct, frozen=True):
    """What a service answers once the login was approved (RFC 6749, 5.1)."""

    access_token: Annotated[str, msgspec.Meta(min_length=1, max_length=4096, pattern="^[!-~]+$")]
    token_type: str

    def __repr__(self) -> str:
        return "Granted(...)"


def make_post(service: str, environment: Mapping[str, str]) -> Post:
    """Return what sends forms to a service."""

    def post(path: str, form: Mapping[str, str]) -> tuple[int, bytes]:
        return Service(service, "").ask(
            "POST", path, environment, body=urlencode(form).encode(), kind="application/x-www-form-urlencoded"
        )

    return post


def ask_for_codes(post: Post, machine: str) -> Codes:
    """Begin a login.

    Args:
        machine: what this machine is to be called to the person who approves.

    Raises:
        OSError: the service cannot be reached.
        Problem: it refuses, or is no Bailee service.
    """
    status, body = post("/oauth/device_authorization", {"client_id": CLIENT_ID, "machine": machine})
    if status == 429:
        raise Problem("too many logins wait at the service", fix="try again in some minutes")
    if status != 200:
        raise _not_understood(status, body)
    try:
        return msgspec.json.decode(body, type=Codes)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise _not_understood(status, body) from None


def poll(
    post: Post,
    codes: Codes,
    *,
    wait: Callable[[float], None],
    clock: Callable[[], float],
    tell: Callable[[str], None] = lambda text: None,
) -> str:
    """Ask until the login is decided, and return the token.

    Args:
        wait: sleeps so many seconds.
        clock: monotonic seconds.
        tell: told, once, that the service cannot be reached for the time being.

    Raises:
        Problem: it was denied or has expired, or the answer cannot be understood.
    """
    end = clock() + codes.expires_in
    interval = float(max(codes.interval, 1))
    pause = interval
    form = {"grant_type": GRANT, "device_code": codes.device_code, "client_id": CLIENT_ID}
    while True:
        wait(pause)
        if clock() >= end:
            raise _end("expired_token", 400, b"")
        try:
            status, body = post("/oauth/token", form)
        except OSError:
            status, body = 503, b""
        if status >= 500:
            if pause == interval:
                tell("the service does not answer just now; trying again")
            pause = min(2 * pause, LONGEST_WAIT)
            continue
        if status == 200:
            return _read_token(body)
        error = read_error(body)
        if error == "slow_down":
            interval += SLOWER_SECONDS
        elif error != "authorization_pending":
            raise _end(error, status, body)
        pause = interval


def revoke(post: Post, token: str) -> bool:
    """Revoke a token (RFC 7009), and tell whether it is in force no more.

    Raises:
        OSError: the service cannot be reached.
    """
    status, _ = post("/oauth/revoke", {"client_id": CLIENT_ID, "token": token})
    return status == 200


def read_error(body: bytes) -> str:
    """Return the error code of an answer (RFC 6749, 5.2); empty for none."""
    try:
        told: Any = json.loads(body)
    except ValueError:
        return ""
    error = told.get("error") if isinstance(told, dict) else None
    return error if isinstance(error, str) else ""


def _end(error: str, status: int, body: bytes) -> Problem:
    match error:
        case "access_denied":
            return Problem("the login was denied")
        case "expired_token":
            return Problem("nobody approved the login in time", fix="begin anew: bailee login")
        case "invalid_grant":
            return Problem("the service does not know this login any more", fix="begin anew: bailee login")
        case _:
            return _not_understood(status, body)


def _read_token(body: bytes) -> str:
    try:
        granted = msgspec.json.decode(body, type=Granted)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise _not_understood(200, b"") from None
    if granted.token_type.lower() != "bearer":  # RFC 6749, 7.1: no token of a kind that is not known
        raise _not_understood(200, b"")
    return granted.access_token


def _not_understood(status: int, body: bytes) -> Problem:
    error = read_error(body)
    said = f", {error}" if error.replace("_", "").isalnum() else ""
    return Problem(
        f"the service's answer cannot be understood ({status}{said})",
        where="--service",
        fix="is it a Bailee service, and one of this version?",
    )
