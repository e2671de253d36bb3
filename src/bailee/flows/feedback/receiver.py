"""Receives reports, holds each in a session of its own, and erases one that its sender takes back.

A report is held under the account that sent it, sealed as conversations are, under the terms of its own flow:
neither the consent to train nor the end of the conversation it tells of reaches it. Its path tells which
session it was sent from.
"""

import asyncio
import contextlib
import math
import secrets
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bailee.accounts.credentials import read_key
from bailee.accounts.keys import KeyRing, Principal
from bailee.bodies import TooLong, TooSlow, read_body
from bailee.flows.feedback.github import Tracker
from bailee.flows.feedback.issues import Queued, decode_issue
from bailee.flows.feedback.reports import (
    MOST_BYTES,
    PATH,
    UNDO_SECONDS,
    Offer,
    Taken,
    Withdrawn,
    decode_report,
    session_of,
)
from bailee.flows.feedback.storage import draw_id
from bailee.policy.contexts import Context
from bailee.policy.decisions import Decision, decide
from bailee.policy.flows import Flow
from bailee.policy.periods import NONE
from bailee.policy.plans import Provider
from bailee.policy.problems import Problem
from bailee.rates import Rates
from bailee.sizes import tell_size
from bailee.vault.frames import Begin, Finish
from bailee.vault.recording import RecorderGone, Recording, decided_of
from bailee.vault.tables import State

_NOTHING = (None, None, None, None, None, None, b"", b"")
_LARGEST_ISSUE = 150_000  # bytes; its text alone may be 20,000 characters
# Account and report; when it was sent in milliseconds, or None where there is none.
FindSent = Callable[[str, str], int | None]
# Account, report and who asks; the receipt.
Erase = Callable[[str, str, str], bytes]


class Enqueue(Protocol):
    """Queues the issue of a report; False if it has one."""

    def __call__(
        self, account: str, report: str, exchange: int, repository: str, *, at_ms: int, due_ms: int
    ) -> bool: ...


# A long conversation over a slow line; an upload that fails is made again by hand.
UPLOAD_SECONDS = 900.0


class FeedbackReceiver:
    """The `feedback` flow of a service.

    Args:
        provider: where model traffic of this service goes; reports are off by default for some.
        rates: how often a key may send a report, or ask for an issue.
        find_sent: when a report of an account was sent; it reads the vault, and is called in a thread.
        erase: erases a report and returns the receipt; in a thread as well.
        tracker: where issues are opened; None where nowhere.
        enqueue: queues one; in a thread as well.
        wall_clock: seconds since 1970 UTC.
        random: gives that many random bytes.
    """

    def __init__(
        self,
        *,
        flow: Flow,
        keys: KeyRing,
        provider: Provider,
        recording: Recording,
        rates: Rates,
        find_sent: FindSent,
        erase: Erase,
        enqueue: Enqueue,
        tracker: Tracker | None = None,
        wall_clock: Callable[[], float] = time.time,
        random: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._flow = flow
        self._keys = keys
        self._provider = provider
        self._recording = recording
        self._rates = rates
        self._find_sent = find_sent
        self._erase = erase
        self._enqueue = enqueue
        self._tracker = tracker
        self._wall_clock = wall_clock
        self._random = random

    def make_routes(self) -> list[Route]:
        """Return the routes that tell what becomes of a report, take one, and take one back."""
        return [
            Route(PATH, self._offer, methods=["GET"]),
            Route(PATH + "/{report}", self._withdraw, methods=["DELETE"]),
            Route(PATH + "/{report}/issue", self._take_issue, methods=["POST"]),
            Route("/api/sessions/{session}/feedback", self._receive, methods=["POST"]),
        ]

    async def _offer(self, request: Request) -> Response:
        principal = self._authenticate(request)
        if isinstance(principal, Response):
            return principal
        decision, stop = self._decide(principal)
        return _json(
            200,
            Offer(
                allowed=not stop,
                decided_by=next(iter(stop), decision.decided_by),
                because=next(iter(stop.values()), decision.rules[0].text),
                purpose=decision.terms.purpose,
                retention=str(decision.terms.retention),
                issues=self._tracker.repository if self._tracker else "",
            ),
        )

    async def _receive(self, request: Request) -> Response:
        if session_of(request.url.path) is None:
            return _tell(400, "the session's name is none", fix="send what the agent calls its session")
        admitted = await self._admit(request, MOST_BYTES, decode_report)
        if isinstance(admitted, Response):
            return admitted
        principal, decision, body = admitted
        report, started_ms = draw_id(self._random), self._now_ms()
        if await self._keep(principal, decision, report, request.url.path, body, started_ms) is None:
            return _tell(503, "the report cannot be kept now", fix="try again")
        day = datetime.fromtimestamp(started_ms / 1000, UTC).date()
        expiry = decision.terms.retention.expires_on(day)
        return _json(201, Taken(report, expiry.isoformat() if expiry else None))

    async def _take_issue(self, request: Request) -> Response:
        """Queue an issue. What it says is held in the session of its report, and goes with it."""
        if self._tracker is None:
            return _tell(404, "this service opens no issues", where="BAILEE_GITHUB_REPOSITORY")
        admitted = await self._admit(request, _LARGEST_ISSUE, decode_issue)
        if isinstance(admitted, Response):
            return admitted
        principal, decision, body = admitted
        account, report = principal.account_id, request.path_params["report"]
        sent_ms = await asyncio.to_thread(self._find_sent, account, report)
        if sent_ms is None:
            return _tell(404, "there is no such report of this account, or it is erased already")
        now_ms = self._now_ms()
        exchange = await self._keep(principal, decision, report, request.url.path, body, now_ms)
        if exchange is None:
            return _tell(503, "the issue cannot be kept now", fix="try again")
        due_ms = max(now_ms, sent_ms + UNDO_SECONDS * 1000)
        repository = self._tracker.repository
        queue = partial(self._enqueue, account, report, exchange, repository, at_ms=now_ms, due_ms=due_ms)
        if not await asyncio.to_thread(queue):
            return _tell(409, "an issue was asked for with this report already", where=report)
        if await asyncio.to_thread(self._find_sent, account, report) is None:
            # Taken back meanwhile: what came after that goes as well.
            with contextlib.suppress(Problem):  # a hold that somebody placed since keeps it
                await asyncio.to_thread(self._erase, account, report, principal.account_name)
            return _tell(404, "the report was taken back meanwhile")
        return _json(202, Queued(repository, due_ms))

    async def _admit(
        self, request: Request, most: int, decode: Callable[[bytes], object]
    ) -> tuple[Principal, Decision, bytes] | Response:
        """Return who asks, what is decided, and the body; both are looked at again once that is whole.

        An upload may take minutes, in which a key is revoked or zero data retention switched on.
        """
        looked = self._look(request, 0)
        if isinstance(looked, Response):
            return looked
        if wait := self._rates.take(looked[0].key_id):
            seconds = math.ceil(wait)
            told = _tell(429, "this key sent too many reports", fix=f"send it again in {seconds} s")
            told.headers["Retry-After"] = str(seconds)
            return told
        try:
            body = await read_body(request.stream(), "", most=most, most_decoded=most, seconds=UPLOAD_SECONDS)
        except TooLong:
            return _tell(
                413,
                f"more than {tell_size(most)}",
                fix="leave attachments out, or summarize the conversation first",
            )
        except (TooSlow, ClientDisconnect):
            return _tell(408, "it did not come in time", fix="send it again")
        try:
            decode(body)
        except ValueError as fault:
            return _tell(
                400, f"it cannot be understood: {fault}", fix="send it with an agent of this version"
            )
        looked = self._look(request, len(body))
        return looked if isinstance(looked, Response) else (*looked, body)

    async def _keep(
        self, principal: Principal, decision: Decision, report: str, path: str, body: bytes, started_ms: int
    ) -> int | None:
        """Hold what came in the session of a report; return the exchange, or None where it cannot be held."""
        decided = decided_of(decision)
        exchange = self._recording.new_exchange(started_ms)
        begin = Begin(
            exchange=exchange,
            account=principal.account_id,
            session=report,
            key=principal.key_id,
            decision=decided.digest,
            flow=self._flow.id.value,
            keep=True,
            started_ms=started_ms,
            upstream="bailee",
            path=path,
            request_bytes=len(body),
            headers=b"",
            body=body,
        )
        try:
            if not self._recording.has_room:
                raise RecorderGone
            self._recording.begin(begin, decided)
            await self._recording.finish(
                Finish(exchange, State.COMPLETE.value, None, 201, None, 0, 0, *_NOTHING)
            )
        except RecorderGone:
            return None
        return exchange

    async def _withdraw(self, request: Request) -> Response:
        principal = self._authenticate(request)
        if isinstance(principal, Response):
            return principal
        report = request.path_params["report"]
        sent_ms = await asyncio.to_thread(self._find_sent, principal.account_id, report)
        if sent_ms is None:
            return _tell(404, "there is no such report of this account, or it is erased already")
        if self._now_ms() - sent_ms > UNDO_SECONDS * 1000:
            return _tell(
                409,
                f"the report was sent more than {UNDO_SECONDS // 60} minutes ago",
                where=report,
                fix=f"where the service runs: bailee feedback withdraw {report}",
            )
        try:
            receipt = await asyncio.to_thread(
                self._erase, principal.account_id, report, principal.account_name
            )
        except Problem as problem:
            return _tell(409, problem.what, where=problem.where, fix=problem.fix)
        return _json(200, Withdrawn(report, receipt.decode()))

    def _authenticate(self, request: Request) -> Principal | Response:
        try:
            principal = self._keys.authenticate(read_key(request.headers.raw))
        except Problem as problem:
            return _tell(503, problem.what, where=problem.where, fix=problem.fix)
        if principal is None:
            return _tell(401, "no valid key", fix="send one as Authorization: Bearer")
        return principal

    def _decide(self, principal: Principal) -> tuple[Decision, Mapping[str, str]]:
        """Return what is decided on a report of theirs, and what forbids it."""
        context = principal.to_context(self._provider)
        decision = decide(self._flow, context)
        return decision, tell_stop(decision, context)

    def _look(self, request: Request, size: int) -> tuple[Principal, Decision] | Response:
        """Return who asks, and what is decided; what is not allowed is refused, and that is on record."""
        principal = self._authenticate(request)
        if isinstance(principal, Response):
            return principal
        decision, stop = self._decide(principal)
        if not stop:
            return principal, decision
        rule, text = next(iter(stop.items()))
        self._recording.note(
            exchange=self._recording.new_exchange(self._now_ms()),
            account=principal.account_id,
            session=f"key-{principal.key_id}",
            key=principal.key_id,
            decided=decided_of(decision),
            flow=self._flow.id.value,
            started_ms=self._now_ms(),
            upstream="bailee",
            path=PATH,
            state=State.REFUSED.value,
            status=403,
            reason=f"refused by {rule}",
            request_bytes=size,
        )
        return _tell(403, f"refused by {rule}: {text}", where="the service")

    def _now_ms(self) -> int:
        return int(self._wall_clock() * 1000)


def tell_stop(decision: Decision, context: Context) -> Mapping[str, str]:
    """Return the rules that let no report be held, each in words; nothing if it may be.

    Where somebody asked that nothing be held at all there is nothing to send one to.
    """
    if not decision.allowed:
        return {f"{rule.layer}/{rule.id}": rule.text for rule in decision.rules}
    nothing = {f"limit.{layer.name}" for layer in context.every_layer() if layer.retention == NONE}
    return {f"{rule.layer}/{rule.id}": rule.text for rule in decision.rules if rule.id in nothing}


def _tell(status: int, message: str, *, where: str = "", fix: str = "") -> Response:
    return JSONResponse({"error": message, "where": where, "fix": fix}, status)


def _json(status: int, value: object) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")
