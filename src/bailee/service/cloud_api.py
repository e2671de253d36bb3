"""Cloud sessions over HTTP, for account holders: the same as `bailee cloud`, with a stream of events.

GET, POST  /api/cloud/sessions
GET, DELETE  /api/cloud/sessions/ID
GET   /api/cloud/sessions/ID/audit    every request to the outside; ?denied=1 for what was not let through
GET   /api/cloud/sessions/ID/events   Server-Sent Events: `state` as JSON, `log` a line
POST  /api/cloud/sessions/ID/turns    {"prompt": "..."}
POST  /api/cloud/sessions/ID/stop
GET   /api/cloud/sessions/ID/conversation   what somebody needs who takes it over; for logins as well
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from bailee.accounts.credentials import read_key
from bailee.accounts.keys import KeyRing, Principal
from bailee.bodies import TooLong, TooSlow, read_body
from bailee.characters import make_visible
from bailee.cloud.conversations import Offer, make_offer
from bailee.cloud.records import ENDED, CloudSession, NoSuchSession, Sessions, WrongState
from bailee.codings import Undecodable
from bailee.policy.problems import Problem
from bailee.rates import Rates
from bailee.service import cloud_orders
from bailee.service.audits import read_audit
from bailee.service.cloud_disks import remove_session
from bailee.service.cloud_logs import read_log, tell_line
from bailee.service.cloud_orders import Order, Text
from bailee.service.cloud_spares import Spares
from bailee.vault.custody import open_custody

BASE = "/api/cloud/sessions"
LARGEST = 400_000  # bytes of an order
LONGEST_LINE = 65_536  # bytes of an event; what is longer is more than one
# A second and at once, of one login: a person takes a session over now and then, and each is ledgered.
OFFERS = (1 / 60, 10)
_LOOK_SECONDS = 0.2
# Comments keep a connection open through proxies that end what is quiet.
_QUIET_LOOKS = 75
_STATUSES = ((NoSuchSession, 404), (WrongState, 409))
Answer = Callable[[Request], Coroutine[Any, Any, Response]]


class Turn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Another prompt."""

    prompt: Text


class CloudApi:
    """Answers account holders.

    A key that proves the account holder opens it, and no other: an agent in a machine has a key too, and
    would begin sessions of repositories that it was not given.

    But for one thing, taking a session over, which a login opens as well: the account holder let that agent
    in, to work in their name, and a conversation is what it works on. It begins, changes, ends and lists
    nothing, and is for who knows the session's id. As a login's token may be in others' hands than a person's
    (ADR 14), it is recorded before it happens, as any reading that is not proven to be the holder's.

    Args:
        is_kept: whether the service stays, so that a driver may wait where sessions were begun before.
    """

    def __init__(self, home: Path, keys: KeyRing, *, is_kept: bool = True) -> None:
        self._home = home
        self._keys = keys
        self._sessions = Sessions(home)
        self._spares = Spares(home)
        if is_kept and self._sessions.ids():
            self._spares.want()
        self._offers = Rates(*OFFERS)

    def close(self) -> None:
        """End what waits for orders."""
        self._spares.close()

    def make_routes(self) -> list[Route]:
        """Return the routes."""
        one = BASE + "/{id}"
        return [
            Route(BASE, self._guard(self._list), methods=["GET"]),
            Route(BASE, self._guard(self._begin), methods=["POST"]),
            Route(one, self._guard(self._show), methods=["GET"]),
            Route(one, self._guard(self._remove), methods=["DELETE"]),
            Route(one + "/audit", self._guard(self._audit), methods=["GET"]),
            Route(one + "/events", self._guard(self._follow), methods=["GET"]),
            Route(one + "/turns", self._guard(self._say), methods=["POST"]),
            Route(one + "/stop", self._guard(self._stop), methods=["POST"]),
            Route(one + "/conversation", self._guard(self._offer, for_logins=True), methods=["GET"]),
        ]

    def _guard(
        self,
        answer: Callable[[Request, Principal], Coroutine[Any, Any, Response]],
        *,
        for_logins: bool = False,
    ) -> Answer:
        async def guarded(request: Request) -> Response:
            try:
                principal = self._keys.authenticate(read_key(request.headers.raw))
                if principal is None:
                    return _refuse(401, "no valid key: send one as Authorization: Bearer")
                if not (principal.is_proof or (for_logins and principal.is_login)):
                    what = "this key is for agents; one that proves the account holder is wanted"
                    return _refuse(403, what, "bailee keys create --for-holder")
                return await answer(request, principal)
            except Problem as problem:
                status = next((one for kind, one in _STATUSES if isinstance(problem, kind)), 400)
                return _refuse(status, problem.what, problem.fix, where=problem.where)

        return guarded

    async def _list(self, request: Request, principal: Principal) -> Response:
        found = await run_in_threadpool(self._sessions.all)
        return _tell([describe(one) for one in found if one.account == principal.account_name])

    async def _begin(self, request: Request, principal: Principal) -> Response:
        order = await _read(request, Order)
        if isinstance(order, Response):
            return order
        start = partial(cloud_orders.begin, self._home, principal.account_name, order)
        session = await run_in_threadpool(start)
        self._spares.want()
        return _tell(describe(session), 201)

    async def _show(self, request: Request, principal: Principal) -> Response:
        session = await self._find(request, principal)
        receipt = msgspec.json.decode(session.receipt or "null")
        return _tell({**describe(session), "receipt": receipt})

    async def _audit(self, request: Request, principal: Principal) -> Response:
        session = await self._find(request, principal)
        audited = await run_in_threadpool(read_audit, self._home, session)
        is_denied = request.query_params.get("denied", "") in ("1", "true")
        return _tell([one for one in audited if one.is_denied or not is_denied])

    async def _say(self, request: Request, principal: Principal) -> Response:
        session = await self._find(request, principal)
        turn = await _read(request, Turn)
        if isinstance(turn, Response):
            return turn
        changed = await run_in_threadpool(cloud_orders.say, self._home, session.id, turn.prompt)
        return _tell(describe(changed), 202)

    async def _stop(self, request: Request, principal: Principal) -> Response:
        session = await self._find(request, principal)
        await run_in_threadpool(cloud_orders.stop, self._home, session.id)
        return _tell(describe(await run_in_threadpool(self._sessions.look, session.id)))

    async def _offer(self, request: Request, principal: Principal) -> Response:
        if not principal.is_proof and (wait := self._offers.take(principal.key_id)):
            return _refuse(429, "this login asked too often", f"ask again in {math.ceil(wait)} s")
        session = await self._find(request, principal)
        return _tell(await run_in_threadpool(self._make_offer, session, principal))

    def _make_offer(self, session: CloudSession, principal: Principal) -> Offer:
        offer = make_offer(session, self._sessions)
        if offer.conversation and not principal.is_proof:
            custody = open_custody(self._home)
            try:
                custody.record_access(
                    principal.account_id,
                    None,
                    reader=f"login {principal.key_id}",
                    purpose="take over",
                    reason=f"cloud session {session.id}",
                )
            finally:
                custody.close()
        return offer

    async def _remove(self, request: Request, principal: Principal) -> Response:
        session = await self._find(request, principal)
        remove = partial(remove_session, self._home, session.id, by=principal.account_name)
        receipt = await run_in_threadpool(remove)
        return Response(receipt, 200, {"cache-control": "no-store"}, media_type="application/json")

    async def _follow(self, request: Request, principal: Principal) -> Response:
        session = await self._find(request, principal)
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        token = read_key(request.headers.raw)

        def is_open() -> bool:
            return self._keys.authenticate(token) is not None

        events = self._events(session.id, is_open)
        return StreamingResponse(events, 200, headers, media_type="text/event-stream")

    async def _events(self, id: str, is_open: Callable[[], bool]) -> AsyncIterator[bytes]:
        """Give what a session says, and how it stands, from its beginning to its end.

        Args:
            is_open: whether the key that asked for it still opens anything.
        """
        told, at, rest, quiet = "", 0, b"", 0
        while is_open():
            session = await run_in_threadpool(self._sessions.look, id)
            is_over = session.state in ENDED and not self._sessions.is_driven(id)
            data = await run_in_threadpool(read_log, self._sessions, id, at)
            at += len(data)
            lines, rest = cut_lines(rest + data)
            if is_over and not data and rest:
                lines, rest = [rest], b""
            for line in lines:
                yield _event("log", tell_line(line))
            state = msgspec.json.encode(
                {"state": session.state, "reason": session.reason, "answered": session.answered}
            ).decode()
            if state != told:
                told, quiet = state, 0
                yield _event("state", state)
            if is_over and not data:
                return
            quiet = 0 if data else quiet + 1
            if quiet >= _QUIET_LOOKS:
                quiet = 0
                yield b": still here\n\n"
            if not data:
                await asyncio.sleep(_LOOK_SECONDS)

    async def _find(self, request: Request, principal: Principal) -> CloudSession:
        """Return a session of the account; of others' it is not told whether there are any."""
        id = request.path_params["id"]
        if id in await run_in_threadpool(self._sessions.ids):
            session = await run_in_threadpool(self._sessions.look, id)
            if session.account == principal.account_name:
                return session
        raise NoSuchSession("there is no such session", where="ID", fix=f"see: GET {BASE}")


def cut_lines(data: bytes) -> tuple[list[bytes], bytes]:
    """Return the lines that are whole, or longer than an event may be, and what is left."""
    *whole, rest = data.split(b"\n")
    lines = [line[at : at + LONGEST_LINE] for line in whole for at in range(0, len(line) or 1, LONGEST_LINE)]
    while len(rest) > LONGEST_LINE:
        lines.append(rest[:LONGEST_LINE])
        rest = rest[LONGEST_LINE:]
    return lines, rest


def describe(session: CloudSession) -> dict[str, Any]:
    """Return what is told of a session."""
    told: dict[str, Any] = msgspec.to_builtins(session)
    for name in ("receipt", "sealed"):
        told.pop(name)
    return told


def _event(name: str, data: str) -> bytes:
    # A line of data is one line (WHATWG HTML, "Server-sent events"); make_visible left no line break in it.
    return f"event: {name}\ndata: {data}\n\n".encode()


async def _read(request: Request, kind: type[Any]) -> Any:
    """Return a body as what it is to be, or the answer that says why it is not."""
    try:
        coding = request.headers.get("content-encoding", "")
        body = await read_body(request.stream(), coding, most=LARGEST, most_decoded=LARGEST)
        return msgspec.json.decode(body, type=kind)
    except TooLong:
        return _refuse(413, f"an order has at most {LARGEST} bytes")
    except (TooSlow, ClientDisconnect):
        return _refuse(408, "the order did not come in time")
    except (msgspec.MsgspecError, UnicodeDecodeError, Undecodable) as fault:
        return _refuse(400, f"this is no order: {fault}")


def _tell(value: object, status: int = 200) -> Response:
    return Response(
        msgspec.json.encode(value), status, {"cache-control": "no-store"}, media_type="application/json"
    )


def _refuse(status: int, what: str, fix: str = "", *, where: str = "") -> Response:
    return JSONResponse({"error": make_visible(what), "where": make_visible(where), "fix": fix}, status)
