"""HTTP as agents and networks do it: kept-alive, pipelined, broken, too large."""

import contextlib
import json
import time

import pytest

from counterparts.agents import exchange, prompt
from counterparts.answers import whole_answer
from counterparts.gates import Gate
from counterparts.holdings import read_exchanges
from counterparts.upstreams import Visit


def test_connections_are_kept_on_both_sides(gate: Gate) -> None:
    """Requests one after another use one connection of the agent and one to the upstream."""
    with gate.connect() as agent:
        agent.ask("kept", prompt("0", stream=False))
        visit = gate.upstream.accept()
        for number in range(5):
            _, body = visit.read_request()
            assert json.loads(body)["messages"][0]["content"] == str(number)
            visit.send(whole_answer(f"answer {number}"))
            assert f"answer {number}".encode() in agent.read_answer().body
            if number < 4:
                agent.ask("kept", prompt(str(number + 1), stream=False))
        assert not gate.upstream.has_visitor()
        visit.close()


def test_a_connection_the_upstream_closed_is_replaced(gate: Gate) -> None:
    """A kept connection that turns out to be closed costs the agent nothing: the request goes again."""
    with gate.connect() as agent:
        agent.ask("stale", prompt("first", stream=False))
        visit = gate.upstream.accept()
        visit.read_request()
        visit.send(whole_answer("first"))
        assert agent.read_answer().status == 200
        agent.ask("stale", prompt("second", stream=False))
        visit.read_request()
        visit.close()  # after taking the request: the race that a kept connection always has
        fresh = gate.upstream.accept()
        fresh.read_request()
        fresh.send(whole_answer("second"))
        assert b"second" in agent.read_answer().body
        fresh.close()
    assert [one.state for one in read_exchanges(gate.home, "stale")] == ["complete", "complete"]


def test_a_request_is_not_sent_twice_once_an_answer_began(gate: Gate) -> None:
    """After the first byte of an answer nothing is tried again: the agent is told."""
    with gate.connect() as agent:
        agent.ask("once", prompt("first", stream=False))
        visit = gate.upstream.accept()
        visit.read_request()
        visit.send(whole_answer("first"))
        agent.read_answer()
        agent.ask("once", prompt("second", stream=False))
        visit.read_request()
        visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        visit.close()
        assert not agent.read_answer().is_whole
    assert not gate.upstream.has_visitor()


def test_pipelined_requests_are_not_answered_for_each_other(gate: Gate) -> None:
    """Of two requests sent at once the first is answered, then the connection closes (RFC 9112 9.3.2)."""
    with gate.connect() as agent:
        body = prompt("first", stream=False)
        both = agent.head(len(body), "pipelined") + body
        agent.socket.sendall(both + both)
        visit = gate.upstream.accept()
        visit.read_request()
        visit.send(whole_answer("only the first"))
        assert b"only the first" in agent.read_answer().body
        with contextlib.suppress(ConnectionResetError):
            assert agent.socket.recv(1) == b""
        visit.close()
    assert len(read_exchanges(gate.home, "pipelined")) == 1
    assert not gate.upstream.has_visitor()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"POST /v1/messages HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\nbad header\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\nTransfer-Encoding: chunked\r\nX-Api-Key: KEY\r\n\r\nZZ\r\n",
    ],
)
def test_malformed_requests_go_nowhere(gate: Gate, request_bytes: bytes) -> None:
    """Bytes that are no HTTP, or two readings of one request, end the connection; the service lives on."""
    with gate.connect() as agent:
        agent.socket.sendall(request_bytes.replace(b"KEY", gate.key.encode()))
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while data := agent.socket.recv(65536):
                received += data
    assert received.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 401 ")) or received == b""
    assert b"Traceback" not in received
    assert not gate.upstream.has_visitor()
    with gate.connect() as agent:
        assert exchange(agent, gate.upstream, "after-malformed", "still there").status == 200


def test_a_body_too_large_is_refused_before_it_is_read(gate: Gate) -> None:
    """Beyond 40 MiB the agent gets a 413 in the API's shape, and the upstream hears nothing."""
    with gate.connect() as agent:
        agent.socket.sendall(agent.head(41 * 1024 * 1024, "too-large"))
        block = bytes(1024 * 1024)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(41):
                agent.socket.sendall(block)
        answer = agent.read_answer()
    assert answer.status == 413
    assert answer.error[0] == "request_too_large"
    assert not gate.upstream.has_visitor()


def test_expect_continue_is_answered_only_to_who_may(gate: Gate) -> None:
    """A client that asks first is told to go on with a key, and refused without one, its body unsent."""
    with gate.connect() as agent:
        agent.socket.sendall(agent.head(2, "expect", {"Expect": "100-continue"}))
        assert agent.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        agent.socket.sendall(b"{}")
        visit = gate.upstream.accept()
        head, body = visit.read_request()
        assert body == b"{}"
        assert b"expect:" not in head.lower()
        visit.send(whole_answer("done"))
        assert agent.read_answer().status == 200
        visit.close()
    with gate.connect("wrong") as agent:
        agent.socket.sendall(agent.head(2, "expect", {"Expect": "100-continue"}))
        assert agent.read_answer().status == 401


def test_http_1_0_gets_an_answer_and_an_end(gate: Gate) -> None:
    """A client that speaks HTTP/1.0 gets its answer, and the connection closes after it."""
    with gate.connect() as agent:
        head = f"POST /v1/messages HTTP/1.0\r\nX-Api-Key: {gate.key}\r\nContent-Length: 2\r\n\r\n{{}}"
        agent.socket.sendall(head.encode())
        visit = gate.upstream.accept()
        visit.read_request()
        visit.send(whole_answer("old"))
        received = b""
        while data := agent.socket.recv(65536):
            received += data
        visit.close()
    assert b"old" in received


def test_a_request_in_pieces_is_one_request(gate: Gate) -> None:
    """Head and body may come byte by byte."""
    with gate.connect() as agent:
        body = prompt("in pieces", stream=False)
        for byte in agent.head(len(body), "pieces") + body:
            agent.socket.sendall(bytes([byte]))
        visit = gate.upstream.accept()
        assert visit.read_request()[1] == body
        visit.send(whole_answer("whole"))
        assert agent.read_answer().is_whole
        visit.close()


def test_an_upstream_that_is_not_http_is_a_502(gate: Gate) -> None:
    """Nonsense from the upstream reaches the agent as an error it can read, and the record as a failure."""
    with gate.connect() as agent:
        agent.ask("nonsense", prompt("x"))
        visit = gate.upstream.accept()
        visit.read_request()
        visit.send(b"SSH-2.0-OpenSSH_9.2\r\n")
        answer = agent.read_answer()
        visit.close()
    assert answer.status == 502
    assert "not HTTP" in answer.error[1]
    wait_until_failed(gate, "nonsense")


def wait_until_failed(gate: Gate, session: str) -> None:
    """Wait until the session's exchange is marked as the upstream's failure."""
    deadline = time.monotonic() + 10
    while [one.state for one in read_exchanges(gate.home, session)] != ["upstream_failed"]:
        assert time.monotonic() < deadline, read_exchanges(gate.home, session)
        time.sleep(0.02)


def test_bytes_nobody_asked_for_end_a_connection(gate: Gate) -> None:
    """An upstream that talks on after its answer loses the connection: no later agent gets the rest."""
    with gate.connect() as agent:
        agent.ask("extra", prompt("a", stream=False))
        visit: Visit = gate.upstream.accept()
        visit.read_request()
        visit.send(whole_answer("mine"))
        assert b"mine" in agent.read_answer().body
        visit.send(whole_answer("nobody's"))
        visit.wait_for_end()
        agent.ask("extra", prompt("b", stream=False))
        fresh = gate.upstream.accept()
        fresh.read_request()
        fresh.send(whole_answer("mine again"))
        assert b"mine again" in agent.read_answer().body
        fresh.close()
        visit.close()
