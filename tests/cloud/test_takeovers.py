"""Cloud sessions taken over: branch and conversation, from this home and from a service elsewhere."""

import json
import re
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

from bailee.accounts.directory import open_directory
from bailee.accounts.keys import create_key, list_keys
from bailee.accounts.tables import KeyOrigin
from bailee.agent.login import Login, keep_login
from bailee.agent.sessions.cache import Cache
from bailee.agent.sessions.journals import Head, Kind
from bailee.cloud.conversations import COPY, STATE, Disk, keep_conversation
from bailee.cloud.records import CloudSession, Sessions, State
from bailee.sealing.masking import open_masker
from bailee.service.cloud_rest import make_disk
from counterparts.clones import Person, make_person
from counterparts.clouds import World
from counterparts.git_hosts import git
from counterparts.programs import start_program
from counterparts.projects import CALCULATOR
from counterparts.services import Service, serving
from counterparts.terminals import opening
from counterparts.upstreams import Upstream
from counterparts.waiting import wait_for

CODE = re.compile(r"bailee logins approve ([A-Z]{4}-[A-Z]{4}) --account NAME")
GREETING = "the smew greets"


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the compiled rules of the masker, 6 s to make."""
    folder = tmp_path_factory.mktemp("rules")
    open_masker(folder)
    return folder


@pytest.fixture
def person(world: World, rules: Path) -> Person:
    """Give a person whose home is the service's."""
    return equip(make_person(world, BAILEE_HOME=str(world.home)), rules)


@pytest.fixture
def other(world: World, rules: Path) -> Person:
    """Give a person at another machine."""
    return equip(make_person(world, "other", BAILEE_HOME=str(world.folder / "other" / "home")), rules)


@pytest.fixture
def service(world: World) -> Iterator[Service]:
    """Give a service that runs on the world's home."""
    options = ("--upstream", "rehearsal")
    with serving(world.home, world.folder / "service", *options, environment=world.environment) as running:
        yield running


def equip(person: Person, rules: Path) -> Person:
    """Give the person's agent its compiled rules."""
    shutil.copytree(rules, person.state / "cache")
    return person


def plant(world: World, *, pushed: bool = True, text: str = GREETING, **fields: Any) -> str:
    """Let there be a session that ended, with a conversation and a commit on its branch; return its id."""
    directory = open_directory(world.home)
    directory.ensure_default()
    directory.close()
    sessions = Sessions(world.home)
    id = sessions.make()
    branch = f"bailee/{id}"
    known: dict[str, Any] = {
        "account": "me",
        "repository": world.url,
        "agent": "bailee",
        "state": State.DONE,
        "turns": ("x",),
        "answered": 1,
    }
    fields = {"branch": branch, **fields}
    empty = dict.fromkeys(("base", "isolation", "network", "upstream", "setup", "reason"), "")
    numbers = {"seconds": 10, "traffic_bytes": 1, "created_ms": 1, "changed_ms": 4_000_000_000_000}
    fields["disk"] = make_disk(world.home, "me", id)
    sessions.write(CloudSession(id=id, allow=(), **{**empty, **numbers, **known, **fields}))
    folder = sessions.folder(id)
    cache = Cache(folder / "work" / STATE, environment={})
    journal = cache.begin(Head("/session/repository", "m", "0"), now=1)
    for role, said in (("user", "rehearse greet"), ("assistant", text)):
        message = {"role": role, "content": [{"type": "text", "text": said}]}
        journal.append(Kind.MESSAGE, message, now=2)
    journal.append(Kind.FACT, {"pinned": True, "mode": "all", "title": "trusted"}, now=3)
    journal.close()
    assert keep_conversation(folder, Disk(folder / "work"), seal=partial(sessions.seal_copy, id)) == ""
    if pushed:
        work = world.host.folder / "app-work"
        git("checkout", "-q", "-B", branch, "main", cwd=work)
        git("commit", "-q", "--allow-empty", "-m", "of the session", cwd=work)
        git("push", "-q", str(world.host.folder / "app.git"), branch, cwd=work)
    return id


def test_a_session_is_taken_over(world: World, rules: Path) -> None:
    """Branch, conversation and terms are here, and the next turn goes on where the session stood.

    Its script fails in the cloud for want of a file, half way; here `go on` plays what comes next in it.
    """
    world.url = world.host.add("half", {"calculator.py": CALCULATOR})
    world.bailee("secrets", "set", "GIT_CREDENTIAL", "--repo", world.url, value=world.host.accepted)
    person = equip(make_person(world, BAILEE_HOME=str(world.home)), rules)
    script = world.folder / "setup.sh"
    script.write_text("echo prepared > prepared.txt\n")
    known, said = world.start("rehearse mend-the-test", "--setup", str(script))
    assert "I could not finish" in said
    assert "play scripts" in person.code("-p", "go on", "--mode", "all", "--incognito").stdout
    assert (person.clone / "calculator.py").read_text() == CALCULATOR

    said = person.take(known["id"][:6], "go on", "--yes", "--mode", "all")
    assert f"1 prompt and 6 messages; on {known['branch']}, 1 commit ahead of main" in said
    assert "I will mend the code" in said
    assert (person.clone / "prepared.txt").read_text() == "prepared\n"
    assert "return a + b" in (person.clone / "calculator.py").read_text()
    assert person.git("log", "--format=%s", "-2").splitlines()[1].startswith("Work that the session left")
    (session,) = person.sessions()
    assert session["folder"] == str(person.clone)
    assert session["goes_on"] is not None
    assert not session["is_pinned"]
    calls = [block for message in session["said"] for block in message["content"] if "input" in block]
    assert calls[1]["input"]["path"] == str(person.clone / "calculator.py")


def test_what_was_not_pushed_is_told(world: World, person: Person) -> None:
    """A session that was stopped at work may have more, which is told; here it goes on where it stood."""
    known, _ = world.start("rehearse stall seconds=25", wait=False)
    log = world.home / "cloud" / known["id"] / "log"
    wait_for("its work", lambda: "I begin to answer" in log.read_text() or None, seconds=120)
    world.bailee("cloud", "stop", known["id"])
    assert world.show(known["id"])["has_unsaved"] is True
    said = person.take(known["id"], "go on", "--yes")
    assert f"bailee cloud save {known['id']}" in said
    assert "it pushed nothing" in said
    assert "Here I am again." in said
    assert person.git("symbolic-ref", "--short", "HEAD").strip() == "main"
    world.bailee("cloud", "save", known["id"])
    assert world.show(known["id"])["has_unsaved"] is False
    assert (world.home / "cloud" / known["id"] / COPY).exists()


def test_claude_codes_conversation_stays_its_own(world: World, person: Person) -> None:
    """It is said whose it is, and how its work is gone on with."""
    id = plant(world, agent="claude-code")
    said = person.take(id, "x", "--yes", status=2)
    assert "Claude Code's own" in said
    assert f"git fetch REMOTE bailee/{id}" in said


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "it runs": ({"state": State.WORKING}, "wait for its end"),
    "another repository": ({"repository": "https://127.0.0.1:1/app.git"}, "is no clone of"),
    "another's session": ({"account": "bob"}, "another person's session"),
    "a branch that is none of a session": ({"branch": "main"}, "no branch of a session"),
    "a branch with an option in it": ({"branch": "bailee/../x"}, "no branch of a session"),
    "an address that git would run": ({"repository": "ext::sh -c touch% ran"}, "no address"),
    "a command": ({"agent": "sh x"}, "its own agent's"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused(world: World, person: Person, kind: str) -> None:
    """Refused with a reason and a fix, and nothing is changed here: no branch, no session."""
    fields, reason = REFUSED[kind]
    world.bailee("accounts", "add", "bob", "--plan", "api")
    id = plant(world, **fields)
    sessions = Sessions(world.home)
    before = person.git("for-each-ref")
    if kind == "it runs":
        with sessions.driving(id):
            said = person.take(id, "x", "--yes", status=2)
    else:
        said = person.take(id, "x", "--yes", status=2)
    assert reason in said
    assert "fix:" in said
    assert person.git("for-each-ref") == before
    assert person.sessions() == []


def test_control_the_holder_takes_it_over(world: World, person: Person) -> None:
    """Control: the session of another account opens to who proves to hold it."""
    world.bailee("accounts", "add", "bob", "--plan", "api")
    id = plant(world, account="bob")
    key = world.bailee("keys", "create", "--account", "bob", "--for-holder").split()[0]
    person.more["BAILEE_KEY"] = key
    assert "1 commit ahead" in person.take(id, "rehearse greet", "--yes")


def test_what_is_here_stays(world: World, person: Person) -> None:
    """Changes that are not committed, a question nobody answers, an unknown id: nothing is done."""
    id = plant(world)
    assert "no cloud session here begins" in person.take("ffff", "x", "--yes", status=2)
    assert "no cloud session here begins" in person.take("", "x", "--yes", status=2)
    assert "confirm with --yes" in person.take(id, "x", status=2)
    done = person.code("--from-cloud", id, "--continue", "-p", "x", status=2)
    assert "two sessions are named" in done.stderr
    (person.clone / "calculator.py").write_text("mine")
    assert "not committed" in person.take(id, "x", "--yes", status=2)
    assert (person.clone / "calculator.py").read_text() == "mine"
    assert person.git("symbolic-ref", "--short", "HEAD").strip() == "main"
    assert person.sessions() == []


def test_a_copy_that_was_tampered_with(world: World, person: Person) -> None:
    """Cut, altered or gone, it is refused in words before anything is changed here."""
    id = plant(world)
    path = world.home / "cloud" / id / COPY
    whole = path.read_bytes()
    for data in (whole[:-40], whole[:-1] + bytes([whole[-1] ^ 1]), b"\x00", b""):
        path.write_bytes(data)
        assert "fix:" in person.take(id, "x", "--yes", status=2)
    path.unlink()
    assert "no conversation of this session is kept" in person.take(id, "x", "--yes", status=2)
    assert person.git("symbolic-ref", "--short", "HEAD").strip() == "main"
    assert person.sessions() == []


def test_in_a_terminal(world: World, person: Person) -> None:
    """It asks before it checks anything out, and nothing of what was said moves the terminal."""
    id = plant(world, text="before \x1b]0;owned\x07\x1b[2J after \u202eetihw")
    command = [sys.executable, "-m", "bailee", "code", "--model", "rehearsal", "--from-cloud", id]
    with opening(person.folder) as terminal:
        terminal.start(command, environment=person.environment, directory=person.clone)
        terminal.wait("1 commit ahead of main) and take over")
        assert person.git("symbolic-ref", "--short", "HEAD").strip() == "main"
        terminal.type("y")
        shown = terminal.wait("Go on.")
        assert "Took over the cloud session" in shown
        assert "before \\x1b]0;owned\\x07\\x1b[2J after \\u202eetihw" in shown
        terminal.type("rehearse greet")
        terminal.wait("tokens in")
        terminal.leave()
    assert person.git("symbolic-ref", "--short", "HEAD").strip() == f"bailee/{id}"
    (session,) = person.sessions()
    assert session["messages"] == 4
    assert session["title"] == "rehearse greet"


def test_from_a_service_elsewhere(world: World, service: Service, other: Person) -> None:
    """A login of the account is enough to take a session over by its id, and for nothing else of sessions."""
    id = plant(world)
    out = other.folder / "login.err"
    with out.open("wb") as file:
        program = start_program(
            *("login", "--service", service.url),
            environment=other.environment,
            folder=other.clone,
            stdout=file,
            stderr=file,
        )
    code = wait_for("a code", lambda: CODE.search(out.read_text()))[1]
    world.bailee("logins", "approve", code, "--account", "me", "--yes")
    assert program.wait(60) == 0
    assert "in full" in other.take(id[:6], "x", "--yes", status=2)
    said = other.take(id, "rehearse greet", "--yes")
    assert f"on bailee/{id}, 1 commit ahead of main" in said
    (session,) = other.sessions()
    assert GREETING in json.dumps(session["said"])
    assert not (other.folder / "home" / "cloud").exists()
    (access,) = json.loads(world.bailee("privacy", "show", "--account", "me", "--json"))["accesses"]
    assert access["purpose"] == "take over"
    assert id in access["reason"]
    assert access["reader"].startswith("login ")


def make_token(world: World, account: str, origin: KeyOrigin) -> str:
    """Return a new key of an origin."""
    directory = open_directory(world.home)
    try:
        return create_key(directory, account, origin=origin, made_by="test")[1]
    finally:
        directory.close()


def ask(service: Service, id: str, key: str, method: str = "GET", path: str = "/conversation") -> int:
    """Ask about a session, and return the status."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    url = f"{service.url}/api/cloud/sessions{f'/{id}' if id else ''}{path}"
    return httpx2.request(method, url, headers=headers, json={"prompt": "x"}, timeout=60).status_code


def test_who_gets_a_conversation(world: World, service: Service) -> None:
    """Who proves to hold the account, and its logins: no agent's or run's key, no other account, nobody."""
    world.bailee("accounts", "add", "bob", "--plan", "api")
    id = plant(world)
    mine = {origin: make_token(world, "me", origin) for origin in KeyOrigin}
    told = {origin: ask(service, id, key) for origin, key in mine.items()}
    assert {origin for origin, status in told.items() if status == 200} == {
        KeyOrigin.HOLDER,
        KeyOrigin.HANDED_OVER,
        KeyOrigin.LOGIN,
    }
    assert {told[KeyOrigin.RUN], told[KeyOrigin.OTHER]} == {403}
    for origin in (KeyOrigin.LOGIN, KeyOrigin.HOLDER):
        assert ask(service, id, make_token(world, "bob", origin)) == 404
    assert ask(service, "f" * 12, mine[KeyOrigin.LOGIN]) == 404
    assert ask(service, id, "") == 401
    login = mine[KeyOrigin.LOGIN]
    for method, path in (
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/stop"),
        ("POST", "/turns"),
        ("GET", "/events"),
    ):
        assert ask(service, id, login, method, path) == 403, path
    for method in ("GET", "POST"):
        assert ask(service, "", login, method, "") == 403
    directory = open_directory(world.home)
    account = directory.get("me")
    revoked = next(
        key.id for key in list_keys(directory) if key.origin is KeyOrigin.LOGIN and key.account == "me"
    )
    # The holder's own readings leave no trace; the login's one does.
    assert [one.reader for one in directory.list_accesses(account.id)] == [f"login {revoked}"]
    directory.close()
    # A login that tries ids, or asks for the same one again and again, has to wait.
    assert [ask(service, id, login) for _ in range(12)][-1] == 429
    assert ask(service, id, mine[KeyOrigin.HOLDER]) == 200
    world.bailee("keys", "revoke", revoked)
    assert ask(service, id, login) == 401


def test_a_session_that_runs_gives_no_conversation(world: World, service: Service) -> None:
    """What would not be whole is not given out."""
    id = plant(world)
    key = make_token(world, "me", KeyOrigin.LOGIN)
    headers = {"authorization": f"Bearer {key}"}
    sessions = Sessions(world.home)
    with sessions.driving(id):
        sessions.change(id, state=State.WORKING)
        answer = httpx2.get(
            f"{service.url}/api/cloud/sessions/{id}/conversation", headers=headers, timeout=60
        )
    assert answer.json()["state"] == "working"
    assert answer.json()["conversation"] == ""


ANSWERS: dict[str, dict[str, Any]] = {
    "another session": {"id": "f" * 12},
    "another repository": {"repository": "https://127.0.0.1:1/app.git"},
    "another branch": {"branch": "main"},
    "a state that is none": {"state": "\x1b[2J"},
    "a conversation that is none": {"conversation": "AAAA"},
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_a_service_is_not_trusted_either(world: World, other: Person, kind: str) -> None:
    """What a service answers that lies is refused before anything is changed here."""
    good = {
        "id": "a" * 12,
        "repository": world.url,
        "branch": "bailee/x",
        "agent": "bailee",
        "state": "done",
        "answered": 1,
        "has_unsaved": False,
        "conversation": "",
    }
    body = json.dumps(good | ANSWERS[kind]).encode()
    with Upstream() as upstream, ThreadPoolExecutor(1) as pool:
        keep_login(other.state, Login(upstream.url, f"bailee_{'0' * 16}_{'0' * 64}"), {})
        asked = pool.submit(other.take, "a" * 12, "x", "--yes", status=2)
        visit = upstream.accept()
        head, _ = visit.read_request()
        assert head.startswith(b"GET /api/cloud/sessions/aaaaaaaaaaaa/conversation ")
        visit.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        said = asked.result()
    assert "\x1b" not in said
    assert "fix:" in said
    assert other.sessions() == []
