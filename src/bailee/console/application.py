"""The console as an application: finds who asks, checks that a form is one of ours, and draws the answer.

What somebody may not see is not there for them: the answer is the same as for what there never was. A page
loads nothing from elsewhere and runs no script but the console's own file; every form works without it.
"""

import contextlib
import hashlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import msgspec
import sqlalchemy.exc
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route, Router
from starlette.types import Receive, Scope, Send

from bailee.accounts.operators import is_operator
from bailee.accounts.sign_ins import end_sign_in, find_sign_in
from bailee.characters import make_visible
from bailee.console.paths import OWN_NAME
from bailee.console.paths import SIGN_IN as SIGN_IN_PATH
from bailee.console.rendering import STATIC, TEMPLATES, Renderer
from bailee.console.requests import (
    has_token,
    is_called,
    is_from_here,
    make_form_token,
    read_form,
    refuse_nul,
    tell_typed,
)
from bailee.pages import (
    Answer,
    Download,
    File,
    Handler,
    Installation,
    Kept,
    Moved,
    NotThere,
    Page,
    Section,
    Stream,
    TooOften,
    View,
    Visit,
    Visitor,
)
from bailee.policy.problems import Problem
from bailee.vault.custody import Custody
from bailee.vault.holds import UnderHold

# How long a stream may go on for somebody who signed out.
_ASK_SECONDS = 1.0
SIGN_IN, FORM, SAID = "bailee_console", "bailee_form", "bailee_said"
_LOG = logging.getLogger(__name__)
HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    # Not `no-referrer`: with it browsers send no origin with a form either.
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}


class Console:
    """The pages, plugged together.

    Args:
        custody: what a home holds, for looking; shared by all requests.
        open_custody: opens it once more, for a request that changes something.
    """

    def __init__(
        self,
        pages: Sequence[Page],
        *,
        custody: Custody,
        open_custody: Callable[[], Custody],
        installation: Installation,
    ) -> None:
        self._pages = pages
        self._custody = custody
        self._open_custody = open_custody
        self._installation = installation
        self._kept = Kept()
        self._renderer = Renderer(pages)
        styles = (STATIC / "console.css").read_bytes() + (STATIC / "console.js").read_bytes()
        self._version = hashlib.sha256(styles).hexdigest()[:12]
        routes: list[BaseRoute] = [
            Route("/console/static/{name}", self._give_file, methods=["GET"]),
            *(Route(page.path, partial(self._answer, page), methods=["GET", "POST"]) for page in pages),
            Route("/{rest:path}", self._find_nothing, methods=["GET", "POST"]),
        ]
        self._router = Router(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if is_called(Request(scope), self._installation.console_url):
            await self._router(scope, receive, send)
            return
        told = f"Write http://{OWN_NAME} and the port, or have BAILEE_CONSOLE_URL say what it is called.\n"
        await Response(told, 421, HEADERS, "text/plain")(scope, receive, send)

    def close(self) -> None:
        """End what goes on beside requests."""
        self._kept.close()

    # --- Requests ---

    async def _answer(self, page: Page, request: Request) -> Response:
        form: Mapping[str, str] = {}
        try:
            if request.method == "POST":
                form = await read_form(request)
            refuse_nul(*request.path_params.values(), *request.query_params.values(), *form.values())
            response = await run_in_threadpool(self._visit, page, request, form)
        except Problem as problem:
            response = await run_in_threadpool(self._tell_early, page, request, problem)
        except Exception:
            _LOG.exception("A page of the console could not be made: %s", page.path)
            fault = Problem(
                "this page could not be made: a fault of the program",
                where="the service",
                fix="have whoever runs it look into its log, and report what it says",
            )
            response = await run_in_threadpool(self._tell_problem, request, fault, 500)
        return response

    async def _find_nothing(self, request: Request) -> Response:
        return await run_in_threadpool(self._tell_nothing, request)

    def _visit(self, page: Page, request: Request, form: Mapping[str, str]) -> Response:
        visitor, token = self._find_visitor(request)
        if not (visitor.parts & page.parts):
            return self._turn_away(request, visitor, form)
        handler = page.act if request.method == "POST" else page.show
        if handler is None:
            return self._lead_back(page, request, visitor)
        if request.method == "POST" and not (is_from_here(request) and has_token(form, token)):
            strange = Stale(
                "this form was not sent from a page of the console, or the page is of an earlier sign-in",
                where="the form",
                fix="look at what is filled in, and send it once more",
            )
            # What another site has a browser send is not even shown.
            if is_from_here(request) and token:
                return self._refuse(page, request, visitor, token, tell_typed(form), strange)
            return self._tell_problem(request, strange, 403, visitor)
        try:
            query, is_change = dict(request.query_params), request.method == "POST"
            answer = self._handle(handler, request, visitor, token, form, query=query, is_change=is_change)
        except NotThere:
            return self._tell_nothing(request, visitor)
        except Problem as problem:
            return self._refuse(page, request, visitor, token, form, problem)
        except sqlalchemy.exc.SQLAlchemyError:
            # What the database says would name its statement and what was to be written.
            gone = Problem("the database cannot be reached just now", where="the service", fix="try again")
            return self._tell_problem(request, gone, 503, visitor)
        return self._respond(request, page, visitor, token, answer)

    def _tell_early(self, page: Page, request: Request, problem: Problem) -> Response:
        """Tell what is wrong with a request itself; of a page that is not there for who asks, nothing."""
        visitor, _ = self._find_visitor(request)
        if not (visitor.parts & page.parts):
            return self._turn_away(request, visitor)
        return self._tell_problem(request, problem, 400)

    def _refuse(
        self,
        page: Page,
        request: Request,
        visitor: Visitor,
        token: str,
        form: Mapping[str, str],
        problem: Problem,
    ) -> Response:
        """Show the page that a refused form stands on once more, with what was filled in and what was wrong.

        What a page was asked for, its form says as well; one that cannot be shown is told of by itself.
        """
        if isinstance(problem, UnderHold):
            problem = problem.without_reason()
        origin = self._find_origin_of(page, visitor, is_change=request.method == "POST")
        if origin is not None and origin.show is not None:
            said = {name: value for name, value in form.items() if name != "form_token"}
            query = {**request.query_params, **said}
            try:
                answer = self._handle(
                    origin.show, request, visitor, token, form, query=query, is_change=False
                )
            except (Problem, NotThere, sqlalchemy.exc.SQLAlchemyError):
                answer = None
            if isinstance(answer, View):
                facts = {**answer.facts, "refused": problem, "filled": said, "notice": "Not done: "}
                view = msgspec.structs.replace(answer, status=_status_of(problem), facts=facts)
                return _hold_off(self._draw(request, origin, visitor, token, view), problem)
        return _hold_off(self._tell_problem(request, problem, _status_of(problem), visitor), problem)

    def _find_origin_of(self, page: Page, visitor: Visitor, *, is_change: bool = True) -> Page | None:
        """Return the page whose form leads to a page: itself, or the nearest above it that is shown.

        Args:
            is_change: whether a page's own form may have led to it.
        """
        above = [
            one
            for one in self._pages
            if one.show is not None
            and one.comes_again
            and visitor.parts & one.parts
            and ((one is page and is_change) or page.path.startswith(f"{one.path}/"))
        ]
        return max(above, key=lambda one: len(one.path), default=None)

    def _handle(
        self,
        handler: Handler,
        request: Request,
        visitor: Visitor,
        token: str,
        form: Mapping[str, str],
        *,
        query: Mapping[str, str],
        is_change: bool,
    ) -> Answer:
        custody = self._open_custody() if is_change else self._custody
        visit = Visit(
            visitor=visitor,
            custody=custody,
            installation=self._installation,
            kept=self._kept,
            path={name: str(value) for name, value in request.path_params.items()},
            query=query,
            form=form,
            base=str(request.base_url).rstrip("/"),
            origin=self._find_origin(request),
            browser=make_form_token(token) if token else "",
            address=request.client.host if request.client else "",
            agent=make_visible(request.headers.get("user-agent", "")[:200]),
            resumed=request.headers.get("last-event-id", ""),
        )
        try:
            return handler(visit)
        finally:
            if is_change:
                # What is kept beside requests may be of before.
                self._kept.forget()
                try:
                    custody.settle()
                finally:
                    custody.close()

    def _find_visitor(self, request: Request) -> tuple[Visitor, str]:
        """Return who asks, and what their forms are bound to: their sign-in, or a cookie of before it."""
        token = request.cookies.get(SIGN_IN, "")
        directory = self._custody.directory
        found = find_sign_in(directory, token) if token else None
        if found is None:
            return Visitor(), request.cookies.get(FORM, "")
        account = directory.find(found.account) if found.account else None
        if account is None and found.user is None:
            return Visitor(), request.cookies.get(FORM, "")
        sees_to_it = found.user is not None or (account is not None and is_operator(directory, account.id))
        return Visitor(account, found.user, found.id, sees_to_it), token

    def _may_see(self, request: Request, page: Page, before: Visitor) -> bool:
        """Tell whether whoever was shown a page may still see it, in the same sign-in."""
        try:
            visitor, _ = self._find_visitor(request)
        except sqlalchemy.exc.SQLAlchemyError:
            return False
        return visitor.sign_in == before.sign_in and bool(visitor.parts & page.parts)

    def _find_origin(self, request: Request) -> str:
        """Return the service's origin: as it is configured, or by the port that was really reached.

        What the request is sent to, by its own word, does not count.
        """
        known = self._installation.console_url
        server = request.scope.get("server")
        if known or request.url.scheme != "http" or not server:
            return known
        return f"http://{OWN_NAME}:{server[1]}"

    # --- Answers ---

    def _respond(
        self, request: Request, page: Page, visitor: Visitor, token: str, answer: Answer
    ) -> Response:
        match answer:
            case View():
                return self._draw(request, page, visitor, token, answer)
            case Moved():
                return self._move(request, answer)
            case File():
                return Response(answer.data, 200, _name(answer.name), answer.media_type)
            case Download():
                pieces = answer.pieces(self._custody)
                return _Sending(pieces, 200, _name(answer.name), answer.media_type)
            case Stream():
                events = _follow(answer.events, partial(self._may_see, request, page, visitor))
                return StreamingResponse(
                    events, 200, {**HEADERS, "x-accel-buffering": "no"}, "text/event-stream"
                )

    def _draw(
        self, request: Request, page: Page | None, visitor: Visitor, token: str, view: View
    ) -> Response:
        fresh = "" if token else secrets.token_hex(32)
        said = unquote(request.cookies.get(SAID, ""))[:500]
        now = datetime.now(UTC)
        facts: dict[str, Any] = {
            "refused": None,
            "notice": "",
            "filled": {},
            **view.facts,
            "visitor": visitor,
            "navigation": self._navigate(visitor, request.url.path),
            "form_token": make_form_token(token or fresh),
            "said": said,
            "title": view.heading or (page.title if page else "Bailee"),
            "section": page.section if page else Section.NONE,
            "path": request.url.path,
            "version": self._version,
            "installation": self._installation,
            "now": now,
            "today": now.date(),
        }
        folder = page.templates if page is not None else TEMPLATES
        body = self._renderer.draw(folder, view.template, facts)
        response = Response(body, view.status, HEADERS, "text/html; charset=utf-8")
        if fresh:
            self._keep(request, response, FORM, fresh, 3600)
        if said:
            response.delete_cookie(SAID, path="/")
        return response

    def _move(self, request: Request, moved: Moved) -> Response:
        response = RedirectResponse(moved.to, 303, HEADERS)
        if moved.cookies.get(SIGN_IN, ("", 0))[0]:
            self._end_earlier(request)
        for name, (value, seconds) in moved.cookies.items():
            if value:
                self._keep(request, response, name, value, seconds)
            else:
                response.delete_cookie(name, path="/")
        if moved.said:
            self._keep(request, response, SAID, quote(moved.said), 60)
        return response

    def _end_earlier(self, request: Request) -> None:
        """End the sign-in that a browser had, as it signs in anew: its token goes with its cookie."""
        visitor, _ = self._find_visitor(request)
        if visitor.sign_in:
            account = visitor.account.id if visitor.account else None
            with contextlib.suppress(Problem):
                end_sign_in(self._custody.directory, visitor.sign_in, account=account, user=visitor.user)

    def _keep(self, request: Request, response: Response, name: str, value: str, seconds: int) -> None:
        response.set_cookie(
            name,
            value,
            max_age=seconds,
            path="/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="lax",
        )

    def _navigate(self, visitor: Visitor, path: str) -> list[tuple[str, list[tuple[str, str, bool]]]]:
        found: dict[str, list[tuple[str, str, bool]]] = {}
        shown = [page for page in self._pages if page.section and visitor.parts & page.parts]
        around = [page.path for page in shown if path == page.path or path.startswith(f"{page.path}/")]
        here = max(around, key=len, default="")
        for page in shown:
            found.setdefault(page.section, []).append((page.title, page.path, page.path == here))
        return [(section, found[section]) for section in Section if section in found]

    def _lead_back(self, page: Page, request: Request, visitor: Visitor) -> Response:
        """Lead who loads the answer of a form anew to the page that the form stands on."""
        origin = self._find_origin_of(page, visitor)
        if request.method == "POST" or origin is None or "{" in origin.path:
            return self._tell_nothing(request, visitor)
        return RedirectResponse(origin.path, 303, HEADERS)

    def _turn_away(
        self, request: Request, visitor: Visitor, form: Mapping[str, str] | None = None
    ) -> Response:
        if visitor.sign_in:
            return self._tell_nothing(request, visitor)
        if form and "form_token" in form and is_from_here(request) and (typed := tell_typed(form)):
            facts = {"typed": typed, "place": request.url.path}
            return self._draw(request, None, visitor, "", View("lapsed.html", facts, 403, "Sign in first"))
        place = f"?next={quote(request.url.path)}" if request.method != "POST" else ""
        return RedirectResponse(f"{SIGN_IN_PATH}{place}", 303, HEADERS)

    def _tell_nothing(self, request: Request, visitor: Visitor | None = None) -> Response:
        found, token = self._find_visitor(request)
        if not found.sign_in:
            return self._turn_away(request, found)
        return self._draw(request, None, found, token, View("nothing.html", {}, 404, "There is no such page"))

    def _tell_problem(
        self, request: Request, problem: Problem, status: int, visitor: Visitor | None = None
    ) -> Response:
        found, token = self._find_visitor(request)
        return self._draw(
            request,
            None,
            found,
            token,
            View("problem.html", {"refused": problem}, status, "That did not work"),
        )

    async def _give_file(self, request: Request) -> Response:
        kinds = {"console.css": "text/css", "console.js": "text/javascript", "favicon.svg": "image/svg+xml"}
        name = request.path_params["name"]
        if name not in kinds:
            return Response("", 404, HEADERS)
        body = await run_in_threadpool(Path(STATIC / name).read_bytes)
        headers = {**HEADERS, "cache-control": "public, max-age=31536000, immutable"}
        return Response(body, 200, headers, kinds[name])


class Stale(Problem):
    """A form is of a page that was drawn before this sign-in."""


class _Sending(StreamingResponse):
    """A download whose pieces are made in threads, each once the one before is sent."""

    async def stream_response(self, send: Send) -> None:
        try:
            await super().stream_response(send)
        except (Problem, sqlalchemy.exc.SQLAlchemyError) as fault:
            # Left without its end, so that the server breaks the connection: what was sent is not all of it.
            what = fault.what if isinstance(fault, Problem) else "the database cannot be reached"
            _LOG.error("A download from the console broke off: %s", make_visible(what))


def _name(name: str) -> dict[str, str]:
    """Return the headers of a file that is saved under a name."""
    plain = "".join(one for one in name if one.isalnum() or one in "-_.")
    return {**HEADERS, "content-disposition": f'attachment; filename="{plain}"'}


def _status_of(problem: Problem) -> int:
    return 429 if isinstance(problem, TooOften) else 403 if isinstance(problem, Stale) else 400


def _hold_off(response: Response, problem: Problem) -> Response:
    if isinstance(problem, TooOften):
        response.headers["retry-after"] = str(problem.seconds)
    return response


async def _follow(
    events: Callable[[], AsyncIterator[bytes]], may_see: Callable[[], bool]
) -> AsyncIterator[bytes]:
    asked = time.monotonic()
    async for event in events():
        if time.monotonic() - asked > _ASK_SECONDS:
            if not await run_in_threadpool(may_see):
                return
            asked = time.monotonic()
        if event:
            yield event
