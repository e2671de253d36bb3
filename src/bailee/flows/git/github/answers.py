"""Answers of GitHub on their way to a session: without credentials, and with pages that can be asked for."""

import re
from collections.abc import Mapping

from bailee.flows.git.access import Attached
from bailee.flows.git.github.places import Place, name_of

# GitHub gives who may read a private repository a token to clone it with.
_TOKEN = re.compile(rb'("temp_clone_token"\s*:\s*)"[^"]*"')
_BEGIN, _LONGEST = b'"temp_clone_token"', 4096
_PASSED_BACK = (
    *("content-type", "etag", "last-modified", "cache-control", "retry-after", "x-github-media-type"),
    *("x-github-request-id", "x-github-api-version-selected", "x-ratelimit-limit", "x-ratelimit-remaining"),
    *("x-ratelimit-reset", "x-ratelimit-resource", "x-ratelimit-used"),
)


class TakingOut:
    """Takes tokens out of a body that comes in pieces."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> bytes:
        """Return what can be passed on; what may be the beginning of a token is kept."""
        text = _TOKEN.sub(rb'\1""', self._rest + piece)
        at = text.rfind(_BEGIN)
        is_done = at < 0 or _TOKEN.match(text, at) is not None or len(text) - at > _LONGEST
        keep = len(text) - at if not is_done else _overlap(text)
        self._rest = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> bytes:
        """Return the rest."""
        return self._rest


def _overlap(text: bytes) -> int:
    """Return how much of the end of a text may be the beginning of a token."""
    longest = min(len(_BEGIN) - 1, len(text))
    return next((count for count in range(longest, 0, -1) if text.endswith(_BEGIN[:count])), 0)


def pass_back(headers: Mapping[str, str], place: Place, repository: Attached | None) -> dict[str, str]:
    """Return the headers of an answer that a session gets: not whose the credential is, nor what it may.

    GitHub leads to further pages by a repository's number, which a session may not ask for: the name is put
    there.
    """
    passed = {name: headers[name] for name in _PASSED_BACK if name in headers}
    if repository is not None:
        base = f"{place.rest}/repos/{name_of(repository)}"
        if link := headers.get("link"):
            numbered = re.compile(rf"<{re.escape(place.rest)}/repositories/[0-9]+(?=[/?>])")
            passed["link"] = numbered.sub(lambda found: f"<{base}", link)
        if (location := headers.get("location", "")).startswith(f"{base}/"):
            passed["location"] = location
    return passed
