"""Sends what no client sends to every endpoint of a real service: `python -m service.fuzzing SECONDS [SEED]`.

A fuzzer such as schemathesis works from a description of an API, and there is none here: the protocols are
others'. The service tells its own routes, so that a new one is reached without anybody's help.
"""

import contextlib
import gzip
import http.client
import json
import random
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import brotli
import zstandard

from counterparts.holdings import make_key
from counterparts.reports import REPORT
from counterparts.services import Service, serving

# Tells the routes of the application, before it is served.
TELL = """
import json, pathlib
import bailee.service.application as application
create = application.create_application
def tell(routes):
    told = [[sorted(route.methods or ()), route.path] for route in routes]
    pathlib.Path({path!r}).write_text(json.dumps(told))
    return create(routes)
application.create_application = tell
"""
# What is answered before the application is asked.
MODEL = (("POST", "/v1/messages"), ("POST", "/v1/messages/count_tokens"), ("POST", "/model/m/invoke"))
CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstandard.compress,
    "br": brotli.compress,
}
TYPES = (
    "application/json",
    "application/x-protobuf",
    "application/x-sentry-envelope",
    "application/x-www-form-urlencoded",
    "text/plain;charset=UTF-8",
    "multipart/form-data; boundary=x",
    "",
)
TURN = {"key": "version", "value": {"stringValue": "1.2.3"}}
LOG = {"body": {"stringValue": "bailee.turn"}, "attributes": [TURN]}
POINT = {"asInt": "1", "startTimeUnixNano": "5", "attributes": [TURN]}
SUM = {"name": "claude_code.commit.count", "sum": {"aggregationTemporality": 2, "dataPoints": [POINT]}}
FRAME = {"module": "bailee.agent.work", "function": "answer", "lineno": 3}
EVENT = {"exception": {"values": [{"type": "ValueError", "stacktrace": {"frames": [FRAME]}}]}}
SEEDS: tuple[bytes, ...] = (
    json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [LOG]}]}]}).encode(),
    json.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": [SUM]}]}]}).encode(),
    json.dumps(
        {"events": [{"eventName": "bailee.turn", "value": 1, "metadata": {"version": "1.2.3"}}]}
    ).encode(),
    json.dumps(EVENT).encode(),
    b'{"event_id":"' + b"a" * 32 + b'"}\n{"type":"event"}\n' + json.dumps(EVENT).encode() + b"\n",
    REPORT,
    b'{"rating":"1","version":"0.1.0"}',
    b'{"model":"claude-rehearsal-1","max_tokens":5,"messages":[{"role":"user","content":"hello"}]}',
    b"grant_type=urn:ietf:params:oauth:grant-type:device_code&device_code=x&client_id=bailee-cli",
    b"client_id=bailee-cli&machine=desk",
    b"\x0a\x10\x0a\x02\x0a\x00\x12\x0a\x0a\x00\x12\x06\x0a\x04\x62\x6f\x64\x79",
)
PIECES: tuple[bytes, ...] = (
    *(b'"', b"{", b"}", b"[", b"]", b"null", b"NaN", b"-1", b"1e999", b"\n", b"\r\n", b"%00", b"9" * 400),
    *(b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\\ud800", b"\xe2\x80\xae", b"../../etc/passwd"),
    b'"length":99999999999999999999',
)
WORDS = ("", "1", "-1", "x" * 3000, "..", "\u202e", "\x7f", "a b", "0b8f5c1e", "NaN", "%", "report-1")


@dataclass
class Found:
    """What went wrong, and how often each status was answered."""

    faults: list[str] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    requests: int = 0


@contextlib.contextmanager
def open_service(folder: Path) -> Iterator[tuple[Service, list[tuple[str, str]]]]:
    """Give a service, and the method and path of each of its endpoints."""
    told = folder / "routes.json"
    options = ("--upstream", "rehearsal", "--intake-rate", "1000000")
    with serving(folder / "state", folder, *options, changes=TELL.format(path=str(told))) as service:
        routes = [(method, path) for methods, path in json.loads(told.read_text()) for method in methods]
        yield service, [*routes, *MODEL]


def fuzz(service: Service, routes: list[tuple[str, str]], seconds: float, seed: int) -> Found:
    """Send for some seconds, and return what was found."""
    chance = random.Random(seed)
    keys = ["", "bailee_0000", make_key(service.home), make_key(service.home), "\u00e9" * 10]
    found, until = Found(), time.monotonic() + seconds
    connection = http.client.HTTPConnection(*service.address, timeout=30)
    while time.monotonic() < until and len(found.faults) < 20:
        method, path = chance.choice(routes)
        if chance.random() < 0.05:
            method = chance.choice(("GET", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD"))
        target, headers, body = _make_path(chance, path), _make_headers(chance, keys), _make_body(chance)
        if (coding := chance.choice((None, None, None, *CODINGS))) is not None:
            body = CODINGS[coding](body) if chance.random() < 0.7 else body
            headers["Content-Encoding"] = coding if chance.random() < 0.9 else f"{coding}, gzip"
        try:
            connection.request(method, target, body, headers)
            response = connection.getresponse()
            answer, status = response.read(), response.status
        except (http.client.HTTPException, OSError) as fault:
            connection.close()
            connection = http.client.HTTPConnection(*service.address, timeout=30)
            # A connection may be closed on what is no HTTP; a service that does not answer may not.
            status, answer = 0, type(fault).__name__.encode()
            if isinstance(fault, TimeoutError):
                found.faults.append(f"{method} {target[:200]}: no answer to {body[:200]!r}")
        found.requests += 1
        found.statuses[status] += 1
        if (status >= 500 and status != 503) or b"Traceback" in answer:
            found.faults.append(
                f"{method} {target[:200]} {headers}: {status} {answer[:300]!r} to {body[:500]!r}"
            )
    connection.close()
    if "Traceback" in service.errors:
        found.faults.append(service.errors[-3000:])
    return found


def _make_path(chance: random.Random, path: str) -> str:
    parts = []
    for part in path.split("/"):
        if part.startswith("{"):
            word = chance.choice(WORDS) if chance.random() < 0.7 else str(chance.randrange(100))
            parts.append(quote(word, safe=""))
        else:
            parts.append(part)
    target = "/".join(parts)
    if chance.random() < 0.3:
        names = ("k", "gz", "se", "sentry_key", "st", "since", "x")
        pairs = [
            f"{chance.choice(names)}={quote(chance.choice(WORDS), safe='')}"
            for _ in range(chance.randrange(4))
        ]
        target += "?" + "&".join(pairs)
    return target


def _make_headers(chance: random.Random, keys: list[str]) -> dict[str, str]:
    key = chance.choice((*keys, keys[2], keys[2], keys[2]))
    name = chance.choice(("Authorization", "Authorization", "x-api-key", "X-Sentry-Auth", "statsig-api-key"))
    value = {"Authorization": f"Bearer {key}", "X-Sentry-Auth": f"Sentry sentry_key={key}"}.get(name, key)
    headers = {name: value, "Content-Type": chance.choice(TYPES)}
    if chance.random() < 0.1:
        headers["X-Bailee-Session"] = "".join(
            chance.choice("ab/.\u00e9%") for _ in range(chance.randrange(300))
        )
    return headers


def _make_body(chance: random.Random) -> bytes:
    if chance.random() < 0.1:
        return chance.randbytes(chance.randrange(2000))
    body = bytearray(chance.choice(SEEDS))
    for _ in range(chance.choice((0, 1, 1, 2, 3, 8))):
        at = chance.randrange(len(body) + 1)
        match chance.randrange(5):
            case 0:
                body[at:at] = chance.choice(PIECES)
            case 1:
                del body[at : at + chance.randrange(1, 20)]
            case 2:
                body[at : at + 1] = chance.randbytes(1)
            case 3:
                end = min(len(body), at + chance.randrange(1, 60))
                body[at:at] = body[at:end] * chance.randrange(1, 30)
            case 4:
                other = chance.choice(SEEDS)
                begin = chance.randrange(len(other))
                body[at:at] = other[begin : begin + chance.randrange(1, 200)]
    return bytes(body)


def main(seconds: float, seed: int) -> int:
    """Fuzz, and tell what was found."""
    with tempfile.TemporaryDirectory() as folder, open_service(Path(folder)) as (service, routes):
        found = fuzz(service, routes, seconds, seed)
    told = ", ".join(f"{status}: {count}" for status, count in sorted(found.statuses.items()))
    sys.stdout.write(f"seed {seed}, {found.requests} requests to {len(routes)} endpoints; {told}\n")
    for fault in found.faults:
        sys.stdout.write(f"FAULT {fault}\n")
    return bool(found.faults)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns() % 2**32))
