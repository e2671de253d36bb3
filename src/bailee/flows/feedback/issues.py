"""An issue that a person asks for beside a report: a title and a text that they typed, and nothing else.

It knows nothing of reports and conversations: there is no field for one, and nothing here imports one.
Source: specification, "Optionally, a Github issue is created in our public repository."
"""

from collections.abc import Iterator
from typing import Annotated

import msgspec

from bailee.characters import make_visible

_TITLE = r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$"


class Issue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What becomes public. GitHub takes titles of 256 characters."""

    title: Annotated[str, msgspec.Meta(min_length=1, max_length=256, pattern=_TITLE)]
    body: Annotated[str, msgspec.Meta(max_length=20_000)]


class Queued(msgspec.Struct, frozen=True):
    """An issue that will be opened: where, and no earlier than when, milliseconds since 1970 UTC."""

    repository: str
    opens_ms: int


def write_body(issue: Issue, report: str) -> str:
    """Return the text of an issue as it is opened: what was typed, and a line that names the report.

    By that line the service knows, after a crash, that it has opened it already.
    """
    return f"{issue.body.rstrip()}\n\n{sign(report)}\n".lstrip()


def sign(report: str) -> str:
    """Return the line that names the report."""
    return f"Sent with `/bug`, {report}."


def encode_issue(issue: Issue) -> bytes:
    """Return an issue as it is sent to the service."""
    return msgspec.json.encode(issue)


def decode_issue(body: bytes) -> Issue:
    """Reverse `encode_issue`.

    Raises:
        ValueError: it is none.
    """
    try:
        return msgspec.json.decode(body, type=Issue)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as fault:
        raise ValueError(str(fault)) from None


def tell_issue(issue: Issue, report: str) -> Iterator[str]:
    """Give the lines of an issue, as it will be read; nothing that a terminal would obey."""
    yield f"title: {make_visible(issue.title)}"
    for line in write_body(issue, report).replace("\t", "    ").removesuffix("\n").split("\n"):
        yield f"  {make_visible(line)}"
