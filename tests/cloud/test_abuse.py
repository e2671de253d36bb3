"""What a session does too often: slowed down, stopped, told, and listed with all else that it asked for."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
import pytest

from counterparts.clouds import World
from counterparts.git_hosts import git
from counterparts.services import serving
from counterparts.waiting import wait_for

LIMITS = {
    "rate": "{ slow = 60, stop = 40, seconds = 60 }",
    "volume": "{ slow = 3_000_000, stop = 2_000_000, seconds = 60 }",
    "scan": "{ slow = 15, stop = 10, seconds = 60 }",
    "denials": "{ slow = 12, stop = 6, seconds = 60 }",
}
# What each agent does, and goes on with; `touch` shows that it got to its end.
FLOOD = """
import socket, threading
def go():
    for _ in range(40):
        with socket.create_connection(("127.0.0.1", 3128), 20) as out:
            out.sendall(b"GET http://HOST/ HTTP/1.1\\r\\nHost: HOST\\r\\n\\r\\n")
            while out.recv(65536):
                pass
threads = [threading.Thread(target=go) for _ in range(8)]
[one.start() for one in threads]
[one.join() for one in threads]
"""
SCAN = """
import concurrent.futures, socket
def knock(port):
    with socket.socket() as out:
        out.settimeout(5)
        out.connect(("10.11.12.13", port))
        out.recv(1)
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    list(pool.map(lambda port: knock(port), range(1, 200)))
"""
AGENTS = {
    "rate": f"python3 -c '{FLOOD}'",
    "volume": (
        "head -c 1000000 /dev/zero > /tmp/big; "
        "for n in $(seq 20); do curl -s -m 20 --noproxy '' -T /tmp/big http://HOST/; done"
    ),
    "scan": f"python3 -c '{SCAN}'",
    "denials": "for n in $(seq 60); do curl -s -m 20 https://denied.example/; done",
}


class Host(BaseHTTPRequestHandler):
    """Takes what comes, and says so."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer."""
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    do_PUT = do_GET  # noqa: N815 - as http.server looks for it

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def host() -> Iterator[str]:
    """Give a host on loopback, by its address and port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Host)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def write_limits(world: World, text: str) -> None:
    """Write what a person settled."""
    world.home.mkdir(mode=0o700, exist_ok=True)
    (world.home / "boundary.toml").write_text(text)


def run(world: World, kind: str, host: str, *, status: int) -> dict[str, Any]:
    """Let an agent do one thing too often, and then its work."""
    agent = AGENTS[kind].replace("HOST", host) + "; echo done > done.txt"
    options = ("--network", "custom", "--allow", f"http://{host}", "--agent", agent)
    known, _ = world.start("x", *options, status=status)
    return known


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("kind", AGENTS)
def test_slowed_stopped_and_told(world: World, host: str, kind: str) -> None:
    """A scan, a flood, uploads in a loop, a denied host: slowed down, stopped, in the receipt and audit."""
    write_limits(world, f"[abuse]\n{kind} = {LIMITS[kind]}\n")
    known = run(world, kind, host, status=1)
    assert known["state"] == "stopped"
    assert known["reason"].startswith("stopped for ")
    assert f"refs/heads/{known['branch']}" not in world.host.refs("app")
    found = known["receipt"]["boundary"]["abuse"]
    assert [(one["kind"], one["action"]) for one in found] == [(kind, "slowed"), (kind, "stopped")]
    assert found[-1]["reason"] == known["reason"]
    assert known["receipt"]["boundary"]["counts"]["verdict"] == "agreed"
    assert f"ABUSE: {known['reason']}" in world.bailee("cloud", "show", known["id"])
    audited = audit(world, known["id"], "--denied")
    assert [one["verdict"] for one in audited if one["way"] == "abuse"] == ["slowed", "stopped"]
    receipt = world.folder / "receipt.json"
    receipt.write_text(json.dumps(known["receipt"]))
    world.bailee("ledger", "verify", str(receipt))
    known["receipt"]["boundary"].pop("abuse")
    receipt.write_text(json.dumps(known["receipt"]))
    world.bailee("ledger", "verify", str(receipt), status=1)


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=pytest.mark.soak if kind in ("rate", "volume") else ()) for kind in AGENTS],
)
def test_control_with_the_limits_off_nothing_stops_it(world: World, host: str, kind: str) -> None:
    """Control: the same agent, with what it does not counted, gets to its end and pushes."""
    write_limits(world, "[abuse]\n" + "".join(f'{one} = "off"\n' for one in AGENTS))
    known = run(world, kind, host, status=0)
    assert known["state"] == "done"
    assert "abuse" not in known["receipt"]["boundary"]
    bare = world.host.folder / "app.git"
    assert "done.txt" in git("diff", "--name-only", "main", known["branch"], cwd=bare).split()


PROBE = "for n in $(seq 30); do git ls-remote {url} && exit; done; echo done > done.txt"


def test_asking_git_too_often(world: World) -> None:
    """Who asks for another repository again and again is slowed down, then stopped with its machine."""
    write_limits(world, "[abuse]\ndenials = { slow = 4, stop = 4, seconds = 60 }\n")
    agent = PROBE.format(url=world.url.replace("app", "other"))
    options = ("--upstream", "rehearsal")
    with serving(world.home, world.folder / "service", *options, environment=world.environment) as service:
        known, _ = world.start("x", "--agent", agent, status=1)
        metrics = httpx2.get(f"{service.url}/metrics").text
    assert (known["state"], known["has_unsaved"]) == ("stopped", True)
    assert known["reason"].startswith("stopped for repeated denials: 4 refusals within 60 s")
    audited = audit(world, known["id"], "--denied")
    told = [(one["rule"], one["verdict"]) for one in audited if one["way"] == "abuse"]
    assert told == [("denials", "slowed"), ("denials", "stopped")]
    assert 'bailee_abuse_total{action="stopped",kind="denials"} 1.0' in metrics
    assert list((world.home / "git").iterdir()) == []


def test_more_than_may_be_sent_to_git(served: World) -> None:
    """A push beyond `--traffic` ends there, Git says why in the log, and the audit has it with its rule."""
    agent = (
        "head -c 3000000 /dev/urandom > large.bin; git add -A; git commit -qm large; git push -q origin HEAD"
    )
    known, said = served.start("x", "--traffic", "1", "--agent", agent, status=1)
    assert known["state"] == "failed"
    assert "this session may send 1.0 MB to 127.0.0.1" in said
    assert f"refs/heads/{known['branch']}" not in served.host.refs("app")
    denied = audit(served, known["id"], "--denied")
    assert {(one["way"], one["rule"], one["verdict"]) for one in denied} == {("git", "traffic", "refused")}


def test_control_without_such_limits_git_is_asked_as_often(served: World) -> None:
    """Control: the same session gets to its end."""
    write_limits(served, '[abuse]\ndenials = "off"\nscan = "off"\n')
    known, _ = served.start("x", "--agent", PROBE.format(url=served.url.replace("app", "other")))
    assert known["state"] == "done"


@pytest.mark.usefixtures("served")
def test_told_and_not_stopped(world: World) -> None:
    """With `stop = false` the session is slowed down and goes on; the receipt tells what it did."""
    write_limits(world, f"[abuse]\nstop = false\ndenials = {LIMITS['denials']}\n")
    agent = "for n in $(seq 20); do curl -s -m 20 https://denied.example/; done; true"
    known, _ = world.start("x", "--agent", agent)
    found = known["receipt"]["boundary"]["abuse"]
    assert [one["action"] for one in found] == ["slowed", "told"]
    # Eight of them waited for a second each.
    assert found[-1]["at_ms"] - found[0]["at_ms"] >= 4000


@pytest.mark.usefixtures("served")
def test_the_account_holder_lets_it_go_on(world: World) -> None:
    """A session that was stopped takes another prompt, on the same clone, and is not stopped for the old."""
    write_limits(world, f"[abuse]\ndenials = {LIMITS['denials']}\n")
    agent = 'if [ "$BAILEE_PROMPT" = x ]; then ' + AGENTS["denials"] + "; fi; echo ok > done.txt"
    known, _ = world.start("x", "--agent", agent, status=1)
    assert known["state"] == "stopped"
    world.bailee("cloud", "say", known["id"], "go on")
    wait_for("its end", lambda: world.show(known["id"])["state"] == "done" or None)
    assert "abuse" not in world.show(known["id"])["receipt"]["boundary"]
    # What it was stopped for stands in the audit of the whole session.
    verdicts = [one["verdict"] for one in audit(world, known["id"]) if one["way"] == "abuse"]
    assert verdicts == ["slowed", "stopped"]


def test_limits_that_cannot_be_read_start_nothing(world: World) -> None:
    """A file that cannot be meant starts no machine; where it comes meanwhile, it loosens nothing."""
    write_limits(world, "[abuse]\nstop = 0\n")
    known, _ = world.start("x", "--agent", "true", status=1)
    assert known["state"] == "failed"
    assert "abuse.stop" in known["reason"]
    write_limits(world, f"[abuse]\ndenials = {LIMITS['denials']}\n")
    agent = "touch begun; while [ ! -e go ]; do sleep 0.1; done; " + AGENTS["denials"]
    known, _ = world.start("x", "--agent", agent, wait=False)
    work = world.home / "cloud" / known["id"] / "work" / "repository"
    wait_for("its work", lambda: (work / "begun").exists() or None)
    write_limits(world, "[abuse]\nstop = 0\n")
    threading.Event().wait(1.5)
    (work / "go").touch()
    wait_for("its end", lambda: world.show(known["id"])["state"] == "stopped" or None)


def audit(world: World, id: str, *options: str) -> list[dict[str, Any]]:
    """Return a session's audit."""
    told: list[dict[str, Any]] = json.loads(world.bailee("cloud", "audit", id, "--json", *options))
    return told


@pytest.mark.usefixtures("served")
def test_the_audit_of_a_whole_session(world: World) -> None:
    """An ordinary session is never slowed down; each of its requests is listed once, in order."""
    known, _ = world.start("rehearse mend-the-test")
    assert "abuse" not in known["receipt"]["boundary"]
    audited = audit(world, known["id"])
    assert [one["at_ms"] for one in audited] == sorted(one["at_ms"] for one in audited)
    ways = Counter(one["way"] for one in audited)
    flows = {flow["flow"]: flow for flow in known["receipt"]["flows"]}
    assert ways["messages"] == flows["messages"]["exchanges"]
    assert ways["git"] == flows["git"]["exchanges"]
    used = known["receipt"]["boundary"]["used"]
    assert ways["service"] == sum(one["connections"] for one in used)
    sent = sum(one["sent"] or 0 for one in audited if one["way"] == "service")
    assert sent == sum(one["sent_bytes"] for one in used)
    assert not [one for one in audited if one["verdict"] in ("slowed", "stopped", "told")]
    (push,) = [one for one in audited if one["method"] == "push"]
    assert push["received"] > 0
    assert max(one["received"] for one in audited if one["method"] == "fetch") > 200
    assert push["path"] == f"/app refs/heads/{known['branch']}"
    assert (push["verdict"], push["rule"]) == ("passed", "attached")
    shown = world.bailee("cloud", "audit", known["id"])
    assert len(shown.splitlines()) == len(audited) + 1
    assert "messages" in shown


@pytest.mark.usefixtures("served")
def test_the_audit_tells_what_was_refused(world: World, host: str) -> None:
    """A denied host, another repository, a push to main, a path: each with its rule, and nothing else."""
    write_limits(
        world,
        f'[[allow]]\nhost = "127.0.0.1"\nports = [{host.partition(":")[2]}]\nwire = "http"\nprivate = true\n'
        'methods = ["GET"]\npaths = ["/good*"]\n',
    )
    agent = (
        f"curl -s --noproxy '' http://{host}/good?x=1; curl -s --noproxy '' http://{host}/bad; "
        "curl -s https://denied.example; "
        f"git clone -q {world.host.url}/other.git /tmp/other; "
        "git commit -q --allow-empty -m x; git push -q origin HEAD:main; true"
    )
    known, said = world.start("x", "--network", "custom", "--agent", agent)
    audited = audit(world, known["id"])
    good = [one for one in audited if one["path"] == "/good"]
    assert [(one["method"], one["verdict"]) for one in good] == [("GET", "passed")], said
    assert good[0]["sent"] > 0
    denied = audit(world, known["id"], "--denied")
    rules = {(one["way"], one["rule"], one["host"].partition(":")[0]) for one in denied}
    assert ("connect", "request", "127.0.0.1") in rules
    assert ("connect", "undeclared", "denied.example") in rules
    assert ("git", "not_attached", "127.0.0.1") in rules
    assert ("git", "git_push", "127.0.0.1") in rules
    assert {one["verdict"] for one in denied} == {"refused"}
    assert [one for one in audited if one["verdict"] == "refused"] == denied


def test_the_audit_of_a_session_that_runs(world: World) -> None:
    """While it runs the audit has what there is by then, from the log that is being written."""
    agent = "curl -s https://denied.example; touch begun; while [ ! -e go ]; do sleep 0.1; done"
    known, _ = world.start("x", "--agent", agent, wait=False)
    work = world.home / "cloud" / known["id"] / "work" / "repository"
    wait_for("its work", lambda: (work / "begun").exists() or None)
    hosts = [one["host"] for one in audit(world, known["id"], "--denied")]
    assert hosts == ["denied.example"]
    assert list((world.home / "boundary").glob("*.owner"))
    (work / "go").touch()
    wait_for("its end", lambda: world.show(known["id"])["state"] == "done" or None)
    wait_for("the log's end", lambda: not list((world.home / "boundary").glob("*.log")) or None)
    assert [one["host"] for one in audit(world, known["id"], "--denied")] == hosts


def test_the_audit_over_http(world: World) -> None:
    """The account holder gets the same over HTTP, others and agents nothing; /metrics counts the finding."""
    write_limits(world, f"[abuse]\ndenials = {LIMITS['denials']}\n")
    options = ("--upstream", "rehearsal")
    with serving(world.home, world.folder / "service", *options, environment=world.environment) as service:
        known, _ = world.start("x", "--agent", AGENTS["denials"], status=1)
        path = f"{service.url}/api/cloud/sessions/{known['id']}/audit"

        def ask(key: str, more: str = "") -> httpx2.Response:
            headers = {"authorization": f"Bearer {key}"} if key else {}
            return httpx2.get(path + more, headers=headers, timeout=60)

        wait_for("the log's end", lambda: not list((world.home / "boundary").glob("*.log")) or None)
        holder = world.bailee("keys", "create", "--account", "me").split()[0]
        assert ask(holder).json() == audit(world, known["id"])
        assert ask(holder, "?denied=1").json() == audit(world, known["id"], "--denied")
        world.bailee("accounts", "add", "bob", "--plan", "api")
        stranger = world.bailee("keys", "create", "--account", "bob", "--for-holder").split()[0]
        agents = world.bailee("keys", "create", "--account", "bob").split()[0]
        assert [ask(key).status_code for key in (stranger, agents, "")] == [404, 403, 401]
        metrics = httpx2.get(f"{service.url}/metrics").text
        assert 'bailee_abuse_total{action="stopped",kind="denials"} 1.0' in metrics


def test_a_log_that_was_changed_is_told(world: World) -> None:
    """A byte of the live log that is another: the audit says so and lists nothing."""
    known, _ = world.start(
        "x", "--agent", "curl -s https://denied.example; touch begun; sleep 304", wait=False
    )
    work = world.home / "cloud" / known["id"] / "work" / "repository"
    wait_for("its work", lambda: (work / "begun").exists() or None)
    (log,) = (world.home / "boundary").glob("*.log")
    data = bytearray(log.read_bytes())
    data[20] ^= 1
    log.write_bytes(bytes(data))
    assert "cannot be read" in world.bailee("cloud", "audit", known["id"], status=2)
    world.bailee("cloud", "stop", known["id"])
