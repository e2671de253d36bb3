"""Forwarding where the vault is in SQLite files, and where it is in PostgreSQL."""

import contextlib
import http.client
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from bailee.flows.forwarding import progress
from bailee.policy.flows import FlowId
from bailee.vault.store import open_vault
from counterparts.holdings import make_key
from counterparts.services import Service, serving
from counterparts.waiting import wait_for

QUICK = """
import bailee.flows.forwarding.forwarder as forwarder
forwarder.POLL_SECONDS, forwarder.FIRST_PAUSE_MS, forwarder._SHARE = 0.1, 100, 0.9
"""


def send_turn(service: Service, rounds: int, key: str) -> None:
    """Send an export of one event, which is told apart by its number, and see it acknowledged."""
    attributes = [
        {"key": "version", "value": {"stringValue": "1.2.3"}},
        {"key": "outcome", "value": {"stringValue": "done"}},
        {"key": "rounds", "value": {"intValue": str(rounds)}},
    ]
    record = {"body": {"stringValue": "bailee.turn"}, "attributes": attributes}
    body = json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]})
    connection = http.client.HTTPConnection(*service.address, timeout=20)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/logs", body, headers)
    assert connection.getresponse().status == 200
    connection.close()


@contextlib.contextmanager
def hopping(bodies: list[bytes]) -> Iterator[str]:
    """Give the URL of a next hop that does not take the first request and notes all others."""
    statuses = [503]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status = statuses.pop() if statuses else 200
            if status == 200:
                bodies.append(body)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def test_all_that_was_acknowledged_arrives(tmp_path: Path, database: str) -> None:
    """Through a refusal by the next hop and a kill of the service; then nothing waits."""
    bodies: list[bytes] = []
    words = ("--upstream", "rehearsal", "--forward")
    with hopping(bodies) as url:
        with serving(tmp_path / "state", tmp_path, *words, f"otlp={url}") as service:
            key = make_key(service.home)
            send_turn(service, 1, key)
            service.process.kill()
            service.process.wait(10)
        with serving(tmp_path / "state", tmp_path, *words, f"otlp={url}", changes=QUICK) as service:
            send_turn(service, 2, key)
            wanted = [f'"doubleValue":{number}.0'.encode() for number in (1, 2)]
            wait_for("both", lambda: all(one in b"".join(bodies) for one in wanted) or None)
            vault = open_vault(service.home)
            (hop,) = progress.list_progress(vault)
            wait_for(
                "nothing waits",
                lambda: progress.count_waiting(vault, hop, FlowId.METRICS) == 0 or None,
            )
            assert progress.list_progress(vault)[0].sent == 2
            vault.dispose()


def test_a_next_hop_is_one_nodes_at_a_time(tmp_path: Path, database: str) -> None:
    """Whoever takes it first has it; after a kill another takes it over."""
    vault = open_vault(tmp_path)
    progress.begin(vault, "otlp", "https://collector.example", now_ms=1000)
    assert progress.claim(vault, "otlp", now_ms=1000)
    assert progress.claim(vault, "otlp", now_ms=1001) is None
    assert progress.claim(vault, "otlp", now_ms=1000 + progress.CLAIM_MS)
    vault.dispose()


def test_what_is_done_with_is_done_with_once(tmp_path: Path, database: str) -> None:
    """Counts add up, the cursor goes forward only, and what is older than its look back is forgotten."""
    vault = open_vault(tmp_path)
    progress.begin(vault, "otlp", "https://collector.example", now_ms=1_000_000)
    (begun,) = progress.list_progress(vault)
    progress.finish(vault, "otlp", [begun.cursor + 7, begun.cursor + 3], sent=1, refused=1, now_ms=1_000_001)
    progress.finish(vault, "otlp", [begun.cursor + 5], sent=1, refused=0, now_ms=1_000_002)
    (hop,) = progress.list_progress(vault)
    assert (hop.sent, hop.refused, hop.cursor, hop.succeeded_ms) == (2, 1, begun.cursor + 7, 1_000_002)
    later = 1_000_000 + progress.LONGEST_WAIT_MS + 3_600_000
    passed = progress.pass_over(vault, hop, FlowId.METRICS, now_ms=later)
    assert progress.list_progress(vault) == [passed]
    assert passed.cursor > hop.cursor
    progress.put_off(vault, "otlp", next_ms=later + 5, fault="503")
    assert progress.claim(vault, "otlp", now_ms=later) is None
    assert progress.list_progress(vault)[0].attempts == 1
    vault.dispose()
