"""What a session may ask of GitHub's REST API. Pure: what only the host can tell comes out as a check."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec

from bailee.flows.git.access import Access, Attached
from bailee.flows.git.github.places import find_named, name_of
from bailee.flows.git.github.routes import ANYWHERE, find_read, find_write, read_path, read_query
from bailee.flows.git.github.verdicts import Check, Going, Needed, Refused

_HEADS = "refs/heads/"
_READS = ("GET", "HEAD")
# Servers and frameworks in front of one take the method from these.
_OVERRIDES = (
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
)

_PERSON = {"name": str, "email": str, "date": str}
# By route, what a body may say: no head of another repository, no reviewers, no place on the web.
_FIELDS: Mapping[str, Mapping[str, Any]] = {
    "pulls": {
        "title": str,
        "head": str,
        "base": str,
        "body": str,
        "draft": bool,
        "maintainer_can_modify": bool,
    },
    "pulls/{n}": {"title": str, "body": str, "state": str, "base": str, "maintainer_can_modify": bool},
    "issues/{n}/comments": {"body": str},
    "pulls/{n}/comments": {
        "body": str,
        "commit_id": str,
        "path": str,
        "side": str,
        "line": int,
        "position": int,
        "start_line": int,
        "start_side": str,
        "in_reply_to": int,
        "subject_type": str,
    },
    "pulls/{n}/comments/{n}/replies": {"body": str},
    "git/refs": {"ref": str, "sha": str},
    "git/refs/{path}": {"sha": str, "force": bool},
    "contents/{path}": {
        "message": str,
        "content": str,
        "branch": str,
        "sha": str,
        "committer": _PERSON,
        "author": _PERSON,
    },
}


def judge_rest(
    access: Access, host: str, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes
) -> Going:
    """Return what may go on of a request.

    Args:
        host: that of the repositories it may be for.
        path, query: as they came, not decoded.
        headers: by name in lower case.

    Raises:
        Refused: a session may not do that.
    """
    if any(name in headers for name in _OVERRIDES):
        raise Refused("override", "a request says its method and its path once")
    if method in _READS:
        if body:
            raise Refused("body", "a read has no body", 400)
        return _judge_read(access, host, method, path, query)
    if query:
        raise Refused("query", "what is written has no query")
    name, rest, plain = read_path(path)
    repository = _find(access, host, name)
    route, named = find_write(method, plain)
    if not repository.branch:
        raise Refused("read_only", f"this session may read {repository.place}, and write nothing to it")
    fields = _read_fields(route, headers.get("content-type", ""), body)
    refs, checks = _judge_write(method, route, named, fields, repository)
    return Going(
        method,
        f"/repos/{name_of(repository)}/{rest}",
        f"{method} /repos/{{repository}}/{route}",
        repository,
        is_write=True,
        refs=refs,
        checks=checks,
        body=fields,
    )


def _judge_read(access: Access, host: str, method: str, path: str, query: str) -> Going:
    pairs = read_query(query)
    tail = f"?{urlencode(pairs)}" if pairs else ""
    if path in ANYWHERE:
        return Going(method, path + tail, f"{method} {path}", None)
    name, rest, plain = read_path(path)
    repository = _find(access, host, name)
    route = find_read(plain)
    below = f"/{rest}" if rest else ""
    shown = f"/{route}" if route else ""
    return Going(
        method,
        f"/repos/{name_of(repository)}{below}{tail}",
        f"{method} /repos/{{repository}}{shown}",
        repository,
    )


def _find(access: Access, host: str, name: str) -> Attached:
    if (found := find_named(access, host, name)) is None:
        raise Refused("not_attached", f"{host}/{name[:200]} is not attached to this session")
    return found


def _judge_write(
    method: str, route: str, named: tuple[str, ...], fields: Mapping[str, Any], repository: Attached
) -> tuple[tuple[str, ...], tuple[Check, ...]]:
    """Return the refs that are written and what has to be asked first."""
    own = _HEADS + repository.branch
    match route:
        case "pulls":
            check_head(fields.get("head"), repository)
            check_base(fields.get("base"), needed=True)
        case "pulls/{n}":
            check_base(fields.get("base"), needed=False)
            if fields.get("state") not in (None, "open", "closed"):
                raise Refused("body", "a pull request is open or closed")
            return (), (Check(named[0], Needed.OWN_PULL_REQUEST),)
        case "git/refs":
            check_ref(fields.get("ref"), repository)
            return (own,), ()
        case "git/refs/{path}":
            check_ref(f"refs/{named[0]}", repository)
            return (own,), ()
        case "contents/{path}":
            if fields.get("branch") != repository.branch:
                raise Refused("branch", f"a session writes to its own branch alone: {repository.branch}")
            return (own,), ()
    return (), ()


def check_ref(ref: object, repository: Attached) -> None:
    """Raise Refused where a ref is not the session's branch."""
    if ref != _HEADS + repository.branch:
        raise Refused("branch", f"a session writes to its own branch alone: {repository.branch}")


def check_head(head: object, repository: Attached) -> None:
    """Raise Refused where a pull request's head is not the session's branch in the attached repository."""
    owner = name_of(repository).partition("/")[0]
    if head not in (repository.branch, f"{owner}:{repository.branch}"):
        raise Refused("head", f"a session opens pull requests of its own branch: {repository.branch}")


def check_base(base: object, *, needed: bool) -> None:
    """Raise Refused where the base of a pull request is not plain."""
    if base is None and not needed:
        return
    if not isinstance(base, str) or not base or any(letter in ":\\?#%" or letter <= " " for letter in base):
        raise Refused("base", "the base of a pull request is a branch of the same repository")


def _read_fields(route: str, kind: str, body: bytes) -> dict[str, Any]:
    if kind.partition(";")[0].strip().lower() not in ("", "application/json", "application/vnd.github+json"):
        raise Refused("body", "what is written is JSON: content-type application/json", 415)
    try:
        fields = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Refused("body", "the body is no JSON object", 400) from None
    _check_fields(fields, _FIELDS[route])
    return fields


def _check_fields(fields: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        shown = repr(name[:50])
        if name not in known:
            raise Refused("body", f"the field {shown} is not what a session gives here")
        kind = known[name]
        if value is None:
            continue
        if isinstance(kind, Mapping):
            if not isinstance(value, dict):
                raise Refused("body", f"the field {shown} is an object")
            _check_fields(value, kind)
        elif type(value) is not kind:
            raise Refused("body", f"the field {shown} is no {kind.__name__}")
