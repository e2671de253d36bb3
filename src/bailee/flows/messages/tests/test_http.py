"""HTTP as agents and networks do it: kept-alive, pipelined, broken, too large."""

import contextlib
import json
import socket
import time
from pathlib import Path

import pytest

from counterparts.agents import exchange, prompt
from counterparts.answers import STREAM_HEAD, stream_end, stream_start, whole_answer
from counterparts.gates import Gate, open_gate
from counterparts.holdings import read_exchanges
from counterparts.upstreams import Visit, chunk


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


def test_a_request_the_upstream_took_is_not_sent_twice(gate: Gate) -> None:
    """A kept connection that closes a while after the request may have been billed: the agent is told."""
    with gate.connect() as agent:
        agent.ask("taken", prompt("first", stream=False))
        visit = gate.upstream.accept()
        visit.read_request()
        visit.send(whole_answer("first"))
        assert agent.read_answer().status == 200
        agent.ask("taken", prompt("second", stream=False))
        visit.read_request()
        time.sleep(0.2)
        visit.close()
        assert agent.read_answer().status == 502
    assert not gate.upstream.has_visitor()


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
    assert received.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 401 "))
    told = json.loads(received.partition(b"\r\n\r\n")[2])
    assert told["type"] == "error"
    assert told["error"]["message"].startswith("Bailee: ")
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


def test_two_answers_in_one_read_are_not_mixed(gate: Gate) -> None:
    """Of two answers to one request the agent gets the first, untouched, and the connection is not kept."""
    with gate.connect() as agent:
        agent.ask("two", prompt("a", stream=False))
        visit = gate.upstream.accept()
        visit.read_request()
        second = b'HTTP/1.1 201 Second\r\nX-Second: 1\r\nContent-Length: 13\r\n\r\n{"b":"OTHER"}'
        visit.send(whole_answer("mine") + second)
        answer = agent.read_answer()
        assert answer.status == 200
        assert "x-second" not in answer.headers
        assert answer.body == whole_answer("mine").partition(b"\r\n\r\n")[2]
        assert agent.is_silent()
        visit.wait_for_end()
        agent.ask("two", prompt("b", stream=False))
        fresh = gate.upstream.accept()
        fresh.read_request()
        fresh.send(whole_answer("mine again"))
        assert b"mine again" in agent.read_answer().body
        fresh.close()
        visit.close()


UPGRADES = {
    "h2c": {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"},
    "websocket": {"Connection": "keep-alive, Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "AAAA"},
}


@pytest.mark.parametrize("protocol", UPGRADES)
@pytest.mark.parametrize("is_cut", [False, True])
def test_a_request_to_upgrade_keeps_its_body(gate: Gate, protocol: str, is_cut: bool) -> None:
    """A client that offers another protocol is answered in this one, its body forwarded whole."""
    body = prompt("as it was", stream=False)
    session = f"upgrade-{protocol}-{is_cut}"
    with gate.connect() as agent:
        for turn in range(2):
            sent = agent.head(len(body), session, UPGRADES[protocol]) + body
            for piece in (sent[:50], sent[50:-20], sent[-20:]) if is_cut else (sent,):
                agent.socket.sendall(piece)
                time.sleep(0.05 if is_cut else 0)
            if turn == 0:
                visit = gate.upstream.accept()
            head, got = visit.read_request()
            assert got == body
            for name in (b"\r\nupgrade:", b"\r\nconnection:", b"\r\nhttp2-settings:"):
                assert name not in head.lower()
            visit.send(whole_answer("in HTTP/1.1"))
            assert agent.read_answer().is_whole
        visit.close()
    assert [one.request_bytes for one in read_exchanges(gate.home, session)] == [len(body), len(body)]


def test_a_request_to_upgrade_without_a_key_is_refused(gate: Gate) -> None:
    """The other protocol is no way around the key."""
    with gate.connect("wrong") as agent:
        agent.ask("upgrade", prompt("x"), UPGRADES["h2c"])
        assert agent.read_answer().status == 401
    assert not gate.upstream.has_visitor()


def test_trailers_are_no_headers(gate: Gate) -> None:
    """What follows a body in chunks becomes a header neither of the request nor of the answer."""
    with gate.connect() as agent:
        head = agent.head(0, "trailers").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
        agent.socket.sendall(head + b"2\r\n{}\r\n0\r\nX-Trailing: 1\r\nX-Api-Key: other\r\n\r\n")
        visit = gate.upstream.accept()
        received, body = visit.read_request()
        assert body == b"{}"
        assert b"x-trailing" not in received.lower()
        visit.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
            b"X-Trailing: 1\r\nContent-Type: text/event-stream\r\n\r\n"
        )
        answer = agent.read_answer()
        assert (answer.body, answer.is_whole) == (b"{}", True)
        assert not answer.headers.keys() & {"x-trailing", "content-type"}
        visit.close()


def flood(gate: Gate, start: bytes, block: bytes, count: int, *, head: bytes = b"") -> bytes:
    """Send a block again and again, and return all that comes back.

    Args:
        head: is sent before, and waited for until the service asks to go on: what comes with a head in one
            read is counted with it.
    """
    received = b""
    with gate.connect() as agent, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        if head:
            agent.socket.sendall(head)
            asked = b"HTTP/1.1 100 Continue\r\n\r\n"
            assert agent.socket.recv(len(asked), socket.MSG_WAITALL) == asked
        agent.socket.sendall(start)
        for _ in range(count):
            agent.socket.sendall(block)
        while data := agent.socket.recv(65536):
            received += data
    return received


@pytest.mark.parametrize("path", [b"/v1/messages", b"/v1/models", b"/other"])
@pytest.mark.parametrize("block", [b"X-Many: " + b"a" * 990 + b"\r\n", b"a" * 1000], ids=["many", "long"])
def test_headers_have_a_limit(gate: Gate, path: bytes, block: bytes) -> None:
    """Whoever has no key cannot make the service hold more than 64 KiB of a head."""
    start = b"POST " + path + b" HTTP/1.1\r\nHost: a\r\nX-One: b\r\nX-Long: "
    received = flood(gate, start, block, 100)
    assert received.startswith(b"HTTP/1.1 431 ")
    assert json.loads(received.partition(b"\r\n\r\n")[2])["error"]["type"] == "invalid_request_error"
    whole = start + block * 100 + b"\r\n\r\n"
    assert flood(gate, whole, b"", 0).startswith(b"HTTP/1.1 431 ")


def test_what_is_no_body_has_a_limit(gate: Gate) -> None:
    """A target, a trailer or the extension of a chunk is held no longer than a head."""
    with gate.connect() as agent:
        chunked = b"Expect: 100-continue\r\nTransfer-Encoding: chunked"
        head = agent.head(0, "long").replace(b"Content-Length: 0", chunked)
    assert flood(gate, b"POST /", b"a" * 1000, 100).startswith(b"HTTP/1.1 431 ")
    for start in (b"0\r\nX-Long: ", b"2;"):
        assert flood(gate, start, b"a" * 1000, 100, head=head).startswith(b"HTTP/1.1 431 ")
    assert not gate.upstream.has_visitor()


def test_large_headers_below_the_limit_pass(gate: Gate) -> None:
    """What an agent may send, with much to spare, is forwarded."""
    with gate.connect() as agent:
        agent.ask("large-head", prompt("x" * 300_000, stream=False), {"X-Large": "a" * 60_000})
        visit = gate.upstream.accept()
        assert b"a" * 60_000 in visit.read_request()[0]
        visit.send(whole_answer("fine"))
        assert agent.read_answer().status == 200
        visit.close()


def ask_in_http_1_0(gate: Gate, *answer: bytes) -> bytes:
    """Ask in HTTP/1.0, let the upstream answer and close, and return all that comes until the end."""
    with gate.connect() as agent:
        head = f"POST /v1/messages HTTP/1.0\r\nX-Api-Key: {gate.key}\r\nContent-Length: 2\r\n\r\n{{}}"
        agent.socket.sendall(head.encode())
        visit = gate.upstream.accept()
        visit.read_request()
        for piece in answer:
            visit.send(piece)
            time.sleep(0.1)
        visit.close()
        received = b""
        while data := agent.socket.recv(65536):
            received += data
    return received


def test_http_1_0_gets_no_chunks(gate: Gate) -> None:
    """A stream reaches a client of HTTP/1.0 as it is, until the connection closes (RFC 9112 section 6.1)."""
    stream = stream_start() + stream_end()
    head, _, body = ask_in_http_1_0(
        gate, STREAM_HEAD, chunk(stream[:50]), chunk(stream[50:]) + b"0\r\n\r\n"
    ).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert body == stream


def test_http_1_0_sees_a_cut(gate: Gate) -> None:
    """Where the end of the connection is the end of the answer, a cut is a reset."""
    with pytest.raises(ConnectionResetError):
        ask_in_http_1_0(gate, STREAM_HEAD, chunk(stream_start()))


def test_options_of_every_connection_header_stop_here(gate: Gate) -> None:
    """Headers that a second Connection header names are not forwarded either (RFC 9110 section 7.6.1)."""
    with gate.connect() as agent:
        head = agent.head(2, "options", {"Connection": "X-One", "X-One": "1", "X-Two": "2"})
        agent.socket.sendall(head[:-2] + b"Connection: keep-alive, X-Two\r\n\r\n{}")
        visit = gate.upstream.accept()
        received, _ = visit.read_request()
        assert b"x-one" not in received.lower()
        assert b"x-two" not in received.lower()
        visit.send(whole_answer("x"))
        assert agent.read_answer().status == 200
        visit.close()


def test_a_fault_nobody_thought_of_is_told(tmp_path: Path) -> None:
    """Whatever goes wrong before a request is sent, the agent has an answer at once, without its text."""
    changes = (
        "from bailee.flows.messages.upstreams.compatible import Compatible\n"
        "async def authorize(self, request):\n"
        "    raise RuntimeError('what nobody should read')\n"
        "Compatible.authorize = authorize\n"
    )
    with open_gate(tmp_path, changes=changes) as opened, opened.connect() as agent:
        agent.ask("fault", prompt("x"))
        answer = agent.read_answer()
        assert (answer.status, answer.error[0]) == (502, "api_error")
        assert answer.error[1] == "Bailee: the request could not be sent: RuntimeError."
        wait_until_failed(opened, "fault")
