"""GitHub Apps: what is kept of one, and the token that it is made to prove itself with. Pure.

https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app says how.
"""

import base64
import binascii
import re
from typing import Any

import msgspec

from bailee.policy.problems import Problem

# GitHub takes none that is good for longer than ten minutes; its clock may be behind ours.
_EARLIER_SECONDS, _LATER_SECONDS = 60, 540
# What a session does with its repository; GitHub gives a token no more than the App itself has.
PERMISSIONS = {"contents": "write", "metadata": "read", "pull_requests": "write"}
_NUMBER = re.compile(r"[1-9][0-9]{0,19}")
# A client id, which GitHub prefers, or the App's number.
_APP = re.compile(r"[A-Za-z0-9_.]{1,64}")


class App(msgspec.Struct, frozen=True):
    """A GitHub App where it is installed.

    Attributes:
        id: its number or its client id.
        installation: the number of the installation.
        key: its private key, PKCS 8 in DER.
    """

    id: str
    installation: str
    key: bytes

    def __repr__(self) -> str:
        return f"App({self.id!r}, {self.installation!r})"


def write_app(text: str, *, where: str) -> str:
    """Return an App as one line to be kept: `APP:INSTALLATION:KEY`, the key as base64.

    Args:
        text: a line `APP_ID:INSTALLATION_ID`, and below it the private key as GitHub gives it out (PEM); or
            the one line that this returns.

    Raises:
        Problem: it is none.
    """
    from cryptography.hazmat.primitives import serialization

    head, _, rest = text.strip().partition("\n")
    if not rest:
        read_app(head, where=where)
        return head
    try:
        key = serialization.load_pem_private_key(rest.strip().encode() + b"\n", password=None)
    except (ValueError, TypeError):
        raise _no_app(where) from None
    der = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    line = f"{head.strip()}:{base64.b64encode(der).decode()}"
    read_app(line, where=where)
    return line


def read_app(line: str, *, where: str) -> App:
    """Return an App from the line that is kept of it.

    Raises:
        Problem: it is none.
    """
    parts = line.split(":")
    try:
        if len(parts) != 3 or not _APP.fullmatch(parts[0]) or not _NUMBER.fullmatch(parts[1]):
            raise _no_app(where)
        app = App(parts[0], parts[1], base64.b64decode(parts[2], validate=True))
    except binascii.Error:
        raise _no_app(where) from None
    _load(app, where)
    return app


def write_proof(app: App, now: float) -> str:
    """Return the token by which an App proves itself (RFC 7519, signed with RS256 of RFC 7518).

    Args:
        now: seconds since 1970 UTC.

    Raises:
        Problem: its key is none.
    """
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    at = int(now)
    claims = {"iat": at - _EARLIER_SECONDS, "exp": at + _LATER_SECONDS, "iss": app.id}
    told = ".".join(_code(msgspec.json.encode(part)) for part in ({"alg": "RS256", "typ": "JWT"}, claims))
    signature = _load(app, "GITHUB_APP").sign(told.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{told}.{_code(signature)}"


def _load(app: App, where: str) -> Any:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    try:
        key = serialization.load_der_private_key(app.key, password=None)
    except (ValueError, TypeError):
        raise _no_app(where) from None
    if not isinstance(key, RSAPrivateKey):
        raise _no_app(where)
    return key


def _code(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _no_app(where: str) -> Problem:
    return Problem(
        "this is no GitHub App",
        where=where,
        fix="give a line APP_ID:INSTALLATION_ID, and below it the private key that GitHub gave out (PEM)",
    )
