"""Cloud sessions in the console, at work: what they say, what they ask for, and what stops them."""

import asyncio
import contextlib
import http.client
import json
import re
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import sqlalchemy as sa
from playwright.sync_api import Browser, Page

from bailee.accounts.directory import open_directory
from bailee.accounts.operators import appoint_operator
from bailee.accounts.sign_ins import end_sign_in, find_sign_in
from bailee.accounts.tables import accesses
from bailee.flows.web.files import read_rules_file
from bailee.policy.plans import Plan
from bailee.service.cloud_pages import OPEN_MS, follow_events
from bailee.vault import tables
from bailee.vault.store import open_vault
from console.browsers import Visitor
from console.cast import Cast
from counterparts.clouds import World, open_world
from counterparts.services import serving
from counterparts.waiting import wait_for

Visit = Callable[..., Visitor]
PEOPLE = ("alice", "charlie", "olga")
# More than a page shows, what a browser or a terminal would obey, and then a line every fifth of a second.
TALKING = (
    "seq 1 60000; printf '<script>document.title=\"owned\"</script>\\033[2J\\n'; "
    "for n in $(seq 1 3000); do echo tick $n; sleep 0.2; done"
)
ASKING = "curl -s --noproxy '' -o answer -w 'CODE=%{http_code} ' URL; cat answer; echo; rm answer"


class Host(BaseHTTPRequestHandler):
    """Answers, and says so."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"reached")

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Give a world for cloud sessions, with somebody who has them, a stranger and an operator."""
    with open_world(tmp_path_factory.mktemp("clouds")) as made:
        directory = open_directory(made.home)
        for person in PEOPLE:
            directory.add(person, Plan.API, organization="acme" if person == "alice" else None)
        appoint_operator(directory, "olga", given=True, by="runner")
        directory.close()
        kept = ("secrets", "set", "GIT_CREDENTIAL", "--repo", made.url, "--account", "alice")
        made.bailee(*kept, value=made.host.accepted)
        yield made


@pytest.fixture(scope="module")
def here(world: World) -> Iterator[Cast]:
    """Give the people, signed in to a service on that home."""
    options = ("--upstream", "rehearsal")
    with serving(world.home, world.folder, *options, environment=world.environment) as service:
        cast = Cast(world.home, service)
        directory = open_directory(world.home)
        cast.ids = {person: directory.get(person).id for person in PEOPLE}
        directory.close()
        for person in PEOPLE:
            cast.tokens[person] = cast.sign_in(person)
        yield cast


@pytest.fixture
def visit(browser: Browser, here: Cast) -> Iterator[Visit]:
    """Open a window for one of them; afterwards nothing foreign was asked for, and no script failed."""
    opened: list[Visitor] = []

    def open_for(person: str, **options: bool) -> Visitor:
        opened.append(Visitor(browser, here, person, **options))
        return opened[-1]

    yield open_for
    for visitor in opened:
        visitor.close()
    assert [(visitor.foreign(), visitor.faults) for visitor in opened] == [([], [])] * len(opened)


def start(world: World, agent: str, *options: str) -> str:
    """Have Alice begin a session, and return its id."""
    known, _ = world.start("x", "--account", "alice", "--agent", agent, *options, wait=False)
    return str(known["id"])


# --- What it says ---


@pytest.fixture(scope="module")
def talking(world: World, here: Cast) -> Iterator[str]:
    """Give a session that goes on saying something."""
    id = start(world, TALKING)
    wait_for("its work", lambda: "tick 1" in world.bailee("cloud", "logs", id) or None, 60)
    yield id
    if (world.home / "cloud" / id).exists() and world.show(id)["state"] == "working":
        world.bailee("cloud", "stop", id)


def read_ticks(page: Page) -> list[int]:
    """Return the numbers of the lines that a page shows."""
    return [int(number) for number in re.findall(r"(?m)^tick (\d+)$", page.inner_text("pre"))]


def test_it_is_followed_while_it_is_at_work(visit: Visit, talking: str, has_scripts: bool) -> None:
    """The last of a long log is shown, and it goes on without a gap: by itself, or loaded anew."""
    window = visit("alice", java_script_enabled=has_scripts)
    page = window.go(f"/console/cloud/{talking}")
    said = page.inner_text("pre")
    assert said.splitlines()[0].isdigit()
    assert "\n60000\n" in said
    assert "\n9\n" not in said
    assert "kB before it are left out" in page.inner_text("main")
    assert "<script>document.title" in said
    assert "\\x1b[2J" in said
    assert page.is_visible("text=Load it anew") is not has_scripts
    before = read_ticks(page)[-1]
    if has_scripts:
        page.wait_for_selector(f"pre:has-text('tick {before + 8}')")
    else:
        wait_for("more", lambda: read_ticks(window.go(f"/console/cloud/{talking}"))[-1] > before or None)
    ticks = read_ticks(page)
    assert ticks == list(range(1, ticks[-1] + 1))
    assert page.inner_text("[data-state]") == "working"
    assert "owned" not in page.title()


@contextlib.contextmanager
def follow(cast: Cast, token: str, path: str, **headers: str) -> Iterator[http.client.HTTPResponse]:
    """Ask for events, and give the answer as it comes."""
    connection = http.client.HTTPConnection(*cast.service.address, timeout=20)
    with contextlib.closing(connection):
        connection.request("GET", path, headers={"cookie": f"bailee_console={token}", **headers})
        with connection.getresponse() as answer:
            assert answer.status == 200
            yield answer


def test_a_browser_that_lost_the_connection_goes_on_where_it_was(here: Cast, talking: str) -> None:
    """What it had is not sent again, and nothing is left out: an event's id is where the next begins."""
    path, ids = f"/console/cloud/{talking}/events", list[str]()
    with follow(here, here.tokens["alice"], path) as stream:
        while len(ids) < 3:
            line = stream.readline().decode()
            if line.startswith("id: "):
                ids.append(line.split()[1])
        after = stream.readline().decode()
    with follow(here, here.tokens["alice"], path, **{"last-event-id": ids[1]}) as stream:
        again = [stream.readline().decode() for _ in range(3)]
    assert again[1] == f"id: {ids[2]}\n"
    assert again[2] == after


def test_events_end_with_the_sign_in(here: Cast, talking: str) -> None:
    """Nothing is told to who signed out; control: another sign-in of the same person goes on."""
    path = f"/console/cloud/{talking}/events?from=100000000"
    token = here.sign_in("alice")
    with follow(here, token, path) as ended, follow(here, here.tokens["alice"], path) as goes_on:
        assert ended.readline() == goes_on.readline() == b"event: state\n"
        directory = open_directory(here.home)
        found = find_sign_in(directory, token)
        assert found is not None
        end_sign_in(directory, found.id, account=here.ids["alice"], user=None)
        directory.close()
        assert b"event: end" not in ended.read()
        assert goes_on.readline().startswith(b"data: ")
        assert not goes_on.isclosed()


def test_others_see_nothing_of_it(visit: Visit, here: Cast, talking: str) -> None:
    """A stranger finds no such page; an operator follows the log once they said why, which Alice is shown,
    and for a while.
    """
    place = f"/console/cloud/{talking}"
    for path in ("", "/events"):
        assert here.ask("GET", f"{place}{path}", "charlie")[0] == 404
    window = visit("olga")
    page = window.go(place)
    assert page.query_selector("pre") is None
    assert here.ask("GET", f"{place}/events", "olga")[0] == 404
    page.fill("#f-reason", "it takes long")
    page.click("text=Open log and audit")
    page.wait_for_selector(f"pre:has-text('tick {read_ticks(page)[-1] + 4}')")
    assert "it takes long" in visit("alice").go("/console/privacy").inner_text("main")
    directory = open_directory(here.home)
    with directory.engine.begin() as connection:
        earlier = accesses.c.at_ms - OPEN_MS
        connection.execute(sa.update(accesses).values(at_ms=earlier))
    directory.close()
    assert window.go(place).query_selector("pre") is None
    assert here.ask("GET", f"{place}/events", "olga")[0] == 404


def test_who_is_no_operator_any_more_follows_nothing(here: Cast, talking: str) -> None:
    """Events of another's session end as soon as the operator is none; control: until then they go on."""
    place, form = f"/console/cloud/{talking}", {"content-type": "application/x-www-form-urlencoded"}
    token = here.ask("GET", place, "olga")[1].partition('form_token" value="')[2][:64]
    body = f"form_token={token}&reason=why"
    assert here.ask("POST", place, "olga", body, **form)[0] == 303
    with follow(here, here.tokens["olga"], f"{place}/events?from=100000000") as stream:
        assert stream.readline() == b"event: state\n"
        directory = open_directory(here.home)
        appoint_operator(directory, "olga", given=False, by="runner")
        assert b"event: end" in stream.read()
        appoint_operator(directory, "olga", given=True, by="runner")
        directory.close()


def test_what_an_operator_follows_ends_with_their_while(world: World, talking: str) -> None:
    """The events stop when the time for one reason is over; until then they go on (control)."""

    async def read(most: int, may_look: Callable[[], bool]) -> list[bytes]:
        found = []
        async for event in follow_events(world.home, talking, 1 << 40, may_look):
            found.append(event)
            if len(found) == most:
                break
        return found

    end = b"event: end\ndata: {}\n\n"
    with ThreadPoolExecutor(1) as beside:  # the browser's own loop runs in this thread
        assert beside.submit(asyncio.run, read(9, lambda: False)).result()[-1] == end
        assert end not in beside.submit(asyncio.run, read(4, lambda: True)).result()


def test_it_is_stopped(visit: Visit, world: World, talking: str) -> None:
    """By a button, which is there no longer once it has ended: the page sees to that."""
    watching = visit("alice").go(f"/console/cloud/{talking}")
    button = "main button:has-text('Stop it')"
    assert watching.is_visible(button)
    page = visit("alice", java_script_enabled=False).go(f"/console/cloud/{talking}")
    page.click(button)
    assert "It is stopped." in page.inner_text("main")
    assert world.show(talking)["state"] == "stopped"
    watching.wait_for_selector(button, state="detached")
    assert watching.inner_text("[data-state]").startswith("stopped")


# --- What it asks for ---


@pytest.fixture
def host() -> Iterator[str]:
    """Give the URL of a host on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Host)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def is_answered(world: World, id: str, turns: int) -> bool | None:
    """Tell whether a session has ended after so many turns."""
    known = world.show(id)
    return (known["state"] == "done" and known["answered"] == turns) or None


def ask_again(world: World, id: str) -> str:
    """Give a session another turn, and return what it says in it."""
    before = world.bailee("cloud", "logs", id).count("CODE")
    world.bailee("cloud", "say", id, "again")
    wait_for("its end", lambda: is_answered(world, id, before + 1), 60)
    return world.bailee("cloud", "logs", id).rpartition("CODE")[2]


def open_audit(window: Visitor, id: str) -> Page:
    """Open what another's session asked for, as an operator."""
    page = window.go(f"/console/cloud/{id}")
    if page.query_selector("#f-reason") is not None:
        page.fill("#f-reason", "what does it ask for")
        page.click("text=Open log and audit")
    return page


def test_what_it_was_refused_is_allowed_and_taken_back(
    visit: Visit, world: World, host: str, has_scripts: bool
) -> None:
    """A rule that an operator makes of a refusal opens the host to the next turn; taken back, no more."""
    id = start(world, ASKING.replace("URL", f"{host}/"), "--network", "custom")
    wait_for("its end", lambda: is_answered(world, id, 1), 60)
    assert "CODE=403" in world.bailee("cloud", "logs", id)
    window, port = visit("olga", java_script_enabled=has_scripts), host.rpartition(":")[2]
    rules = world.home / "boundary.toml"
    page = open_audit(window, id)
    assert page.inner_text(".big").split()[:2] == ["1", "request"]
    page.click(f"tr:has-text('{port}') button")
    assert page.inner_text("h1") == "Allow 127.0.0.1, this machine itself?"  # not at one click
    assert not rules.exists() or read_rules_file(rules).allow == ()
    page.click("main button:has-text('Allow it')")
    assert "Allowed for every agent of this installation" in page.inner_text("main")
    (rule,) = read_rules_file(rules).allow
    assert (rule.host, rule.ports, rule.wire, rule.is_private) == ("127.0.0.1", (int(port),), "http", True)
    assert ask_again(world, id).startswith("=200 reached")
    assert "allowed by now" in open_audit(window, id).inner_text("main")
    page = window.go("/console/flows/web")
    assert "private addresses too" in page.inner_text("div[aria-label=Rules]")
    page.click("text=Take it back")
    assert "Taken back" in page.inner_text("main")
    assert read_rules_file(rules).allow == ()
    assert ask_again(world, id).startswith("=403")


def test_without_a_network_no_rule_is_offered(visit: Visit, world: World, here: Cast, host: str) -> None:
    """A rule would not open anything to it; it is said what would."""
    id = start(world, ASKING.replace("URL", f"{host}/"))
    wait_for("its end", lambda: is_answered(world, id, 1), 60)
    page = open_audit(visit("olga"), id)
    assert "no rule opens anything to it" in page.inner_text("main")
    assert page.query_selector("text=Allow this") is None


# --- What ends it ---


def list_held(here: Cast) -> set[str]:
    """Return the flows that something of Alice's is held of."""
    vault, table = open_vault(here.home), tables.segments
    is_there = sa.and_(table.c.is_destroyed.is_(False), table.c.account == here.ids["alice"])
    with vault.connect() as connection:
        found = set(connection.execute(sa.select(table.c.flow).where(is_there)).scalars())
    vault.dispose()
    return found


def test_erasing_everything_ends_what_is_at_work(visit: Visit, world: World, here: Cast, host: str) -> None:
    """The session's machine is ended, and what it had asked for goes with the rest, though it comes to the
    vault only then; a damaged session keeps nobody from what is whole, and goes as well.
    """
    asking = f"{ASKING.replace('URL', f'{host}/')}; sleep 600"
    id, damaged = start(world, asking, "--network", "custom"), start(world, "true")
    wait_for("its work", lambda: "CODE=" in world.bailee("cloud", "logs", id) or None, 60)
    wait_for("the end", lambda: world.show(damaged)["state"] == "done" or None, 60)
    record = world.home / "cloud" / damaged / "session.json"
    told = json.loads(record.read_text())
    record.write_text(json.dumps(told | {"sealed": told["sealed"][:-8] + "AAAAAAA="}))
    window = visit("alice")
    page = window.go("/console/data")
    with page.expect_download() as download:
        page.click("text=Export everything")
    with tarfile.open(download.value.path()) as archive:
        held = archive.extractfile("bailee-alice/cloud.jsonl")
        assert held is not None
        lines = [json.loads(line) for line in held]
    assert any("CODE=" in line.get("log", "") for line in lines if line["id"] == id)
    assert [line for line in lines if line["id"] == damaged and "fault" in line]
    assert damaged in window.go("/console/cloud").inner_text("main")
    assert window.go(f"/console/cloud/{damaged}/erase").inner_text(".big").startswith("1")
    page = window.go("/console/data/erase")
    page.fill("#f-name", "alice")
    page.click("main button")
    assert "cloud sessions:" in page.inner_text("main")
    assert list_held(here) == set()
    assert not (world.home / "cloud" / id).exists()
    assert not record.exists()
    time.sleep(2)
    assert list_held(here) == set()
