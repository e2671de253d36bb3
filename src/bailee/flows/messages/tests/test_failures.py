"""What is left when something breaks: agents that hang up, upstreams that die, processes that are killed."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bailee.vault.custody import open_custody
from bailee.vault.reader import list_sessions
from counterparts.agents import Agent, exchange, prompt
from counterparts.answers import STREAM_HEAD, stream_end, stream_start, stream_text, whole_answer
from counterparts.gates import Gate, open_gate
from counterparts.holdings import find_bytes, read_exchanges, read_transcripts, wait_until_ended
from counterparts.services import settle
from counterparts.upstreams import Visit, chunk
from counterparts.waiting import wait_for

CANARY = "a-canary-in-the-answer"
BEGUN = stream_start() + stream_text(CANARY)


@pytest.fixture
def own_gate(tmp_path: Path) -> Iterator[Gate]:
    """Give a service of this test's own, to be harmed."""
    with open_gate(tmp_path) as opened:
        yield opened


def begin(gate: Gate, agent: Agent, session: str) -> Visit:
    """Let an answer begin, as far as the agent has its first words."""
    agent.ask(session, prompt("go on"))
    visit = gate.upstream.accept()
    visit.read_request()
    visit.send(STREAM_HEAD + chunk(BEGUN))
    agent.read_until(BEGUN)
    return visit


# --- The agent ---


@pytest.mark.parametrize("how", ["close", "reset"])
def test_an_agent_that_hangs_up_leaves_a_marked_session(gate: Gate, how: str) -> None:
    """The upstream's connection closes at once, what came is kept and marked, and nothing leaks."""
    session = f"gone-{how}"
    with gate.connect() as warm:  # the first exchange opens databases and imports
        exchange(warm, gate.upstream, f"warm-{how}", "x")
    before = settle(gate.service)
    agent = gate.connect()
    visit = begin(gate, agent, session)
    getattr(agent, how)()
    visit.wait_for_end()
    visit.close()
    held = wait_until_ended(gate.home, session)
    assert (held.state, held.reason) == ("client_gone", "the agent closed the connection")
    assert (held.status, held.response_bytes, held.input_tokens) == (200, len(BEGUN), 11)
    assert read_transcripts(gate.home)[held.id].response.reveal() == BEGUN
    wait_for("all sockets to be closed", lambda: gate.service.descriptors() == before)


def test_an_agent_that_hangs_up_before_the_answer(gate: Gate) -> None:
    """Nothing came yet: the request is kept, the upstream's connection closes."""
    agent = gate.connect()
    agent.ask("gone-early", prompt("never mind"))
    visit = gate.upstream.accept()
    visit.read_request()
    agent.close()
    visit.wait_for_end()
    held = wait_until_ended(gate.home, "gone-early")
    assert (held.state, held.status, held.response_bytes) == ("client_gone", None, 0)


def test_an_agent_that_hangs_up_while_it_asks(gate: Gate) -> None:
    """Half a request is no request: nothing is sent, nothing is recorded."""
    agent = gate.connect()
    agent.socket.sendall(agent.head(1000, "half") + b"half of it")
    time.sleep(0.1)
    agent.close()
    time.sleep(0.1)
    assert not gate.upstream.has_visitor()
    assert read_exchanges(gate.home, "half") == []


# --- The upstream ---


@pytest.mark.parametrize("how", ["close", "reset"])
def test_an_upstream_that_dies_in_its_answer_is_visible(gate: Gate, how: str) -> None:
    """A cut answer reaches the agent as cut, never as whole, and is recorded as the upstream's failure."""
    session = f"died-{how}"
    with gate.connect() as agent:
        visit = begin(gate, agent, session)
        getattr(visit, how)()
        answer = agent.read_answer()
    assert answer.body == BEGUN
    assert not answer.is_whole
    held = wait_until_ended(gate.home, session)
    assert held.state == "upstream_failed"
    assert held.reason is not None
    assert "before its answer was whole" in held.reason
    assert read_transcripts(gate.home)[held.id].response.reveal() == BEGUN


def test_an_upstream_that_dies_before_its_answer_is_told(gate: Gate) -> None:
    """No byte of an answer: the agent gets a 502 in the API's shape, which its client tries again."""
    with gate.connect() as agent:
        agent.ask("died-early", prompt("x"))
        visit = gate.upstream.accept()
        visit.read_request()
        visit.reset()
        answer = agent.read_answer()
        assert answer.status == 502
        assert answer.error[0] == "api_error"
        assert exchange(agent, gate.upstream, "died-after", "the connection goes on").is_whole
    assert wait_until_ended(gate.home, "died-early").state == "upstream_failed"


def test_an_upstream_that_is_not_there_is_told(tmp_path: Path) -> None:
    """A refused connection is a 502 that names the address."""
    with open_gate(tmp_path) as opened:
        port = opened.upstream.port
        opened.upstream.close()
        with opened.connect() as agent:
            agent.ask("nobody", prompt("x"))
            answer = agent.read_answer()
    assert answer.status == 502
    assert f"127.0.0.1:{port}" in answer.error[1]
    assert read_exchanges(opened.home, "nobody")[0].state == "upstream_failed"


def test_a_silent_upstream_is_given_up(tmp_path: Path) -> None:
    """An upstream that says nothing for long is dropped and the agent told; here after a second."""
    changes = (
        "from bailee.flows.messages import exchanges, gateway\n"
        "exchanges.SILENCE_SECONDS = 1.0\n"
        "gateway.TICK_SECONDS = 0.2\n"
    )
    with open_gate(tmp_path, changes=changes) as opened, opened.connect() as agent:
        agent.ask("silent", prompt("x"))
        visit = opened.upstream.accept()
        visit.read_request()
        answer = agent.read_answer()
        visit.wait_for_end()
        assert (answer.status, answer.error[1]) == (502, "Bailee: the upstream was silent for 1 s.")
        assert wait_until_ended(opened.home, "silent").state == "upstream_failed"


# --- The service and its recorder ---


def test_what_an_agent_has_in_full_survives_kill_9(own_gate: Gate) -> None:
    """Killed right after an answer was complete for the agent, both processes have lost nothing of it."""
    with own_gate.connect() as agent:
        answer = exchange(agent, own_gate.upstream, "complete", CANARY)
        recorder = own_gate.service.recorder
        own_gate.service.process.kill()
        os.kill(recorder, signal.SIGKILL)
    own_gate.service.process.wait()
    (held,) = read_exchanges(own_gate.home, "complete")
    assert held.state == "complete"
    assert read_transcripts(own_gate.home)[held.id].response.reveal() == answer.body


def test_a_killed_service_leaves_a_marked_session(own_gate: Gate) -> None:
    """Killed in mid-stream: the recorder marks the session and ends; a new service goes on with it."""
    with own_gate.connect() as agent:
        visit = begin(own_gate, agent, "killed")
        own_gate.service.kill()
        assert not agent.read_answer().is_whole
        visit.wait_for_end()
    (held,) = read_exchanges(own_gate.home, "killed")
    assert (held.state, held.reason) == ("interrupted", "the service ended before the answer did")
    with open_gate(own_gate.home.parent) as again, again.connect() as agent:
        assert exchange(agent, again.upstream, "killed", "and on").is_whole
        assert [one.state for one in read_exchanges(again.home, "killed")] == ["interrupted", "complete"]
    assert not find_bytes(own_gate.home.parent, CANARY.encode())


def test_both_killed_leave_a_session_that_is_marked_at_the_next_start(own_gate: Gate) -> None:
    """With nobody left to write the end, the next service marks what it finds open."""
    with own_gate.connect() as agent:
        begin(own_gate, agent, "both")
        wait_for("the request on disk", lambda: read_exchanges(own_gate.home, "both"))
        os.kill(own_gate.service.recorder, signal.SIGKILL)
        own_gate.service.process.kill()
    own_gate.service.process.wait()
    assert read_exchanges(own_gate.home, "both")[0].state == "open"
    with open_gate(own_gate.home.parent):
        assert read_exchanges(own_gate.home, "both")[0].state == "interrupted"


def test_a_killed_recorder_stops_what_it_cannot_record(own_gate: Gate) -> None:
    """Its answers are cut, requests are refused until the next recorder is there, then all goes on."""
    with own_gate.connect() as agent:
        visit = begin(own_gate, agent, "unrecorded")
        wait_for("the request on disk", lambda: read_exchanges(own_gate.home, "unrecorded"))
        killed = own_gate.service.kill_recorder()
        assert not agent.read_answer().is_whole
        visit.wait_for_end()
    with own_gate.connect() as agent:
        agent.ask("refused", prompt("x"))
        answer = agent.read_answer()
        assert answer.status == 503
        assert "cannot be recorded" in answer.error[1]
        assert answer.headers["retry-after"] == "1"
    assert not own_gate.upstream.has_visitor()
    wait_for("another recorder", lambda: own_gate.service.find_recorder() not in (None, killed))
    wait_for("requests to be taken again", lambda: is_back(own_gate))
    assert read_exchanges(own_gate.home, "unrecorded")[0].state == "interrupted"


def lose_a_request(gate: Gate, session: str) -> None:
    """Let the upstream have a request of which the recorder has written nothing, kill that, and wait."""
    gate.service.stop_recorder()
    with gate.connect() as agent:
        agent.ask(session, prompt(CANARY))
        visit = gate.upstream.accept()
        visit.read_request()
        killed = gate.service.kill_recorder()
        assert agent.read_answer().status == 503
        visit.wait_for_end()
    wait_for("another recorder", lambda: gate.service.find_recorder() not in (None, killed))
    wait_for("requests to be taken again", lambda: is_back(gate))


def is_back(gate: Gate) -> bool:
    """Tell whether requests are forwarded and recorded."""
    with gate.connect() as agent:
        agent.ask("back", prompt("x", stream=False))
        try:
            visit = gate.upstream.accept(0.5)
        except TimeoutError:
            return False
        visit.read_request()
        visit.send(whole_answer("recorded again"))
        whole = agent.read_answer().is_whole
        visit.close()
        return whole


def test_what_was_forwarded_is_on_record_though_its_recorder_died(own_gate: Gate) -> None:
    """A recorder killed before its first write: the next one is given the request, marked as interrupted."""
    lose_a_request(own_gate, "lost")
    (held,) = read_exchanges(own_gate.home, "lost")
    assert (held.state, held.is_kept) == ("interrupted", True)
    assert held.reason == "the recorder ended before the answer was on record"
    assert CANARY.encode() in read_transcripts(own_gate.home)[held.id].request.reveal()
    assert "Traceback" not in own_gate.service.errors


def test_the_check_of_lost_requests_can_fail(tmp_path: Path) -> None:
    """Negative control: a service that forgets what its recorder had not written leaves no trace of it."""
    changes = (
        "from bailee.vault.recording import Recording\n"
        "go_on = Recording._go_on\n"
        "def forget(self, durable):\n"
        "    self._unsettled.clear()\n"
        "    go_on(self, durable)\n"
        "Recording._go_on = forget\n"
    )
    with open_gate(tmp_path, changes=changes) as opened:
        lose_a_request(opened, "lost")
        assert read_exchanges(opened.home, "lost") == []


def erase_and_kill(gate: Gate) -> bool:
    """Erase a session in mid-stream, kill the recorder, and tell whether anything of it came back."""
    with gate.connect() as agent:
        visit = begin(gate, agent, "erased")
        wait_for("the request on disk", lambda: read_exchanges(gate.home, "erased"))
        custody = open_custody(gate.home)
        (account,) = {one.account for one in list_sessions(custody.vault) if one.id == "erased"}
        custody.erase_session(account, "erased", by="test")
        custody.close()
        gate.service.kill_recorder()
        assert not agent.read_answer().is_whole
        visit.wait_for_end()
    wait_for("requests to be taken again", lambda: is_back(gate))
    return bool(read_exchanges(gate.home, "erased"))


def test_what_was_erased_does_not_come_back_with_the_next_recorder(own_gate: Gate) -> None:
    """What was on disk, and is no longer, was erased: it is not given to the next recorder."""
    assert not erase_and_kill(own_gate)


def test_the_check_of_what_comes_back_can_fail(tmp_path: Path) -> None:
    """Negative control: a service that gives everything again brings the session back."""
    changes = (
        "from bailee.vault.recording import Recording\n"
        "hand_over = Recording.begin\n"
        "def begin(self, frame, decided):\n"
        "    hand_over(self, frame, decided)\n"
        "    self._unsettled[frame.exchange].sent = 2**60\n"
        "Recording.begin = begin\n"
    )
    with open_gate(tmp_path, changes=changes) as opened:
        assert erase_and_kill(opened)


def test_nothing_is_forwarded_while_there_is_no_recorder(own_gate: Gate) -> None:
    """A request that was admitted is refused if the recorder is gone once its body is whole."""
    body = prompt(CANARY)
    with own_gate.connect() as agent:
        agent.socket.sendall(agent.head(len(body), "gap"))
        time.sleep(0.2)
        own_gate.service.kill_recorder()
        time.sleep(0.2)
        agent.socket.sendall(body)
        answer = agent.read_answer()
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert "cannot be recorded" in answer.error[1]
    assert not own_gate.upstream.has_visitor()
    wait_for("requests to be taken again", lambda: is_back(own_gate))
    assert "Traceback" not in own_gate.service.errors


def test_a_recorder_that_stands_still_ends_the_wait(tmp_path: Path) -> None:
    """An answer whose record does not become durable is broken off after a while; here after a second."""
    changes = (
        "from bailee.flows.messages import exchanges, gateway\n"
        "exchanges.DURABLE_SECONDS = 1.0\n"
        "gateway.TICK_SECONDS = 0.2\n"
    )
    with open_gate(tmp_path, changes=changes) as opened:
        opened.service.stop_recorder()
        try:
            with opened.connect() as agent:
                visit = begin(opened, agent, "still")
                visit.send(chunk(stream_end()) + b"0\r\n\r\n")
                agent.socket.settimeout(10)
                assert not agent.read_answer().is_whole
                visit.close()
        finally:
            opened.service.continue_recorder()
        assert wait_until_ended(opened.home, "still").state == "complete"


def test_a_recorder_that_falls_behind_turns_requests_away(tmp_path: Path) -> None:
    """What cannot be recorded in time is refused with 529 and not piled up in memory."""
    changes = "from bailee.vault import recording\nrecording.OUTSTANDING_BYTES = 4 * 1024 * 1024\n"
    with open_gate(tmp_path, changes=changes) as opened:
        opened.service.stop_recorder()
        body = prompt("x" * 3 * 1024 * 1024)
        with opened.connect() as first, opened.connect() as second, opened.connect() as third:
            for agent in (first, second):
                agent.ask("behind", body)
                opened.upstream.accept().read_request()
            third.ask("behind", body)
            answer = third.read_answer()
            assert (answer.status, answer.error[0]) == (529, "overloaded_error")
            assert answer.headers["retry-after"] == "1"
        opened.service.continue_recorder()


def test_sigterm_lets_answers_end(own_gate: Gate) -> None:
    """Asked to end, the service takes nothing new, lets a running answer finish, and exits with 0."""
    with own_gate.connect() as agent:
        visit = begin(own_gate, agent, "last")
        own_gate.service.process.terminate()
        time.sleep(0.3)
        with pytest.raises(ConnectionRefusedError):
            own_gate.connect()
        visit.send(chunk(stream_end()) + b"0\r\n\r\n")
        assert agent.read_answer().is_whole
        visit.close()
    assert own_gate.service.end() == 0
    assert read_exchanges(own_gate.home, "last")[0].state == "complete"
    assert not (own_gate.home / "service.json").exists()


def test_a_full_disk_refuses_and_loses_nothing(tmp_path: Path) -> None:
    """On a disk without room requests are refused with the reason; with room again, service goes on."""
    disk = tmp_path / "disk"
    disk.mkdir()
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    options = f"size=12m,mode=0700,uid={os.geteuid()}"
    subprocess.run([*as_root, "mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], check=True)
    try:
        with open_gate(disk) as opened:
            with opened.connect() as agent:
                assert exchange(agent, opened.upstream, "before", CANARY).is_whole
            filler = disk / "filler"
            with filler.open("wb", buffering=0) as file:
                try:
                    while file.write(bytes(65536)):
                        pass
                except OSError:
                    pass
            asked = os.urandom(300_000)
            with opened.connect() as agent:
                agent.ask("full", asked)
                visit = opened.upstream.accept()
                visit.read_request()
                visit.send(STREAM_HEAD + chunk(BEGUN + stream_end()) + b"0\r\n\r\n")
                assert not agent.read_answer().is_whole
                visit.close()
            # No recorder that is started meanwhile, one a second, lets a request through to be lost.
            until = time.monotonic() + 3.5
            while time.monotonic() < until:
                with opened.connect() as agent:
                    agent.ask("refused", prompt("x"))
                    assert agent.read_answer().status == 503
                time.sleep(0.1)
            assert not opened.upstream.has_visitor()
            filler.unlink()
            wait_for("requests to be taken again", lambda: is_back(opened))
            (held,) = read_exchanges(opened.home, "full")
            assert (held.state, held.request_bytes) == ("interrupted", len(asked))
            assert read_transcripts(opened.home)[held.id].request.reveal() == asked
            assert read_exchanges(opened.home, "before")[0].state == "complete"
            assert any(CANARY in text for text in texts(opened.home))
    finally:
        subprocess.run([*as_root, "umount", str(disk)], check=True)
        shutil.rmtree(disk)


def texts(home: Path) -> list[str]:
    """Return what was asked and answered, as text."""
    return [
        part.reveal().decode("utf-8", "replace")
        for held in read_transcripts(home).values()
        for part in (held.request, held.response)
    ]
