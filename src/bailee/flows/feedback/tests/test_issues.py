"""Issues: what is typed for them and nothing else, opened once, by a queue that outlives the service."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import msgspec
import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from werkzeug.wrappers import Response

from bailee.flows.feedback import github as opening
from bailee.flows.feedback.github import NotOpened, Tracker, find_tracker, open_issue
from bailee.flows.feedback.issues import Issue, decode_issue, tell_issue, write_body
from bailee.flows.feedback.queue import LONGEST_PAUSE_MS, pause_after
from bailee.policy.problems import Problem
from bailee.vault import tables
from bailee.vault.store import open_vault
from counterparts.github import GitHub, serving_github
from counterparts.holdings import find_bytes
from counterparts.reports import CANARY, REPORT, Desk
from counterparts.services import Service, serving
from counterparts.waiting import wait_for

TITLE = "The pochard sinks"
ISSUE = json.dumps({"title": TITLE, "body": "It should float."}).encode()
SOON = """
import bailee.flows.feedback.queue as q, bailee.flows.feedback.receiver as r
q.POLL_SECONDS, q.FIRST_PAUSE_MS, q.CLAIM_MS = 0.05, 50, 1000
r.UNDO_SECONDS = {undo}
"""


@pytest.fixture
def github() -> Iterator[GitHub]:
    """Give a GitHub; whatever was asked of it is as GitHub describes it."""
    with serving_github() as serving:
        yield serving
        assert serving.faults == []


class Operator:
    """Starts services that open issues, on one home."""

    def __init__(self, folder: Path, github: GitHub) -> None:
        self.desk = Desk(folder)
        self._folder = folder
        self._environment = {
            "BAILEE_GITHUB_REPOSITORY": "octo/shop",
            "BAILEE_GITHUB_TOKEN": "ghp_made_up",
            "BAILEE_GITHUB_URL": github.url,
        }

    def start(self, changes: str = SOON.format(undo=0)) -> Any:
        upstream = ("--upstream", "rehearsal")
        return serving(
            self.desk.home, self._folder, *upstream, environment=self._environment, changes=changes
        )

    def begin(self, service: Service) -> str:
        """Send a report, ask for an issue, and return the report."""
        self.desk.service = service
        report = self.desk.sent()
        status, told = self.desk.ask("POST", f"/api/feedback/{report}/issue", ISSUE)
        assert (status, told["repository"]) == (202, "octo/shop"), told
        return report

    def issue(self, state: str) -> dict[str, Any]:
        """Wait until the only report's issue is in a state."""

        def found() -> dict[str, Any] | None:
            (report,) = self.desk.json("feedback", "list")
            issue: dict[str, Any] = report["issue"]
            return issue if issue["state"] == state else None

        return wait_for(f"an issue that is {state}", found)


@pytest.fixture
def operator(tmp_path: Path, github: GitHub) -> Operator:
    """Give an operator."""
    return Operator(tmp_path, github)


# --- As GitHub describes it ---


def test_a_token_opens_it(github: GitHub) -> None:
    """Each request is one that GitHub's description of its API allows, with the operator's token."""
    url = ask(Tracker("octo/shop", github.url, token="ghp_made_up"))
    assert github.opened == [{"title": TITLE, "body": "mark"}]
    assert url == "https://github.example/octo/shop/issues/1"
    assert {authorization for *_, authorization in github.requests} == {"token ghp_made_up"}


def test_an_app_opens_it(github: GitHub, tmp_path: Path) -> None:
    """As the operator's app, with a token for the repository's installation that its key asked for."""
    key = rsa.generate_private_key(65537, 2048)
    path = tmp_path / "app.pem"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    ask(Tracker("octo/shop", github.url, app_id="42", app_key=path))
    assert [(method, way.rpartition("/")[2]) for method, way, _ in github.requests] == [
        ("GET", "installation"),
        ("POST", "access_tokens"),
        ("GET", "issues"),
        ("POST", "issues"),
    ]
    signed = github.requests[0][2].split()[1]
    assert jwt.decode(signed, key.public_key(), ["RS256"])["iss"] == "42"
    assert github.requests[3][2] == "token ghs_made_up"
    assert len(github.opened) == 1


@pytest.mark.parametrize(
    "body", [{}, {"title": None}, {"title": "x", "body": 7}, {"title": "x", "labels": 1}]
)
def test_control_the_description_refuses(body: dict[str, Any]) -> None:
    """Control: a request that GitHub does not describe so is a fault, so that there was something to pass."""
    from githubkit import GitHub as Client
    from githubkit.exception import RequestFailed

    with serving_github() as github:
        with pytest.raises(RequestFailed):
            Client("t", base_url=github.url).request("POST", "/repos/octo/shop/issues", json=body)
        assert len(github.faults) == 1


def ask(tracker: Tracker) -> str:
    return open_issue(tracker, "octo/shop", TITLE, "mark", mark="mark", since_ms=1_700_000_000_000)


@pytest.mark.parametrize(
    ("status", "headers", "seconds", "is_final"),
    [
        (503, {}, 0, False),
        (401, {}, 0, False),
        (301, {"location": "http://127.0.0.1:9/"}, 0, False),
        (404, {}, 0, False),
        (403, {"retry-after": "77"}, 77, False),
        (429, {"retry-after": "77"}, 77, False),
        (422, {}, 0, True),
        (410, {}, 0, True),
    ],
)
def test_what_github_refuses(
    github: GitHub, status: int, headers: dict[str, str], seconds: float, is_final: bool
) -> None:
    """What may be mended is tried again, no sooner than GitHub asks; what is wrong with the issue is not."""
    github.trouble = lambda: Response("{}", status, headers, content_type="application/json")
    with pytest.raises(NotOpened) as refused:
        ask(Tracker("octo/shop", github.url, token="t"))
    assert (refused.value.seconds, refused.value.is_final) == (seconds, is_final)
    with pytest.raises(NotOpened, match="cannot be reached"):
        ask(Tracker("octo/shop", "http://127.0.0.1:9", token="t"))


def test_pauses_grow() -> None:
    """Half a minute, then twice as long each time, up to an hour."""
    pauses = [pause_after(attempts) for attempts in range(1, 101)]
    assert pauses[:3] == [30_000, 60_000, 120_000]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE_MS


# --- What it holds ---


def test_it_holds_what_was_typed_and_names_the_report(operator: Operator, github: GitHub) -> None:
    """Title and text, a line that names the report, and nothing of that; its address is shown."""
    with operator.start() as service:
        report = operator.begin(service)
        issue = operator.issue("opened")
        shown = operator.desk.run("feedback", "show", report, "--facts").stdout
        assert issue["url"] in shown
        assert "octo/shop" in shown
        told = operator.desk.run("feedback", "withdraw", report, "--yes").stderr
        assert issue["url"] in told
    assert github.opened == [{"title": TITLE, "body": f"It should float.\n\nSent with `/bug`, {report}.\n"}]
    assert CANARY not in json.dumps(github.opened)


@pytest.mark.parametrize(
    "body",
    [
        b'{"title":"x","body":"y","conversation":[]}',
        b'{"title":"x","body":"y","report":"report-1"}',
        b'{"title":"","body":"y"}',
        b'{"title":" ","body":"y"}',
        b'{"title":"a\\nb","body":"y"}',
        b'{"title":"x"}',
        b'{"title":"x","body":{}}',
        b"{",
        REPORT,
        json.dumps({"title": "x" * 257, "body": ""}).encode(),
        json.dumps({"title": "x", "body": "y" * 20_001}).encode(),
    ],
)
def test_there_is_no_way_to_hold_a_conversation(body: bytes) -> None:
    """Two texts, and no field more."""
    assert msgspec.structs.fields(Issue)[0].name == "title"
    assert len(msgspec.structs.fields(Issue)) == 2
    with pytest.raises(ValueError, match=r"\w"):
        decode_issue(body)


def test_what_is_shown_is_what_is_opened() -> None:
    """Each line of the text, with the one that names the report."""
    issue = Issue("a title", "one\n\ttwo\x1b[2J")
    assert list(tell_issue(issue, "report-1")) == [
        "title: a title",
        "  one",
        "      two\\x1b[2J",
        "  ",
        "  Sent with `/bug`, report-1.",
    ]
    assert write_body(Issue("t", ""), "report-1") == "Sent with `/bug`, report-1.\n"


# --- The queue ---


def test_taken_back_in_time_it_is_never_opened(operator: Operator, github: GitHub) -> None:
    """Until the report can no longer be taken back nothing is opened; then there is nothing to open."""
    with operator.start(SOON.format(undo=600)) as service:
        report = operator.begin(service)
        assert operator.issue("waiting")["attempts"] == 0
        assert find_bytes(operator.desk.home, TITLE.encode()) == []
        assert operator.desk.ask("DELETE", f"/api/feedback/{report}")[0] == 200
        assert operator.desk.content(report) == []
    vault = open_vault(operator.desk.home)
    with vault.connect() as connection:
        assert connection.execute(sa.select(tables.issues)).all() == []
    vault.dispose()
    # One that looks at once opens nothing; `operator.start` in the tests around has it open what is there.
    with operator.start():
        time.sleep(0.5)
    assert github.requests == []


def test_it_is_opened_by_the_next_service(operator: Operator, github: GitHub) -> None:
    """GitHub is out of order, the service is killed: the next one opens it, once."""
    github.trouble = lambda: Response("{}", 503, content_type="application/json")
    with operator.start() as service:
        operator.begin(service)

        def tried() -> bool:
            (report,) = operator.desk.json("feedback", "list")
            return bool(report["issue"]["attempts"] >= 2 and report["issue"]["fault"])

        wait_for("two attempts", tried)
        service.kill()
    assert github.opened == []
    github.trouble = lambda: None
    with operator.start():
        assert operator.issue("opened")["fault"] == ""
    assert len(github.opened) == 1


@pytest.mark.parametrize("is_looked_for", [True, False], ids=["as it is", "control"])
def test_it_is_opened_once(operator: Operator, github: GitHub, is_looked_for: bool) -> None:
    """Opened, and the answer lost: the next attempt finds it. Control: not looked for, there are two."""
    github.is_lost = True
    control = "import bailee.flows.feedback.github as g\ng._find = lambda *found: ''\n"
    with operator.start(SOON.format(undo=0) + ("" if is_looked_for else control)) as service:
        operator.begin(service)
        assert operator.issue("opened")["attempts"] == 2
    assert len(github.opened) == (1 if is_looked_for else 2)


def test_what_github_will_not_open_is_told(operator: Operator, github: GitHub) -> None:
    """It is not tried again, and the report says so."""
    github.trouble = lambda: Response("{}", 422, content_type="application/json")
    with operator.start() as service:
        report = operator.begin(service)
        issue = operator.issue("failed")
        assert (issue["attempts"], issue["fault"]) == (1, "GitHub answered 422")
        assert "GitHub answered 422" in operator.desk.run("feedback", "show", report, "--facts").stdout


def test_who_may_ask_for_one(operator: Operator, github: GitHub) -> None:
    """Whoever sent the report, once."""
    with operator.start(SOON.format(undo=600)) as service:
        report = operator.begin(service)
        path = f"/api/feedback/{report}/issue"
        assert operator.desk.ask("GET", "/api/feedback")[1]["issues"] == "octo/shop"
        assert operator.desk.ask("POST", path, ISSUE)[0] == 409
        assert operator.desk.ask("POST", path, ISSUE, name="bob")[0] == 404
        assert operator.desk.ask("POST", path, ISSUE, name="")[0] == 401
        assert operator.desk.ask("POST", path, REPORT)[0] == 400
        assert len(operator.desk.held()) == 1
        assert operator.desk.content(report)[0] == REPORT


def test_without_a_repository_there_are_none(tmp_path: Path) -> None:
    """A service that was told of none offers none, and opens none."""
    desk = Desk(tmp_path)
    with serving(desk.home, tmp_path, "--upstream", "rehearsal") as desk.service:
        assert desk.ask("GET", "/api/feedback")[1]["issues"] == ""
        assert desk.ask("POST", f"/api/feedback/{desk.sent()}/issue", ISSUE)[0] == 404


CONFIGURED: dict[str, tuple[dict[str, str], str]] = {
    "token without repository": ({"TOKEN": "t"}, "no repository"),
    "no repository": ({"REPOSITORY": "shop", "TOKEN": "t"}, "no repository"),
    "nothing to present": ({"REPOSITORY": "octo/shop"}, "with a token, or as an app"),
    "both": ({"REPOSITORY": "octo/shop", "TOKEN": "t", "APP_ID": "1", "APP_KEY": "k"}, "with a token"),
    "half an app": ({"REPOSITORY": "octo/shop", "APP_ID": "1"}, "with a token"),
    "no key": ({"REPOSITORY": "octo/shop", "APP_ID": "1", "APP_KEY": "/none"}, "no such file"),
    "in clear": ({"REPOSITORY": "octo/shop", "TOKEN": "t", "URL": "http://example.test"}, "in clear"),
}


@pytest.mark.parametrize("case", CONFIGURED)
def test_what_is_wrong_is_told_at_the_start(case: str) -> None:
    """Each variable that is missing or wrong, by its name."""
    variables, told = CONFIGURED[case]
    with pytest.raises(Problem, match=told) as refused:
        find_tracker({f"BAILEE_GITHUB_{name}": value for name, value in variables.items()})
    assert "BAILEE_GITHUB_" in refused.value.where
    assert find_tracker({}) is None


def test_without_the_library_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named."""
    monkeypatch.setattr(opening, "find_spec", lambda name: None)
    with pytest.raises(Problem) as refused:
        find_tracker({"BAILEE_GITHUB_REPOSITORY": "octo/shop", "BAILEE_GITHUB_TOKEN": "t"})
    assert "[github]" in refused.value.fix
