"""Asks the host what an id or a number stands for, with the real credential, before a request goes on."""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from bailee.flows.git.access import Attached
from bailee.flows.git.github.places import Place, name_of
from bailee.flows.git.github.verdicts import Check, Going, Needed, Refused
from bailee.flows.git.upstreams import Upstreams

LARGEST = 1_000_000  # bytes of an answer
KIND = "application/vnd.github+json"
# Forms of ids change; a repository's name comes back whatever the form (GitHub's "Migrating GraphQL global
# node IDs").
_QUERY = """query($id: ID!) { node(id: $id) {
  __typename
  ... on Repository { nameWithOwner }
  ... on Issue { repository { nameWithOwner } }
  ... on PullRequest { headRefName headRepository { nameWithOwner } repository { nameWithOwner } }
  ... on Ref { name prefix repository { nameWithOwner } }
} }"""


_Told = TypeVar("_Told")


class _Named(msgspec.Struct, rename="camel"):
    name_with_owner: str = ""


class _Node(msgspec.Struct, rename="camel"):
    typename: str = msgspec.field(name="__typename", default="")
    name_with_owner: str = ""
    head_ref_name: str = ""
    head_repository: _Named | None = None
    repository: _Named | None = None
    name: str = ""
    prefix: str = ""


class _Data(msgspec.Struct):
    node: _Node | None = None


class _Answer(msgspec.Struct):
    data: _Data | None = None


class _Repo(msgspec.Struct):
    full_name: str = ""


class _Head(msgspec.Struct):
    ref: str = ""
    repo: _Repo | None = None


class _Pull(msgspec.Struct):
    head: _Head


async def hold(going: Going, place: Place, upstreams: Upstreams, headers: Mapping[str, str]) -> None:
    """Ask all that a request needs asked.

    Args:
        headers: the credential.

    Raises:
        Refused: something is not what it has to be, or the host does not say.
    """
    for check in going.checks:
        assert going.repository is not None
        if going.path:
            await _hold_number(check, going.repository, place, upstreams, headers)
        else:
            await _hold_id(check, going.repository, place, upstreams, headers)


async def _hold_number(
    check: Check, repository: Attached, place: Place, upstreams: Upstreams, headers: Mapping[str, str]
) -> None:
    url = f"{place.rest}/repos/{name_of(repository)}/pulls/{check.id}"
    told = await _ask(upstreams, "GET", url, headers, None, _Pull)
    head = told.head
    if not _is_own(head.ref, head.repo.full_name if head.repo else "", repository):
        raise _not_own(repository)


async def _hold_id(
    check: Check, repository: Attached, place: Place, upstreams: Upstreams, headers: Mapping[str, str]
) -> None:
    body = {"query": _QUERY, "variables": {"id": check.id}}
    told = await _ask(upstreams, "POST", place.graphql, headers, body, _Answer)
    node = told.data.node if told.data else None
    within = node.repository.name_with_owner if node and node.repository else ""
    if node is None:
        raise Refused("node", "the host knows nothing of that id")
    match check.needed:
        case Needed.REPOSITORY:
            if node.typename != "Repository" or not _is_same(node.name_with_owner, repository):
                raise Refused("not_attached", "the id is not that of the attached repository")
        case Needed.OWN_PULL_REQUEST:
            head = node.head_repository.name_with_owner if node.head_repository else ""
            is_here = node.typename == "PullRequest" and _is_same(within, repository)
            if not is_here or not _is_own(node.head_ref_name, head, repository):
                raise _not_own(repository)
        case Needed.TALK:
            if node.typename not in ("Issue", "PullRequest") or not _is_same(within, repository):
                raise Refused(
                    "not_attached", "the id is of no issue or pull request of the attached repository"
                )
        case Needed.OWN_BRANCH:
            ref = node.prefix + node.name
            is_here = node.typename == "Ref" and _is_same(within, repository)
            if not is_here or ref != f"refs/heads/{repository.branch}":
                raise Refused("branch", f"a session writes to its own branch alone: {repository.branch}")


def _is_same(name: str, repository: Attached) -> bool:
    return name.lower() == name_of(repository).lower()


def _is_own(ref: str, name: str, repository: Attached) -> bool:
    return ref == repository.branch and _is_same(name, repository)


def _not_own(repository: Attached) -> Refused:
    reason = f"a session updates pull requests of its own branch alone: {repository.branch}"
    return Refused("head", reason)


async def _ask(
    upstreams: Upstreams, method: str, url: str, headers: Mapping[str, str], body: Any, kind: type[_Told]
) -> _Told:
    sent = {"accept": KIND, "accept-encoding": "identity", "content-type": "application/json", **headers}
    told = b""
    try:
        content = msgspec.json.encode(body) if body is not None else None
        answer = await upstreams.ask(method, url, sent, content)
        try:
            async for piece in answer.aiter_raw():
                told += piece
                if len(told) > LARGEST:
                    raise OSError("too long")
        finally:
            await answer.aclose()
        if answer.status_code == 404:
            raise Refused("node", "the host knows nothing of that number", 404)
        if answer.status_code != 200:
            raise OSError(str(answer.status_code))
        return msgspec.json.decode(told, type=kind)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        raise Refused(
            "check", "the host does not say what this is of, so that it cannot be allowed", 502
        ) from None
