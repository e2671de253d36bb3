"""The small requests that agents make beside model traffic: which models there are, is anybody there.

Source: Gateway protocol reference of Claude Code: `GET /v1/models?limit=1000` within 3 s and without
redirects, `HEAD /api/hello`, `HEAD /`.
"""

import asyncio

from starlette.requests import Request as WebRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bailee.flows.messages.connections import UpstreamFailed
from bailee.flows.messages.gateway import Gateway
from bailee.flows.messages.headers import read_key, select_request_headers, select_response_headers, to_lines
from bailee.flows.messages.upstreams import Headers, Request
from bailee.flows.messages.wires import Wire
from bailee.policy.problems import Problem

# Under the 3 s after which an agent goes on without the list.
ANSWER_SECONDS = 2.5
MAX_LIST_BYTES = 4 * 1024 * 1024


def make_routes(gateway: Gateway) -> list[Route]:
    """Return the routes that belong to model traffic and are not worth a lane of their own."""

    async def list_models(request: WebRequest) -> Response:
        headers = list(request.headers.raw)
        try:
            if gateway.keys.authenticate(read_key(headers)) is None:
                return _error(401, "authentication_error", "no valid key")
        except Problem as problem:
            return _error(503, "api_error", problem.what)
        if Wire.MESSAGES not in gateway.upstream.wires:
            return JSONResponse({"data": [], "has_more": False, "first_id": None, "last_id": None})
        target = request.url.path.encode() + (b"?" + request.url.query.encode() if request.url.query else b"")
        forwarded = Request(b"GET", target, select_request_headers(headers), b"", Wire.MESSAGES)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await _fetch(gateway, forwarded)
        except (Problem, UpstreamFailed, TimeoutError) as failure:
            detail = str(failure) or f"the upstream did not answer within {ANSWER_SECONDS:g} s"
            return _error(502, "api_error", detail)

    async def hello(request: WebRequest) -> Response:
        return JSONResponse({"service": "bailee"})

    return [
        Route("/v1/models", list_models, methods=["GET"]),
        Route("/v1/models/{model:path}", list_models, methods=["GET"]),
        Route("/api/hello", hello, methods=["GET"]),
        Route("/", hello, methods=["GET"]),
    ]


class _Collector:
    """Takes in a small answer whole."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[tuple[int, Headers, bytes]] = asyncio.get_running_loop().create_future()
        self._head: tuple[int, Headers] = (502, [])
        self._body = bytearray()

    def receive_head(self, status: int, reason: bytes, headers: Headers) -> None:
        """Take in status and headers."""
        self._head = status, headers

    def receive_data(self, data: bytes, is_whole: bool) -> None:
        """Take in bytes of the body."""
        self._body += data
        if self.answer.done():
            return
        if len(self._body) > MAX_LIST_BYTES:
            self.answer.set_exception(UpstreamFailed("the list of models is too large"))
        elif is_whole:
            self.answer.set_result((*self._head, bytes(self._body)))

    def receive_failure(self, failure: UpstreamFailed) -> None:
        """Take in that no more will come."""
        if not self.answer.done():
            self.answer.set_exception(failure)


async def _fetch(gateway: Gateway, request: Request) -> Response:
    target, headers = await gateway.upstream.authorize(request)
    pool = gateway.pool
    for is_last in (False, True):
        connection = await pool.acquire(fresh=is_last)
        collector = _Collector()
        head = b"GET %s%s HTTP/1.1\r\nHost: %s\r\n%s%s\r\n" % (
            pool.target_prefix.encode(),
            target,
            pool.origin.authority.encode(),
            to_lines(headers),
            to_lines(pool.proxy_headers),
        )
        connection.send(head, b"", collector)
        try:
            status, received, body = await collector.answer
        except UpstreamFailed as failure:
            if is_last or not failure.is_stale:
                raise
            continue
        except BaseException:
            connection.abort()
            raise
        response = Response(body, status)
        response.raw_headers = [
            (name.lower(), value)
            for name, value in select_response_headers(received)
            if name.lower() != b"content-length"
        ] + [(b"content-length", str(len(body)).encode())]
        return response
    raise AssertionError("unreachable")


def _error(status: int, kind: str, message: str) -> Response:
    return JSONResponse(
        {"type": "error", "error": {"type": kind, "message": f"Bailee: {message}."}},
        status,
        {"x-bailee-refused": kind},
    )
