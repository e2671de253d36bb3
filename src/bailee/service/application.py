"""What the service answers beside model traffic: the routes of the flows, and errors an agent understands."""

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

_TYPES = {404: "not_found_error", 405: "invalid_request_error"}


def create_application(routes: Sequence[BaseRoute]) -> Starlette:
    """Return the application; its errors have the shape of the Messages API, and no fault shows its trace."""
    handlers = {HTTPException: _tell_error, Exception: _tell_fault}
    return Starlette(routes=routes, exception_handlers=handlers)  # type: ignore[arg-type]


def _tell_error(request: Request, error: HTTPException) -> Response:
    if error.status_code == 404:
        what = f"{request.method} {request.url.path} belongs to no flow of this service, so it goes nowhere"
    else:
        what = f"{request.method} {request.url.path}: {error.detail}"
    kind = _TYPES.get(error.status_code, "api_error")
    return _answer(error.status_code, kind, what, dict(error.headers or {}))


def _tell_fault(request: Request, error: Exception) -> Response:
    return _answer(500, "api_error", "a fault of the service; nothing was forwarded", {})


def _answer(status: int, kind: str, message: str, headers: dict[str, str]) -> Response:
    body = {"type": "error", "error": {"type": kind, "message": f"Bailee: {message}."}}
    return JSONResponse(body, status, headers | {"x-bailee-refused": kind})
