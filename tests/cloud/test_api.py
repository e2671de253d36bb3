"""Cloud sessions over HTTP: what an account holder can, what an agent cannot, and what comes as events."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from bailee.service.cloud_api import LONGEST_LINE, cut_lines
from counterparts.clouds import World, drivers
from counterparts.git_hosts import git
from counterparts.processes import processor_seconds
from counterparts.services import Service, serving
from counterparts.waiting import wait_for

PATH = "/api/cloud/sessions"


@pytest.fixture
def service(world: World) -> Iterator[Service]:
    """Give a service that runs on the world's home."""
    options = ("--upstream", "rehearsal")
    with serving(world.home, world.folder / "service", *options, environment=world.environment) as running:
        yield running


@dataclass
class Client:
    """Somebody with a key, or without one."""

    url: str
    key: str = ""

    def ask(self, method: str, path: str, **more: Any) -> httpx2.Response:
        """Send a request."""
        return httpx2.request(method, self.url + path, headers=self.headers, timeout=60, **more)

    @property
    def headers(self) -> dict[str, str]:
        """What shows its key."""
        return {"authorization": f"Bearer {self.key}"} if self.key else {}

    def get(self, path: str) -> httpx2.Response:
        """Ask for something."""
        return self.ask("GET", path)

    def post(self, path: str, body: object = None) -> httpx2.Response:
        """Send an order."""
        return self.ask("POST", path, json=body)

    def follow(self, id: str) -> list[tuple[str, str]]:
        """Return the events of a session, to its end."""
        events, name = [], ""
        url = f"{self.url}{PATH}/{id}/events"
        with httpx2.stream("GET", url, headers=self.headers, timeout=60) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            for line in stream.iter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    events.append((name, line.removeprefix("data: ")))
        return events


def make_order(world: World, agent: str, prompt: str = "x") -> dict[str, Any]:
    """Return the order of a session in the fastest kind of machine: `auto` may be an emulated one."""
    return {"repository": world.url, "prompt": prompt, "agent": agent, "isolation": world.isolation}


def make_client(world: World, service: Service, account: str = "me", *options: str) -> Client:
    """Return a client with a new key of an account."""
    key = world.bailee("keys", "create", "--account", account, *options).split()[0]
    return Client(service.url, key)


def test_a_session_over_http(world: World, service: Service) -> None:
    """Begun, followed to its end, given another prompt, removed: the same as by the command."""
    client = make_client(world, service)
    agent = 'printf "said \\033[2J %s\\n" "$BAILEE_PROMPT"; echo "$BAILEE_PROMPT" >> said.txt'
    begun = client.post(PATH, make_order(world, agent, "one"))
    assert begun.status_code == 201, begun.text
    id = begun.json()["id"]
    events = client.follow(id)
    states = [json.loads(data)["state"] for name, data in events if name == "state"]
    assert states[-1] == "done"
    said = [data for name, data in events if name == "log"]
    assert any(line.startswith("said") and line.endswith("one") for line in said)
    assert not any("\x1b" in line for line in said)
    assert client.post(f"{PATH}/{id}/turns", {"prompt": "two"}).status_code == 202
    assert json.loads(client.follow(id)[-1][1])["answered"] == 2
    shown = client.get(f"{PATH}/{id}").json()
    assert shown["receipt"]["enforced"] is True
    bare = world.host.folder / "app.git"
    assert git("show", f"{shown['branch']}:said.txt", cwd=bare) == "one\ntwo\n"
    assert [one["id"] for one in client.get(PATH).json()] == [id]
    gone = client.ask("DELETE", f"{PATH}/{id}")
    assert gone.status_code == 200
    proof = world.folder / "receipt.json"
    proof.write_bytes(gone.content)
    assert '"kind":"disk_destroyed"' in world.bailee("ledger", "verify", str(proof))
    assert client.get(PATH).json() == []


def test_set_up_over_http(world: World, service: Service) -> None:
    """A session begins from the snapshot of another, unless the order says `fresh`; both are told."""
    client = make_client(world, service)
    order = make_order(world, "true") | {"setup": "echo set-up ran"}
    told = []
    for more in ({}, {}, {"fresh": True}):
        id = client.post(PATH, order | more).json()["id"]
        ran = ("log", "set-up ran") in client.follow(id)
        told.append((client.get(f"{PATH}/{id}").json()["begun_from"], ran, id))
    first, second, third = told
    assert first[:2] == ("", True)
    assert second[:2] == (first[2], False)
    assert third[:2] == ("", True)
    assert client.post(PATH, order | {"fresh": "yes"}).status_code == 400


def test_a_session_is_stopped_over_http(world: World, service: Service) -> None:
    """It ends with its machine, and says why."""
    client = make_client(world, service)
    order = make_order(world, "touch begun; sleep 303")
    id = client.post(PATH, order).json()["id"]
    assert client.ask("DELETE", f"{PATH}/{id}").status_code == 409
    wait_for("its work", lambda: client.get(f"{PATH}/{id}").json()["state"] == "working" or None)
    stopped = client.post(f"{PATH}/{id}/stop").json()
    assert (stopped["state"], stopped["reason"]) == ("stopped", "it was stopped")
    # While its disk is sealed it is still being driven.
    wait_for("its rest", lambda: client.post(f"{PATH}/{id}/stop").status_code == 409 or None)
    assert client.get(f"{PATH}/0123456789ab").status_code == 404


def test_events_end_with_the_key_that_asked_for_them(world: World, service: Service) -> None:
    """A stream rests while nothing is said, and goes no further once its key is revoked; another one does."""
    client, other = make_client(world, service, "me", "--label", "first"), make_client(world, service)
    id = client.post(PATH, make_order(world, "echo begun; sleep 305")).json()["id"]
    url = f"{service.url}{PATH}/{id}/events"
    keys = {one["label"]: one["id"] for one in json.loads(world.bailee("keys", "list", "--json"))}
    with httpx2.stream("GET", url, headers=client.headers, timeout=20) as events:
        lines = events.iter_lines()
        assert "data: begun" in lines
        begun, used = time.monotonic(), processor_seconds(service.process.pid)
        time.sleep(2)
        assert processor_seconds(service.process.pid) - used < 0.5 * (time.monotonic() - begun)
        world.bailee("keys", "revoke", keys["first"])
        assert not any("done" in line or "stopped" in line for line in lines)
    assert other.get(f"{PATH}/{id}").json()["state"] == "working"
    with httpx2.stream("GET", url, headers=other.headers, timeout=20) as events:
        world.bailee("cloud", "stop", id)
        assert any("it was stopped" in line for line in events.iter_lines())  # Control


def test_others_see_nothing(world: World, service: Service) -> None:
    """Another account, a key for agents, and no key: no session is begun, shown, stopped or removed."""
    client = make_client(world, service)
    id = client.post(PATH, make_order(world, "true")).json()["id"]
    client.follow(id)
    world.bailee("accounts", "add", "bob", "--plan", "api")
    stranger = make_client(world, service, "bob", "--for-holder")
    agents = make_client(world, service, "bob")
    nobody = Client(service.url)
    assert stranger.get(PATH).json() == []
    order = make_order(world, "true")
    for who, statuses in ((stranger, {404}), (agents, {403}), (nobody, {401})):
        for method, path in (
            ("GET", f"/{id}"),
            ("GET", f"/{id}/events"),
            ("POST", f"/{id}/stop"),
            ("DELETE", f"/{id}"),
        ):
            assert who.ask(method, PATH + path).status_code in statuses, (method, path)
        assert who.post(f"{PATH}/{id}/turns", {"prompt": "x"}).status_code in statuses
    for who in (agents, nobody):
        assert who.get(PATH).status_code in (401, 403)
        assert who.post(PATH, order).status_code in (401, 403)
    assert [one["id"] for one in client.get(PATH).json()] == [id]


def test_a_machine_begins_no_session(world: World, service: Service) -> None:
    """The key that an agent has in its machine opens none: other repositories would be within its reach."""
    client = make_client(world, service)
    agent = (
        "curl -s -o /dev/null -w 'answered %{http_code}\\n' -X POST "
        '-H "Authorization: Bearer $ANTHROPIC_AUTH_TOKEN" '
        f'-d \'{{"repository": "{world.url}", "prompt": "x"}}\' $ANTHROPIC_BASE_URL{PATH}'
    )
    id = client.post(PATH, make_order(world, agent)).json()["id"]
    assert ("log", "answered 403") in client.follow(id)
    assert len(client.get(PATH).json()) == 1


@pytest.mark.parametrize(
    "order",
    [
        {},
        [],
        {"repository": "x", "prompt": "x"},
        {"repository": "https://host/x", "prompt": ""},
        {"repository": "https://host/x", "prompt": "x", "branch": "main"},
        {"repository": "https://host/x", "prompt": "x", "network": "all"},
        {"repository": "https://host/x", "prompt": "x", "seconds": 1},
        {"repository": "https://host/x", "prompt": "x", "colour": "red"},
        {"repository": "https://host/x", "prompt": "x", "allow": ["a b"], "network": "custom"},
    ],
)
def test_orders_that_cannot_be_meant(world: World, service: Service, order: object) -> None:
    """Refused with what is wrong, and nothing is made."""
    client = make_client(world, service)
    answer = client.post(PATH, order)
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert client.get(PATH).json() == []


def test_several_orders_at_once(world: World, service: Service) -> None:
    """Each is driven by a process of its own; one waits for the next, and none when the service ends."""
    client = make_client(world, service)
    order = make_order(world, "true")
    client.follow(client.post(PATH, order).json()["id"])
    with ThreadPoolExecutor(4) as pool:
        ids = [one.json()["id"] for one in pool.map(lambda _: client.post(PATH, order), range(4))]
    assert len(set(ids)) == 4
    for id in ids:
        assert json.loads(client.follow(id)[-1][1])["state"] == "done"
    wait_for("the end of those that drove", lambda: len(drivers(world)) == 1 or None)
    service.end()
    assert drivers(world) == []


def test_a_line_without_an_end() -> None:
    """What is kept of it while it comes is bounded, and nothing is lost; short lines stay as they are."""
    assert cut_lines(b"a\n\nb\nc") == ([b"a", b"", b"b"], b"c")
    lines, rest = cut_lines(b"x" * 200_000)
    assert b"".join(lines) + rest == b"x" * 200_000
    assert max(map(len, (*lines, rest))) == LONGEST_LINE
    lines, rest = cut_lines(b"x" * 100_000 + b"\ny")
    assert (list(map(len, lines)), rest) == ([65_536, 34_464], b"y")
