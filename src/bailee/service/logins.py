"""What the service answers to an agent that logs in, logs out, or asks what is in force for its account.

POST /oauth/device_authorization         RFC 8628, 3.1
POST /oauth/token                        RFC 8628, 3.4
POST /oauth/revoke                       RFC 7009
GET  /.well-known/oauth-authorization-server   RFC 8414
GET  /api/account                        whose key it is, and what is in force
GET  /api/settings                       what its organization manages, as a settings file, with an ETag
"""

import asyncio
import contextlib
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import sqlalchemy.exc
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bailee.accounts.credentials import read_key
from bailee.accounts.directory import Directory
from bailee.accounts.keys import KeyRing, Principal
from bailee.accounts.logins import forget_logins
from bailee.accounts.managed import read_managed
from bailee.policy.problems import Problem

if TYPE_CHECKING:
    from bailee.service.oauth import Answer, Server
    from bailee.service.oauth import Request as OAuthRequest

LARGEST = 8192  # bytes of a form
FORGET_SECONDS = 60.0
UNSTORED = {"Cache-Control": "no-store"}
_FORM = "application/x-www-form-urlencoded"


class Logins:
    """Logins and accounts, as agents ask about them.

    Args:
        is_first_party: whether model traffic of this service is known to reach the Claude API itself.
    """

    def __init__(self, directory: Directory, keys: KeyRing, *, is_first_party: bool) -> None:
        self._directory = directory
        self._keys = keys
        self._is_first_party = is_first_party

    def make_routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/oauth/device_authorization", self._begin, methods=["POST"]),
            Route("/oauth/token", self._exchange, methods=["POST"]),
            Route("/oauth/revoke", self._revoke, methods=["POST"]),
            Route("/.well-known/oauth-authorization-server", self._describe, methods=["GET"]),
            Route("/api/account", self._tell_account, methods=["GET"]),
            Route("/api/settings", self._tell_settings, methods=["GET"]),
        ]

    async def watch(self) -> None:
        """Remove logins that expired a while ago, for ever: nobody may log in for months."""
        while True:
            with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError):
                await run_in_threadpool(forget_logins, self._directory)
            await asyncio.sleep(FORGET_SECONDS)

    @cached_property
    def _server(self) -> "Server":
        from bailee.service.oauth import Polls, Server

        return Server(self._directory, Polls())

    async def _begin(self, request: Request) -> Response:
        return await self._answer(
            request, lambda server, form: server.create_endpoint_response("device_authorization", form)
        )

    async def _exchange(self, request: Request) -> Response:
        return await self._answer(request, lambda server, form: server.create_token_response(form))

    async def _revoke(self, request: Request) -> Response:
        return await self._answer(
            request, lambda server, form: server.create_endpoint_response("revocation", form)
        )

    async def _answer(
        self, request: Request, make: "Callable[[Server, OAuthRequest], Answer]"
    ) -> JSONResponse:
        form = await _read_form(request)
        if isinstance(form, str):
            return _refuse(form)
        base, address = base_of(request), request.client.host if request.client else ""
        headers = dict(request.headers)

        def answer() -> "Answer":
            from bailee.service.oauth import Request as OAuthRequest

            return make(self._server, OAuthRequest(form, headers, base, address))

        try:
            # Databases are written, which the loop that serves conversations does not wait for.
            status, body, sent = await run_in_threadpool(answer)
        except (sqlalchemy.exc.SQLAlchemyError, Problem):
            # What the database says would name its statement and what was to be written.
            return JSONResponse({"error": "temporarily_unavailable"}, 503, UNSTORED)
        return JSONResponse(body, status, {**dict(sent), **UNSTORED})

    async def _describe(self, request: Request) -> Response:
        base = base_of(request)
        return JSONResponse(
            {
                "issuer": base,
                "token_endpoint": f"{base}/oauth/token",
                "device_authorization_endpoint": f"{base}/oauth/device_authorization",
                "revocation_endpoint": f"{base}/oauth/revoke",
                "response_types_supported": [],
                "grant_types_supported": ["urn:ietf:params:oauth:grant-type:device_code"],
                "token_endpoint_auth_methods_supported": ["none"],
                "revocation_endpoint_auth_methods_supported": ["none"],
            }
        )

    async def _tell_account(self, request: Request) -> Response:
        try:
            principal = self._keys.authenticate(read_key(request.headers.raw))
        except Problem as problem:
            return _refuse_account(503, problem.what)
        if principal is None:
            return _refuse_account(401, "no valid key: send one as Authorization: Bearer")
        return JSONResponse(self._describe_account(principal), headers=UNSTORED)

    async def _tell_settings(self, request: Request) -> Response:
        try:
            principal = self._keys.authenticate(read_key(request.headers.raw))
            if principal is None:
                return _refuse_account(401, "no valid key: send one as Authorization: Bearer")
            managed = await run_in_threadpool(read_managed, self._directory, principal.organization)
        except (Problem, sqlalchemy.exc.SQLAlchemyError):
            return _refuse_account(503, "the accounts cannot be read")
        headers = {"etag": managed.tag, "cache-control": "private, no-cache"}
        known = request.headers.get("if-none-match", "").split(",")
        if any(tag.strip().removeprefix("W/") in (managed.tag, "*") for tag in known):
            return Response(None, 304, headers)
        return Response(managed.body, 200, headers, media_type="application/json")

    def _describe_account(self, principal: Principal) -> dict[str, Any]:
        account, organization = principal.account_limit, principal.organization_limit
        return {
            "name": principal.account_name,
            "plan": principal.plan,
            "organization": principal.organization,
            "training": principal.training,
            "dpp": principal.dpp,
            "zdr": principal.zdr,
            "account_limit": str(account) if account else None,
            "organization_limit": str(organization) if organization else None,
            "is_first_party": self._is_first_party,
            "account_refuses": principal.account_refuses,
            "organization_refuses": principal.organization_refuses,
        }


def base_of(request: Request) -> str:
    """Return the URL that the service was reached at: it may have several names."""
    return str(request.base_url).rstrip("/")


async def _read_form(request: Request) -> dict[str, str] | str:
    """Return what a form says, or what is wrong with it (RFC 6749, 3.2: no parameter more than once)."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        return f"Send {_FORM}."
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST:
            return f"Send at most {LARGEST} bytes."
    try:
        pairs = parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=50)
    except ValueError:
        return "Send a form in UTF-8."
    form = dict(pairs)
    return form if len(form) == len(pairs) else "Send each parameter once."


def _refuse(description: str) -> JSONResponse:
    return JSONResponse({"error": "invalid_request", "error_description": description}, 400, headers=UNSTORED)


def _refuse_account(status: int, message: str) -> JSONResponse:
    kind = "authentication_error" if status == 401 else "api_error"
    body = {"type": "error", "error": {"type": kind, "message": f"Bailee: {message}."}}
    return JSONResponse(body, status, {"x-bailee-refused": kind, **UNSTORED})
