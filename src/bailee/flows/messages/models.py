"""The small requests that agents make beside model traffic: which models there are, is anybody there.

Source: Gateway protocol reference of Claude Code: `GET /v1/models?limit=1000` within 3 s and without
redirects, `HEAD /api/hello`, `HEAD /`. Parameters of the list: Messages API reference, "List Models".
"""

import asyncio
import re

from starlette.requests import Request as WebRequest
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from bailee.accounts.credentials import read_key
from bailee.flows.messages.connections import UpstreamFailed
from bailee.flows.messages.exchanges import record_refusal
from bailee.flows.messages.gateway import Gateway, read_session
from bailee.flows.messages.headers import select_response_headers, to_lines
from bailee.flows.messages.refusals import REFUSED_HEADER
from bailee.flows.messages.upstreams import Headers, Request
from bailee.flows.messages.wires import Wire
from bailee.pages import HOME
from bailee.policy.problems import Problem
from bailee.vault.frames import Begin, Finish
from bailee.vault.tables import State

# Under the 3 s after which an agent goes on without the list.
ANSWER_SECONDS = 2.5
MAX_LIST_BYTES = 4 * 1024 * 1024
LIST_PATH = "/v1/models"
# All that crosses of such a request, so that nothing else leaves in its name: a model's id, these parameters
# and the API's own headers.
_MODEL = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._:-]{1,128}")
_PARAMETERS = ("limit", "after_id", "before_id")
_HEADERS = b"anthropic-"


def make_routes(gateway: Gateway) -> list[Route]:
    """Return the routes that belong to model traffic and are not worth a lane of their own."""

    async def list_models(request: WebRequest) -> Response:
        headers = list(request.headers.raw)
        started_ms = gateway.now_ms()
        try:
            principal = gateway.keys.authenticate(read_key(headers))
        except Problem as problem:
            return _error(503, "api_error", problem.what)
        if principal is None:
            return _error(401, "authentication_error", "no valid key")
        if Wire.MESSAGES not in gateway.upstream.wires:
            return JSONResponse({"data": [], "has_more": False, "first_id": None, "last_id": None})
        target = _read_target(request)
        if target is None:
            return _error(400, "invalid_request_error", "no id of a model, or no parameter of a list")
        decision, decided = gateway.decide(principal)
        session = read_session(headers, principal.key_id)
        refusal = gateway.refuse(principal, decision, Wire.MESSAGES)
        if refusal is not None:
            record_refusal(gateway, principal, decided, session, LIST_PATH, refusal, started_ms)
            return _error(refusal.status, refusal.kind.value[1], refusal.message.removesuffix("."))
        begin = Begin(
            exchange=gateway.new_exchange(started_ms),
            account=principal.account_id,
            session=session,
            key=principal.key_id,
            decision=decided.digest,
            flow=gateway.flow.id.value,
            keep=False,
            started_ms=started_ms,
            upstream=gateway.upstream.name,
            path=LIST_PATH,
            request_bytes=0,
            headers=b"",
            body=b"",
        )
        gateway.recording.begin(begin, decided)
        selected = [(name, value) for name, value in headers if name.lower().startswith(_HEADERS)]
        selected.append((b"User-Agent", b"bailee"))  # some front ends refuse who names none
        response = await _forward(gateway, Request(b"GET", target, selected, b"", Wire.MESSAGES))
        state = State.UPSTREAM_FAILED if REFUSED_HEADER in response.headers else State.COMPLETE
        nothing = (None, None, None, None, None, None, b"", b"")
        duration_ms = gateway.now_ms() - started_ms
        size = len(response.body)
        finish = Finish(begin.exchange, state, None, response.status_code, None, duration_ms, size, *nothing)
        gateway.recording.finish(finish).add_done_callback(lambda done: done.cancelled() or done.exception())
        return response

    async def hello(request: WebRequest) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return RedirectResponse(HOME, 303)  # a person with a browser
        return JSONResponse({"service": "bailee"})

    return [
        Route("/v1/models", list_models, methods=["GET"]),
        Route("/v1/models/{model:path}", list_models, methods=["GET"]),
        Route("/api/hello", hello, methods=["GET"]),
        Route("/", hello, methods=["GET"]),
    ]


def _read_target(request: WebRequest) -> bytes | None:
    """Write path and query anew from what is known of them; None if there is more to the path."""
    model = request.path_params.get("model")
    if model is not None and not _MODEL.fullmatch(model):
        return None
    given = [(name, request.query_params[name]) for name in _PARAMETERS if name in request.query_params]
    if not all(_MODEL.fullmatch(value) for _, value in given):
        return None
    query = "&".join(f"{name}={value}" for name, value in given)
    return (LIST_PATH + (f"/{model}" if model else "") + (f"?{query}" if query else "")).encode()


async def _forward(gateway: Gateway, request: Request) -> Response:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await _fetch(gateway, request)
    except (Problem, UpstreamFailed, TimeoutError) as failure:
        detail = str(failure) or f"the upstream did not answer within {ANSWER_SECONDS:g} s"
        return _error(502, "api_error", detail)
    except Exception as error:  # the text may hold anything, the kind does not
        return _error(502, "api_error", f"the request could not be sent: {type(error).__name__}")


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
        {REFUSED_HEADER: kind},
    )
