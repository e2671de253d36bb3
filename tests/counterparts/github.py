"""GitHub's API on the loopback interface, as far as its published OpenAPI description goes.

The description is the npm package @octokit/openapi, which GitHub makes of what it publishes. A request that
it does not allow is answered 400 and kept as a fault, and so is an answer of ours that it does not allow.
"""

import contextlib
import functools
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from openapi_core import Config, OpenAPI
from openapi_core.contrib.werkzeug import WerkzeugOpenAPIRequest, WerkzeugOpenAPIResponse
from openapi_core.exceptions import OpenAPIError
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

DESCRIPTION = Path("node_modules", "@octokit", "openapi", "generated", "api.github.com.json")
ISSUES = "/repos/{owner}/{repo}/issues"
INSTALLATION = "/repos/{owner}/{repo}/installation"
TOKENS = "/app/installations/{installation_id}/access_tokens"


@functools.cache
def read_whole() -> dict[str, Any]:
    """Return GitHub's description of its REST API."""
    root = Path(__file__).resolve().parents[2]
    whole: dict[str, Any] = json.loads((root / DESCRIPTION).read_bytes())
    return whole


@functools.cache
def read_description() -> dict[str, Any]:
    """Return the part of the description that is looked at here; all of it takes a minute to index."""
    whole = read_whole()
    paths = {path: whole["paths"][path] for path in (ISSUES, INSTALLATION, TOKENS)}
    return whole | {"paths": paths, "servers": [{"url": "/"}]}


def example(name: str) -> Any:
    """Return an example of the description."""
    return json.loads(json.dumps(read_description()["components"]["examples"][name]["value"]))


class GitHub:
    """A GitHub with one repository.

    Attributes:
        opened: the issues, as they were asked for.
        requests: method, path and Authorization of each request.
        faults: what the description does not allow.
        trouble: called before an issue is opened; a response of it is given in place of opening.
        is_lost: open the issue, and hang up before the answer.
    """

    def __init__(self) -> None:
        self.opened: list[dict[str, Any]] = []
        self.requests: list[tuple[str, str, str]] = []
        self.faults: list[str] = []
        self.trouble: Callable[[], Response | None] = lambda: None
        self.is_lost = False
        self.url = ""
        self._api = OpenAPI.from_dict(read_description(), config=Config(spec_validator_cls=None))

    def __call__(self, environ: Any, start_response: Any) -> Any:
        request = Request(environ)
        self.requests.append((request.method, request.path, request.headers.get("Authorization", "")))
        asked = WerkzeugOpenAPIRequest(request)
        try:
            self._api.validate_request(asked)
        except OpenAPIError as fault:
            self.faults.append(f"{request.method} {request.path}: {fault.__cause__ or fault}")
            return Response("not as described", 400)(environ, start_response)
        response = self._answer(request)
        if response.status_code < 300:
            try:
                self._api.validate_response(asked, WerkzeugOpenAPIResponse(response))
            except OpenAPIError as fault:
                self.faults.append(f"answer to {request.method} {request.path}: {fault.__cause__ or fault}")
        return response(environ, start_response)

    def _answer(self, request: Request) -> Response:
        if request.path.endswith("/installation"):
            return _json(200, example("base-installation") | {"id": 17})
        if request.path.endswith("/access_tokens"):
            return _json(201, {"token": "ghs_made_up", "expires_at": "2099-01-01T00:00:00Z"})
        if request.method == "GET":
            return _json(200, [self._describe(number) for number in range(len(self.opened), 0, -1)])
        if (trouble := self.trouble()) is not None:
            return trouble
        self.opened.append(request.get_json())
        if self.is_lost:
            self.is_lost = False
            return _json(502, {})
        return _json(201, self._describe(len(self.opened)))

    def _describe(self, number: int) -> dict[str, Any]:
        asked = self.opened[number - 1]
        url = f"https://github.example/octo/shop/issues/{number}"
        issue: dict[str, Any] = example("issue")
        return issue | {"number": number, "title": asked["title"], "body": asked.get("body"), "html_url": url}


def _json(status: int, value: object) -> Response:
    return Response(json.dumps(value), status, content_type="application/json; charset=utf-8")


@contextlib.contextmanager
def serving_github() -> Iterator[GitHub]:
    """Serve a GitHub."""
    github = GitHub()
    server = make_server("127.0.0.1", 0, github, threaded=True)
    github.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield github
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
