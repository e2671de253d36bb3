"""Receives metrics over OTLP and over Statsig's wire, and holds what the catalogue names; nothing else gets
past the parser.

What is held is sealed in the vault under the terms of operational data. An answer comes when it is durable.
"""

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bailee.accounts.credentials import read_key
from bailee.accounts.keys import KeyRing, Principal
from bailee.bodies import TooLong, read_body
from bailee.codings import Undecodable
from bailee.flows.metrics import exports, statsig
from bailee.flows.metrics.deltas import Deltas
from bailee.flows.metrics.exports import Malformed, Sample, Signal
from bailee.flows.metrics.points import Taken, pack, take
from bailee.policy.decisions import Decision, decide
from bailee.policy.flows import Flow
from bailee.policy.plans import Provider
from bailee.policy.problems import Problem
from bailee.vault.frames import Begin, Finish
from bailee.vault.recording import RecorderGone, Recording, decided_of
from bailee.vault.tables import State

# Source: OTLP/HTTP, "the server MUST NOT accept" nothing is said; collectors take 20 MiB.
MOST_BYTES = 4 * 1024 * 1024
MOST_DECODED_BYTES = 20 * 1024 * 1024
RETRY_SECONDS = 5
PROTOBUF, JSON = "application/x-protobuf", "application/json"
# google.rpc.Code, which OTLP's errors are told in.
_CODES = {400: 3, 401: 16, 403: 7, 413: 8, 415: 3, 503: 14}


class _Refused(Exception):
    """A request is not taken."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Sender(NamedTuple):
    principal: Principal
    decision: Decision


class MetricsReceiver:
    """The `metrics` flow of a service.

    Args:
        provider: where model traffic of this service goes; telemetry is off by default for some.
        wall_clock: seconds since 1970 UTC.
    """

    def __init__(
        self,
        *,
        flow: Flow,
        keys: KeyRing,
        provider: Provider,
        recording: Recording,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._flow = flow
        self._keys = keys
        self._provider = provider
        self._recording = recording
        self._wall_clock = wall_clock
        self._deltas = Deltas(int(wall_clock() * 1_000_000_000))

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

    def _exporting(self, signal: Signal) -> Callable[[Request], Awaitable[Response]]:
        async def receive(request: Request) -> Response:
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            is_protobuf = kind == PROTOBUF
            try:
                sender = self._admit(read_key(request.headers.raw))
                if kind not in (PROTOBUF, JSON):
                    raise self._refuse(request, sender, 415, f"send {PROTOBUF} or {JSON}")
                body = await self._read(request, sender)
                read = exports.read_protobuf if is_protobuf else exports.read_json
                taken = await self._take(request, sender, body, lambda data: read(data, signal))
            except _Refused as refused:
                return _tell_status(refused, is_protobuf=is_protobuf)
            write = exports.write_protobuf if is_protobuf else exports.write_json
            answer = write(signal, taken.rejected, taken.message)
            return Response(answer, media_type=PROTOBUF if is_protobuf else JSON)

        return receive

    # --- Statsig ---

    async def _log_events(self, request: Request) -> Response:
        query = request.query_params
        try:
            sender = self._admit(_find_statsig_key(request))
            body = await self._read(request, sender)

            def read(data: bytes) -> list[Sample]:
                is_gzip, is_reversed = query.get("gz") == "1", query.get("se") == "1"
                uncovered = statsig.uncover(
                    data, is_gzip=is_gzip, is_reversed=is_reversed, most=MOST_DECODED_BYTES
                )
                return statsig.read_events(uncovered)

            await self._take(request, sender, body, read)
        except _Refused as refused:
            return JSONResponse({"success": False, "message": f"Bailee: {refused}."}, refused.status)
        return JSONResponse(statsig.TAKEN, 202)

    def _answering(self, answer: dict[str, object]) -> Callable[[Request], Awaitable[Response]]:
        async def tell(request: Request) -> Response:
            try:
                self._admit(_find_statsig_key(request))
            except _Refused as refused:
                return JSONResponse({"success": False, "message": f"Bailee: {refused}."}, refused.status)
            return JSONResponse(answer)

        return tell

    # --- both ---

    def _admit(self, key: bytes) -> _Sender:
        """Tell who sends; raises _Refused. What the policy refuses is on record."""
        try:
            principal = self._keys.authenticate(key)
        except Problem as problem:
            raise _Refused(503, problem.what) from None
        if principal is None:
            raise _Refused(401, "no valid key: see bailee keys create")
        return _Sender(principal, decide(self._flow, principal.to_context(self._provider)))

    async def _read(self, request: Request, sender: _Sender) -> bytes:
        if not sender.decision.allowed:
            raise self._refuse(request, sender, 403, f"refused by {sender.decision.decided_by}")
        coding = request.headers.get("content-encoding", "")
        try:
            return await read_body(request.stream(), coding, most=MOST_BYTES, most_decoded=MOST_DECODED_BYTES)
        except TooLong:
            text = f"a body is at most {MOST_BYTES} bytes, and {MOST_DECODED_BYTES} without its coding"
            raise self._refuse(request, sender, 413, text) from None
        except Undecodable:
            raise self._refuse(request, sender, 400, f"the body is not {coding[:20]!r}") from None
        except ClientDisconnect:
            raise self._refuse(request, sender, 400, "the body ended early") from None

    async def _take(
        self, request: Request, sender: _Sender, body: bytes, read: Callable[[bytes], list[Sample]]
    ) -> Taken:
        try:
            samples = read(body)
        except Malformed as fault:
            raise self._refuse(request, sender, 400, str(fault)) from None
        now = self._wall_clock()
        today = datetime.fromtimestamp(now, UTC).date()
        taken = take(samples, self._deltas, sender.principal.key_id, today=today)
        if taken.points and not sender.decision.terms.retention.is_none:
            await self._keep(request, sender, taken, int(now * 1000), len(body))
        elif samples:
            self._note(request, sender, State.COMPLETE, 200, "nothing of it is in the catalogue", len(body))
        return taken

    async def _keep(
        self, request: Request, sender: _Sender, taken: Taken, started_ms: int, request_bytes: int
    ) -> None:
        decided = decided_of(sender.decision)
        exchange = self._recording.new_exchange(started_ms)
        begin = Begin(
            exchange=exchange,
            account=sender.principal.account_id,
            session=f"key-{sender.principal.key_id}",
            key=sender.principal.key_id,
            decision=decided.digest,
            flow=self._flow.id.value,
            keep=True,
            started_ms=started_ms,
            upstream="bailee",
            path=_path(request),
            request_bytes=request_bytes,
            headers=b"",
            body=pack(taken.points),
        )
        reason = f"{taken.rejected} dropped" if taken.rejected else None
        nothing = (None, None, None, None, None, None, b"", b"")
        if not self._recording.has_room:
            raise _Refused(503, "too much is being recorded; try again")
        try:
            self._recording.begin(begin, decided)
            await self._recording.finish(
                Finish(exchange, State.COMPLETE.value, reason, 200, None, 0, 0, *nothing)
            )
        except RecorderGone:
            raise _Refused(503, "nothing can be kept now; try again") from None

    def _refuse(self, request: Request, sender: _Sender, status: int, message: str) -> _Refused:
        self._note(request, sender, State.REFUSED, status, "refused", 0)
        return _Refused(status, message)

    def _note(
        self, request: Request, sender: _Sender, state: State, status: int, reason: str, request_bytes: int
    ) -> None:
        started_ms = int(self._wall_clock() * 1000)
        self._recording.note(
            exchange=self._recording.new_exchange(started_ms),
            account=sender.principal.account_id,
            session=f"key-{sender.principal.key_id}",
            key=sender.principal.key_id,
            decided=decided_of(sender.decision),
            flow=self._flow.id.value,
            started_ms=started_ms,
            upstream="bailee",
            path=_path(request),
            state=state.value,
            status=status,
            reason=reason,
            request_bytes=request_bytes,
        )


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


def _tell_status(refused: _Refused, *, is_protobuf: bool) -> Response:
    """Answer with google.rpc.Status, in the request's type, as OTLP has it."""
    headers = {"Retry-After": str(RETRY_SECONDS)} if refused.status == 503 else {}
    code, text = _CODES[refused.status], f"Bailee: {refused}."
    if is_protobuf:
        from google.rpc.status_pb2 import Status

        data: bytes = Status(code=code, message=text).SerializeToString()
        return Response(data, refused.status, headers, PROTOBUF)
    return Response(msgspec.json.encode({"code": code, "message": text}), refused.status, headers, JSON)
