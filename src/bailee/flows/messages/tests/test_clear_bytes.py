"""No byte of a prompt or an answer is in clear in any file, whatever happens to the exchange."""

import os
import signal
from pathlib import Path

from counterparts.agents import prompt
from counterparts.answers import STREAM_HEAD, stream_end, stream_start, stream_text, whole_answer
from counterparts.gates import Gate, open_gate
from counterparts.holdings import find_bytes, read_exchanges, read_transcripts, wait_until_ended
from counterparts.upstreams import chunk
from counterparts.waiting import wait_for

ASKED = "canary-asked-4f1d"
ANSWERED = "canary-answered-93be"
IN_HEADER = "canary-header-77aa"
IN_TOOL = "canary_in_a_tool"
PIECES = [piece.encode() for piece in (ASKED, ANSWERED, IN_HEADER, IN_TOOL)]
# The input of a tool that looks like an answer's facts, which are stored in clear; cut off before those come.
CUT = (
    b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n{"content":[{"type":'
    b'"tool_use","id":"t","name":"x","input":{"model":"%b","stop_reason":"%b","usage":{"input_tokens":777}}}]'
    % (IN_TOOL.encode(), IN_TOOL.encode())
)


def live_through_everything(gate: Gate) -> None:
    """Let exchanges succeed, fail, be refused, be cut, and the processes be killed."""
    sent = {"X-Note": IN_HEADER}
    with gate.connect() as agent:
        agent.ask("whole", prompt(ASKED), sent)
        visit = gate.upstream.accept()
        visit.read_request()
        visit.send(STREAM_HEAD + chunk(stream_start() + stream_text(ANSWERED) + stream_end()) + b"0\r\n\r\n")
        agent.read_answer()
        agent.ask("json", prompt(ASKED, stream=False), sent)
        visit.read_request()
        visit.send(whole_answer(ANSWERED))
        agent.read_answer()
        agent.ask("refused", ASKED.encode() + b'{"not": json', sent)
        visit.read_request()
        told = b'{"type":"error","error":{"type":"invalid_request_error","message":"' + ANSWERED.encode()
        visit.send(b"HTTP/1.1 400 Bad\r\nContent-Length: %d\r\n\r\n%s" % (len(told), told))
        agent.read_answer()
        agent.ask("not-http", prompt(ASKED), sent)
        visit.read_request()
        visit.send(ANSWERED.encode() + b"\r\n\r\n")
        agent.read_answer()
    cut_off(gate)
    with gate.connect("wrong-key") as agent:
        agent.ask("no-key", prompt(ASKED), sent)
        agent.read_answer()
    with gate.connect() as agent:
        agent.socket.sendall(agent.head(100_000_000, "too-large", sent) + ASKED.encode())
    with gate.connect() as agent:
        agent.socket.sendall(b"POST /v1/messages HTTP/1.1\r\n" + ASKED.encode() + b"\x00\r\n\r\n")
    agent = gate.connect()
    agent.ask("hung-up", prompt(ASKED), sent)
    visit = gate.upstream.accept()
    visit.read_request()
    visit.send(STREAM_HEAD + chunk(stream_start() + stream_text(ANSWERED)))
    agent.read_until(stream_text(ANSWERED))
    agent.close()
    visit.wait_for_end()
    with gate.connect() as agent:
        agent.ask("killed", prompt(ASKED), sent)
        visit = gate.upstream.accept()
        visit.read_request()
        visit.send(STREAM_HEAD + chunk(stream_start() + stream_text(ANSWERED)))
        agent.read_until(stream_text(ANSWERED))
        wait_for("the request on disk", lambda: read_exchanges(gate.home, "killed"))
        os.kill(gate.service.recorder, signal.SIGQUIT)  # would leave a core file where that is allowed
        gate.service.process.send_signal(signal.SIGQUIT)
        gate.service.process.wait()


def cut_off(gate: Gate, key: str | None = None) -> None:
    """Let an answer end in the middle of a tool's input."""
    with gate.connect(key) as agent:
        agent.ask("cut", prompt(ASKED, stream=False))
        visit = gate.upstream.accept()
        visit.read_request()
        visit.send(CUT)
        agent.read_until(CUT[-5:])
        visit.close()
        assert not agent.read_answer().is_whole
    wait_until_ended(gate.home, "cut")


def test_nothing_is_in_clear_on_disk(tmp_path: Path) -> None:
    """After every kind of exchange and end: no canary in home, logs, temporaries or core files."""
    with open_gate(tmp_path) as opened:
        live_through_everything(opened)
        held = read_transcripts(opened.home)
        whole = [one.request.reveal() + one.response.reveal() for one in held.values()]
        assert any(ASKED.encode() in text and ANSWERED.encode() in text for text in whole), "nothing was held"
    assert find_bytes(tmp_path, *PIECES) == []


def test_the_search_finds_what_is_in_clear(tmp_path: Path) -> None:
    """Negative control: with sealing taken out and compression off, the same search finds the canaries."""
    changes = (
        "from bailee.sealing import envelopes\n"
        "def seal(self, plaintext, place):\n"
        "    return b'\\x01' + bytes(12) + plaintext + bytes(16)\n"
        "envelopes.SegmentCipher.seal = seal\n"
        "from bailee.vault import contents\n"
        "import msgspec, zstandard\n"
        "class Plain:\n"
        "    def compress(self, data):\n"
        "        return data\n"
        "for name in list(vars(contents)):\n"
        "    if isinstance(getattr(contents, name), zstandard.ZstdCompressor):\n"
        "        setattr(contents, name, Plain())\n"
    )
    with open_gate(tmp_path, changes=changes) as opened, opened.connect() as agent:
        agent.ask("leaked", prompt(ASKED, stream=False), {"X-Note": IN_HEADER})
        visit = opened.upstream.accept()
        visit.read_request()
        visit.send(whole_answer(ANSWERED))
        agent.read_answer()
    for piece in (ASKED, ANSWERED, IN_HEADER):
        assert find_bytes(opened.home, piece.encode()), piece


def test_the_search_finds_what_a_model_wrote_among_the_facts(tmp_path: Path) -> None:
    """Negative control: with facts sought in all of an answer's bytes, a tool's input is found in clear."""
    changes = (
        "import re\n"
        "from bailee.flows.messages import usage\n"
        "def read(self):\n"
        "    text = b''.join(self._pieces)\n"
        '    return usage.Usage(*[found.decode() for found in re.findall(b\'"model":"([a-z_]+)"\', text)])\n'
        "usage.UsageReader.read = read\n"
    )
    with open_gate(tmp_path, changes=changes) as opened:
        cut_off(opened)
        assert find_bytes(opened.home, IN_TOOL.encode())


def test_keys_are_not_recorded(tmp_path: Path) -> None:
    """Neither the agent's key nor the operator's is in a record, sealed or not."""
    with open_gate(tmp_path) as opened:
        with opened.connect() as agent:
            agent.ask("keys", prompt("x", stream=False))
            visit = opened.upstream.accept()
            visit.read_request()
            visit.send(whole_answer("y"))
            agent.read_answer()
        held = read_transcripts(opened.home)
        for one in held.values():
            for part in (one.request_headers, one.request, one.response_headers, one.response):
                assert opened.key.encode() not in part.reveal()
                assert b"operators-own-key" not in part.reveal()
        assert held
    assert find_bytes(tmp_path, opened.key.encode(), b"operators-own-key") == []
