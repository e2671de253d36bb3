"""The `git` flow of a service: smart HTTP (gitprotocol-http(5)) between a session and its repositories.

A session names a repository by host and path below `/git/`, and shows its own token. It gets to the
repositories that are attached to it and to no others; what it pushes is decided by the commands before any of
the pack goes on. The pack itself streams by.
"""

import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from bailee.codings import Undecodable, open_decoder
from bailee.flows.git.access import Access, Attached, judge_push
from bailee.flows.git.credentials import Credentials, FindCredential
from bailee.flows.git.github.api import METHODS, GitHubApi
from bailee.flows.git.github.api import tell_refused as tell_api_refused
from bailee.flows.git.github.places import BASE as API_BASE
from bailee.flows.git.lfs import LargeFiles
from bailee.flows.git.lfs import tell_refused as tell_large_file_refused
from bailee.flows.git.meters import Meters, TooMuch, Watch
from bailee.flows.git.pkt_lines import Malformed
from bailee.flows.git.pushes import Push, PushReader, write_push
from bailee.flows.git.refusals import tell_push_refused, tell_refused
from bailee.flows.git.requests import GitRequest, read_token
from bailee.flows.git.upstreams import Upstreams
from bailee.policy.problems import Problem

if TYPE_CHECKING:
    from httpx2 import Response as Answer

    from bailee.accounts.keys import KeyRing

BASE = "/git/"
_REFS = "/info/refs"
_FETCH, _PUSH = "/git-upload-pack", "/git-receive-pack"
_LFS = "/info/lfs/"
SERVICES = ("git-upload-pack", "git-receive-pack")
# What a coded body may become at a time; only commands are kept.
_PIECE = 1 << 20
_PASSED_ON = ("accept", "content-type", "git-protocol", "user-agent", "accept-language")
_PASSED_BACK = ("content-type", "cache-control", "expires", "pragma")


class GitReceiver:
    """Answers sessions.

    Args:
        find_access: what the holder of a key may do; None for a key that is no session's.
        find_credential: what opens a repository; None where it is open to everybody.
        note: takes what is logged, once a request has ended.
        make_watch, stop: see `Meters`.
    """

    def __init__(
        self,
        *,
        keys: "KeyRing",
        find_access: Callable[[str], Access | None],
        find_credential: FindCredential,
        note: Callable[[Access, GitRequest], None],
        make_watch: Callable[[], Watch | None] = lambda: None,
        stop: Callable[[str, str], None] = lambda key, reason: None,
        upstreams: Upstreams | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self._find_access = find_access
        self._upstreams = upstreams or Upstreams()
        self._wall_clock = wall_clock

        def is_open(key: str) -> bool:
            return find_access(key) is not None

        self._meters = Meters(
            make_watch=make_watch, is_open=is_open, note=note, stop=stop, wall_clock=wall_clock
        )
        self._large_files = LargeFiles(self._upstreams, self._meters)
        self._credentials = Credentials(
            find_credential,
            self._upstreams,
            is_open=is_open,
            clock=wall_clock,
        )
        self._api = GitHubApi(
            upstreams=self._upstreams,
            credentials=self._credentials,
            meters=self._meters,
            wall_clock=wall_clock,
        )

    def make_routes(self) -> list[Route]:
        """Return the routes of the flow."""
        return [
            Route(API_BASE + "{asked:path}", self._receive_api, methods=METHODS),
            Route(BASE + "{place:path}", self._receive, methods=["GET", "POST", "PUT"]),
        ]

    async def close(self) -> None:
        """End the connections to hosts."""
        await self._credentials.close()
        await self._upstreams.close()

    async def _receive(self, request: Request) -> Response:
        try:
            return await self._answer(request)
        except Problem as problem:
            return tell_refused(503, "unavailable", problem.what)

    async def _receive_api(self, request: Request) -> Response:
        if (access := self._find(request)) is None:
            return tell_api_refused("no_session", "this token is no session's, or it was revoked", 401)
        try:
            await self._meters.admit(access)
            return await self._api.answer(request, access)
        except TooMuch as told:
            return tell_api_refused(told.rule, str(told), 429)
        except Problem as problem:
            return tell_api_refused("unavailable", problem.what, 503)

    def _find(self, request: Request) -> Access | None:
        principal = self._keys.authenticate(read_token(request.headers.raw))
        return self._find_access(principal.key_id) if principal else None

    async def _answer(self, request: Request) -> Response:
        access = self._find(request)
        if access is None:
            ask = {"www-authenticate": 'Basic realm="Bailee"'}
            return tell_refused(401, "no_session", "this token is no session's, or it was revoked", ask)
        try:
            await self._meters.admit(access)
        except TooMuch as told:
            await _drain(request)
            return tell_refused(429, told.rule, str(told))
        path = request.url.path[len(BASE) - 1 :]
        if path.startswith("/-/"):

            def log(host: str, outcome: str, status: int, sent: int, received: int) -> None:
                self._log(access, host, "large file", outcome, status, sent=sent, received=received)

            return await self._large_files.transfer(request, path, access, log)
        place, what = _take_apart(path)
        repository = access.find(place.lstrip("/"))
        if repository is None:
            self._log(access, place.lstrip("/"), what, "not_attached", 403)
            await _drain(request)
            text = f"{place.lstrip('/')[:200]} is not attached to this session, so that it cannot be reached"
            if what == "large files":
                return tell_large_file_refused(403, text)
            return tell_refused(403, "not_attached", text)
        match what, request.method:
            case "refs", "GET":
                return await self._advertise(request, access, repository)
            case "fetch", "POST":
                return await self._pass_on(request, access, repository, _FETCH, "fetch")
            case "push", "POST":
                return await self._push(request, access, repository)
            case "large files", "POST":
                return await self._lfs(request, access, repository, path)
        self._log(access, repository.place, what, "not_smart", 403)
        return tell_refused(403, "not_smart", "this is nothing that Git's smart protocol asks for")

    async def _advertise(self, request: Request, access: Access, repository: Attached) -> Response:
        service = request.query_params.get("service", "")
        if service not in SERVICES or len(request.query_params) != 1:
            self._log(access, repository.place, "refs", "not_smart", 403)
            return tell_refused(403, "not_smart", "only Git's smart protocol is spoken here")
        if service == "git-receive-pack" and not repository.branch:
            self._log(access, repository.place, "refs", "read_only", 403)
            return tell_refused(403, "read_only", f"this session may read {repository.place}, and no more")
        return await self._pass_on(request, access, repository, f"{_REFS}?service={service}", "refs")

    async def _push(self, request: Request, access: Access, repository: Attached) -> Response:
        pieces = _decoded(request)
        reader = PushReader()
        push: Push | None = None
        try:
            async for piece in pieces:
                if (push := reader.feed(piece)) is not None:
                    break
            push = push or reader.finish()
        except (Malformed, Undecodable) as fault:
            await _drain(request)
            self._log(access, repository.place, "push", "malformed", 400)
            return tell_refused(400, "malformed", f"this push cannot be read: {fault}")
        except ClientDisconnect:
            return Response(status_code=499)
        refs = tuple(command.ref for command in push.commands)
        if reasons := judge_push(push, repository):
            # A client that is cut off while it sends shows an error of its own and not ours.
            await _drain(request)
            self._log(access, repository.place, "push", "git_push", 200, refs)
            return tell_push_refused(refs, push.capabilities, reasons)

        async def whole() -> AsyncIterator[bytes]:
            yield write_push(push) + (reader.rest if refs else b"")
            async for piece in pieces:
                if refs:  # a probe is whole without a pack
                    yield piece

        def refuse(text: str) -> Response:
            return tell_push_refused(refs, push.capabilities, {"": text})

        return await self._pass_on(
            request, access, repository, _PUSH, "push", refs=refs, body=whole(), refuse=refuse
        )

    async def _lfs(self, request: Request, access: Access, repository: Attached, path: str) -> Response:
        what = path[path.index(_LFS) + len(_LFS) :]
        answer, outcome = await self._large_files.answer(
            request, repository, what, await self._headers(access, repository), access
        )
        self._log(access, repository.place, "large files", outcome, answer.status_code)
        return answer

    # --- The host's side ---

    async def _headers(self, access: Access, repository: Attached) -> dict[str, str]:
        credential = await self._credentials.open(access, repository)
        return {"authorization": credential.to_header()} if credential else {}

    async def _pass_on(
        self,
        request: Request,
        access: Access,
        repository: Attached,
        tail: str,
        what: str,
        *,
        refs: tuple[str, ...] = (),
        body: AsyncIterator[bytes] | None = None,
        refuse: Callable[[str], Response] | None = None,
    ) -> Response:
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        headers |= await self._headers(access, repository)
        headers["accept-encoding"] = "identity"  # so that what is counted is what came
        url = repository.url.rstrip("/") + tail
        sent = self._meters.count(access, repository.place.partition("/")[0])
        if request.method == "POST" and body is None:
            body = _decoded(request)
        try:
            answer = await self._upstreams.ask(
                request.method, url, headers, sent.over(body) if body is not None else None
            )
        except TooMuch as told:
            await _drain(request)
            self._log(access, repository.place, what, told.rule, 429, refs, sent.count)
            return refuse(str(told)) if refuse else tell_refused(429, told.rule, str(told))
        except (OSError, Undecodable, ClientDisconnect) as fault:
            self._log(access, repository.place, what, "unreachable", 502, refs, sent.count)
            return tell_refused(502, "unreachable", f"{repository.place} cannot be reached ({fault})")
        if answer.status_code != 200:
            return await self._refuse(answer, access, repository, what, refs, sent.count)

        async def stream() -> AsyncIterator[bytes]:
            received = 0
            outcome = "cut off"
            try:
                async for piece in answer.aiter_raw():
                    received += len(piece)
                    yield piece
                outcome = "passed"
            finally:
                await answer.aclose()
                self._log(access, repository.place, what, outcome, 200, refs, sent.count, received)

        back = {name: answer.headers[name] for name in _PASSED_BACK if name in answer.headers}
        return StreamingResponse(stream(), 200, back)

    async def _refuse(
        self,
        answer: "Answer",
        access: Access,
        repository: Attached,
        what: str,
        refs: tuple[str, ...],
        sent: int,
    ) -> Response:
        await answer.aclose()
        status = answer.status_code
        self._log(access, repository.place, what, f"host {status}", status, refs, sent)
        if answer.is_redirect:
            text = f"{repository.place} has moved: attach it under its new address"
            return tell_refused(502, "moved", text)
        if status in (401, 403):
            text = (
                f"{repository.place} does not take the credential that is kept for this address, if any: "
                f"bailee secrets set GIT_CREDENTIAL --repo {repository.url}"
            )
            return tell_refused(403, "credential", text)
        return tell_refused(status if status >= 400 else 502, "host", f"{repository.place} answers {status}")

    def _log(
        self,
        access: Access,
        place: str,
        what: str,
        outcome: str,
        status: int,
        refs: tuple[str, ...] = (),
        sent: int = 0,
        received: int = 0,
    ) -> None:
        at_ms = int(self._wall_clock() * 1000)
        noted = GitRequest(at_ms, access.session, place[:300], what, outcome, status, refs, sent, received)
        self._meters.note(access, noted)


def _take_apart(path: str) -> tuple[str, str]:
    """Return the repository's part of a path, and what is asked of it."""
    for tail, what in ((_REFS, "refs"), (_FETCH, "fetch"), (_PUSH, "push")):
        if path.endswith(tail):
            return path.removesuffix(tail), what
    place, found, _ = path.partition(_LFS)
    return (place, "large files") if found else (path, "other")


async def _decoded(request: Request) -> AsyncIterator[bytes]:
    """Give a request's body without its coding: git compresses what it asks for when that is long."""
    decode = open_decoder(request.headers.get("content-encoding", "").encode(), _PIECE)
    async for piece in request.stream():
        if not piece:
            continue
        if decode is None:
            yield piece
        else:
            # So that one piece does not become more than is asked for at a time.
            for at in range(0, len(piece), 1024):
                if plain := decode(piece[at : at + 1024]):
                    yield plain


async def _drain(request: Request) -> None:
    try:
        async for _ in request.stream():
            pass
    except (ClientDisconnect, RuntimeError):
        return
