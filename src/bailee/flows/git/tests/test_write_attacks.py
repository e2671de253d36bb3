"""Ways to write elsewhere than to the session's branch, and to read elsewhere than in its repository.

Each is tried by the session and refused, with nothing done at the host; and each is done by the host when it
is asked straight (control), so that it is the policy that holds and nothing else.
"""

import json
import os
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx2
import pytest

from counterparts.git_hosts import git, read_pieces

from .conftest import Hub

OID = "1" * 40
REPO = "/repos/acme/app"
OTHER = "/repos/acme/other"
FILE = {"message": "m", "content": "eA=="}
PULL = {"title": "t", "head": "bailee/work", "base": "main"}

# Method, path, body, headers.
REST: dict[str, tuple[str, str, Any, dict[str, str]]] = {
    "a ref of another branch": ("POST", f"{REPO}/git/refs", {"ref": "refs/heads/evil", "sha": OID}, {}),
    "a tag": ("POST", f"{REPO}/git/refs", {"ref": "refs/tags/v1", "sha": OID}, {}),
    "a ref without refs": ("POST", f"{REPO}/git/refs", {"ref": "heads/bailee/work", "sha": OID}, {}),
    "main moved": ("PATCH", f"{REPO}/git/refs/heads/main", {"sha": OID, "force": True}, {}),
    "a ref deleted": ("DELETE", f"{REPO}/git/refs/heads/main", None, {}),
    "its own ref deleted": ("DELETE", f"{REPO}/git/refs/heads/bailee/work", None, {}),
    "a file on the default branch": ("PUT", f"{REPO}/contents/a", FILE, {}),
    "a file on main": ("PUT", f"{REPO}/contents/a", {**FILE, "branch": "main"}, {}),
    "a file's branch in the query": ("PUT", f"{REPO}/contents/a?branch=bailee/work", FILE, {}),
    "a file deleted": ("DELETE", f"{REPO}/contents/a", {**FILE, "branch": "bailee/work"}, {}),
    "a merge of a pull request": ("PUT", f"{REPO}/pulls/1/merge", {}, {}),
    "a merge of branches": ("POST", f"{REPO}/merges", {"base": "main", "head": "bailee/work"}, {}),
    "a fork brought up to date": ("POST", f"{REPO}/merge-upstream", {"branch": "main"}, {}),
    "a pull request of a fork": ("POST", f"{REPO}/pulls", {**PULL, "head": "evil:bailee/work"}, {}),
    "a pull request of main": ("POST", f"{REPO}/pulls", {**PULL, "head": "main"}, {}),
    "a head elsewhere": ("POST", f"{REPO}/pulls", {**PULL, "head_repo": "acme/other"}, {}),
    "a base elsewhere": ("POST", f"{REPO}/pulls", {**PULL, "base": "evil:main"}, {}),
    "a URL for a head": ("POST", f"{REPO}/pulls", {**PULL, "head": "https://evil.example/x"}, {}),
    "somebody's pull request": ("PATCH", f"{REPO}/pulls/1", {"state": "closed"}, {}),
    "a pull request of the same name in a fork": ("PATCH", f"{REPO}/pulls/2", {"title": "x"}, {}),
    "a review that approves": ("POST", f"{REPO}/pulls/1/reviews", {"event": "APPROVE"}, {}),
    "a comment of somebody else": ("PATCH", f"{REPO}/issues/comments/1", {"body": "x"}, {}),
    "a comment elsewhere": ("POST", f"{OTHER}/issues/1/comments", {"body": "x"}, {}),
    "an issue": ("POST", f"{REPO}/issues", {"title": "x"}, {}),
    "a release": ("POST", f"{REPO}/releases", {"tag_name": "v1"}, {}),
    "a workflow": ("POST", f"{REPO}/actions/workflows/ci.yml/dispatches", {"ref": "main"}, {}),
    "an event": ("POST", f"{REPO}/dispatches", {"event_type": "x"}, {}),
    "settings": ("PATCH", REPO, {"private": False}, {}),
    "the repository": ("DELETE", REPO, None, {}),
    "a collaborator": ("PUT", f"{REPO}/collaborators/evil", {"permission": "admin"}, {}),
    "a deploy key": ("POST", f"{REPO}/keys", {"key": "x"}, {}),
    "a hook": ("POST", f"{REPO}/hooks", {"config": {"url": "https://evil.example"}}, {}),
    "a fork": ("POST", f"{REPO}/forks", {}, {}),
    "a transfer": ("POST", f"{REPO}/transfer", {"new_owner": "evil"}, {}),
    "branch protection": ("DELETE", f"{REPO}/branches/main/protection", None, {}),
    "a branch renamed": ("POST", f"{REPO}/branches/main/rename", {"new_name": "x"}, {}),
    "a secret of workflows": ("PUT", f"{REPO}/actions/secrets/X", {"encrypted_value": "x"}, {}),
    "a variable": ("POST", f"{REPO}/actions/variables", {"name": "X"}, {}),
    "a status": ("POST", f"{REPO}/statuses/{OID}", {"state": "success"}, {}),
    "a deployment": ("POST", f"{REPO}/deployments", {"ref": "main"}, {}),
    "a blob": ("POST", f"{REPO}/git/blobs", {"content": "x"}, {}),
    "another repository": ("POST", f"{OTHER}/git/refs", {"ref": "refs/heads/bailee/work", "sha": OID}, {}),
    "by number": ("PUT", "/repositories/17/contents/a", {**FILE, "branch": "bailee/work"}, {}),
    "by a coded dot": ("PUT", f"{REPO}/%2e%2e/other/contents/a", {**FILE, "branch": "bailee/work"}, {}),
    "by a coded slash": ("PUT", f"{REPO}/contents%2fa", {**FILE, "branch": "bailee/work"}, {}),
    "by a twice coded slash": ("PUT", f"{REPO}%252fcontents/a", {**FILE, "branch": "bailee/work"}, {}),
    "by dots": ("PUT", "/repos/acme/app/../other/contents/a", {**FILE, "branch": "bailee/work"}, {}),
    "by a slash too many": ("PUT", "/repos//acme/other/contents/a", {**FILE, "branch": "bailee/work"}, {}),
    "by a backslash": ("PUT", f"{REPO}/..%5cother/contents/a", {**FILE, "branch": "bailee/work"}, {}),
    "by a semicolon": ("PATCH", f"{REPO}/git/refs/heads/main;/bailee/work", {"sha": OID}, {}),
    "by trailing dots": ("DELETE", f"{REPO}...", None, {}),
    "by a method in a header": ("GET", REPO, None, {"x-http-method-override": "DELETE"}),
    "by a method in the query": ("GET", f"{REPO}?_method=DELETE", None, {}),
    "by a write that claims another": (
        *("POST", f"{REPO}/issues/1/comments", {"body": "x"}),
        {"x-http-method-override": "PUT"},
    ),
}


def prepare(hub: Hub) -> None:
    """Make what is written to elsewhere."""
    hub.api.add_pull("acme/app", "theirs")
    hub.api.add_pull("acme/app", "bailee/work", of="evil/app")
    hub.api.add_pull("acme/other", "bailee/work")


def trusted() -> str:
    """Return the file of the authority that the host's certificate is of."""
    return os.environ["SSL_CERT_FILE"]


def find_head(hub: Hub, name: str = "acme/app") -> str:
    """Return an object that refs of a repository can stand for."""
    return hub.world.host.refs(name)["refs/heads/main"]


@pytest.mark.parametrize("kind", REST)
def test_by_rest(hub: Hub, kind: str) -> None:
    """What a session may not write by REST is refused in words, and the host does it when asked straight."""
    method, path, body, headers = REST[kind]
    if body and "sha" in body:
        body = {**body, "sha": find_head(hub, "acme/other" if OTHER in path else "acme/app")}
    prepare(hub)
    refused = hub.rest(method, path, body, headers=headers)
    assert refused.status_code in (400, 403), refused.text
    assert refused.headers["x-bailee-denied"]
    assert refused.json()["message"].startswith("Bailee: ")
    assert hub.api.done == []
    assert all(one[0] == "GET" for one in hub.api.asked)
    assert hub.world.noted[-1].outcome == refused.headers["x-bailee-denied"]
    if kind != "a ref without refs":  # which git itself takes for none
        assert hub.straight(method, f"/v3{path}", body, headers=headers).status_code in (200, 201, 204)
        assert len(hub.api.done) == 1  # Control


READS = {
    "another repository": OTHER,
    "by number": "/repositories/17/contents/a",
    "secrets' names": f"{REPO}/actions/secrets",
    "keys": f"{REPO}/keys",
    "hooks": f"{REPO}/hooks",
    "collaborators": f"{REPO}/collaborators",
    "protection": f"{REPO}/branches/main/protection",
    "forks": f"{REPO}/forks",
    "by dots": f"{REPO}/../other/readme",
    "by coded dots": f"{REPO}/%2e%2e/other/readme",
    "another owner's branch": f"{REPO}/compare/main...evil:main",
}


@pytest.mark.parametrize("kind", READS)
def test_reading_elsewhere_by_rest(hub: Hub, kind: str) -> None:
    """What is not of the session's repository is not asked for."""
    refused = hub.rest("GET", READS[kind])
    assert refused.status_code == 403
    assert hub.api.asked == []
    assert hub.straight("GET", f"/v3{READS[kind]}").status_code == 200  # Control


@pytest.mark.parametrize(
    "path", ["/user", "/user/repos", "/search/code?q=x", "/orgs/acme/repos", "/gists", "/app"]
)
def test_nothing_but_repositories(hub: Hub, path: str) -> None:
    """What is of the credential's owner and not of a repository is not asked for."""
    assert hub.rest("GET", path).status_code == 403
    assert hub.api.asked == []
    assert hub.rest("GET", "/rate_limit").status_code == 200  # Control


def mutation(field: str, given: str) -> str:
    """Return a document with one mutation."""
    return f"mutation {{ {done(field, given)} }}"


def done(field: str, given: str) -> str:
    """Return a field of one."""
    return f"{field}(input: {{{given}}}) {{ clientMutationId }}"


PULLS, REFS = 'pullRequestId: "PR_acme/app', 'refId: "REF_acme/app refs'
MAIN = f'{REFS}/heads/main"'
TO, FROM = f'oid: "{OID}"', 'headRefName: "bailee/work", baseRefName: "main", title: "t"'
COMMENT, THEIRS = 'subjectId: "I_acme/app 1", body: "x"', f'{PULLS} 1"'
COMMIT = f'message: {{headline: "m"}}, expectedHeadOid: "{OID}"'
GRAPHQL = {
    "a merge": mutation("mergePullRequest", THEIRS),
    "a merge by alias": mutation("addComment: mergePullRequest", THEIRS),
    "a merge of branches": mutation("mergeBranch", 'repositoryId: "R_acme/app", base: "main", head: "x"'),
    "a ref deleted": mutation("deleteRef", MAIN),
    "many refs": mutation(
        "updateRefs",
        f'repositoryId: "R_acme/app", refUpdates: [{{name: "refs/heads/main", afterOid: "{OID}"}}]',
    ),
    "main moved": mutation("updateRef", f"{MAIN}, {TO}"),
    "its branch in another repository": mutation(
        "updateRef", f'refId: "REF_acme/other refs/heads/bailee/work", {TO}'
    ),
    "a tag of that name": mutation("updateRef", f'{REFS}/tags/bailee/work", {TO}'),
    "a ref made": mutation("createRef", f'repositoryId: "R_acme/app", name: "refs/heads/evil", {TO}'),
    "a ref made elsewhere": mutation(
        "createRef", f'repositoryId: "R_acme/other", name: "refs/heads/bailee/work", {TO}'
    ),
    "a commit on main": mutation(
        "createCommitOnBranch",
        f'branch: {{repositoryNameWithOwner: "acme/app", branchName: "main"}}, {COMMIT}',
    ),
    "a commit elsewhere": mutation(
        "createCommitOnBranch",
        f'branch: {{repositoryNameWithOwner: "acme/other", branchName: "bailee/work"}}, {COMMIT}',
    ),
    "a commit by a ref's id": mutation(
        "createCommitOnBranch", f'branch: {{id: "REF_acme/app refs/heads/main"}}, {COMMIT}'
    ),
    "a pull request elsewhere": mutation("createPullRequest", f'repositoryId: "R_acme/other", {FROM}'),
    "a pull request of main": mutation(
        "createPullRequest",
        'repositoryId: "R_acme/app", headRefName: "main", baseRefName: "x", title: "t"',
    ),
    "a head elsewhere": mutation(
        "createPullRequest", f'repositoryId: "R_acme/app", headRepositoryId: "R_acme/other", {FROM}'
    ),
    "somebody's pull request": mutation("closePullRequest", THEIRS),
    "a fork's pull request": mutation("updatePullRequest", f'{PULLS} 2", title: "x"'),
    "another repository's": mutation("updatePullRequest", 'pullRequestId: "PR_acme/other 1", title: "x"'),
    "labels": mutation("updatePullRequest", f'{PULLS} 1", labelIds: ["x"]'),
    "a comment elsewhere": mutation("addComment", 'subjectId: "I_acme/other 1", body: "x"'),
    "a comment on something else": mutation("addComment", 'subjectId: "R_acme/app", body: "x"'),
    "a repository": mutation("createRepository", 'name: "x", visibility: PUBLIC'),
    "the second of two": (
        f"mutation {{ a: {done('addComment', COMMENT)} b: {done('mergePullRequest', THEIRS)} }}"
    ),
    "in a fragment": f"mutation {{ ...f }} fragment f on Mutation {{ {done('deleteRef', MAIN)} }}",
    "in an inline fragment": f"mutation {{ ... on Mutation {{ {done('deleteRef', MAIN)} }} }}",
    "where it is included": (
        f"mutation {{ updateRef(input: {{{MAIN}, {TO}}}) @include(if: true) {{ clientMutationId }} }}"
    ),
}


@pytest.mark.parametrize("kind", GRAPHQL)
def test_by_graphql(hub: Hub, kind: str) -> None:
    """What a session may not write by GraphQL is refused, and the host does it when asked straight."""
    prepare(hub)
    refused = hub.graphql(GRAPHQL[kind])
    assert refused.status_code == 403, refused.text
    assert refused.json()["message"].startswith("Bailee: ")
    assert hub.api.done == []
    done = hub.straight("POST", "/graphql", {"query": GRAPHQL[kind]})
    assert "errors" not in done.json(), done.text
    assert hub.api.done  # Control


MOVE = f"updateRef(input: {{refId: $r, {TO}}}) {{ clientMutationId }}"
VARIABLES: dict[str, tuple[str, Any]] = {
    "a variable": (f"mutation($r: ID!) {{ {MOVE} }}", {"r": "REF_acme/app refs/heads/main"}),
    "a variable's default": (f'mutation($r: ID! = "REF_acme/app refs/heads/main") {{ {MOVE} }}', {}),
    "a whole input": (
        "mutation($i: CreatePullRequestInput!) { createPullRequest(input: $i) { clientMutationId } }",
        {"i": {"repositoryId": "R_acme/app", "headRefName": "main", "baseRefName": "x", "title": "t"}},
    ),
}


@pytest.mark.parametrize("kind", VARIABLES)
def test_by_variables(hub: Hub, kind: str) -> None:
    """Variables are put in before it is decided."""
    query, variables = VARIABLES[kind]
    assert hub.graphql(query, variables).status_code == 403
    assert hub.api.done == []
    hub.straight("POST", "/graphql", {"query": query, "variables": variables})
    assert hub.api.done  # Control


READING = {
    "another repository": '{ repository(owner: "acme", name: "other") { id description } }',
    "beside its own": '{ a: repository(owner: "acme", name: "app") { id } b: repository(owner: "acme", '
    'name: "other") { description } }',
    "nodes": '{ nodes(ids: ["R_acme/other"]) { ... on Repository { description } } }',
    "a search": '{ search(query: "x", type: REPOSITORY, first: 1) { repositoryCount } }',
    "an organization": '{ organization(login: "acme") { id } }',
    "a user": '{ user(login: "ada") { id } }',
    "a resource": '{ resource(url: "https://github.com/acme/other") { __typename } }',
    "the viewer's repositories": "{ viewer { repositories(first: 1) { totalCount } } }",
    "its forks": '{ repository(owner: "acme", name: "app") { forks(first: 1) { nodes { description } } } }',
    "its parent's files": '{ repository(owner: "acme", name: "app") { parent { object(expression: "main:x") '
    "{ ... on Blob { text } } } } }",
    "its parent's files in a fragment": '{ repository(owner: "acme", name: "app") { parent { ...f } } } '
    'fragment f on Repository { object(expression: "main:x") { ... on Blob { text } } }',
    "a head's files": '{ repository(owner: "acme", name: "app") { pullRequest(number: 2) { headRepository '
    '{ object(expression: "main:x") { ... on Blob { text } } } } } }',
    "a token": '{ repository(owner: "acme", name: "app") { tempCloneToken } }',
}


@pytest.mark.parametrize("kind", READING)
def test_reading_elsewhere_by_graphql(hub: Hub, kind: str) -> None:
    """What leads out of the session's repository is not asked for, and the host would have told."""
    prepare(hub)
    assert hub.graphql(READING[kind]).status_code == 403
    assert hub.api.asked == []
    told = hub.straight("POST", "/graphql", {"query": READING[kind]})
    assert "data" in told.json(), told.text  # Control: the published schema has it.


@pytest.mark.parametrize(
    "id", ["R_acme/other", "R_acme/app", "PR_acme/other 1", "I_acme/other 1", "U_x", "x"]
)
def test_reading_by_an_id(hub: Hub, id: str) -> None:
    """An id is asked for where it is of an issue or a pull request of the session's repository alone."""
    prepare(hub)
    query = "query($id: ID!) { node(id: $id) { id ... on Repository { description } } }"
    assert hub.graphql(query, {"id": id}).status_code == 403
    assert len(hub.api.asked) == 1  # What it is of, which was for the service.
    own = hub.graphql(query, {"id": "PR_acme/app 1"})
    assert own.json() == {"data": {"node": {"id": "PR_acme/app 1"}}}  # Control


BODIES: dict[str, Any] = {
    "a list": [{"query": "{ viewer { login } }"}],
    "a stored query": {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "0" * 64}}},
    "a stored query beside one": {"query": "{ viewer { login } }", "extensions": {}},
    "an id of one": {"id": "x", "query": "{ viewer { login } }"},
    "two operations": {"query": "query a { viewer { login } } query b { viewer { login } }"},
    "another's name": {"query": "query a { viewer { login } }", "operationName": "b"},
    "a subscription": {"query": "subscription { x }"},
    "no document": {"query": ""},
    "a very long one": {"query": "{ viewer { login " + "login " * 40_000 + "} }"},
}


@pytest.mark.parametrize("kind", BODIES)
def test_bodies_of_another_kind(hub: Hub, kind: str) -> None:
    """Lists of requests and stored queries are refused, and whatever else is more than one operation."""
    path = f"{hub.world.api}/graphql"
    headers = {"authorization": f"Bearer {hub.world.token}"}
    refused = httpx2.post(path, json=BODIES[kind], headers=headers)
    assert refused.status_code in (400, 403)
    assert hub.api.asked == []
    assert (
        httpx2.post(path, json={"query": "{ viewer { login } }"}, headers=headers).status_code == 200
    )  # Control


def test_the_same_key_twice(hub: Hub) -> None:
    """Of a body in which a key stands twice the host gets what was decided about, once."""
    head = find_head(hub)
    twice = f'{{"ref": "refs/heads/main", "sha": "{head}", "ref": "refs/heads/bailee/work"}}'
    headers = {"authorization": f"Bearer {hub.world.token}", "content-type": "application/json"}
    path = f"{hub.world.api}/v3{REPO}/git/refs"
    assert httpx2.post(path, content=twice, headers=headers).status_code == 201
    assert "refs/heads/bailee/work" in hub.world.host.refs("acme/app")
    form = {**headers, "content-type": "application/x-www-form-urlencoded"}
    assert httpx2.post(path, content=b"ref=refs/heads/main", headers=form).status_code == 415


@pytest.mark.parametrize("words", [["HEAD:refs/heads/main"], ["HEAD:refs/tags/v1"], ["--delete", "main"]])
def test_by_git(hub: Hub, tmp_path: Path, words: list[str]) -> None:
    """The same by a push: refused, and done when pushed straight."""
    work = tmp_path / "work"
    hub.world.clone(work, "acme/app")
    git("commit", "-q", "--allow-empty", "-m", "second", cwd=work)
    before = hub.world.host.refs("acme/app")
    assert "Bailee:" in git("push", "origin", *words, cwd=work, check=False)
    assert hub.world.host.refs("acme/app") == before
    git("config", "receive.denyDeleteCurrent", "ignore", cwd=hub.world.host.folder / "acme/app.git")
    straight = hub.world.host.url.replace("://", f"://x-access-token:{hub.world.host.accepted}@")
    git("push", "-q", f"{straight}/acme/app.git", *words, cwd=work, GIT_SSL_CAINFO=trusted())
    assert hub.world.host.refs("acme/app") != before  # Control


def test_by_large_files(hub: Hub) -> None:
    """An upload to another repository is refused, and the host takes it when asked straight."""
    seen: list[str] = []

    def batch(request: BaseHTTPRequestHandler) -> None:
        seen.append(request.path)
        list(read_pieces(request))
        body = json.dumps({"transfer": "basic", "objects": []}).encode()
        request.send_response(200)
        request.send_header("content-length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    path = "/acme/other.git/info/lfs/objects/batch"
    hub.world.host.answers[path] = batch
    asked = {"operation": "upload", "objects": [{"oid": "a" * 64, "size": 1}]}
    refused = httpx2.post(f"{hub.world.remote('acme/other')}/info/lfs/objects/batch", json=asked)
    assert refused.status_code == 403
    assert seen == []
    assert hub.straight("POST", f"/..{path}", asked).status_code == 200
    assert seen  # Control


def test_a_submodule(hub: Hub, tmp_path: Path) -> None:
    """Another repository of the host is no way out of the first, and is there when asked straight."""
    told = git("clone", hub.world.remote("acme/other"), str(tmp_path / "one"), check=False)
    assert "is not attached" in told
    straight = hub.world.host.url.replace("://", f"://x-access-token:{hub.world.host.accepted}@")
    git("clone", "-q", f"{straight}/acme/other.git", str(tmp_path / "two"), GIT_SSL_CAINFO=trusted())
    assert (tmp_path / "two" / "SECRET").exists()  # Control
