"""Opens issues on GitHub, with the operator's token or as the operator's GitHub App."""

import os
import re
import urllib.parse
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from bailee.policy.problems import Problem

API = "https://api.github.com"
SECONDS = 10.0
# As many issues as may have changed in a repository since a report was sent, before it is opened twice.
_PAGES, _A_PAGE = 10, 100
_REPOSITORY = re.compile(r"[0-9A-Za-z](?:[0-9A-Za-z-]{0,38})/[0-9A-Za-z._-]{1,100}")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_VARIABLES = "BAILEE_GITHUB_TOKEN, or BAILEE_GITHUB_APP_ID and BAILEE_GITHUB_APP_KEY"


class Tracker(msgspec.Struct, frozen=True):
    """Where issues are opened, and as whom: a token, or a GitHub App with the file of its key."""

    repository: str
    url: str = API
    token: str = ""
    app_id: str = ""
    app_key: Path | None = None

    def __repr__(self) -> str:
        return f"Tracker({self.repository!r}, {self.url!r})"


class NotOpened(Exception):
    """An issue was not opened this time.

    Attributes:
        seconds: GitHub's wish when to ask again; 0 for none.
        is_final: asking again would not help.
    """

    def __init__(self, reason: str, *, seconds: float = 0, is_final: bool = False) -> None:
        super().__init__(reason)
        self.seconds = seconds
        self.is_final = is_final


def find_tracker(environment: Mapping[str, str] = os.environ) -> Tracker | None:
    """Return where the operator has issues opened; None where nowhere.

    Raises:
        Problem: a variable cannot be understood, one is missing, or the library is not installed.
    """
    repository = environment.get("BAILEE_GITHUB_REPOSITORY", "")
    token, app_id, key = (
        environment.get(f"BAILEE_GITHUB_{name}", "") for name in ("TOKEN", "APP_ID", "APP_KEY")
    )
    url = environment.get("BAILEE_GITHUB_URL", "").rstrip("/") or API
    if not repository:
        if token or app_id or key:
            raise Problem(
                "no repository is named for issues",
                where="BAILEE_GITHUB_REPOSITORY",
                fix="write OWNER/NAME, or unset what else begins with BAILEE_GITHUB_",
            )
        return None
    if not _REPOSITORY.fullmatch(repository):
        raise Problem(
            "this is no repository", where=f"BAILEE_GITHUB_REPOSITORY={repository}", fix="write OWNER/NAME"
        )
    if bool(token) == bool(app_id or key) or bool(app_id) != bool(key):
        raise Problem("issues are opened with a token, or as an app", where=_VARIABLES, fix="set one of both")
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise Problem(
            "the token would cross the network in clear",
            where=f"BAILEE_GITHUB_URL={url}",
            fix="write https:// and the host",
        )
    if key and not Path(key).is_file():
        raise Problem("there is no such file", where=f"BAILEE_GITHUB_APP_KEY={key}", fix="name the PEM file")
    if find_spec("githubkit") is None:
        raise Problem(
            "the library that opens issues is not installed",
            where="githubkit",
            fix="install it, in a clone: pip install '.[github]'",
        )
    return Tracker(repository, url, token, app_id, Path(key) if key else None)


def open_issue(tracker: Tracker, repository: str, title: str, body: str, *, mark: str, since_ms: int) -> str:
    """Open an issue, unless one that bears the mark is there, and return its address.

    Args:
        mark: a line of the body that no other issue has.
        since_ms: no earlier than this it can have been opened, milliseconds since 1970 UTC.

    Raises:
        NotOpened: not this time, and why.
    """
    # 45 MB and 0.2 s that a service without issues does without.
    from githubkit.exception import GitHubException, RateLimitExceeded, RequestFailed

    try:
        client = _open_client(tracker, repository)
        known = _find(client, repository, mark, since_ms)
        return known or _create(client, repository, title, body)
    except RateLimitExceeded as limit:
        raise NotOpened("GitHub asks to wait", seconds=limit.retry_after.total_seconds()) from None
    except RequestFailed as failed:
        raise _refused(failed.response) from None
    except GitHubException as fault:
        raise NotOpened(f"GitHub cannot be reached: {type(fault).__name__}") from None
    except (OSError, ValueError) as fault:
        raise NotOpened(f"the app's key cannot be used: {type(fault).__name__}") from None


def _open_client(tracker: Tracker, repository: str) -> Any:
    from githubkit import AppAuthStrategy, GitHub, TokenAuthStrategy

    # Retries are the queue's, which survives a restart; a redirect would take the token elsewhere.
    options = {
        "base_url": tracker.url,
        "auto_retry": False,
        "http_cache": False,
        "follow_redirects": False,
        "timeout": SECONDS,
        "user_agent": "bailee",
    }
    if tracker.app_key is None:
        return GitHub(TokenAuthStrategy(tracker.token), **options)
    app = GitHub(AppAuthStrategy(tracker.app_id, tracker.app_key.read_text()), **options)
    found = _read(app.request("GET", f"/repos/{repository}/installation"), 200)
    return app.with_auth(app.auth.as_installation(found["id"]))


def _find(client: Any, repository: str, mark: str, since_ms: int) -> str:
    """Return the address of the issue that bears a mark; empty if there is none."""
    since = datetime.fromtimestamp(since_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    for page in range(1, _PAGES + 1):
        query = {"state": "all", "since": since, "sort": "created", "per_page": _A_PAGE, "page": page}
        found = _read(client.request("GET", f"/repos/{repository}/issues", params=query), 200)
        for issue in found:
            if mark in (issue.get("body") or ""):
                return str(issue["html_url"])
        if len(found) < _A_PAGE:
            break
    return ""


def _create(client: Any, repository: str, title: str, body: str) -> str:
    asked = client.request("POST", f"/repos/{repository}/issues", json={"title": title, "body": body})
    return str(_read(asked, 201)["html_url"])


def _read(response: Any, wanted: int) -> Any:
    if response.status_code != wanted:
        raise _refused(response)
    try:
        return msgspec.json.decode(response.content)
    except msgspec.MsgspecError:
        raise NotOpened("what answered is not GitHub") from None


def _refused(response: Any) -> NotOpened:
    """Return why; 422 and 410 are of the issue or the repository itself, and all else may be mended."""
    status = response.status_code
    wait = response.headers.get("retry-after", "")
    return NotOpened(
        f"GitHub answered {status}",
        seconds=float(wait) if wait.isascii() and wait.isdecimal() else 0,
        is_final=status in (410, 422),
    )
