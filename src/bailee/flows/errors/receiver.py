"""Receives Sentry's envelopes, and holds of their events what the catalogue names; nothing else gets past
the parser.

Source: what sentry-sdk 2.75 (Python) and @sentry/node 11 send, and Sentry's developer documentation. A key
comes in `X-Sentry-Auth`, as `sentry_key` in the query, or in the `dsn` of the envelope's headers.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bailee.accounts.credentials import read_key
from bailee.bodies import TooLong, TooSlow, read_body
from bailee.codings import Undecodable
from bailee.flows.errors.envelopes import Envelope, Item, Malformed, read_envelope, read_event
from bailee.flows.errors.faults import Fault, admit_event, pack
from bailee.vault.intake import Intake, Refused, Sender
from bailee.vault.tables import State

# Sentry takes 100 MB and events of 1 MB; what is held of one is a few kilobytes, and no attachment.
MOST_BYTES = MOST_DECODED_BYTES = 20 * 1024 * 1024
MOST_EVENT_BYTES = 1024 * 1024
RETRY_SECONDS, REFUSED_SECONDS = 60, 3600
EVENT = "event"
_KEY = re.compile(r"\bsentry_key\s*=\s*([^,\s]+)")
_EVENT_ID = re.compile(r"[0-9a-f]{32}")
# For scripts of web pages, which are asked about before they send.
_CROSS_ORIGIN = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST",
    "Access-Control-Allow-Headers": "X-Sentry-Auth, Content-Type, Content-Encoding",
    "Access-Control-Expose-Headers": "X-Sentry-Rate-Limits, Retry-After",
}


class ErrorsReceiver:
    """The `errors` flow of a service."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    def make_routes(self) -> list[Route]:
        """Return the routes that Sentry's SDKs use."""
        project = "/api/{project:int}"
        return [
            Route(f"{project}/envelope/", self._receive_envelope, methods=["POST", "OPTIONS"]),
            Route(f"{project}/store/", self._receive_event, methods=["POST", "OPTIONS"]),
        ]

    async def _receive_envelope(self, request: Request) -> Response:
        return await self._receive(request, read_envelope)

    async def _receive_event(self, request: Request) -> Response:
        """Receive an event by itself, as older SDKs send it."""
        return await self._receive(request, lambda body: Envelope("", "", [Item(EVENT, body)]))

    async def _receive(self, request: Request, read: Callable[[bytes], Envelope]) -> Response:
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=_CROSS_ORIGIN)
        try:
            key = _find_key(request)
            # The key may stand in the body alone: then it has to be read before anybody knows whose it is.
            sender = self._intake.admit(key) if key else None
            if sender is not None:
                self._require_allowed(request, sender)
            body = await self._read(request, sender)
            envelope = _understand(read, body)
            if sender is None:
                sender = self._intake.admit(_key_of(envelope.dsn))
                self._require_allowed(request, sender)
            await self._take(request, sender, envelope, len(body))
        except Refused as refused:
            return _tell(refused)
        id = envelope.event_id if _EVENT_ID.fullmatch(envelope.event_id) else None
        return JSONResponse({"id": id} if id else {}, headers=_CROSS_ORIGIN)

    def _require_allowed(self, request: Request, sender: Sender) -> None:
        if not sender.decision.allowed:
            self._intake.note(sender, _path(request), state=State.REFUSED, status=403, reason="refused")
            raise Refused(403, f"refused by {sender.decision.decided_by}")

    async def _read(self, request: Request, sender: Sender | None) -> bytes:
        coding = request.headers.get("content-encoding", "")
        # Nobody is known yet: as much as an envelope with a key in it has.
        most = (MOST_BYTES, MOST_DECODED_BYTES) if sender else (MOST_EVENT_BYTES, MOST_EVENT_BYTES)
        try:
            return await read_body(request.stream(), coding, most=most[0], most_decoded=most[1])
        except TooLong:
            raise Refused(
                413, f"an envelope is at most {most[0]} bytes, {most[1]} without its coding"
            ) from None
        except TooSlow:
            raise Refused(408, "the body did not come in time") from None
        except Undecodable:
            raise Refused(400, f"the body is not {coding[:20]!r}") from None
        except ClientDisconnect:
            raise Refused(400, "the body ended early") from None

    async def _take(self, request: Request, sender: Sender, envelope: Envelope, size: int) -> None:
        today = datetime.fromtimestamp(self._intake.wall_clock(), UTC).date()
        faults: list[Fault] = []
        dropped: Counter[str] = Counter()
        for item in envelope.items:
            fault = None
            if item.type == EVENT and len(item.payload) <= MOST_EVENT_BYTES:
                try:
                    fault = admit_event(read_event(item.payload), today=today)
                except Malformed as malformed:
                    raise Refused(400, f"an event cannot be read: {malformed}") from None
            if fault is None:
                dropped[item.type if item.type.isidentifier() else "another"] += 1
            else:
                faults.append(fault)
        reason = _tell_dropped(dropped)
        self._intake.count_dropped(_path(request), "items", dropped.total())
        if faults and not sender.decision.terms.retention.is_none:
            await self._intake.keep(
                sender, _path(request), pack(faults), request_bytes=size, reason=reason or None
            )
        elif envelope.items:
            self._intake.note(
                sender,
                _path(request),
                state=State.COMPLETE,
                status=200,
                reason=reason,
                request_bytes=size,
            )


def _understand(read: Callable[[bytes], Envelope], body: bytes) -> Envelope:
    try:
        return read(body)
    except Malformed as malformed:
        raise Refused(400, f"this is no envelope: {malformed}") from None


def _find_key(request: Request) -> bytes:
    """Return the key of the headers or of the query; empty where the body may have one."""
    found = _KEY.search(request.headers.get("x-sentry-auth", ""))
    given = found[1] if found else request.query_params.get("sentry_key", "")
    if given:
        return given.encode("latin-1", "replace")
    return read_key(request.headers.raw)


def _key_of(dsn: str) -> bytes:
    try:
        return (urlsplit(dsn).username or "").encode("latin-1", "replace")
    except ValueError:
        return b""


def _path(request: Request) -> str:
    route = request.scope.get("route")
    return route.path if isinstance(route, Route) else "/"


def _tell_dropped(dropped: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name} dropped" for name, count in sorted(dropped.items()))[:200]


def _tell(refused: Refused) -> Response:
    """Answer so that an SDK stops for a while: it obeys `X-Sentry-Rate-Limits`, whatever the status."""
    headers = dict(_CROSS_ORIGIN)
    if refused.status == 503:
        headers["Retry-After"] = str(RETRY_SECONDS)
        headers["X-Sentry-Rate-Limits"] = f"{RETRY_SECONDS}::key:busy"
    elif refused.status == 429:
        headers["Retry-After"] = str(refused.seconds)
        headers["X-Sentry-Rate-Limits"] = f"{refused.seconds}::key:flood"
    elif refused.status in (401, 403):
        headers["X-Sentry-Rate-Limits"] = f"{REFUSED_SECONDS}::key:refused"
    return JSONResponse({"detail": f"Bailee: {refused}."}, refused.status, headers)
