"""GitHub's REST and GraphQL for sessions: decided, then asked with the real credential, then recorded."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from bailee.bodies import TooLong, TooSlow, read_body
from bailee.codings import Undecodable
from bailee.flows.git.access import Access, Attached
from bailee.flows.git.credentials import Credentials
from bailee.flows.git.github.answers import TakingOut, pass_back
from bailee.flows.git.github.checks import hold
from bailee.flows.git.github.graphql import Introspection, judge_graphql
from bailee.flows.git.github.places import Asked, find_place, list_attached, read_asked
from bailee.flows.git.github.rest import judge_rest
from bailee.flows.git.github.verdicts import Going, Refused
from bailee.flows.git.meters import Meters, TooMuch
from bailee.flows.git.refusals import DENIED
from bailee.flows.git.requests import GitRequest
from bailee.flows.git.upstreams import Upstreams

if TYPE_CHECKING:
    from httpx2 import Response as Answer

# Of a request's body: larger files belong into a push, which is not held.
LARGEST = 10_000_000
SECONDS = 120.0
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
DOCUMENTATION = "https://github.com/bailee/bailee/tree/main/docs/git.md#githubs-api"
_PASSED_ON = (
    *("accept", "user-agent", "if-none-match", "if-modified-since"),
    *("x-github-api-version", "x-github-next-global-id"),
)
_NOT_MODIFIED = 304


def tell_refused(rule: str, reason: str, status: int = 403) -> Response:
    """Return a refusal in GitHub's form, which its clients show."""
    body = {"message": f"Bailee: {reason}", "documentation_url": DOCUMENTATION, "status": str(status)}
    return JSONResponse(body, status, {DENIED: rule})


class GitHubApi:
    """Answers sessions.

    Args:
        wall_clock: seconds since 1970 UTC.
    """

    def __init__(
        self,
        *,
        upstreams: Upstreams,
        credentials: Credentials,
        meters: Meters,
        wall_clock: Callable[[], float],
    ) -> None:
        self._upstreams = upstreams
        self._credentials = credentials
        self._meters = meters
        self._wall_clock = wall_clock
        # What validates slowly keeps others of its kind waiting and nobody else.
        self._one = asyncio.Lock()

    async def answer(self, request: Request, access: Access) -> Response:
        """Answer a request of a session.

        Raises:
            Problem: the credential does not open, or the host makes none of an App.
        """
        # As it came: what is decoded already hides how another server would have read it.
        raw = request.scope["raw_path"].decode("latin-1")
        asked = read_asked(raw)
        try:
            body = await read_body(
                request.stream(),
                request.headers.get("content-encoding", ""),
                most=LARGEST,
                most_decoded=LARGEST,
                seconds=SECONDS,
            )
        except ClientDisconnect:
            return Response(status_code=499)
        except (TooLong, TooSlow, Undecodable):
            return self._refuse(
                access, "", "", Refused("body", "the body is too long, or cannot be read", 413)
            )
        if asked is None:
            return self._refuse(access, "", "", Refused("route", "this is no address of GitHub's API"))
        attached = list_attached(access, asked.host)
        if not attached:
            refused = Refused(
                "not_attached", f"no repository of {asked.host[:200]} is attached to this session"
            )
            return self._refuse(access, asked.host, "", refused)
        going: Going | None = None
        try:
            found = await self._judge(request, access, asked, body)
            if isinstance(found, Introspection):
                self._log(access, asked.host, "POST /graphql introspection", "answered_here", 200)
                return JSONResponse(found.answer)
            going = found
            repository = going.repository or attached[0]
            credential = await self._credentials.open(access, repository)
            headers = {"authorization": credential.to_bearer()} if credential else {}
            await hold(going, find_place(repository), self._upstreams, headers)
        except Refused as refused:
            place = going.repository.place if going and going.repository else asked.host
            return self._refuse(access, place, going.route if going else request.method, refused, going)
        return await self._pass_on(request, access, going, repository, headers)

    async def _judge(
        self, request: Request, access: Access, asked: Asked, body: bytes
    ) -> Going | Introspection:
        if asked.path:
            query = request.scope["query_string"].decode("latin-1")
            told = dict(request.headers)
            return judge_rest(access, asked.host, request.method, asked.path, query, told, body)
        if request.method != "POST" or request.scope["query_string"]:
            raise Refused("graphql_body", "GraphQL is asked with POST, and no query in the address", 400)
        async with self._one:
            return await asyncio.to_thread(judge_graphql, access, asked.host, body)

    async def _pass_on(
        self,
        request: Request,
        access: Access,
        going: Going,
        repository: Attached,
        credential: dict[str, str],
    ) -> Response:
        place = find_place(repository)
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        headers |= {"accept-encoding": "identity", **credential}  # so that tokens can be taken out
        body: bytes | None = None
        if going.body is not None:
            body = msgspec.json.encode(going.body)
            headers["content-type"] = "application/json"
        url = place.rest + going.path if going.path else place.graphql
        sent = len(body or b"")
        try:
            self._meters.take(access, place.host, sent)
            answer = await self._upstreams.ask(going.method, url, headers, body)
        except TooMuch as told:
            why = Refused(told.rule, str(told), 429)
            return self._refuse(access, repository.place, going.route, why, going)
        except OSError as fault:
            return self._refuse(
                access,
                repository.place,
                going.route,
                Refused("unreachable", f"{place.host} cannot be reached ({fault})", 502),
                going,
            )
        if refused := _judge_answer(answer, repository):
            await answer.aclose()
            return self._refuse(access, repository.place, going.route, refused, going, sent)
        back = pass_back(answer.headers, place, repository)
        return StreamingResponse(
            self._stream(answer, access, going, repository, sent), answer.status_code, back
        )

    async def _stream(
        self, answer: "Answer", access: Access, going: Going, repository: Attached, sent: int
    ) -> AsyncIterator[bytes]:
        received, outcome = 0, "cut off"
        taking_out = TakingOut()
        try:
            async for piece in answer.aiter_raw():
                received += len(piece)
                if passed := taking_out.feed(piece):
                    yield passed
            if rest := taking_out.finish():
                yield rest
            outcome = "passed"
        finally:
            await answer.aclose()
            self._log(
                access, repository.place, going.route, outcome, answer.status_code, going, sent, received
            )

    def _refuse(
        self,
        access: Access,
        place: str,
        route: str,
        refused: Refused,
        going: Going | None = None,
        sent: int = 0,
    ) -> Response:
        self._log(access, place, route, refused.rule, refused.status, going, sent)
        return tell_refused(refused.rule, refused.reason, refused.status)

    def _log(
        self,
        access: Access,
        place: str,
        route: str,
        outcome: str,
        status: int,
        going: Going | None = None,
        sent: int = 0,
        received: int = 0,
    ) -> None:
        what = "api write" if going and going.is_write else "api read" if going else "api"
        refs = going.refs if going else ()
        at_ms = int(self._wall_clock() * 1000)
        self._meters.note(
            access,
            GitRequest(
                at_ms, access.session, place[:300], what, outcome, status, refs, sent, received, route[:300]
            ),
        )


def _judge_answer(answer: "Answer", repository: Attached) -> Refused | None:
    status = answer.status_code
    if 300 <= status < 400 and status != _NOT_MODIFIED:
        reason = f"{repository.place} answers from another place, to which its credential does not go"
        return Refused("moved", reason, 502)
    if status == 401:
        reason = (
            f"{repository.place} does not take the credential that is kept for this address, if any: "
            f"bailee secrets set GIT_CREDENTIAL --repo {repository.url}"
        )
        return Refused("credential", reason)
    return None
