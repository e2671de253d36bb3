"""GitHub's API through the service, to a host that speaks TLS and is strict about who asks."""

import pytest

from bailee.flows.git.access import Access, Attached
from counterparts.git_hosts import git
from counterparts.github_api import CLONE_TOKEN

from .conftest import Hub

OWN = {"title": "t", "head": "bailee/work", "base": "main", "body": "b"}
OPEN = "mutation($input: CreatePullRequestInput!) { createPullRequest(input: $input) { pullRequest { id } } }"
PULL = {"repositoryId": "R_acme/app", "headRefName": "bailee/work", "baseRefName": "main", "title": "t"}


def test_a_session_reads_its_repository(hub: Hub) -> None:
    """The host sees its own credential and the session none of it, nor what the credential may do."""
    answer = hub.rest("GET", "/repos/acme/app")
    assert answer.status_code == 200, answer.text
    assert answer.json()["full_name"] == "acme/app"
    assert hub.api.asked == [("GET", "/api/v3/repos/acme/app", f"Bearer {hub.world.host.accepted}")]
    assert "x-oauth-scopes" not in answer.headers
    assert "set-cookie" not in answer.headers
    assert hub.world.token not in str(hub.api.headers)
    told = hub.world.noted[-1]
    assert (told.what, told.outcome, told.route) == ("api read", "passed", "GET /repos/{repository}")
    assert told.repository.endswith("acme/app")
    assert told.received > 50


def test_no_token_to_clone_with(hub: Hub) -> None:
    """What GitHub gives for cloning a private repository does not come into a machine."""
    answer = hub.rest("GET", "/repos/acme/app")
    assert answer.json()["temp_clone_token"] == ""
    assert CLONE_TOKEN in hub.straight("GET", "/v3/repos/acme/app").text  # Control: the host gives one.
    assert hub.graphql('{ repository(owner: "acme", name: "app") { tempCloneToken } }').status_code == 403


def test_further_pages_go_by_name(hub: Hub) -> None:
    """GitHub leads to the next page by a number, which is refused; the session gets it by name."""
    link = hub.rest("GET", "/repos/acme/app/issues").headers["link"]
    assert link == f'<{hub.api.rest}/repos/acme/app/issues?page=2>; rel="next"'
    assert hub.rest("GET", "/repositories/17/issues").status_code == 403
    assert hub.rest("GET", "/repos/acme/app/issues?page=2").status_code == 200


def test_a_pull_request_of_its_branch(hub: Hub) -> None:
    """A session opens one, changes it and comments; each is in the log as a write."""
    made = hub.rest("POST", "/repos/acme/app/pulls", OWN)
    assert made.status_code == 201, made.text
    assert hub.rest("PATCH", "/repos/acme/app/pulls/1", {"title": "other"}).status_code == 200
    assert hub.rest("POST", "/repos/acme/app/issues/1/comments", {"body": "x"}).status_code == 201
    assert [one for one, _ in hub.api.done] == ["POST pulls", "PATCH pulls/1", "POST issues/1/comments"]
    assert [one.what for one in hub.world.noted] == ["api write"] * 3
    assert hub.world.noted[1].route == "PATCH /repos/{repository}/pulls/{n}"
    assert hub.world.noted[0].sent > 50


def test_its_branch_by_rest(hub: Hub) -> None:
    """A session makes its branch, moves it and writes a file to it."""
    head = hub.world.host.refs("acme/app")["refs/heads/main"]
    ref = {"ref": "refs/heads/bailee/work", "sha": head}
    assert hub.rest("POST", "/repos/acme/app/git/refs", ref).status_code == 201
    assert hub.world.host.refs("acme/app")["refs/heads/bailee/work"] == head
    moved = {"sha": head, "force": True}
    assert hub.rest("PATCH", "/repos/acme/app/git/refs/heads/bailee/work", moved).status_code == 200
    file = {"message": "m", "content": "eA==", "branch": "bailee/work"}
    assert hub.rest("PUT", "/repos/acme/app/contents/a/b%20c.txt", file).status_code == 200
    assert hub.world.noted[-1].refs == ("refs/heads/bailee/work",)
    assert hub.api.asked[-1][1] == "/api/v3/repos/acme/app/contents/a/b%20c.txt"


def test_graphql_reads_and_opens(hub: Hub) -> None:
    """A session asks for its repository, and opens, changes and comments a pull request of its branch."""
    read = hub.graphql(
        'query($o: String!) { repository(owner: $o, name: "app") { id pullRequests { totalCount } } }',
        {"o": "acme"},
    )
    assert read.json() == {"data": {"repository": {"id": "R_acme/app", "pullRequests": {"totalCount": 0}}}}
    made = hub.graphql(OPEN, {"input": PULL})
    pull = made.json()["data"]["createPullRequest"]["pullRequest"]["id"]
    change = 'mutation { updatePullRequest(input: {pullRequestId: "%s", title: "x"}) { clientMutationId } }'
    assert "errors" not in hub.graphql(change % pull).json()
    comment = 'mutation { addComment(input: {subjectId: "%s", body: "x"}) { clientMutationId } }'
    for id in (pull, "I_acme/app 4"):
        assert "errors" not in hub.graphql(comment % id).json()
    assert [one for one, _ in hub.api.done] == [
        "createPullRequest",
        "updatePullRequest",
        "addComment",
        "addComment",
    ]
    assert hub.world.noted[-1].route == "POST /graphql mutation addComment"


def test_its_branch_by_graphql(hub: Hub) -> None:
    """A session makes, moves and commits to its branch."""
    oid = "1" * 40
    made = 'mutation { createRef(input: {repositoryId: "R_acme/app", name: "%s", oid: "%s"}) { __typename } }'
    assert hub.graphql(made % ("refs/heads/bailee/work", oid)).status_code == 200
    moved = 'mutation { updateRef(input: {refId: "REF_acme/app %s", oid: "%s"}) { clientMutationId } }'
    assert hub.graphql(moved % ("refs/heads/bailee/work", oid)).status_code == 200
    commit = {
        "branch": {"repositoryNameWithOwner": "acme/app", "branchName": "bailee/work"},
        "message": {"headline": "m"},
        "expectedHeadOid": oid,
        "fileChanges": {"additions": [{"path": "a", "contents": "eA=="}]},
    }
    asked = (
        "mutation($i: CreateCommitOnBranchInput!) { createCommitOnBranch(input: $i) { clientMutationId } }"
    )
    assert hub.graphql(asked, {"i": commit}).status_code == 200
    assert [one for one, _ in hub.api.done] == ["createRef", "updateRef", "createCommitOnBranch"]


def test_what_clients_ask_about_the_schema(hub: Hub) -> None:
    """Introspection is answered from what a session may ask, and goes nowhere."""
    told = hub.graphql('{ __type(name: "Repository") { fields { name } } }').json()
    names = {one["name"] for one in told["data"]["__type"]["fields"]}
    assert "pullRequests" in names
    assert "deployKeys" not in names
    assert hub.api.asked == []


@pytest.mark.parametrize("place", ["https://127.0.0.1:1/", "/api/v3/repos/acme/other"])
def test_a_redirect_is_not_followed(hub: Hub, place: str) -> None:
    """Where the host leads elsewhere, its credential does not go along, and the session is not told where."""
    hub.api.moved["/api/v3/repos/acme/app/readme"] = place
    answer = hub.rest("GET", "/repos/acme/app/readme")
    assert answer.status_code == 502
    assert "to which its credential does not go" in answer.json()["message"]
    assert place not in answer.text + str(answer.headers)
    assert len(hub.api.asked) == 1


def test_a_credential_that_is_not_taken(hub: Hub) -> None:
    """The host's refusal is told with what to do."""
    hub.world.secret = "wrong-credential-of-nobody"
    answer = hub.rest("GET", "/repos/acme/app")
    assert answer.status_code == 403
    assert "bailee secrets set GIT_CREDENTIAL" in answer.json()["message"]
    assert "wrong-credential" not in answer.text


def test_a_refusal_is_in_githubs_form(hub: Hub) -> None:
    """A client shows it as it shows the host's own; a header tells that it is not the host's."""
    answer = hub.rest("PUT", "/repos/acme/app/pulls/1/merge", {})
    assert answer.status_code == 403
    assert set(answer.json()) == {"message", "documentation_url", "status"}
    assert answer.json()["message"].startswith("Bailee: ")
    assert answer.headers["x-bailee-denied"] == "route"
    assert (hub.world.noted[-1].outcome, hub.world.noted[-1].status) == ("route", 403)


def test_a_session_that_may_only_read(hub: Hub) -> None:
    """Without a branch of its own a session reads and writes nothing, comments included."""
    access = hub.world.access
    hub.world.access = Access(access.session, access.account, (Attached(access.repositories[0].url),))
    assert hub.rest("GET", "/repos/acme/app").status_code == 200
    assert hub.rest("POST", "/repos/acme/app/issues/1/comments", {"body": "x"}).status_code == 403
    comment = 'mutation { addComment(input: {subjectId: "I_acme/app 1", body: "x"}) { clientMutationId } }'
    assert hub.graphql(comment).status_code == 403
    assert hub.api.done == []


def test_who_shows_no_token(hub: Hub) -> None:
    """Nobody but the session gets anything, and after its token was revoked not even that."""
    for token in ("", "Bearer x", f"Bearer {hub.world.host.accepted}", "Bearer proxy-injected"):
        assert hub.rest("GET", "/repos/acme/app", headers={"authorization": token}).status_code == 401
    assert hub.rest("GET", "/repos/acme/app").status_code == 200  # Control
    hub.world.revoke()
    assert hub.rest("GET", "/repos/acme/app").status_code == 401
    assert len(hub.api.asked) == 1


def test_git_and_the_api_beside_each_other(hub: Hub) -> None:
    """The same host serves clones as before."""
    assert "refs/heads/main" in git("ls-remote", hub.world.remote("acme/app"))
