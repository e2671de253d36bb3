"""Large files (Git LFS API, "Batch"): where the objects lie is another address, often of another host.

The batch request goes on to the repository. What comes back are addresses with credentials of their own: a
session gets tickets in their place, and brings and fetches the objects through them.
"""

import asyncio
import ipaddress
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from bailee.bodies import TooLong, TooSlow, read_body
from bailee.codings import Undecodable
from bailee.flows.git.access import Access, Attached
from bailee.flows.git.meters import Meters, TooMuch
from bailee.flows.git.upstreams import Upstreams

KIND = "application/vnd.git-lfs+json"
LARGEST = 4_000_000  # bytes of a batch, either way
TICKET_SECONDS = 3600.0
MOST_TICKETS = 20_000
# Takes an object's host, the outcome, the status, and bytes sent to it and received.
LogTransfer = Callable[[str, str, int, int, int], None]
_METHODS = {"download": "GET", "upload": "PUT", "verify": "POST"}


class Ticket(msgspec.Struct, frozen=True):
    """Where an object really is, for one session and an hour.

    Attributes:
        is_elsewhere: on another host than the repository's.
    """

    session: str
    method: str
    url: str
    headers: dict[str, str]
    until: float
    is_elsewhere: bool


class LargeFiles:
    """Answers batches and moves objects."""

    def __init__(
        self, upstreams: Upstreams, meters: Meters, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._upstreams = upstreams
        self._meters = meters
        self._clock = clock
        self._tickets: dict[str, Ticket] = {}

    async def answer(
        self, request: Request, repository: Attached, what: str, headers: dict[str, str], access: Access
    ) -> tuple[Response, str]:
        """Return the answer to a request of the API, and what is logged of it."""
        if what != "objects/batch":
            # A client goes on without locks where the server has none (LFS API, "Locking").
            return tell_refused(404, "locks are not kept here"), "no_locks"
        try:
            body = await read_body(
                request.stream(),
                request.headers.get("content-encoding", ""),
                most=LARGEST,
                most_decoded=LARGEST,
            )
            asked = msgspec.json.decode(body, type=dict[str, Any])
        except (TooLong, TooSlow, Undecodable, ClientDisconnect, msgspec.MsgspecError, RecursionError):
            return tell_refused(400, "this is no batch of objects"), "malformed"
        operation = asked.get("operation")
        if operation not in ("download", "upload"):
            return tell_refused(400, "a batch is of downloads or uploads"), "malformed"
        if operation == "upload" and not repository.branch:
            return tell_refused(403, f"this session may read {repository.place}, and no more"), "read_only"
        url = repository.url.rstrip("/").removesuffix(".git") + ".git/info/lfs/objects/batch"
        sent = {"accept": KIND, "content-type": KIND, "accept-encoding": "identity", **headers}
        try:
            self._meters.take(access, repository.place.partition("/")[0], len(body))
            answer = await self._upstreams.ask("POST", url, sent, body)
        except TooMuch as much:
            return tell_refused(403, str(much)), much.rule
        except OSError as fault:
            return tell_refused(502, f"{repository.place} cannot be reached ({fault})"), "unreachable"
        try:
            told = await _read(answer.aiter_raw())
        except (TooLong, OSError):
            return tell_refused(502, f"{repository.place} gives no batch that can be read"), "host"
        finally:
            await answer.aclose()
        if answer.status_code != 200:
            return tell_refused(
                502, f"{repository.place} answers {answer.status_code}"
            ), f"host {answer.status_code}"
        try:
            batch = msgspec.json.decode(told, type=dict[str, Any])
            self._replace(batch, operation, request, access.session, repository)
        except (msgspec.MsgspecError, TypeError, AttributeError, KeyError, ValueError):
            return tell_refused(502, f"{repository.place} gives no batch that can be read"), "host"
        return JSONResponse(batch, media_type=KIND), "passed"

    async def transfer(self, request: Request, path: str, access: Access, log: LogTransfer) -> Response:
        """Move one object, by its ticket."""
        ticket = self._tickets.get(path.removeprefix("/-/"))
        if (
            ticket is None
            or ticket.session != access.session
            or ticket.until < self._clock()
            or ticket.method != request.method
        ):
            log("", "no_ticket", 403, 0, 0)
            return tell_refused(403, "this object was not asked for, or an hour ago")
        host = urlsplit(ticket.url).netloc.rpartition("@")[2]
        # The repository's host says where: into the network of this service it must not lead.
        if ticket.is_elsewhere and not await is_public(ticket.url):
            log(host, "not_public", 403, 0, 0)
            return tell_refused(403, "the object is said to be at an address that is not public")
        headers = {"accept-encoding": "identity", **ticket.headers}
        for name in ("content-type", "content-length"):
            if request.method != "GET" and name in request.headers:
                headers.setdefault(name, request.headers[name])
        sent = self._meters.count(access, host)
        try:
            body = sent.over(request.stream()) if request.method != "GET" else None
            answer = await self._upstreams.ask(ticket.method, ticket.url, headers, body)
        except TooMuch as told:
            log(host, told.rule, 429, sent.count, 0)
            return tell_refused(403, str(told))
        except (OSError, ClientDisconnect) as fault:
            log(host, "unreachable", 502, sent.count, 0)
            return tell_refused(502, f"the object's host cannot be reached ({fault})")
        if answer.status_code >= 300:
            await answer.aclose()
            log(host, f"host {answer.status_code}", answer.status_code, sent.count, 0)
            status = answer.status_code if answer.status_code >= 400 else 502
            return tell_refused(status, f"the object's host answers {answer.status_code}")

        async def stream() -> AsyncIterator[bytes]:
            # An upload is done once the host says so, whoever reads its answer.
            received, outcome = 0, "cut off" if ticket.method == "GET" else "passed"
            try:
                async for piece in answer.aiter_raw():
                    received += len(piece)
                    yield piece
                outcome = "passed"
            finally:
                await answer.aclose()
                # A client hangs up once it has all, which may be before the host's end is seen.
                if str(received) == answer.headers.get("content-length"):
                    outcome = "passed"
                log(host, outcome, answer.status_code, sent.count, received)

        kept = {
            name: answer.headers[name]
            for name in ("content-type", "content-length")
            if name in answer.headers
        }
        return StreamingResponse(stream(), answer.status_code, kept)

    def _replace(
        self, batch: dict[str, Any], operation: str, request: Request, session: str, repository: Attached
    ) -> None:
        """Put tickets in the place of addresses and credentials."""
        self._forget()
        base = f"{request.url.scheme}://{request.headers['host']}/git/-/"
        scheme, own = urlsplit(repository.url).scheme, urlsplit(repository.url).hostname
        for one in batch.get("objects", []):
            for name, action in list(one.get("actions", {}).items()):
                if name not in _METHODS or (name == "download") != (operation == "download"):
                    raise ValueError("an action that was not asked for")
                url = str(action["href"])
                if urlsplit(url).scheme not in ("https", scheme):
                    raise ValueError("an object in clear of a repository that is not")
                ticket = secrets.token_urlsafe(24)
                given = {str(key): str(value) for key, value in action.get("header", {}).items()}
                until = self._clock() + TICKET_SECONDS
                is_elsewhere = urlsplit(url).hostname != own
                self._tickets[ticket] = Ticket(session, _METHODS[name], url, given, until, is_elsewhere)
                # The client sends its own credential along: it is for this place.
                one["actions"][name] = {"href": base + ticket, "expires_in": int(TICKET_SECONDS)}
            one["authenticated"] = False

    def _forget(self) -> None:
        now = self._clock()
        self._tickets = {name: one for name, one in self._tickets.items() if one.until >= now}
        while len(self._tickets) > MOST_TICKETS:
            del self._tickets[next(iter(self._tickets))]


async def is_public(url: str) -> bool:
    """Tell whether all that the host of a URL leads to are public addresses."""
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except (OSError, ValueError, UnicodeError):
        return False
    return all(ipaddress.ip_address(str(one[4][0]).partition("%")[0]).is_global for one in found)


async def _read(pieces: AsyncIterator[bytes]) -> bytes:
    data = b""
    async for piece in pieces:
        data += piece
        if len(data) > LARGEST:
            raise TooLong
    return data


def tell_refused(status: int, text: str) -> Response:
    """Return an answer whose text git-lfs shows: it shows none of another kind of content."""
    return JSONResponse({"message": f"Bailee: {text}"}, status, {"x-bailee-denied": "git"}, media_type=KIND)
