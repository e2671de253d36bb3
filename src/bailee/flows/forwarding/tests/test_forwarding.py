"""What goes on to a next hop, and what does not: next hops are services like the one that sends."""

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from bailee.accounts.directory import open_directory
from bailee.accounts.keys import create_key
from bailee.flows.errors.results import read_faults
from bailee.flows.forwarding import progress
from bailee.flows.forwarding.hops import OTLP_HEADERS, SENTRY_DSN, STATSIG_KEY
from bailee.flows.metrics.results import read_points
from bailee.policy.flows import FlowId
from bailee.policy.plans import Plan
from bailee.vault.store import open_vault
from counterparts.holdings import find_bytes, make_key
from counterparts.programs import run_program
from counterparts.services import Service, clean_environment, serving
from counterparts.waiting import wait_for

CANARY = "canary-on-the-way"
QUICK = """
import bailee.flows.forwarding.forwarder as forwarder
forwarder.POLL_SECONDS, forwarder.FIRST_PAUSE_MS, forwarder._SHARE = 0.1, 100, 0.9
"""
FRAME = {"module": "bailee.agent.work", "function": "answer", "lineno": 3}
ERROR = {
    "exception": {"values": [{"type": "ValueError", "value": CANARY, "stacktrace": {"frames": [FRAME]}}]},
    "user": {"email": CANARY},
}


def turn(rounds: int) -> bytes:
    """Write an export of one event, which is told apart by its number."""
    attributes = [
        {"key": key, "value": {"stringValue": value}}
        for key, value in (("version", "1.2.3"), ("outcome", "done"), ("path", CANARY))
    ]
    attributes.append({"key": "rounds", "value": {"intValue": str(rounds)}})
    record = {"body": {"stringValue": "bailee.turn"}, "attributes": attributes}
    return json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}).encode()


def count(amount: int) -> bytes:
    points = {"aggregationTemporality": 1, "dataPoints": [{"asInt": str(amount), "attributes": []}]}
    metrics = [{"name": "claude_code.commit.count", "sum": points}]
    return json.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": metrics}]}]}).encode()


def post(service: Service, path: str, body: bytes, key: str) -> int:
    connection = http.client.HTTPConnection(*service.address, timeout=20)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection.request("POST", path, body, headers)
    status = connection.getresponse().status
    connection.close()
    return status


def rounds(home: Path) -> list[float]:
    """Return the numbers of the events that are held, in order."""
    return sorted(float(one.fields["rounds"]) for one in read_points(home) if "rounds" in one.fields)


def is_done(home: Path) -> bool | None:
    """Tell whether nothing waits any more."""
    vault = open_vault(home)
    try:
        (hop,) = progress.list_progress(vault)
        return progress.count_waiting(vault, hop, FlowId.METRICS) == 0 or None
    finally:
        vault.dispose()


@contextlib.contextmanager
def sending(folder: Path, *options: str, **environment: str) -> Iterator[Service]:
    """Give a service that forwards, and looks at what waits ten times a second."""
    place = folder / "sender"
    place.mkdir(exist_ok=True)
    words = ("--upstream", "rehearsal", *options)
    with serving(place / "state", place, *words, environment=environment, changes=QUICK) as service:
        yield service


@contextlib.contextmanager
def receiving(folder: Path, *options: str) -> Iterator[Service]:
    place = folder / "receiver"
    place.mkdir(exist_ok=True)
    with serving(place / "state", place, "--upstream", "rehearsal", *options) as service:
        yield service


def test_what_is_held_goes_on_by_each_wire(tmp_path: Path) -> None:
    """OpenTelemetry's, Statsig's and Sentry's: the catalogued part arrives, and nothing tells who sent it."""
    with receiving(tmp_path) as there:
        other = make_key(there.home)
        environment = {
            OTLP_HEADERS: f"Authorization=Bearer {other}",
            STATSIG_KEY: f"secret-{other}",
            SENTRY_DSN: f"{there.url.replace('://', f'://{other}@')}/1",
        }
        options = [
            "--forward",
            f"otlp={there.url}",
            "--forward",
            f"statsig={there.url}",
            "--forward",
            "sentry",
        ]
        with sending(tmp_path, *options, **environment) as here:
            key = make_key(here.home)
            assert post(here, "/v1/logs", turn(3), key) == 200
            assert post(here, "/v1/metrics", count(7), key) == 200
            assert post(here, "/api/1/store/", json.dumps(ERROR).encode(), key) == 200
            # Each by two of the wires.
            wait_for("metrics at the next hop", lambda: len(read_points(there.home)) >= 4 or None)
            wait_for("an error at the next hop", lambda: read_faults(there.home) or None)
            told = json.loads(run(here.home, tmp_path, "forwarding", "--json"))
            assert {one["name"]: (one["sent"], one["fault"]) for one in told} == {
                "otlp": (2, ""),
                "statsig": (2, ""),
                "sentry": (1, ""),
            }
            assert other not in here.errors + run(here.home, tmp_path, "forwarding")
            assert "Forwarding to" in here.errors
        mine = [(one.name, dict(one.fields)) for one in read_points(here.home)]
        theirs = [(one.name, dict(one.fields)) for one in read_points(there.home)]
        assert sorted(theirs, key=str) == sorted([*mine, *mine], key=str)
        assert [one.fault for one in read_faults(there.home)] == [one.fault for one in read_faults(here.home)]
        for place in (here.home, there.home):
            assert not find_bytes(place, CANARY.encode())
        assert not find_bytes(here.home, other.encode())


def run(home: Path, folder: Path, *words: str) -> str:
    done = run_program(*words, environment=clean_environment(folder, BAILEE_HOME=str(home)), folder=folder)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def test_what_waits_survives_a_kill(tmp_path: Path) -> None:
    """A next hop that is down, and a service that is killed meanwhile: all that was acknowledged arrives."""
    with receiving(tmp_path) as there:
        port, other = there.address[1], make_key(there.home)
    to = {OTLP_HEADERS: f"Authorization=Bearer {other}"}
    option = ("--forward", f"otlp=http://127.0.0.1:{port}")
    # Bound, and nobody listens: another test's service would be taken for the next hop.
    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    taken.bind(("127.0.0.1", port))
    with sending(tmp_path, *option, **to) as here:
        key = make_key(here.home)
        for number in (1, 2):
            assert post(here, "/v1/logs", turn(number), key) == 200
        here.process.kill()
        here.process.wait(10)
    with sending(tmp_path, *option, **to) as here:
        assert post(here, "/v1/logs", turn(3), key) == 200
        vault = open_vault(here.home)
        wait_for("a vain attempt", lambda: progress.list_progress(vault)[0].attempts or None)
        assert "is not reached" in progress.list_progress(vault)[0].fault
        vault.dispose()
        taken.close()
        with receiving(tmp_path, "--port", str(port)) as there:
            wait_for("all of it", lambda: set(rounds(there.home)) == {1.0, 2.0, 3.0} or None)


@pytest.mark.parametrize("is_off", [False, True])
def test_the_switch_stops_it(tmp_path: Path, is_off: bool) -> None:
    """With the service's own switch nothing goes on; without it the same does (control)."""
    with receiving(tmp_path) as there:
        to = {OTLP_HEADERS: f"Authorization=Bearer {make_key(there.home)}"}
        if is_off:
            to["BAILEE_DISABLE_FORWARDING"] = "1"
        with sending(tmp_path, "--forward", f"otlp={there.url}", **to) as here:
            assert post(here, "/v1/logs", turn(1), make_key(here.home)) == 200
            wait_for("its turn", lambda: is_done(here.home))
            assert ("switched off by environment/switch.BAILEE_DISABLE_FORWARDING" in here.errors) is is_off
        assert rounds(there.home) == ([] if is_off else [1.0])


def test_what_somebody_refuses_stays(tmp_path: Path) -> None:
    """An account's records are held and go no further once it refuses that; another's do."""
    with receiving(tmp_path) as there:
        to = {OTLP_HEADERS: f"Authorization=Bearer {make_key(there.home)}"}
        with sending(tmp_path, "--forward", f"otlp={there.url}", **to) as here:
            directory = open_directory(here.home)
            keys = {}
            for name in ("ada", "bob"):
                directory.add(name, Plan.PRO)
                keys[name] = create_key(directory, name)[1]
            directory.refuse("ada", FlowId.FORWARDING, given=True)
            directory.close()
            assert post(here, "/v1/logs", turn(1), keys["ada"]) == 200
            assert post(here, "/v1/logs", turn(2), keys["bob"]) == 200
            wait_for("their turn", lambda: is_done(here.home))
            assert rounds(here.home) == [1.0, 2.0]
        assert rounds(there.home) == [2.0]


def test_what_was_erased_before_its_turn_is_not_sent(tmp_path: Path) -> None:
    """What waits is what is held: after an erasure there is nothing of it to send."""
    with receiving(tmp_path) as there:
        port, other = there.address[1], make_key(there.home)
    to = {OTLP_HEADERS: f"Authorization=Bearer {other}"}
    with sending(tmp_path, "--forward", f"otlp=http://127.0.0.1:{port}", **to) as here:
        first, second = (make_key(here.home) for _ in range(2))
        assert post(here, "/v1/logs", turn(1), first) == 200
        assert post(here, "/v1/logs", turn(2), second) == 200
        run(here.home, tmp_path, "sessions", "erase", f"key-{first.split('_')[1]}", "--yes")
        with receiving(tmp_path, "--port", str(port)) as there:
            wait_for("what is left", lambda: rounds(there.home) or None)
            wait_for("its turn", lambda: is_done(here.home))
            assert rounds(there.home) == [2.0]


# --- A next hop that does as it likes ---


@dataclass
class Hop:
    """Answers with the statuses that it is told, then 200, and notes what came."""

    statuses: list[tuple[int, dict[str, str]]]
    bodies: list[bytes] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    poison: bytes = b""


@contextlib.contextmanager
def hopping(hop: Hop) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers = hop.statuses.pop(0) if hop.statuses else (200, {})
            if hop.poison and hop.poison in body:
                status = 400
            if status == 200:
                hop.bodies.append(body)
            hop.paths.append(self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST  # noqa: N815 - the library's own name

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/base/"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("status", [429, 503, 500, 401, 302])
def test_what_was_not_taken_is_sent_again(tmp_path: Path, status: int) -> None:
    """Too many, busy, broken, a wrong key: it waits, and goes once that is over. No redirect is followed."""
    headers = {"Location": "/elsewhere"} if status == 302 else {}
    hop = Hop([(status, headers), (status, headers)])
    with hopping(hop) as url, sending(tmp_path, "--forward", f"otlp={url}") as here:
        assert post(here, "/v1/logs", turn(1), make_key(here.home)) == 200
        wait_for("the third attempt", lambda: hop.bodies or None)
        assert hop.paths == ["/base/v1/logs"] * 3


def test_what_is_never_taken_takes_nothing_with_it(tmp_path: Path) -> None:
    """An export that a next hop calls malformed is counted and passed over; those beside it arrive."""
    hop = Hop([(503, {})], poison=b'"doubleValue":2.0')
    with hopping(hop) as url, sending(tmp_path, "--forward", f"otlp={url}") as here:
        key = make_key(here.home)
        for number in (1, 2, 3):
            assert post(here, "/v1/logs", turn(number), key) == 200
        wait_for("their turn", lambda: is_done(here.home))
        (told,) = json.loads(run(here.home, tmp_path, "forwarding", "--json"))
        assert (told["sent"], told["refused"]) == (2, 1)
        assert b'"doubleValue":1.0' in b"".join(hop.bodies)
        assert b'"doubleValue":3.0' in b"".join(hop.bodies)
