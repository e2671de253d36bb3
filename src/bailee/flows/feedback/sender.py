"""Sends a report. It is given the bytes that were shown and a way to send, and can see nothing else."""

from collections.abc import Callable
from typing import TypeVar

import msgspec

from bailee.characters import make_visible
from bailee.flows.feedback.issues import Issue, Queued, encode_issue
from bailee.flows.feedback.reports import (
    PATH,
    Offer,
    Report,
    Taken,
    Withdrawn,
    decode_report,
    encode_report,
    path_from,
)
from bailee.policy.problems import Problem

# Method, path and JSON in; status and JSON out.
Exchange = Callable[[str, str, bytes], tuple[int, bytes]]
_Answer = TypeVar("_Answer")


class Prepared(msgspec.Struct, frozen=True):
    """The bytes that are sent, and what they say: read from them, so that nothing else can be shown."""

    body: bytes

    @property
    def report(self) -> Report:
        """What the bytes say."""
        return decode_report(self.body)


class Refusal(msgspec.Struct, frozen=True):
    """Why a service does not do something, and what to do about it."""

    error: str = ""
    where: str = ""
    fix: str = ""


def prepare_report(report: Report) -> Prepared:
    """Return a report as it is sent; raises Problem where it is too large."""
    return Prepared(encode_report(report))


def ask_offer(exchange: Exchange) -> Offer:
    """Ask what becomes of a report, before there is one.

    Raises:
        Problem: the service cannot be reached, or is none that takes reports.
    """
    return _read(_ask(exchange, "GET", PATH), 200, Offer)


def send_report(prepared: Prepared, session: str, exchange: Exchange) -> Taken:
    """Send a report, once.

    Raises:
        Problem: it was not taken, and why; or nobody knows whether it was.
    """
    try:
        answer = exchange("POST", path_from(session), prepared.body)
    except TimeoutError:
        raise Problem(
            "the service did not answer in time, and may hold the report all the same",
            where="BAILEE_SERVICE",
            fix="where it runs: bailee feedback list",
        ) from None
    except OSError as fault:
        raise _unreached(fault) from None
    return _read(answer, 201, Taken)


def ask_for_issue(issue: Issue, report: str, exchange: Exchange) -> Queued:
    """Have an issue opened that names a report; it is given nothing of the report but the id.

    Raises:
        Problem: it will not be opened, and why.
    """
    return _read(_ask(exchange, "POST", f"{PATH}/{report}/issue", encode_issue(issue)), 202, Queued)


def withdraw_report(id: str, exchange: Exchange) -> Withdrawn:
    """Have a report that was sent erased.

    Raises:
        Problem: it is not there, is not this account's, its time is over, or a legal hold covers it.
    """
    return _read(_ask(exchange, "DELETE", f"{PATH}/{id}"), 200, Withdrawn)


def _ask(exchange: Exchange, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    try:
        return exchange(method, path, body)
    except OSError as fault:
        raise _unreached(fault) from None


def _unreached(fault: OSError) -> Problem:
    why = getattr(fault, "reason", fault)  # urllib wraps what it was
    return Problem(f"the service cannot be reached: {why}", where="BAILEE_SERVICE", fix="see that it runs")


def _read(answer: tuple[int, bytes], wanted: int, kind: type[_Answer]) -> _Answer:
    status, body = answer
    try:
        if status == wanted:
            return msgspec.json.decode(body, type=kind)
        refusal = msgspec.json.decode(body, type=Refusal)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        refusal = Refusal()
    if not refusal.error:
        raise Problem(
            f"the service answered {status}, as none does that takes reports",
            where="BAILEE_SERVICE",
            fix="use one of this version",
        )
    error, where, fix = (make_visible(text) for text in (refusal.error, refusal.where, refusal.fix))
    raise Problem(error, where=where, fix=fix)
