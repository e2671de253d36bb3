"""What the upstream gets is what the agent sent, and what the agent gets is what the upstream sent."""

import gzip
import json
import random
from pathlib import Path

import pytest

from counterparts.agents import Agent
from counterparts.answers import whole_answer
from counterparts.gates import UPSTREAM_KEY, Gate, open_gate
from counterparts.holdings import read_transcripts
from counterparts.upstreams import Visit

BODIES = {
    "odd-json": b'{ "b":1.0,"a" : 1e2,\t"a":"twice", "u":"\\u00e9\\/", "e":{} ,\r\n"messages":[ ]}\n\n',
    "not-json": b"model=claude&messages=none",
    "not-text": bytes(range(256)) * 3,
    "compressed": gzip.compress(b'{"messages":[]}' * 50, mtime=0),
    "nothing": b"",
    "looks-like-ours": b'{"role":"user","cache_control":{"type":"text"}}]' * 7,
    "ten-megabytes": random.Random(7).randbytes(10 * 1024 * 1024),
}


def read_headers(head: bytes) -> list[tuple[bytes, bytes]]:
    """Return a head's headers in order, spelled as they came."""
    lines = head.split(b"\r\n")[1:-2]
    return [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines)]


def send(agent: Agent, key: str, body: bytes, *headers: bytes, target: bytes = b"/v1/messages") -> None:
    """Send a request of which the test wrote every byte but the key."""
    lines = [b"POST " + target + b" HTTP/1.1", b"Host: gateway", b"x-api-key: " + key.encode(), *headers]
    agent.socket.sendall(b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", body]))


def answer(visit: Visit, agent: Agent) -> None:
    """Let the exchange end, so that the next test finds a quiet gate."""
    visit.send(whole_answer("done"))
    assert agent.read_answer().status == 200
    visit.close()


@pytest.mark.parametrize("name", BODIES)
def test_a_body_crosses_byte_for_byte(gate: Gate, name: str) -> None:
    """Whatever a body is, JSON or not, the upstream gets it unchanged, and so does the record."""
    body = BODIES[name]
    with gate.connect() as agent:
        send(agent, gate.key, body)
        visit = gate.upstream.accept()
        _, received = visit.read_request()
        assert received == body
        answer(visit, agent)
    assert body in [held.request.reveal() for held in read_transcripts(gate.home).values()]


def test_the_check_of_a_body_can_fail(tmp_path: Path) -> None:
    """Negative control: a gateway that reads a body as JSON and writes it again is noticed."""
    changes = (
        "import json, msgspec\n"
        "from bailee.flows.messages import exchanges\n"
        "began = exchanges.Exchange.__init__\n"
        "def begin(self, *given):\n"
        "    body = json.dumps(json.loads(given[6].body)).encode()\n"
        "    began(self, *given[:6], msgspec.structs.replace(given[6], body=body), *given[7:])\n"
        "exchanges.Exchange.__init__ = begin\n"
    )
    body = b'{"spaced":  "as the agent likes"}'
    with open_gate(tmp_path, changes=changes) as rewriting, rewriting.connect() as agent:
        send(agent, rewriting.key, body)
        visit = rewriting.upstream.accept()
        _, received = visit.read_request()
        answer(visit, agent)
    assert received != body


def test_a_chunked_body_arrives_whole(gate: Gate) -> None:
    """Chunks are framing, not content: the upstream gets the joined bytes and their length."""
    with gate.connect() as agent:
        head = f"POST /v1/messages HTTP/1.1\r\nHost: a\r\nX-Api-Key: {gate.key}\r\n".encode()
        agent.socket.sendall(head + b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"a":\r\n')
        agent.socket.sendall(b"3;x=y\r\n12}\r\n0\r\nTrailer: dropped\r\n\r\n")
        visit = gate.upstream.accept()
        head, body = visit.read_request()
        assert body == b'{"a":12}'
        assert b"chunked" not in head
        assert dict(read_headers(head))[b"Content-Length"] == b"8"
        answer(visit, agent)


HEADERS = [
    (b"anthropic-version", b"2023-06-01"),
    (b"Anthropic-Beta", b"one-2025-01-01,two"),
    (b"anthropic-beta", b"three"),
    (b"X-Unknown-To-Us", b"  kept as it is; q=1"),
    (b"aCCept", b"text/event-stream"),
    (b"Accept-Encoding", b"gzip, br"),
    (b"Content-Type", b"application/json; charset=latin1"),
    (b"X-Latin", b"caf\xe9"),
    (b"X-Empty", b""),
    (b"User-Agent", b"agent/1.0 (test)"),
    (b"X-Stainless-Retry-Count", b"0"),
]
STOPPED = [
    (b"Connection", b"keep-alive, X-Of-This-Connection"),
    (b"X-Of-This-Connection", b"1"),
    (b"Keep-Alive", b"timeout=5"),
    (b"TE", b"trailers"),
    (b"Proxy-Authorization", b"Basic xyz"),
    (b"X-Bailee-Session", b"named-by-us"),
]


def seen_headers(gate: Gate) -> list[tuple[bytes, bytes]]:
    """Send every kind of header and return what the upstream saw."""
    with gate.connect() as agent:
        mixed = [name + b": " + value for pair in zip(HEADERS, STOPPED, strict=False) for name, value in pair]
        mixed += [name + b": " + value for name, value in HEADERS[len(STOPPED) :]]
        send(agent, gate.key, b"{}", *mixed, target=b"/v1/messages?beta=true&x=%2F%20")
        visit = gate.upstream.accept()
        head, _ = visit.read_request()
        answer(visit, agent)
    assert head.startswith(b"POST /v1/messages?beta=true&x=%2F%20 HTTP/1.1\r\n")
    return read_headers(head)


def test_end_to_end_headers_cross_in_spelling_and_order(gate: Gate) -> None:
    """Betas, versions and unknown headers arrive as sent; what is for one connection or for us does not."""
    seen = seen_headers(gate)
    added = [
        (b"Host", f"127.0.0.1:{gate.upstream.port}".encode()),
        (b"x-api-key", UPSTREAM_KEY.encode()),
        (b"Content-Length", b"2"),
    ]
    assert [pair for pair in seen if pair not in added] == [(name, value.strip()) for name, value in HEADERS]
    assert [pair for pair in seen if pair in added] == [added[0], added[1], added[2]]


def test_our_key_never_reaches_the_upstream(gate: Gate) -> None:
    """However the agent presents its key, the upstream sees the operator's and nothing of ours."""
    key = gate.key.encode()
    for header in (b"X-API-Key: " + key, b"Authorization: Bearer " + key, b"x-bailee-key: " + key):
        with gate.connect() as agent:
            agent.socket.sendall(
                b"POST /v1/messages HTTP/1.1\r\nHost: a\r\n" + header + b"\r\nContent-Length: 2\r\n\r\n{}"
            )
            visit = gate.upstream.accept()
            visit.read_request()
            answer(visit, agent)
        assert key not in visit.received
        assert UPSTREAM_KEY.encode() in visit.received


def test_the_checks_of_headers_can_fail(tmp_path: Path) -> None:
    """Negative control: with the list of stopped headers emptied, the upstream sees them."""
    changes = "import bailee.flows.messages.headers as headers\nheaders._NOT_FORWARDED = frozenset()\n"
    with open_gate(tmp_path, changes=changes) as leaking:
        seen = seen_headers(leaking)
    assert (b"TE", b"trailers") in seen
    assert (b"X-Bailee-Session", b"named-by-us") in seen


ANSWERS = {
    "200": (b"200 OK", b'{"type":"message"}'),
    "400": (b"400 Bad Request", b'{"type":"error","error":{"type":"invalid_request_error","message":"m"}}'),
    "401": (b"401 Unauthorized", b'{"type": "error"}'),
    "404": (b"404 Not Found", b"\x00\xff not json"),
    "413": (b"413 Request Too Large", b"too large"),
    "429": (b"429 Too Many Requests", b'{"type":"error","error":{"type":"rate_limit_error","message":"m"}} '),
    "500": (b"500 Internal Server Error", b""),
    "529": (b"529 Site Overloaded", b'{"type":"error","error":{"type":"overloaded_error","message":"o"}}'),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_crosses_byte_for_byte(gate: Gate, name: str) -> None:
    """Status, reason, headers and body of any answer arrive as sent; only our exchange's id is added."""
    status, body = ANSWERS[name]
    lines = [
        b"HTTP/1.1 " + status,
        b"Date: Tue, 24 Nov 2026 00:00:00 GMT",
        b"Request-Id: req_1",
        b"retry-after: 7",
        b"X-Should-Retry: false",
        b"Set-Cookie: a=1",
        b"Set-Cookie: b=2",
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
    ]
    head = b"\r\n".join(lines)
    with gate.connect() as agent:
        send(agent, gate.key, b"{}")
        visit = gate.upstream.accept()
        visit.read_request()
        visit.send(head + b"\r\nConnection: close\r\nKeep-Alive: timeout=1\r\n\r\n" + body)
        visit.close()
        received = b""
        while not received.endswith(b"\r\n\r\n" + body) or not received:
            data = agent.socket.recv(65536)
            assert data, received
            received += data
        assert agent.is_silent()
    got_head, _, got_body = received.partition(b"\r\n\r\n")
    *relayed, ours = got_head.split(b"\r\n")
    assert ours.startswith(b"x-bailee-exchange: ")
    assert relayed == lines
    assert got_body == body


def test_an_answer_without_a_length_arrives_whole(gate: Gate) -> None:
    """An upstream that ends its answer by closing the connection (HTTP/1.0) is relayed to the last byte."""
    with gate.connect() as agent:
        send(agent, gate.key, b"{}")
        visit = gate.upstream.accept()
        visit.read_request()
        visit.send(b'HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{"until":')
        visit.send(b'"the end"}')
        visit.close()
        got = agent.read_answer()
    assert got.is_whole
    assert got.body == b'{"until":"the end"}'


def test_a_compressed_answer_is_relayed_compressed(gate: Gate) -> None:
    """The gateway neither decompresses what it relays nor asks for another coding."""
    body = gzip.compress(json.dumps({"usage": {"input_tokens": 3}}).encode(), mtime=0)
    with gate.connect() as agent:
        send(agent, gate.key, b"{}")
        visit = gate.upstream.accept()
        visit.read_request()
        visit.send(
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        got = agent.read_answer()
        visit.close()
    assert (got.body, got.headers["content-encoding"]) == (body, "gzip")


def test_an_interim_answer_is_not_taken_for_the_answer(gate: Gate) -> None:
    """A 103 before the answer does not end the exchange (RFC 9110 section 15.2)."""
    with gate.connect() as agent:
        send(agent, gate.key, b"{}")
        visit = gate.upstream.accept()
        visit.read_request()
        visit.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + whole_answer("after the hint"))
        got = agent.read_answer()
        visit.close()
    assert got.status == 200
    assert b"after the hint" in got.body


def ask_plainly(gate: Gate, method: bytes, target: bytes, *headers: bytes) -> bytes:
    """Send a request without a body on a connection of its own and return all that comes back."""
    with gate.connect() as agent:
        lines = [method + b" " + target + b" HTTP/1.1", b"Host: a", b"Connection: close", *headers]
        agent.socket.sendall(b"\r\n".join([*lines, b"", b""]))
        received = b""
        while data := agent.socket.recv(65536):
            received += data
    return received


def test_agents_find_somebody_there(gate: Gate) -> None:
    """`HEAD /` and `/api/hello`, which agents ask first, need no key and do not reach the upstream."""
    for method, target in (
        (b"HEAD", b"/"),
        (b"GET", b"/"),
        (b"HEAD", b"/api/hello"),
        (b"GET", b"/api/hello"),
    ):
        assert ask_plainly(gate, method, target).startswith(b"HTTP/1.1 200 OK\r\n")
    assert not gate.upstream.has_visitor()


def test_the_list_of_models_is_the_upstreams(gate: Gate) -> None:
    """`/v1/models` is asked of the upstream with the operator's key and answered with its bytes."""
    body = b'{"data":[{"id":"claude-x"}],"has_more":false}'
    with gate.connect() as agent:
        key = gate.key.encode()
        agent.socket.sendall(
            b"GET /v1/models?limit=1000 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + key + b"\r\n\r\n"
        )
        visit = gate.upstream.accept()
        while b"\r\n\r\n" not in visit.received:
            visit.received += visit.socket.recv(65536)
        assert visit.received.startswith(b"GET /v1/models?limit=1000 HTTP/1.1\r\n")
        assert key not in visit.received
        assert UPSTREAM_KEY.encode() in visit.received
        visit.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
        visit.send(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert agent.read_answer().body == body
        visit.close()
    refused = ask_plainly(gate, b"GET", b"/v1/models", b"x-api-key: wrong")
    assert refused.startswith(b"HTTP/1.1 401 ")


def test_what_is_no_model_traffic_goes_nowhere(gate: Gate) -> None:
    """A path that no flow declares is a 404 in the shape of the API, and the upstream hears nothing."""
    for method, target in (
        (b"POST", b"/v1/complete"),
        (b"GET", b"/v1/messages"),
        (b"DELETE", b"/v1/files/x"),
    ):
        received = ask_plainly(gate, method, target, b"x-api-key: " + gate.key.encode())
        head, _, body = received.partition(b"\r\n\r\n")
        assert head.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 405 ")), received
        assert json.loads(body)["type"] == "error"
    assert not gate.upstream.has_visitor()
