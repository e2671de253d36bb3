"""Streams are relayed as they come; only the end waits for the record."""

import json
import socket
import threading
import time
from pathlib import Path

import pytest

from counterparts.agents import Agent, prompt
from counterparts.answers import LAST_EVENT, STREAM_HEAD, event, stream_end, stream_start, stream_text
from counterparts.gates import Gate, open_gate
from counterparts.holdings import read_exchanges, read_transcripts
from counterparts.upstreams import Visit, chunk
from counterparts.waiting import wait_for

PING = event("ping")


def begin(gate: Gate, agent: Agent, session: str) -> Visit:
    """Send a prompt and let the upstream begin a stream."""
    agent.ask(session, prompt("go on"))
    visit = gate.upstream.accept()
    visit.read_request()
    visit.send(STREAM_HEAD)
    return visit


def count_arriving(gate: Gate, events: list[bytes]) -> int:
    """Send each event once the one before has arrived; return how many did in time."""
    arrived = 0
    with gate.connect() as agent:
        visit = begin(gate, agent, "one-by-one")
        try:
            agent.socket.settimeout(2.0)
            agent.read_head()
            for sent in events:
                visit.send_chunk(sent)
                assert agent.read_until(sent).body.endswith(sent)
                arrived += 1
        except TimeoutError:
            return arrived
        agent.socket.settimeout(30)
        visit.send_chunk(stream_end())
        visit.send(b"0\r\n\r\n")
        assert agent.read_answer().is_whole
        visit.close()
    return arrived


EVENTS = [stream_start(), PING, *(stream_text(f"word {number}") for number in range(20))]


def test_each_event_arrives_before_the_next_is_sent(gate: Gate) -> None:
    """The upstream sends event N+1 only once the agent has event N; nothing is held back on the way."""
    assert count_arriving(gate, EVENTS) == len(EVENTS)


def test_the_check_of_events_can_fail(tmp_path: Path) -> None:
    """Negative control: a gateway that passes events on two by two is noticed."""
    changes = (
        "from bailee.flows.messages import exchanges\n"
        "write, held = exchanges.Exchange._write, []\n"
        "def write_two(self, data):\n"
        "    held.append(data)\n"
        "    if len(held) == 2:\n"
        "        write(self, b''.join(held))\n"
        "        held.clear()\n"
        "exchanges.Exchange._write = write_two\n"
    )
    with open_gate(tmp_path, changes=changes) as collecting:
        assert count_arriving(collecting, EVENTS) < len(EVENTS)


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_bytes_split_anywhere_arrive_the_same(gate: Gate, size: int) -> None:
    """However the upstream's bytes are cut, in chunks, frames or packets, the agent gets the same body."""
    body = stream_start() + "".join("é – 日本語 " * 5).encode() + PING + stream_text("x" * 300) + stream_end()
    session = f"split-{size}"
    with gate.connect() as agent:
        visit = begin(gate, agent, session)
        framed = chunk(body[:100]) + chunk(body[100:101]) + chunk(body[101:]) + b"0\r\n\r\n"
        for start in range(0, len(framed), size):
            visit.send(framed[start : start + size])
        got = agent.read_answer()
        visit.close()
    assert got.is_whole
    assert got.body == body
    (exchange,) = read_exchanges(gate.home, session)
    assert exchange.state == "complete"
    assert (exchange.input_tokens, exchange.output_tokens, exchange.stop_reason) == (11, 22, "end_turn")
    assert read_transcripts(gate.home)[exchange.id].response.reveal() == body


def test_an_error_in_the_stream_arrives_as_it_is(gate: Gate) -> None:
    """An error event after a 200 is the agent's to read; the exchange counts as complete."""
    failure = event("error", error={"type": "overloaded_error", "message": "Overloaded"})
    with gate.connect() as agent:
        visit = begin(gate, agent, "error-event")
        visit.send(chunk(stream_start()) + chunk(failure) + b"0\r\n\r\n")
        assert agent.read_answer().body == stream_start() + failure
        visit.close()
    (exchange,) = read_exchanges(gate.home, "error-event")
    assert (exchange.state, exchange.status) == ("complete", 200)


def stream_to_the_end(gate: Gate, session: str) -> bool:
    """Stand the recorder still, send a whole stream, and tell whether its end reached the agent."""
    with gate.connect() as agent:
        visit = begin(gate, agent, session)
        visit.send_chunk(stream_start())
        agent.read_until(stream_start())
        gate.service.stop_recorder()
        try:
            visit.send(chunk(stream_text("all but the end") + stream_end()) + b"0\r\n\r\n")
            before = agent.read_until(b"")
            deadline = time.monotonic() + 1.0
            agent.socket.settimeout(0.1)
            while time.monotonic() < deadline and not before.body.endswith(LAST_EVENT):
                try:
                    agent._read_more()
                except TimeoutError:
                    continue
            came = before.body.endswith(LAST_EVENT)
            assert b"all but the end" in before.body
        finally:
            gate.service.continue_recorder()
        agent.socket.settimeout(30)
        assert agent.read_answer().body.endswith(LAST_EVENT)
        visit.close()
    return came


def test_the_end_waits_for_the_record(gate: Gate) -> None:
    """While the recorder stands still, all of the answer arrives but its last event."""
    assert not stream_to_the_end(gate, "held-back")


def test_the_check_of_the_end_can_fail(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Negative control: a gateway that relays the end at once is noticed."""
    changes = (
        "from bailee.flows.messages import exchanges\n"
        "def relay(self, data, is_whole):\n"
        "    self._write(data)\n"
        "exchanges.Exchange._relay = relay\n"
    )
    with open_gate(tmp_path_factory.mktemp("hasty"), changes=changes) as hasty:
        assert stream_to_the_end(hasty, "not-held-back")


def memory(process: int) -> int:
    """Return the resident memory of a process, in bytes."""
    with Path(f"/proc/{process}/status").open() as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


def test_a_slow_agent_slows_the_upstream(gate: Gate) -> None:
    """An agent that does not read stops the upstream; the gateway does not collect the answer."""
    with gate.connect() as agent:
        agent.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        visit = begin(gate, agent, "slow")
        before = memory(gate.service.process.pid)
        visit.socket.settimeout(1.0)
        block = chunk(stream_text("z" * 65536))
        sent = 0
        try:
            while sent < 256 * 1024 * 1024:
                visit.socket.sendall(block)
                sent += len(block)
        except TimeoutError:
            pass
        assert sent < 64 * 1024 * 1024, "the upstream was never held up"
        assert memory(gate.service.process.pid) - before < 64 * 1024 * 1024
        visit.socket.settimeout(30)
    visit.wait_for_end()

    def gone() -> bool:
        return read_exchanges(gate.home, "slow")[0].state == "client_gone"

    wait_for("the end of the slow exchange", gone)


def test_a_slow_agent_leaves_a_usable_connection(gate: Gate) -> None:
    """An agent that stops reading at the very end of an answer does not stop the next on that connection."""
    words = stream_text("y" * 8 * 1024 * 1024)
    with gate.connect() as slow:
        slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        visit = begin(gate, slow, "slow-end")
        visit.send(chunk(stream_start()))
        slow.read_until(stream_start())
        # Beside: the kernel does not always take all of it while the agent reads nothing.
        sending = threading.Thread(target=visit.send, args=(chunk(words[:-2048]),))
        sending.start()
        time.sleep(0.2)  # the gateway's buffers are full, and the agent reads nothing
        slow.read_until(words[:-2048])
        sending.join()
        visit.send(chunk(words[-2048:] + stream_end()) + b"0\r\n\r\n")
        assert slow.read_answer().is_whole
        with gate.connect() as next_one:
            next_one.ask("after-slow", prompt("next"))
            visit.read_request()
            visit.send(STREAM_HEAD + chunk(stream_start() + stream_end()) + b"0\r\n\r\n")
            assert next_one.read_answer().is_whole
    visit.close()


def test_many_streams_run_beside_each_other(gate: Gate) -> None:
    """Forty streams, fed in turns, each carry their own words and no other's."""
    agents = [gate.connect() for _ in range(40)]
    visits: list[Visit] = []
    for number, agent in enumerate(agents):
        agent.ask(f"beside-{number}", prompt(f"number {number}"))
        visit = gate.upstream.accept()
        _, body = visit.read_request()
        assert json.loads(body)["messages"][0]["content"] == f"number {number}"
        visits.append(visit)
    for visit in visits:
        visit.send(STREAM_HEAD + chunk(stream_start()))
    for turn in range(5):
        for number, visit in enumerate(visits):
            visit.send_chunk(stream_text(f"<{number}:{turn}>"))
    for visit in visits:
        visit.send(chunk(stream_end()) + b"0\r\n\r\n")
    for number, agent in enumerate(agents):
        words = b"".join(stream_text(f"<{number}:{turn}>") for turn in range(5))
        assert agent.read_answer().body == stream_start() + words + stream_end()
        agent.close()
    for visit in visits:
        visit.close()
