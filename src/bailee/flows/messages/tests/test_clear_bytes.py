"""No byte of a prompt or an answer is in clear in any file, whatever happens to the exchange."""

import base64
import contextlib
import gzip
import os
import secrets
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from bailee.accounts.directory import open_directory
from bailee.accounts.keys import create_key
from bailee.accounts.people import Kind
from bailee.policy.plans import Plan
from counterparts.agents import prompt
from counterparts.answers import STREAM_HEAD, stream_end, stream_start, stream_text, whole_answer
from counterparts.gates import Gate, open_gate
from counterparts.holdings import find_bytes, read_exchanges, read_transcripts, wait_until_ended
from counterparts.searching import find_hidden, list_open, list_recent, read_or_nothing
from counterparts.upstreams import chunk
from counterparts.waiting import wait_for

# Drawn, so that none is in a source file somewhere on this machine.
DRAWN = "".join(secrets.choice("bcdfghjk") for _ in range(12))
ASKED = f"canary-asked-{DRAWN}"
ANSWERED = f"canary-answered-{DRAWN}"
IN_HEADER = f"canary-header-{DRAWN}"
IN_TOOL = f"canary_in_a_tool_{DRAWN}"
PIECES = [piece.encode() for piece in (ASKED, ANSWERED, IN_HEADER, IN_TOOL)]
# The input of a tool that looks like an answer's facts, which are stored in clear; cut off before those come.
CUT = (
    b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n{"content":[{"type":'
    b'"tool_use","id":"t","name":"x","input":{"model":"%b","stop_reason":"%b","usage":{"input_tokens":777}}}]'
    % (IN_TOOL.encode(), IN_TOOL.encode())
)


def live_through_everything(gate: Gate, key: str | None = None) -> None:
    """Let exchanges succeed, fail, be refused, be cut, and the processes be killed."""
    sent = {"X-Note": IN_HEADER}
    with gate.connect(key) as agent:
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
    cut_off(gate, key)
    with gate.connect("wrong-key") as agent:
        agent.ask("no-key", prompt(ASKED), sent)
        agent.read_answer()
    with gate.connect(key) as agent:
        agent.socket.sendall(agent.head(100_000_000, "too-large", sent) + ASKED.encode())
    with gate.connect(key) as agent:
        agent.socket.sendall(b"POST /v1/messages HTTP/1.1\r\n" + ASKED.encode() + b"\x00\r\n\r\n")
    agent = gate.connect(key)
    agent.ask("hung-up", prompt(ASKED), sent)
    visit = gate.upstream.accept()
    visit.read_request()
    visit.send(STREAM_HEAD + chunk(stream_start() + stream_text(ANSWERED)))
    agent.read_until(stream_text(ANSWERED))
    agent.close()
    visit.wait_for_end()
    with in_mid_stream(gate, "killed", key):
        # Either would leave a core file where that is allowed.
        os.kill(gate.service.recorder, signal.SIGQUIT)
        gate.service.process.send_signal(signal.SIGQUIT)
        gate.service.process.wait()


@contextlib.contextmanager
def in_mid_stream(gate: Gate, session: str, key: str | None = None) -> Iterator[None]:
    """Give the moment in which half of an answer has come and the request is on disk."""
    with gate.connect(key) as agent:
        agent.ask(session, prompt(ASKED), {"X-Note": IN_HEADER})
        visit = gate.upstream.accept()
        visit.read_request()
        visit.send(STREAM_HEAD + chunk(stream_start() + stream_text(ANSWERED)))
        agent.read_until(stream_text(ANSWERED))
        wait_for("the request on disk", lambda: read_exchanges(gate.home, session))
        yield
        visit.close()


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


# --- Zero data retention ---


def make_zero_key(home: Path) -> str:
    """Make an organization with zero data retention, and a key of its admin."""
    directory = open_directory(home)
    directory.add("zoe", Plan.ENTERPRISE, organization="zeros")
    directory.decide_for_organization("zeros", Kind.ZDR, given=True, by="zoe")
    _, secret = create_key(directory, "zoe")
    directory.close()
    return secret


def test_zero_retention_leaves_no_byte(tmp_path: Path) -> None:
    """Success, error, disconnect, kill -9 and crash: nothing in home, logs, temporaries, metrics, core files.

    Not encoded or compressed either, and in no file without a name; the facts are there all the same.
    """
    begun = time.time()
    declared = "--upstream-zero-data-retention"
    with open_gate(tmp_path, declared) as opened:
        key = make_zero_key(opened.home)
        with in_mid_stream(opened, "recorder-killed", key):
            killed = opened.service.recorder
            if os.geteuid() == 0:  # the service shows its descriptors to nobody else
                nameless = [*list_open(killed), *list_open(opened.service.process.pid)]
                assert nameless
                assert [path for path in nameless if is_in(read_or_nothing(path))] == []
            opened.service.kill_recorder()
        wait_for("another recorder", lambda: opened.service.find_recorder() not in (None, killed))
        wait_for("it to answer", lambda: opened.service.process.poll() is None and is_ready(opened, key))
        with urllib.request.urlopen(f"{opened.service.url}/metrics") as metrics:
            assert not is_in(metrics.read())
        live_through_everything(opened, key)
    # With a handler of Python's own that writes to standard error where everything crashes.
    with open_gate(tmp_path, declared, environment={"PYTHONFAULTHANDLER": "1"}) as opened:
        with in_mid_stream(opened, "crashed", key):
            os.kill(opened.service.recorder, signal.SIGABRT)
            opened.service.process.send_signal(signal.SIGABRT)
            opened.service.process.wait()
        assert "Fatal Python error: Aborted" in opened.service.errors
    with open_gate(tmp_path, declared) as opened, in_mid_stream(opened, "service-killed", key):
        opened.service.kill()
    with open_gate(tmp_path, declared) as opened:
        check_facts(opened.home)
    assert find_hidden([tmp_path], *PIECES) == []
    shared = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))
    recent = [path for place in shared for path in list_recent(place, begun, apart_from=tmp_path)]
    assert [path for path in recent if is_in(read_or_nothing(path))] == []


def is_in(data: bytes) -> bool:
    """Tell whether any canary is in some bytes."""
    return any(piece in data for piece in PIECES)


def is_ready(gate: Gate, key: str) -> bool:
    """Tell whether requests are taken again."""
    with gate.connect(key) as agent:
        agent.ask("ready", prompt(ASKED, stream=False))
        try:
            visit = gate.upstream.accept(0.5)
        except TimeoutError:
            return False
        visit.read_request()
        visit.send(whole_answer(ANSWERED))
        is_whole = agent.read_answer().is_whole
        visit.close()
        return is_whole


def check_facts(home: Path) -> None:
    """Check that it is told of every exchange how it ended, with tokens and times, and without content."""
    held = {one.session: one for one in read_exchanges(home)}
    states = {session: held[session].state for session in ("whole", "json", "refused", "hung-up", "cut")}
    assert states == {
        "whole": "complete",
        "json": "complete",
        "refused": "complete",
        "hung-up": "client_gone",
        "cut": "upstream_failed",
    }
    for session in ("killed", "crashed", "service-killed", "recorder-killed"):
        assert held[session].state == "interrupted"
    for session in ("whole", "json"):
        assert (held[session].input_tokens, held[session].output_tokens) == (11, 22)
    assert held["hung-up"].input_tokens == 11
    assert held["whole"].duration_ms is not None
    assert held["refused"].status == 400
    assert not any(one.is_kept for one in held.values())
    assert read_transcripts(home) == {}


# Negative controls.
NOT_SEALED = (
    "from bailee.sealing import envelopes\n"
    "def seal(self, plaintext, place):\n"
    "    return b'\\x01' + bytes(12) + plaintext + bytes(16)\n"
    "envelopes.SegmentCipher.seal = seal\n"
)
NOT_COMPRESSED = (
    "from bailee.vault import contents\n"
    "import msgspec, zstandard\n"
    "class Plain:\n"
    "    def compress(self, data):\n"
    "        return data\n"
    "for name in list(vars(contents)):\n"
    "    if isinstance(getattr(contents, name), zstandard.ZstdCompressor):\n"
    "        setattr(contents, name, Plain())\n"
)


@pytest.mark.parametrize("changes", [NOT_SEALED, NOT_SEALED + NOT_COMPRESSED], ids=["compressed", "plain"])
def test_the_search_finds_what_is_in_clear(tmp_path: Path, changes: str) -> None:
    """Negative control: without zero retention and sealing, compressed or not, the canaries are found."""
    with open_gate(tmp_path, changes=changes) as opened, opened.connect() as agent:
        agent.ask("leaked", prompt(ASKED, stream=False), {"X-Note": IN_HEADER})
        visit = opened.upstream.accept()
        visit.read_request()
        visit.send(whole_answer(ANSWERED))
        agent.read_answer()
    for piece in (ASKED, ANSWERED, IN_HEADER):
        assert find_hidden([opened.home], piece.encode()), piece
    assert bool(find_bytes(opened.home, *PIECES)) is (NOT_COMPRESSED in changes)


def test_the_search_finds_what_is_encoded(tmp_path: Path) -> None:
    """Negative control: a canary inside a longer text in base64, at each offset, and in hexadecimal."""
    for number, before in enumerate((b"", b"x", b"xy")):
        text = base64.b64encode(before + ASKED.encode() + b" and on")
        (tmp_path / str(number)).write_bytes(text)
    (tmp_path / "hex").write_text((b"a" + ASKED.encode()).hex())
    (tmp_path / "gzip").write_bytes(b"log: " + gzip.compress(b"he said " + ASKED.encode()))
    assert len(find_hidden([tmp_path], ASKED.encode())) == 5


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
