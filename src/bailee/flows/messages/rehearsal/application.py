"""The rehearsal model over HTTP, as an ASGI application."""

import asyncio
from collections.abc import Callable
from enum import StrEnum
from hashlib import sha256
from urllib.parse import parse_qs

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from bailee.flows.messages.rehearsal.performances import Headers, Performance, refuse, respond
from bailee.flows.messages.rehearsal.replies import Part
from bailee.flows.messages.rehearsal.scenarios import Refusal
from bailee.flows.messages.wires import Wire, recognize_wire

MODELS = ("claude-rehearsal-1", "claude-rehearsal-1-small")
_CREATED = "2026-01-01T00:00:00Z"


class Received(msgspec.Struct, frozen=True):
    """A request as it arrived. ASGI gives the names of headers in small letters, in their order."""

    method: bytes
    target: bytes
    headers: Headers
    body: bytes


class Ending(StrEnum):
    """How an answer ended."""

    COMPLETE = "complete"
    CUT = "cut"
    HUNG_UP = "hung up"


def create_application(
    *,
    recorder: Callable[[Received], None] | None = None,
    observer: Callable[[Received, Ending], None] | None = None,
) -> ASGIApp:
    """Return the application.

    Args:
        recorder: called with each request before it is answered.
        observer: called with each request when its answer has ended, with how it ended.
    """

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] != "http":
            return
        received = await _read(scope, receive)
        if received is None:
            return
        if recorder is not None:
            recorder(received)
        ending = await _play(answer(received), received.method == b"HEAD", receive, send)
        if observer is not None:
            observer(received, ending)

    return application


def answer(received: Received) -> Performance:
    """Answer any request: the model's wires, its list of models, and the signs of life agents ask for."""
    path, _, query = received.target.partition(b"?")
    wire = recognize_wire(path)
    if wire is not None and received.method == b"POST":
        return respond(wire, received.target, received.body)
    if received.method in (b"GET", b"HEAD"):
        if path == b"/":
            return _tell({"model": "rehearsal"})
        if path == b"/api/hello":
            return _tell({"message": "hello"})
        if path.rstrip(b"/") == b"/v1/models":
            return _tell(_list_models(query.decode("ascii", "replace")))
        if path.startswith(b"/v1/models/"):
            wanted = path.removeprefix(b"/v1/models/").decode("ascii", "replace")
            if wanted in MODELS:
                return _tell(_describe_model(wanted))
    refusal = Refusal(404, "not_found_error", "The rehearsal model does not know this path.")
    if wire is not None:
        refusal = Refusal(405, "invalid_request_error", "The rehearsal model takes only POST here.")
    digest = sha256(b"\n".join((received.method, received.target, received.body))).hexdigest()
    return refuse(Wire.MESSAGES, digest, refusal)


def _tell(value: object) -> Performance:
    return Performance(
        200, [(b"content-type", b"application/json")], (Part(0.0, msgspec.json.encode(value)),)
    )


def _list_models(query: str) -> object:
    asked = parse_qs(query)
    try:
        limit = max(1, int(asked.get("limit", ["20"])[0]))
    except ValueError:
        limit = 20
    after = asked.get("after_id", [""])[0]
    known = MODELS[MODELS.index(after) + 1 :] if after in MODELS else MODELS
    shown = known[:limit]
    return {
        "data": [_describe_model(model) for model in shown],
        "has_more": len(shown) < len(known),
        "first_id": shown[0] if shown else None,
        "last_id": shown[-1] if shown else None,
    }


def _describe_model(model: str) -> object:
    name = model.removeprefix("claude-").replace("-", " ").capitalize()
    return {"type": "model", "id": model, "display_name": name, "created_at": _CREATED}


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _read(scope: Scope, receive: Receive) -> Received | None:
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        more = message.get("more_body", False)
    query = scope["query_string"]
    target = scope["raw_path"] + (b"?" + query if query else b"")
    headers = [(name, value) for name, value in scope["headers"]]
    return Received(scope["method"].encode(), target, headers, bytes(body))


async def _play(performance: Performance, is_head: bool, receive: Receive, send: Send) -> Ending:
    gone = asyncio.Event()

    async def listen() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.set()

    listening = asyncio.create_task(listen())
    headers = performance.headers
    is_whole = len(performance.parts) == 1 and not performance.is_cut
    if is_whole and not any(name == b"content-length" for name, _ in headers):
        headers = [*headers, (b"content-length", str(len(performance.parts[0].data)).encode())]
    try:
        await send({"type": "http.response.start", "status": performance.status, "headers": headers})
        for part in () if is_head else performance.parts:
            if part.pause:
                await _wait(gone, part.pause)
            if gone.is_set():
                return Ending.HUNG_UP
            await send({"type": "http.response.body", "body": part.data, "more_body": True})
        if performance.is_cut:
            # A server closes the connection of an application that returns before its answer is complete.
            return Ending.CUT
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return Ending.COMPLETE
    finally:
        listening.cancel()


async def _wait(gone: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await gone.wait()
    except TimeoutError:
        pass
