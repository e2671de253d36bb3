"""GitHub's API beside a Git host: REST and GraphQL do what they are asked, and are strict about who asks.

It is at /api, as an Enterprise Server's, and at api.github.com. Branches are those of the host's
repositories. GraphQL is answered with GitHub's published schema, the npm package
@octokit/graphql-schema. A path is read as the most lenient server would: decoded, without `..`, in any
case, with the method from a header: so that what a client hides in it is found.
"""

import functools
import json
import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import jwt
from graphql import (
    GraphQLResolveInfo,
    GraphQLSchema,
    build_ast_schema,
    default_field_resolver,
    graphql_sync,
    is_enum_type,
    is_list_type,
    is_non_null_type,
    is_scalar_type,
    parse,
)

from counterparts.git_hosts import GitHost, git, read_pieces

SCHEMA = Path(__file__).resolve().parents[2] / "node_modules/@octokit/graphql-schema/schema.graphql"
CLONE_TOKEN = "clone-token-that-opens-the-whole-repository"
_CODES = {"GET": 200, "HEAD": 200, "POST": 201, "PUT": 200, "PATCH": 200, "DELETE": 204}


@functools.cache
def read_published() -> GraphQLSchema:
    """Return GitHub's schema; a second and a half."""
    return build_ast_schema(parse(SCHEMA.read_text(), no_location=True), assume_valid=True)


@dataclass
class Minted:
    """A token of an App."""

    repositories: list[str]
    permissions: dict[str, str]
    is_revoked: bool = False


@dataclass
class GitHubApi:
    """The API of a host.

    Attributes:
        done: what was written, in order: what it was, and of which repository.
        asked: method, path and Authorization of each request.
        minted: tokens of Apps.
        apps: the public keys of Apps, by their number.
        pulls: by repository.
        moved: where it leads instead, by path.
    """

    host: GitHost
    done: list[tuple[str, str]] = field(default_factory=list)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    minted: dict[str, Minted] = field(default_factory=dict)
    apps: dict[str, Any] = field(default_factory=dict)
    pulls: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    seconds: float = 3600

    def __post_init__(self) -> None:
        self.host.api = self.answer
        self.host.accepts = lambda token: self._may(f"Bearer {token}", None)

    @property
    def rest(self) -> str:
        """The address of REST."""
        return f"{self.host.url}/api/v3"

    def add_pull(self, name: str, head: str, *, of: str = "") -> dict[str, Any]:
        """Make a pull request, and return it."""
        number = len(self.pulls.setdefault(name, [])) + 1
        pull = {
            "number": number,
            "state": "open",
            "head": {"ref": head, "repo": {"full_name": of or name}},
            "base": {"ref": "main", "repo": {"full_name": name}},
            "html_url": f"{self.host.url}/{name}/pull/{number}",
        }
        self.pulls[name].append(pull)
        return pull

    # --- HTTP ---

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer a request below /api/."""
        told = request.headers.get("authorization", "")
        self.asked.append((request.command, request.path, told))
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        body = b"".join(read_pieces(request))
        parts = urlsplit(request.path)
        path = unquote(unquote(parts.path)).replace("\\", "/").partition(";")[0]
        path = posixpath.normpath(re.sub("/+", "/", path)).rstrip(".")
        method = request.headers.get("x-http-method-override") or request.command
        method = dict(parse_qsl(parts.query)).get("_method", method).upper()
        if (place := self.moved.get(path)) is not None:
            _reply(request, 302, {}, {"location": place})
            return
        if path in ("/api/graphql", "/graphql"):
            if self._may(told, None):
                _reply(request, 200, self._ask(json.loads(body)))
            else:
                _reply(request, 401, {"message": "Bad credentials"})
            return
        status, answer, headers = self._rest(method, path.removeprefix("/api/v3"), told, body)
        _reply(request, status, answer, headers)

    def _may(self, told: str, repository: str | None) -> bool:
        scheme, _, token = told.partition(" ")
        if scheme.lower() not in ("bearer", "token"):
            return False
        if token == self.host.accepted:
            return True
        minted = self.minted.get(token)
        if minted is None or minted.is_revoked:
            return False
        return repository is None or repository.rpartition("/")[2] in minted.repositories

    def _rest(self, method: str, path: str, told: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        if found := re.fullmatch(r"/app/installations/(\d+)/access_tokens", path):
            return (*self._mint(told, found[1], json.loads(body)), {})
        if path == "/installation/token" and method == "DELETE":
            token = told.partition(" ")[2]
            if token not in self.minted or self.minted[token].is_revoked:
                return 401, {}, {}
            self.minted[token].is_revoked = True
            return 204, {}, {}
        found = re.match(r"/(?:repos/([^/]+/[^/]+)|repositories/\d+)(?:/(.*))?$", path)
        name, rest = ((found[1] or "acme/app").lower(), found[2] or "") if found else ("", path)
        if not self._may(told, name or None):
            return 401, {"message": "Bad credentials"}, {}
        asked = json.loads(body) if body[:1] == b"{" else {}
        if name and not (self.host.folder / f"{name}.git").exists():
            return 404, {"message": "Not Found"}, {}
        if method not in ("GET", "HEAD"):
            return self._write(method, name, rest, asked)
        return self._read(name, rest)

    def _read(self, name: str, rest: str) -> tuple[int, Any, dict[str, str]]:
        if not rest:
            told = {
                "full_name": name,
                "private": True,
                "temp_clone_token": CLONE_TOKEN,
                "node_id": f"R_{name}",
            }
            return 200, told, {"x-oauth-scopes": "repo, admin:org", "set-cookie": "a=b"}
        if found := re.fullmatch(r"pulls/(\d+)", rest):
            pulls = self.pulls.get(name, [])
            if int(found[1]) > len(pulls):
                return 404, {"message": "Not Found"}, {}
            return 200, pulls[int(found[1]) - 1], {}
        if rest == "issues":
            link = f'<{self.rest}/repositories/17/issues?page=2>; rel="next"'
            return 200, [{"number": 1}], {"link": link}
        if rest == "pulls":
            return 200, self.pulls.get(name, []), {}
        return 200, {"of": name, "what": rest, "secret": "of the repository"}, {}

    def _write(
        self, method: str, name: str, rest: str, asked: dict[str, Any]
    ) -> tuple[int, Any, dict[str, str]]:
        self.done.append((f"{method} {rest}", name))
        if (method, rest) == ("POST", "pulls"):
            owner, colon, head = str(asked.get("head", "")).rpartition(":")
            of = f"{owner}/{name.partition('/')[2]}" if colon else name
            return 201, self.add_pull(name, head, of=of), {}
        if (method, rest) == ("POST", "git/refs"):
            self._update(name, asked["ref"], asked["sha"])
        elif method == "PATCH" and rest.startswith("git/refs/"):
            self._update(name, rest.removeprefix("git/"), asked["sha"])
        elif method == "DELETE" and rest.startswith("git/refs/"):
            git("update-ref", "-d", rest.removeprefix("git/"), cwd=self.host.folder / f"{name}.git")
        return _CODES[method], {"written": rest, "html_url": f"{self.host.url}/{name}"}, {}

    def _update(self, name: str, ref: str, sha: str) -> None:
        git("update-ref", ref, sha, cwd=self.host.folder / f"{name}.git")

    # --- Apps ---

    def _mint(self, told: str, installation: str, asked: dict[str, Any]) -> tuple[int, Any]:
        """Give a token, to whoever proves to be the App (RS256, at most ten minutes, not from the future)."""
        try:
            proof = told.removeprefix("Bearer ")
            app = jwt.decode(proof, options={"verify_signature": False})["iss"]
            claims = jwt.decode(
                proof, self.apps[str(app)], algorithms=["RS256"], options={"require": ["iat", "exp"]}
            )
            if claims["exp"] - claims["iat"] > 600:
                return 401, {"message": "'Expiration time' claim ('exp') is too far in the future"}
        except (jwt.InvalidTokenError, KeyError) as fault:
            return 401, {"message": f"A JSON web token could not be decoded: {fault!r}"}
        if installation != "67890" or not asked.get("repositories"):
            return 404, {"message": "Not Found"}
        token = f"ghs_{len(self.minted):036d}"
        self.minted[token] = Minted(asked["repositories"], asked["permissions"])
        until = datetime.now(UTC) + timedelta(seconds=self.seconds)
        return 201, {"token": token, "expires_at": until.strftime("%Y-%m-%dT%H:%M:%SZ")}

    # --- GraphQL ---

    def _ask(self, body: Any) -> Any:
        if isinstance(body, list):
            return [self._ask(one) for one in body]
        answer = graphql_sync(
            read_published(),
            body["query"],
            root_value=_Root(self),
            variable_values=body.get("variables"),
            operation_name=body.get("operationName"),
            field_resolver=_resolve,
        )
        return answer.formatted


def _resolve(source: Any, info: GraphQLResolveInfo[Any], **arguments: Any) -> Any:
    """Return what there is, or, where there has to be something, as little as that can be."""
    found = default_field_resolver(source, info, **arguments)
    if found is not None or not is_non_null_type(info.return_type):
        return found
    kind = info.return_type.of_type
    if is_list_type(kind):
        return []
    if is_enum_type(kind):
        return next(iter(kind.values))
    if is_scalar_type(kind):
        return {"Int": 0, "Boolean": False, "DateTime": "2026-01-01T00:00:00Z"}.get(kind.name, "x")
    return {}


def _list(nodes: list[Any]) -> dict[str, Any]:
    return {"nodes": nodes, "totalCount": len(nodes), "pageInfo": {"hasNextPage": False, "endCursor": None}}


class _Root:
    """What the roots of the schema answer: each field of a mutation is noted as done."""

    def __init__(self, api: GitHubApi) -> None:
        self._api = api

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def do(info: Any, **arguments: Any) -> Any:
            given = arguments.get("input", {})
            if info.parent_type.name == "Query":
                return self._read(name, arguments)
            self._api.done.append((name, json.dumps(given, sort_keys=True)))
            return self._written(name, given)

        return do

    def _read(self, name: str, arguments: dict[str, Any]) -> Any:
        if name == "viewer":
            return {"__typename": "User", "login": "ada", "id": "U_ada"}
        if name == "repository":
            return self._repository(f"{arguments['owner']}/{arguments['name']}".lower())
        if name == "node":
            return self._node(arguments["id"])
        return None

    def _repository(self, name: str) -> Any:
        if not (self._api.host.folder / f"{name}.git").exists():
            return None
        owner, _, short = name.partition("/")
        pulls = [self._pull(name, number) for number in range(1, len(self._api.pulls.get(name, [])) + 1)]
        return {
            "__typename": "Repository",
            "id": f"R_{name}",
            "name": short,
            "nameWithOwner": name,
            "isPrivate": True,
            "owner": {"__typename": "Organization", "id": f"O_{owner}", "login": owner},
            "hasIssuesEnabled": True,
            "hasWikiEnabled": False,
            "viewerPermission": "WRITE",
            "mergeCommitAllowed": True,
            "rebaseMergeAllowed": True,
            "squashMergeAllowed": True,
            "tempCloneToken": CLONE_TOKEN,
            "description": "of the repository",
            "defaultBranchRef": {"name": "main", "id": f"REF_{name} refs/heads/main"},
            "pullRequests": lambda info, **_: _list(pulls),
            "pullRequest": lambda info, number: pulls[number - 1] if number <= len(pulls) else None,
            "object": lambda info, **_: {"__typename": "Blob", "text": f"inner of {name}"},
            "forks": lambda info, **_: _list([self._repository("acme/other")]),
            "issues": lambda info, **_: _list([]),
            "parent": lambda info: self._repository("acme/other"),
        }

    def _pull(self, name: str, number: int) -> Any:
        pull = self._api.pulls[name][number - 1]
        head = pull["head"]["repo"]["full_name"]
        return {
            "__typename": "PullRequest",
            "id": f"PR_{name} {number}",
            "number": number,
            "url": pull["html_url"],
            "title": "t",
            "state": "OPEN",
            "isDraft": False,
            "isCrossRepository": head != name,
            "closed": False,
            "baseRefName": "main",
            "headRefName": pull["head"]["ref"],
            "body": "",
            "headRepositoryOwner": {"__typename": "Organization", "id": "O", "login": head.partition("/")[0]},
            "headRepository": lambda info: self._repository(head),
            "repository": lambda info: self._repository(name),
        }

    def _node(self, id: str) -> Any:
        kind, _, rest = id.partition("_")
        if kind == "R":
            return self._repository(rest)
        name, _, what = rest.partition(" ")
        if kind == "PR":
            return self._pull(name, int(what))
        if kind == "I":
            return {"__typename": "Issue", "id": id, "repository": lambda info: self._repository(name)}
        if kind == "REF":
            prefix, slash, short = what.partition("heads/")
            ref = {"__typename": "Ref", "id": id, "prefix": prefix + slash, "name": short}
            return ref | {"repository": lambda info: self._repository(name)}
        return None

    def _written(self, name: str, given: dict[str, Any]) -> Any:
        if name == "createPullRequest":
            repository = given["repositoryId"].removeprefix("R_")
            pull = self._api.add_pull(repository, given["headRefName"])
            return {"pullRequest": self._pull(repository, pull["number"])}
        if name == "addComment":
            return {"commentEdge": {"node": {"url": f"{self._api.host.url}/comment"}}}
        if "pullRequestId" in given:
            return {"pullRequest": self._node(given["pullRequestId"])}
        return {"clientMutationId": "done"}


def _reply(
    request: BaseHTTPRequestHandler, status: int, answer: Any, headers: dict[str, str] | None = None
) -> None:
    body = b"" if status == 204 else json.dumps(answer).encode()
    request.send_response(status)
    for name, value in {"content-type": "application/json; charset=utf-8", **(headers or {})}.items():
        request.send_header(name, value)
    request.send_header("content-length", str(len(body)))
    request.send_header("connection", "close")
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)
