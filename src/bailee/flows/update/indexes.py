"""The simple repository API of a package index: which versions of a package there are.

Source: PyPA specifications, "Simple repository API" (PEP 503, 691, 700) and "Version specifiers" (PEP 440).
"""

import re
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from html import unescape
from typing import Protocol
from urllib.parse import unquote, urlsplit, urlunsplit

import msgspec
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import InvalidVersion, Version

from bailee.policy.problems import Problem

DEFAULT_INDEX = "https://pypi.org/simple"
SECONDS = 10
LARGEST = 20_000_000  # bytes of an answer
_ACCEPTED = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"
_LINK = re.compile(rb"<a\b[^>]*>([^<]+)</a>", re.IGNORECASE)


class Response(Protocol):
    """What an opener gives."""

    headers: Mapping[str, str]

    def read(self, amount: int) -> bytes: ...
    def close(self) -> None: ...


Opener = Callable[[urllib.request.Request, float], Response]


class _File(msgspec.Struct):
    filename: str
    yanked: bool | str = False


class _Page(msgspec.Struct):
    files: list[_File] = []
    versions: list[str] = []


def choose_index(environment: Mapping[str, str], configured: Callable[[], str] = lambda: "") -> str:
    """Return the index that this machine installs from.

    Args:
        configured: what pip's own configuration names; asked only where no variable does.
    """
    for name in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        if value := environment.get(name, "").strip():
            return value
    return configured() or DEFAULT_INDEX


def fetch_versions(index: str, package: str, opener: Opener) -> list[Version]:
    """Ask an index for the versions of a package that can be installed, the newest last.

    The request carries the package's name, and no word of who asks: no version, no system, no cookie.

    Raises:
        Problem: the index cannot be reached, does not know the package, or gives what cannot be understood.
    """
    where = tell_host(index)
    url, credentials = _take_apart(index)
    request = urllib.request.Request(  # noqa: S310 - the scheme is checked
        f"{url}/{package}/", headers={"Accept": _ACCEPTED, "User-Agent": "bailee", **credentials}
    )
    try:
        response = opener(request, SECONDS)
        try:
            kind = response.headers.get("content-type", "")
            data = response.read(LARGEST + 1)
        finally:
            response.close()
    except urllib.error.HTTPError as fault:
        fault.close()
        raise Problem(
            f"the package index answered {fault.code}", where=where, fix="is it the right index?"
        ) from None
    except OSError as fault:
        reason = getattr(fault, "reason", None) or fault
        raise Problem(
            f"the package index cannot be reached: {reason}", where=where, fix="check the network and proxies"
        ) from None
    if len(data) > LARGEST:
        raise Problem("the package index gives too long an answer", where=where)
    names, versions = _read_page(data, kind, where)
    return sorted({*_of_files(names), *_parsed(versions if not names else ())})


def newest(versions: Iterable[Version], present: Version) -> Version | None:
    """Return the newest version after the present one; pre-releases count only for who has one."""
    later = [v for v in versions if v > present and (present.is_prerelease or not v.is_prerelease)]
    return max(later, default=None)


def tell_host(index: str) -> str:
    """Return the host of an index; never the credentials that its URL may hold."""
    try:
        parts = urlsplit(index)
        return f"{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"
    except ValueError:
        return "the package index"


def _take_apart(index: str) -> tuple[str, dict[str, str]]:
    """Return the address without the credentials in it, and the header that carries them."""
    parts = urlsplit(index)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Problem(
            "the package index is no http or https address",
            where=tell_host(index) or "PIP_INDEX_URL",
            fix="name one in PIP_INDEX_URL",
        )
    url = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))
    if not parts.username:
        return url, {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return url, {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}


def _read_page(data: bytes, kind: str, where: str) -> tuple[list[str], list[str]]:
    if "json" in kind:
        try:
            page = msgspec.json.decode(data, type=_Page)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise Problem("the package index's answer cannot be understood", where=where) from None
        return [file.filename for file in page.files if not file.yanked], page.versions
    return [unescape(name.decode("utf-8", "replace")).strip() for name in _LINK.findall(data)], []


def _of_files(names: Iterable[str]) -> Iterable[Version]:
    for name in names:
        try:
            yield parse_wheel_filename(name)[1] if name.endswith(".whl") else parse_sdist_filename(name)[1]
        except (InvalidWheelFilename, InvalidSdistFilename, InvalidVersion):
            continue  # an index may hold other kinds of files, and old names


def _parsed(texts: Iterable[str]) -> Iterable[Version]:
    for text in texts:
        try:
            yield Version(text)
        except InvalidVersion:
            continue
