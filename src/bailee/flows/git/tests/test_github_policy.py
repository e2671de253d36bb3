"""What a session may ask of GitHub's API, decided without a host."""

import contextlib
import json
import time
from typing import Any

import pytest
from graphql import GraphQLEnumType, GraphQLInputObjectType, GraphQLScalarType, GraphQLUnionType
from hypothesis import given
from hypothesis import strategies as st

from bailee.flows.git.access import Access, Attached
from bailee.flows.git.github.answers import TakingOut, pass_back
from bailee.flows.git.github.graphql import Introspection, judge_graphql, read_schema
from bailee.flows.git.github.places import Asked, find_place, list_led, read_asked
from bailee.flows.git.github.rest import judge_rest
from bailee.flows.git.github.routes import READ, read_path
from bailee.flows.git.github.verdicts import Check, Going, Needed, Refused
from counterparts.github import read_whole
from counterparts.github_api import read_published

APP = Attached("https://github.com/Acme/App.git", "bailee/work")
ACCESS = Access("one", "a", (APP,))


def ask(method: str, path: str, body: Any = None, query: str = "") -> Going:
    """Judge a request of REST."""
    data = json.dumps(body).encode() if body is not None else b""
    return judge_rest(ACCESS, "github.com", method, path, query, {"content-type": "application/json"}, data)


def test_it_is_written_anew() -> None:
    """The repository is spelled as it is attached, whatever the session writes, and no more goes along."""
    assert ask("GET", "/repos/aCME/aPP/pulls", query="state=all&per_page=5").path == (
        "/repos/Acme/App/pulls?state=all&per_page=5"
    )
    going = ask("PATCH", "/repos/acme/app/pulls/7", {"title": "x", "base": None})
    assert going.path == "/repos/Acme/App/pulls/7"
    assert going.checks == (Check("7", Needed.OWN_PULL_REQUEST),)


@pytest.mark.parametrize(
    "name", ["acme/app.git", "acme/app.", "acme/ap", "acme", "acme/app/../app", "acme%2Fapp"]
)
def test_names_that_are_nearly_it(name: str) -> None:
    """Only OWNER/NAME is the repository."""
    with pytest.raises(Refused):
        ask("GET", f"/repos/{name}")


def test_every_read_is_githubs() -> None:
    """The routes that may be read stand in GitHub's own description of its API, as reads."""
    described = {
        tuple("{}" if part.startswith("{") else part for part in path.split("/")[4:])
        for path, methods in read_whole()["paths"].items()
        if path.startswith("/repos/{owner}/{repo}") and "get" in methods
    }
    for route in READ:
        parts = tuple("{}" if part.startswith("{") else part for part in route.split("/") if part)
        assert parts in described or route in ("contents", "commits/{path}"), route


@given(st.text(alphabet="ab./%25eEfFcC;:\\?#\x00 é", max_size=12))
def test_no_path_has_two_readings(tail: str) -> None:
    """What is let through is the same decoded, without dot segments and without empty ones."""
    try:
        name, _, plain = read_path(f"/repos/acme/app/contents/{tail}")
    except Refused:
        return
    assert name == "acme/app"
    parts = plain.split("/")
    assert not set(parts) & {"", ".", ".."}
    assert not set(plain) & set("\\;:?#%\x00")


def test_every_field_is_githubs() -> None:
    """What GraphQL may ask is a part of the published schema: the same types, arguments and values."""
    published = read_published().type_map
    types: dict[str, Any] = dict(read_schema().type_map)
    for name, part in types.items():
        if name.startswith("__") or isinstance(part, GraphQLScalarType):
            continue
        whole: Any = published[name]
        assert type(whole) is type(part), name
        if isinstance(part, GraphQLUnionType):
            assert {one.name for one in part.types} <= {one.name for one in whole.types}
        elif isinstance(part, GraphQLEnumType):
            assert set(part.values) <= set(whole.values), name
        else:
            for field, one in part.fields.items():
                assert str(one.type) == str(whole.fields[field].type), (name, field)
                if not isinstance(part, GraphQLInputObjectType):
                    for argument, kind in one.args.items():
                        assert str(kind.type) == str(whole.fields[field].args[argument].type), (name, field)


def test_nothing_leads_to_a_list_of_repositories() -> None:
    """From no type of what may be asked a list of repositories can be come to, nor by an id but a node."""
    types: dict[str, Any] = dict(read_schema().type_map)
    fields = {
        (name, field): str(one.type)
        for name, part in types.items()
        if not name.startswith("__") and hasattr(part, "fields")
        for field, one in part.fields.items()
    }
    assert not [
        where
        for where, kind in fields.items()
        if "RepositoryConnection" in kind or "[Repository!" in kind or "[Repository]" in kind
    ]
    assert {where for where, kind in fields.items() if kind.strip("!") == "Repository"} == {
        *(("Query", "repository"), ("Repository", "parent"), ("Issue", "repository")),
        *(
            ("PullRequest", "repository"),
            ("PullRequest", "baseRepository"),
            ("PullRequest", "headRepository"),
        ),
    }
    assert {field for name, field in fields if name == "Query"} == {
        "repository",
        "node",
        "viewer",
        "rateLimit",
    }


def judge(query: str, **variables: Any) -> Going | Introspection:
    """Judge a document."""
    return judge_graphql(ACCESS, "github.com", json.dumps({"query": query, "variables": variables}).encode())


def test_variables_that_are_not_declared_stay_here() -> None:
    """Only what a document declares goes along."""
    document = 'query($n: Int!) { repository(owner: "acme", name: "app") { pullRequest(number: $n) { id } } }'
    going = judge(document, n=1, other=2)
    assert isinstance(going, Going)
    assert going.body is not None
    assert going.body["variables"] == {"n": 1}


@pytest.mark.parametrize("many", ["owner { login } ", "id ", "a: pullRequests { totalCount } "])
def test_a_document_that_is_slow_to_judge(many: str) -> None:
    """What takes long to validate is refused for its length before."""
    with pytest.raises(Refused):
        judge('{ repository(owner: "acme", name: "app") { ' + many * 20_000 + "} }")
    begun = time.process_time()
    with contextlib.suppress(Refused):
        judge('{ repository(owner: "acme", name: "app") { ' + many * (2_400 // len(many.split())) + "} }")
    assert time.process_time() - begun < 5


@pytest.mark.parametrize("deep", [200, 400, 100_000])
def test_what_is_very_deep(deep: int) -> None:
    """A document or a body that is nested without end is refused and ends nothing."""
    documents = (
        "{ a" * deep + "}" * deep,
        '{ repository(owner: "a", name: "b") ' + "{ parent" * deep + "{ id }" + "}" * (deep + 1),
        "query($x: " + "[" * deep + "Int" + "]" * deep + ") { rateLimit { cost } }",
    )
    for document in documents:
        with pytest.raises(Refused):
            judge(document)
    nested = b"[" * deep + b"]" * deep
    with pytest.raises(Refused):
        judge_graphql(ACCESS, "github.com", b'{"query": 1, "variables": {"a": ' + nested + b"}}")
    with pytest.raises(Refused):
        judge_rest(
            ACCESS, "github.com", "POST", "/repos/acme/app/pulls", "", {}, b'{"title": ' + nested + b"}"
        )


def test_fragments_that_multiply() -> None:
    """Fragments within fragments are not followed without end."""
    levels = "".join(
        f"fragment f{n} on Repository {{ ...f{n + 1} x{n}: id ...f{n + 1} }} " for n in range(20)
    )
    document = (
        '{ repository(owner: "acme", name: "app") { ...f0 } } ' + levels + "fragment f20 on Repository { id }"
    )
    with pytest.raises(Refused, match="too much"):
        judge(document)


def test_where_the_api_is() -> None:
    """GitHub's is at a host of its own, data residency's as well; an Enterprise Server's is beside Git."""
    assert find_place(APP).rest == "https://api.github.com"
    assert find_place(Attached("https://acme.ghe.com/a/b")).graphql == "https://api.acme.ghe.com/graphql"
    own = find_place(Attached("https://git.example:8443/a/b.git"))
    assert (own.rest, own.graphql) == (
        "https://git.example:8443/api/v3",
        "https://git.example:8443/api/graphql",
    )
    assert list_led("github.com") == ("api.github.com", ())
    assert list_led("git.example") == ("git.example", ("/api/v3/*", "/api/graphql"))
    assert read_asked("/git/-/api/github.com/repos/a/b") == Asked("github.com", "/repos/a/b")
    assert read_asked("/git/-/api/github.com/graphql") == Asked("github.com", "")
    assert read_asked("/git/-/api/git.example/api/v3/repos/a/b") == Asked("git.example", "/repos/a/b")
    for path in ("/git/-/api/git.example/repos/a/b", "/git/%2d/api/github.com/x", "/git/github.com/a/b"):
        assert read_asked(path) is None


@given(st.integers(1, 40), st.integers(0, 3))
def test_tokens_are_taken_out_however_they_come(size: int, blanks: int) -> None:
    """A token to clone with is taken out also where it comes in pieces, and nothing else is."""
    body = (
        b'{"a": "temp_clone_token", "temp_clone_token":'
        + b" " * blanks
        + b'"ABCDEF", "b": "\\"temp_clone_token\\": \\"x\\""}'
    )
    taking = TakingOut()
    given = b"".join(taking.feed(body[at : at + size]) for at in range(0, len(body), size)) + taking.finish()
    assert b"ABCDEF" not in given
    assert json.loads(given) == json.loads(body) | {"temp_clone_token": ""}


def test_headers_that_come_back() -> None:
    """What tells of the credential stays here, and no address leads out."""
    headers = {"x-oauth-scopes": "repo", "location": "https://evil.example/", "etag": "x"}
    assert pass_back(headers, find_place(APP), APP) == {"etag": "x"}
