"""Receives OTLP exports. The catalogue of what may be held is empty, so all is dropped and counted."""

import time
import zlib
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bailee.accounts.credentials import read_key
from bailee.accounts.keys import KeyRing
from bailee.flows.metrics.exports import REJECTED, Malformed, Signal, count
from bailee.policy.decisions import decide
from bailee.policy.flows import Flow
from bailee.policy.plans import Provider
from bailee.policy.problems import Problem
from bailee.vault.recording import Recording, decided_of
from bailee.vault.tables import State

MAX_BODY_BYTES = 4 * 1024 * 1024
# google.rpc.Code, which OTLP's errors are told in.
_INVALID, _DENIED, _UNAVAILABLE, _UNAUTHENTICATED = 3, 7, 14, 16


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

    def make_routes(self) -> list[Route]:
        """Return the routes exporters use."""
        return [Route(f"/v1/{signal}", self._receiving(signal), methods=["POST"]) for signal in Signal]

    def _receiving(self, signal: Signal) -> Callable[..., object]:
        async def receive(request: Request) -> Response:
            return await self._receive(request, signal)

        return receive

    async def _receive(self, request: Request, signal: Signal) -> Response:
        try:
            principal = self._keys.authenticate(read_key(request.headers.raw))
        except Problem as problem:
            return _error(503, _UNAVAILABLE, problem.what)
        if principal is None:
            return _error(401, _UNAUTHENTICATED, "no valid key. Send one as Authorization: Bearer")
        decision = decide(self._flow, principal.to_context(self._provider))
        body = b""
        if not decision.allowed:
            response = _error(403, _DENIED, f"refused by {decision.decided_by}")
        elif not request.headers.get("content-type", "").startswith("application/json"):
            response = _error(415, _INVALID, "send JSON: OTEL_EXPORTER_OTLP_PROTOCOL=http/json")
        else:
            try:
                body = await _read_body(request)
                response = _drop(count(body, signal), signal)
            except Malformed as fault:
                response = _error(400, _INVALID, str(fault))
        started_ms = int(self._wall_clock() * 1000)
        is_taken = response.status_code == 200
        self._recording.note(
            exchange=self._recording.new_exchange(started_ms),
            account=principal.account_id,
            session=f"key-{principal.key_id}",
            key=principal.key_id,
            decided=decided_of(decision),
            flow=self._flow.id.value,
            started_ms=started_ms,
            upstream="bailee",
            path=request.url.path,
            state=State.COMPLETE.value if is_taken else State.REFUSED.value,
            status=response.status_code,
            reason="no event of it is in the catalogue: dropped" if is_taken else "refused",
            request_bytes=len(body),
        )
        return response


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise Malformed(f"an export is at most {MAX_BODY_BYTES} bytes")
    if request.headers.get("content-encoding", "identity") == "identity":
        return bytes(body)
    try:
        unpacking = zlib.decompressobj(16 + zlib.MAX_WBITS)
        unpacked = unpacking.decompress(bytes(body), MAX_BODY_BYTES)
    except zlib.error:
        raise Malformed("the body is not gzip") from None
    if unpacking.unconsumed_tail:
        raise Malformed(f"an export is at most {MAX_BODY_BYTES} bytes")
    return unpacked


def _drop(number: int, signal: Signal) -> Response:
    if number == 0:
        return JSONResponse({})
    told = "Bailee holds only events that its catalogue names, and it names none yet"
    return JSONResponse({"partialSuccess": {REJECTED[signal]: str(number), "errorMessage": told}})


def _error(status: int, code: int, message: str) -> Response:
    return JSONResponse({"code": code, "message": f"Bailee: {message}."}, status)
