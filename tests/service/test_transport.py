"""Bodies that lie, burst, dig deep or never end: a clear status, flat memory, nothing lost beside them."""

import contextlib
import gzip
import json
import re
import socket
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import brotli
import pytest
import zstandard

from bailee.flows.metrics.results import read_points
from counterparts.holdings import make_key
from counterparts.processes import children
from counterparts.services import Service, serving

ROUTES = {
    "otlp": "/v1/logs",
    "statsig": "/v1/log_event",
    "envelope": "/api/1/envelope/",
    "store": "/api/1/store/",
    "report": "/api/sessions/one/feedback",
    "rating": "/api/survey",
}
ZEROS = bytes(64 * 1024 * 1024)
BOMBS: dict[str, Callable[[], bytes]] = {
    "gzip": lambda: gzip.compress(ZEROS, 9),
    "deflate": lambda: zlib.compress(ZEROS, 9),
    "zstd": lambda: zstandard.compress(ZEROS, 19),
    "br": lambda: brotli.compress(ZEROS, quality=5),
}
DEEP = b"[" * 100_000 + b"]" * 100_000
TURN = {
    "resourceLogs": [
        {
            "scopeLogs": [
                {
                    "logRecords": [
                        {
                            "body": {"stringValue": "bailee.turn"},
                            "attributes": [
                                {"key": "version", "value": {"stringValue": "1.2.3"}},
                                {"key": "outcome", "value": {"stringValue": "done"}},
                            ],
                        }
                    ]
                }
            ]
        }
    ]
}
# Bombs, each of which becomes 20 MiB before it is too long: 200 in all if they stayed. The allocator keeps
# some of what it was given back, up to three such blocks.
TIMES, MOST_GROWN = 10, 64 * 1024 * 1024


@cache
def make_bomb(coding: str) -> bytes:
    return BOMBS[coding]()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Give a service that waits a second for a body, and two for a report."""
    folder = tmp_path_factory.mktemp("transport")
    changes = "import bailee.bodies as bodies, bailee.flows.feedback.receiver as receiver\n"
    changes += "bodies.SECONDS, receiver.UPLOAD_SECONDS = 1.0, 2.0\n"
    options = ("--upstream", "rehearsal", "--intake-rate", "1000000")
    with serving(folder / "state", folder, *options, changes=changes) as running:
        yield running
    assert "Traceback" not in running.errors


@pytest.fixture(scope="module")
def key(service: Service) -> str:
    return make_key(service.home)


def talk(service: Service, raw: bytes, *, is_half_closed: bool = False) -> tuple[int, bytes]:
    """Send bytes and read until the service closes; return the status, 0 if it gave none, and all of it."""
    with socket.create_connection(service.address, timeout=20) as connection:
        connection.sendall(raw)
        if is_half_closed:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while b"\r\n\r\n" not in answer and (data := connection.recv(65536)):
            answer += data
        connection.settimeout(0.2)
        try:
            while data := connection.recv(65536):
                answer += data
        except TimeoutError:
            pass
    found = re.match(rb"HTTP/1\.1 (\d{3})", answer)
    assert b"Traceback" not in answer
    return int(found[1]) if found else 0, answer


def head(route: str, key: str, *lines: str) -> bytes:
    told = [f"POST {ROUTES[route]} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {key}"]
    told += ["Content-Type: application/json", *lines, "", ""]
    return "\r\n".join(told).encode()


def whole(route: str, key: str, body: bytes, *lines: str) -> bytes:
    return head(route, key, f"Content-Length: {len(body)}", *lines) + body


def measure(service: Service) -> int:
    """Return the memory of the service and its recorder, bytes."""
    total = 0
    for pid in (service.process.pid, *children(service.process.pid)):
        with contextlib.suppress(OSError):  # a sweeper that has ended meanwhile
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            found = re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)
            total += int(found[1]) * 1024 if found else 0
    return total


@pytest.mark.parametrize("coding", BOMBS)
@pytest.mark.parametrize("route", ["otlp", "statsig", "envelope", "store"])
def test_a_bomb_is_too_long(service: Service, key: str, route: str, coding: str) -> None:
    """Some kilobytes that become 64 MiB are refused, and however many come memory stays what it was."""
    raw = whole(route, key, make_bomb(coding), f"Content-Encoding: {coding}", "Connection: close")
    sizes = []
    for _ in range(TIMES):
        assert talk(service, raw)[0] == 413
        sizes.append(measure(service))
    assert sizes[-1] - sizes[0] < MOST_GROWN, sizes


def test_a_coding_around_a_coding_is_refused(service: Service, key: str) -> None:
    """Two codings, by two names or by one name twice."""
    twice = gzip.compress(gzip.compress(ZEROS[: 1024 * 1024]))
    for coding in ("gzip, gzip", "gzip,br"):
        status, _ = talk(service, whole("otlp", key, twice, f"Content-Encoding: {coding}"))
        assert status == 400
    assert talk(service, whole("otlp", key, twice, "Content-Encoding: gzip"))[0] == 400


@pytest.mark.parametrize("route", ROUTES)
def test_json_that_digs_deep_is_refused(service: Service, key: str, route: str) -> None:
    """A hundred thousand brackets are malformed, and no recursion of ours."""
    status, _ = talk(service, whole(route, key, DEEP))
    # A rating has a thousand bytes at most; an envelope's first line is its headers.
    assert status in (400, 413)


@pytest.mark.parametrize("route", ROUTES)
def test_a_body_that_ends_early_is_not_taken(service: Service, key: str, route: str) -> None:
    """Shorter than it says, or without its last chunk, and then half closed: nothing of it counts."""
    short = head(route, key, "Content-Length: 100") + b"{}"
    chunked = head(route, key, "Transfer-Encoding: chunked") + b"2\r\n{}\r\n"
    for raw in (short, chunked):
        status, _ = talk(service, raw, is_half_closed=True)
        assert status in (0, 400, 408)


@pytest.mark.parametrize("route", ROUTES)
def test_whoever_sends_slowly_is_not_waited_for(service: Service, key: str, route: str) -> None:
    """A body that does not come is given up after its time, with a status that says so."""
    status, _ = talk(service, head(route, key, "Content-Length: 100") + b"{")
    assert status == 408


def test_bytes_after_a_body_end_the_connection(service: Service, key: str) -> None:
    """A length that is too small makes a request of the rest, which is none; others go on."""
    raw = head("otlp", key, "Content-Length: 2") + b"{} and more\r\n\r\n"
    assert talk(service, raw)[0] in (0, 200, 400)
    assert talk(service, whole("otlp", key, b"{}", "Connection: close"))[0] == 200


def test_very_many_headers_are_refused(service: Service, key: str) -> None:
    """Before anything of the body is read."""
    many = [f"X-Header-{number}: {'x' * 100}" for number in range(2000)]
    assert talk(service, whole("otlp", key, b"{}", *many))[0] in (0, 400, 431)


def test_nothing_is_lost_beside_all_this(service: Service, key: str) -> None:
    """What was acknowledged between one hostile body and the next is held, each once."""
    turn = json.dumps(TURN).encode()
    before = len(read_points(service.home))
    bomb = make_bomb("gzip")
    for hostile in (whole("otlp", key, bomb, "Content-Encoding: gzip"), whole("otlp", key, DEEP)) * 5:
        assert talk(service, whole("otlp", key, turn, "Connection: close"))[0] == 200
        assert talk(service, hostile)[0] in (400, 413)
    assert len(read_points(service.home)) == before + 10
