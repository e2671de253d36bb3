"""Receives metrics over OTLP and over Statsig's wire, and holds what the catalogue names; nothing else gets
past the parser.

What is held is sealed in the vault under the terms of operational data. An answer comes when it is durable.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bailee.accounts.credentials import read_key
from bailee.bodies import TooLong, TooSlow, read_body
from bailee.codings import Undecodable
from bailee.flows.metrics import exports, statsig
from bailee.flows.metrics.deltas import Deltas
from bailee.flows.metrics.drops import Drops, tell_drops
from bailee.flows.metrics.exports import Malformed, Sample, Signal
from bailee.flows.metrics.points import Taken, pack, take
from bailee.vault.intake import Intake, Refused, Sender
from bailee.vault.tables import State

# Source: OTLP/HTTP, "the server MUST NOT accept" nothing is said; collectors take 20 MiB.
MOST_BYTES = 4 * 1024 * 1024
MOST_DECODED_BYTES = 20 * 1024 * 1024
RETRY_SECONDS = 5
PROTOBUF, JSON = "application/x-protobuf", "application/json"
# google.rpc.Code, which OTLP's errors are told in.
CODES = {400: 3, 401: 16, 403: 7, 408: 4, 413: 8, 415: 3, 429: 8, 503: 14}


class MetricsReceiver:
    """The `metrics` flow of a service."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._deltas = Deltas(int(intake.wall_clock() * 1_000_000_000))

    def make_routes(self) -> list[Route]:
        """Return the routes that exporters of OTLP and clients of Statsig use."""
        specs = "/download_config_specs/{key}.json"
        return [
            *(Route(f"/v1/{signal}", self._exporting(signal), methods=["POST"]) for signal in Signal),
            Route("/v1/log_event", self._log_events, methods=["POST"]),
            Route("/v1/rgstr", self._log_events, methods=["POST"]),
            Route(f"/v1{specs}", self._answering(statsig.SPECS_1), methods=["GET"]),
            Route(f"/v2{specs}", self._answering(statsig.SPECS_2), methods=["GET"]),
            Route("/v1/initialize", self._answering(statsig.INITIALIZED), methods=["POST"]),
            Route("/v1/get_id_lists", self._answering({}), methods=["POST"]),
        ]

    # --- OTLP ---

    async def export(self, path: str, signal: Signal, key: bytes, body: bytes) -> bytes:
        """Take an export in protobuf that came otherwise than over HTTP, and return the answer to it.

        Args:
            path: what it came by.

        Raises:
            Refused: it is not taken.
        """
        sender = self._intake.admit(key)
        self._require_allowed(path, sender)
        if len(body) > MOST_DECODED_BYTES:
            raise self._refuse(path, sender, 413, f"an export is at most {MOST_DECODED_BYTES} bytes")
        taken = await self._take(path, sender, body, lambda data: exports.read_protobuf(data, signal))
        return exports.write_protobuf(signal, taken.rejected, taken.message)

    def _exporting(self, signal: Signal) -> Callable[[Request], Awaitable[Response]]:
        async def receive(request: Request) -> Response:
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            is_protobuf = kind == PROTOBUF
            path = _path(request)
            try:
                sender = self._intake.admit(read_key(request.headers.raw))
                if kind not in (PROTOBUF, JSON):
                    raise self._refuse(path, sender, 415, f"send {PROTOBUF} or {JSON}")
                body = await self._read(request, sender)
                read = exports.read_protobuf if is_protobuf else exports.read_json
                taken = await self._take(path, sender, body, lambda data: read(data, signal))
            except Refused as refused:
                return _tell_status(refused, is_protobuf=is_protobuf)
            write = exports.write_protobuf if is_protobuf else exports.write_json
            answer = write(signal, taken.rejected, taken.message)
            return Response(answer, media_type=PROTOBUF if is_protobuf else JSON)

        return receive

    # --- Statsig ---

    async def _log_events(self, request: Request) -> Response:
        query = request.query_params
        try:
            sender = self._intake.admit(_find_statsig_key(request))
            body = await self._read(request, sender)

            def read(data: bytes) -> list[Sample]:
                is_gzip, is_reversed = query.get("gz") == "1", query.get("se") == "1"
                uncovered = statsig.uncover(
                    data, is_gzip=is_gzip, is_reversed=is_reversed, most=MOST_DECODED_BYTES
                )
                return statsig.read_events(uncovered)

            await self._take(_path(request), sender, body, read)
        except Refused as refused:
            return _tell_failure(refused)
        return JSONResponse(statsig.TAKEN, 202)

    def _answering(self, answer: dict[str, object]) -> Callable[[Request], Awaitable[Response]]:
        async def tell(request: Request) -> Response:
            try:
                self._intake.admit(_find_statsig_key(request))
            except Refused as refused:
                return _tell_failure(refused)
            return JSONResponse(answer)

        return tell

    # --- both ---

    async def _read(self, request: Request, sender: Sender) -> bytes:
        path = _path(request)
        self._require_allowed(path, sender)
        coding = request.headers.get("content-encoding", "")
        try:
            return await read_body(request.stream(), coding, most=MOST_BYTES, most_decoded=MOST_DECODED_BYTES)
        except TooLong:
            text = f"a body is at most {MOST_BYTES} bytes, and {MOST_DECODED_BYTES} without its coding"
            raise self._refuse(path, sender, 413, text) from None
        except TooSlow:
            raise self._refuse(path, sender, 408, "the body did not come in time") from None
        except Undecodable:
            raise self._refuse(path, sender, 400, f"the body is not {coding[:20]!r}") from None
        except ClientDisconnect:
            raise self._refuse(path, sender, 400, "the body ended early") from None

    def _require_allowed(self, path: str, sender: Sender) -> None:
        if not sender.decision.allowed:
            raise self._refuse(path, sender, 403, f"refused by {sender.decision.decided_by}")

    async def _take(
        self, path: str, sender: Sender, body: bytes, read: Callable[[bytes], list[Sample]]
    ) -> Taken:
        try:
            samples = read(body)
        except Malformed as fault:
            raise self._refuse(path, sender, 400, str(fault)) from None
        today = datetime.fromtimestamp(self._intake.wall_clock(), UTC).date()
        taken = take(samples, self._deltas, sender.principal.key_id, today=today)
        size = len(body)
        reason = tell_drops(Drops(taken.rejected, taken.fields))
        self._intake.count_dropped(path, "samples", taken.rejected)
        self._intake.count_dropped(path, "fields", taken.fields)
        if taken.points and not sender.decision.terms.retention.is_none:
            await self._intake.keep(sender, path, pack(taken.points), request_bytes=size, reason=reason)
        elif samples:
            reason = reason or "nothing of it is held"
            self._intake.note(
                sender, path, state=State.COMPLETE, status=200, reason=reason, request_bytes=size
            )
        return taken

    def _refuse(self, path: str, sender: Sender, status: int, message: str) -> Refused:
        self._intake.note(sender, path, state=State.REFUSED, status=status, reason="refused")
        return Refused(status, message)


def _path(request: Request) -> str:
    """Return the path of a route: one of Statsig's has a key in it."""
    route = request.scope.get("route")
    return route.path if isinstance(route, Route) else "/"


def _find_statsig_key(request: Request) -> bytes:
    given = (
        request.headers.get("statsig-api-key")
        or request.query_params.get("k")
        or request.path_params.get("key", "")
    )
    if not given:  # our own agent's, which has a header for its key on every wire
        return read_key(request.headers.raw)
    return statsig.read_key(given.encode("latin-1", "replace"))


def tell_pause(refused: Refused) -> dict[str, str]:
    """Return the header that says when to come again."""
    seconds = refused.seconds or (RETRY_SECONDS if refused.status == 503 else 0)
    return {"Retry-After": str(seconds)} if seconds else {}


def _tell_failure(refused: Refused) -> Response:
    body = {"success": False, "message": f"Bailee: {refused}."}
    return JSONResponse(body, refused.status, tell_pause(refused))


def _tell_status(refused: Refused, *, is_protobuf: bool) -> Response:
    """Answer with google.rpc.Status, in the request's type, as OTLP has it."""
    headers = tell_pause(refused)
    code, text = CODES[refused.status], f"Bailee: {refused}."
    if is_protobuf:
        from google.rpc.status_pb2 import Status

        data: bytes = Status(code=code, message=text).SerializeToString()
        return Response(data, refused.status, headers, PROTOBUF)
    return Response(msgspec.json.encode({"code": code, "message": text}), refused.status, headers, JSON)
