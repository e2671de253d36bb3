"""What a report of a bug is made of: the conversation, what its user says, and what they add to it, masked.

Nothing here writes a file, and nothing is sent that `prepare` did not give back to be shown.
"""

import platform
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from bailee import __version__
from bailee.agent.conversations import Message
from bailee.agent.service import KEYS, VARIABLE, Service, find_gateway
from bailee.agent.work import Work
from bailee.flows.feedback.issues import Issue, Queued
from bailee.flows.feedback.reports import (
    MOST_ATTACHMENTS,
    Attachment,
    Call,
    LeftOut,
    Offer,
    Report,
    Result,
    Said,
    Taken,
    Text,
    Withdrawn,
)
from bailee.flows.feedback.sender import (
    Prepared,
    ask_for_issue,
    ask_offer,
    prepare_report,
    send_report,
    withdraw_report,
)
from bailee.policy.flows import FlowId
from bailee.policy.problems import Problem

# The model's own: no resumed session has it either (`sessions.recording`).
_THINKING = ("thinking", "redacted_thinking")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_Kind = TypeVar("_Kind")


class Masked(msgspec.Struct, frozen=True):
    """Something that may be added to a report, without its secrets.

    Attributes:
        kinds: how many secrets of each kind were replaced.
    """

    attachment: Attachment
    kinds: dict[str, int]


class BugReporter:
    """Makes, sends and takes back reports on the present session.

    Args:
        work: the agent at work.
        fault: the problem that was shown last, to be offered as an attachment; empty for none.
    """

    def __init__(self, work: Work, fault: str = "") -> None:
        self._work = work
        self._fault = fault

    def ask_offer(self) -> Offer:
        """Return what would become of a report.

        Raises:
            Problem: a switch, a provider's default, the service or the account allows none, and which;
                or there is no service.
        """
        decision = self._work.decision(FlowId.FEEDBACK)
        if not decision.allowed:
            told = " ".join(rule.text for rule in decision.rules)
            raise Problem(
                f"bug reports are off: {told}",
                where=", ".join(f"{rule.layer}/{rule.id}" for rule in decision.rules),
                fix="see: /privacy feedback",
            )
        offer = ask_offer(self._exchange)
        if not offer.allowed:
            raise Problem(
                f"the service takes no report of this account: {offer.because}", where=offer.decided_by
            )
        return offer

    def list_attachments(self) -> list[Masked]:
        """Return what may be added, masked, each for its user to say yes or no to."""
        work = self._work
        environment = [
            f"bailee {__version__}",
            f"Python {platform.python_version()} on {platform.system()} {platform.release()}",
            f"terminal {work.environment.get('TERM', '-')}, encoding {sys.stdout.encoding}",
            f"model {work.model_name}, provider {work.context.provider}, mode {work.gate.mode}",
        ]
        # Where a value comes from by its layer: a place would name folders, and with them people.
        settings = [
            f"{key} = {_write(value.value)} ({value.origin.layer})"
            for key, value in work.settings.values.items()
        ]
        found = [
            Attachment("environment", "\n".join(environment)),
            Attachment("settings", "\n".join(settings)),
            *(
                Attachment(f"instructions {number}", one.text)
                for number, one in enumerate(work.instructions, 1)
            ),
        ]
        if self._fault:
            found.insert(0, Attachment("last problem", self._fault))
        return [Masked(*self._mask(one, Attachment)) for one in found[:MOST_ATTACHMENTS]]

    def prepare(self, description: str, attachments: Sequence[Masked]) -> Prepared:
        """Return the report, as it is to be shown and sent.

        Raises:
            Problem: secrets cannot be masked here, or it is too large.
        """
        messages = tell_conversation(self._work.conversation.messages)
        said, in_conversation = self._mask(messages, tuple[Said, ...])
        described, in_description = self._mask(description, str)
        masked = Counter(in_description)
        for kinds in (in_conversation, *(one.kinds for one in attachments)):
            masked.update(kinds)
        return prepare_report(
            Report(
                version=__version__,
                description=described,
                conversation=said,
                attachments=tuple(one.attachment for one in attachments),
                masked=dict(masked),
            )
        )

    def send(self, prepared: Prepared) -> Taken:
        """Send what was shown; raises Problem where it is not taken."""
        return send_report(prepared, self._work.session, self._exchange)

    def prepare_issue(self, title: str, body: str) -> tuple[Issue, dict[str, int]]:
        """Return an issue of what was typed, without its secrets, and how many of each kind were masked.

        Raises:
            Problem: the title is long, or not one line; or secrets cannot be masked here.
        """
        try:
            issue = msgspec.convert({"title": title, "body": body}, Issue)
        except msgspec.ValidationError:
            raise Problem(
                "an issue has a title of up to 256 characters, and a text of up to 20,000", where="/bug"
            ) from None
        return self._mask(issue, Issue)

    def ask_for_issue(self, issue: Issue, report: str) -> Queued:
        """Have an issue opened that was shown; raises Problem where it will not be."""
        return ask_for_issue(issue, report, self._exchange)

    def undo(self, id: str) -> Withdrawn:
        """Have a report erased; raises Problem where it is not."""
        return withdraw_report(id, self._exchange)

    @property
    def place(self) -> str:
        """Where reports go."""
        return self._service().url

    def _mask(self, value: Any, kind: type[_Kind]) -> tuple[_Kind, dict[str, int]]:
        masked, kinds = self._work.masker.mask(msgspec.to_builtins(value))
        try:
            return msgspec.convert(masked, kind), kinds
        except msgspec.ValidationError as fault:
            raise Problem(f"a report cannot be masked: {fault}") from None

    def _exchange(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        return self._service().ask(method, path, self._work.environment, body=body or None)

    def _service(self) -> Service:
        service = self._work.service
        if service is None:
            # Model traffic may go through one: a report holds more, and goes only where it was told to.
            gateway = find_gateway(self._work.environment)
            url = gateway.place if gateway else "its address"
            raise Problem(
                "there is no Bailee service to send a report to",
                where=VARIABLE,
                fix=f"set {VARIABLE} to {url}, with a key of that service in {KEYS[0]}; or log in to it "
                "(bailee login), or start the agent through it: bailee run -- bailee code",
            )
        parts = urlsplit(service.url)
        if parts.scheme.lower() != "https" and parts.hostname not in _LOOPBACK:
            raise Problem(
                "a report would cross the network in clear",
                where=f"{VARIABLE}={service.url}",
                fix="use a service that is reached by https://",
            )
        return service


def tell_conversation(messages: Sequence[Message]) -> tuple[Said, ...]:
    """Return a conversation as a report has it: what was said, called and answered, without ids."""
    return tuple(Said(message["role"], tuple(_tell_blocks(message["content"]))) for message in messages)


def _tell_blocks(content: Any) -> list[Text | Call | Result | LeftOut]:
    if isinstance(content, str):
        return [Text(content)]
    told: list[Text | Call | Result | LeftOut] = []
    for block in content:
        match block.get("type"):
            case "text":
                told.append(Text(block["text"]))
            case "tool_use":
                told.append(Call(block["name"], block["input"]))
            case "tool_result":
                told.append(Result(_text_of(block.get("content", "")), bool(block.get("is_error"))))
            case kind if kind in _THINKING:
                told.append(LeftOut("the thinking of the model"))
            case kind:
                told.append(LeftOut(str(kind)))
    return told


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(
        str(block.get("text", "")) if block.get("type") == "text" else f"({block.get('type')}: not sent)"
        for block in content
    )


def _write(value: object) -> str:
    return msgspec.json.encode(value, enc_hook=str).decode()
