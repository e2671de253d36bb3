"""A report as it is shown, sent and held: the same bytes, and no field for anything else.

Source: specification, "When users run the /bug command, a copy of their full conversation history including
code is sent" and "Transcripts shared via /bug are retained for 5 years."
"""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec

from bailee.characters import make_visible
from bailee.policy.problems import Problem
from bailee.sizes import tell_count, tell_size

# The gateway takes requests of 32 MB; a conversation that fills a model's context is a tenth of this.
MOST_BYTES = 8_000_000
MOST_ATTACHMENTS = 10
UNDO_SECONDS = 600
PATH = "/api/feedback"
FROM_SESSIONS = "/api/sessions/"
_FROM = re.compile(r"/api/sessions/([0-9A-Za-z][0-9A-Za-z._-]{0,127})/feedback")

Version = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+-]{0,31}$")]
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9 ]{0,31}$")]
Kind = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z_. -]{1,64}$")]


class Text(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="text"):
    """What somebody, or the model, said."""

    text: str


class Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="call"):
    """A tool that the model called, and with what."""

    tool: str
    input: Any


class Result(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="result"):
    """What a tool answered: often code."""

    text: str
    is_error: bool = False


class LeftOut(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="left_out"):
    """A block that is no text, such as an image: it is named, and not sent."""

    kind: Kind


class Said(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One message of the conversation."""

    role: Literal["user", "assistant"]
    blocks: tuple[Text | Call | Result | LeftOut, ...]


class Attachment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something beside the conversation, which the user said yes to."""

    name: Name
    text: str


class Report(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that is sent.

    Attributes:
        version: of the product.
        description: what the user says is wrong.
        masked: how many secrets of each kind were replaced before it was shown.
    """

    version: Version
    description: Annotated[str, msgspec.Meta(min_length=1, max_length=20_000)]
    conversation: tuple[Said, ...] = ()
    attachments: Annotated[tuple[Attachment, ...], msgspec.Meta(max_length=MOST_ATTACHMENTS)] = ()
    masked: dict[Kind, Annotated[int, msgspec.Meta(ge=1)]] = {}


class Offer(msgspec.Struct, frozen=True):
    """What a service says of a report before there is one: whether it may be sent, and what becomes of it.

    Attributes:
        decided_by, because: `layer/rule` that settled whether it is allowed, and that in words.
        retention: how long it is held, as a Period is written.
        undo_seconds: how long whoever sent it can have it erased by the service.
        issues: the public repository in which an issue can be opened as well; empty for none.
    """

    allowed: bool
    decided_by: str
    because: str
    purpose: str
    retention: str
    undo_seconds: int = UNDO_SECONDS
    most_bytes: int = MOST_BYTES
    issues: str = ""


class Taken(msgspec.Struct, frozen=True):
    """That a report is held: its id, and the day that begins with it gone, None for no such day."""

    id: str
    expires_on: str | None


class Withdrawn(msgspec.Struct, frozen=True):
    """That a report is erased, and the receipt that proves it, as a file of it would be."""

    id: str
    receipt: str


def path_from(session: str) -> str:
    """Return where a report on a session is sent to; the path is all that is held of where it came from."""
    return f"{FROM_SESSIONS}{session}/feedback"


def session_of(path: str) -> str | None:
    """Return the session that a report was sent from, by its path; None if that is none."""
    found = _FROM.fullmatch(path)
    return found[1] if found else None


def encode_report(report: Report) -> bytes:
    """Return a report as it is sent.

    Raises:
        Problem: it is larger than a service takes.
    """
    body = msgspec.json.encode(report)
    if len(body) > MOST_BYTES:
        raise Problem(
            f"the report has {tell_size(len(body))}, and a report has at most {tell_size(MOST_BYTES)}",
            where="/bug",
            fix="say no to attachments, or replace the conversation by its summary first: /compact",
        )
    return body


def decode_report(body: bytes) -> Report:
    """Reverse `encode_report`.

    Raises:
        ValueError: it is no report.
    """
    try:
        return msgspec.json.decode(body, type=Report)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as fault:
        raise ValueError(str(fault)) from None


def tell_report(report: Report) -> Iterator[str]:
    """Give the lines of a report: all of it, nothing shortened, and nothing that a terminal would obey."""
    yield f"version {report.version}"
    yield "description"
    yield from tell_text(report.description)
    for attachment in report.attachments:
        yield f"attachment: {attachment.name}"
        yield from tell_text(attachment.text)
    yield f"conversation: {tell_count(len(report.conversation), 'message')}"
    for said in report.conversation:
        yield f"  {said.role}"
        for block in said.blocks:
            match block:
                case Text(text):
                    yield from tell_text(text, 4)
                case Call(tool, input):
                    yield f"    calls {make_visible(tool)}"
                    yield from tell_text(msgspec.json.format(msgspec.json.encode(input)).decode(), 6)
                case Result(text, is_error):
                    yield "    which failed" if is_error else "    which gave"
                    yield from tell_text(text, 6)
                case LeftOut(kind):
                    yield f"    ({make_visible(kind)}: not sent)"
    yield tell_masked(report.masked)


def tell_masked(masked: dict[str, int]) -> str:
    """Say how many secrets were masked."""
    if not masked:
        return "no secret was found to mask"
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(masked.items()))
    total = sum(masked.values())
    return f"{tell_count(total, 'secret')} {'was' if total == 1 else 'were'} masked: {kinds}"


def tell_text(text: str, depth: int = 2) -> Iterator[str]:
    """Give the lines of a text, set in, all of it, and nothing that a terminal would obey."""
    # Whatever else ends a line somewhere is shown as what it is.
    for line in text.replace("\t", "    ").removesuffix("\n").split("\n"):
        yield " " * depth + make_visible(line)
