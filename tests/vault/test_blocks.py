"""Blocks give back every byte, and a conversation that repeats itself is stored once."""

import json
import os
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bailee.vault.blocks import BlockReader, BlockWriter, Delta, common_prefix, common_suffix, cut
from bailee.vault.contents import RequestContent, pack, unpack_request

HASH_KEY = b"h" * 32
MARKER = {"type": "ephemeral"}
# What may be new in a turn beside its messages: the marker, and the brackets around what it moved from.
TURN_BYTES = 400

# Bytes of which the cut takes notice, whole and in halves, beside bytes it takes no notice of.
fragments = st.sampled_from(
    [
        b'{"role":"user","content":[',
        b'{"role":"',
        b'{"name":"Bash","description":"',
        b'{"type":"text","text":"',
        b'{"type":"tool_result","content":"',
        b'{"type": "text", "text": "',
        b'{"type":"string"}',
        b',"cache_control":{"type":"ephemeral"}',
        b',"cache_control":',
        b',"cache_',
        b'"}]',
        b'"}]"}]',
        b'"}',
        b'"',
        b"}]},",
        b"{",
        b"\x00\xff",
        "é漢".encode(),
        b"a" * 31,
        b"a" * 32,
        b"a" * 33,
        b"b" * 5000,
    ]
)
pieces = st.one_of(fragments, fragments, st.binary(max_size=40))
anything = st.one_of(st.binary(max_size=300), st.lists(pieces, max_size=12).map(b"".join))


@st.composite
def bodies(draw: st.DrawFn) -> list[bytes]:
    """Draw bodies of which most are an earlier one with a few stretches replaced."""
    many: list[bytes] = []
    for _ in range(draw(st.integers(0, 9))):
        is_edit = bool(many) and draw(st.integers(0, 3)) > 0
        body: bytes = draw(st.sampled_from(many)) if is_edit else draw(anything)
        for _ in range(draw(st.integers(0, 3))):
            start = draw(st.integers(0, len(body)))
            longest = draw(st.sampled_from([0, 1, 40, 6000]))
            stop = draw(st.integers(start, min(len(body), start + longest)))
            body = body[:start] + draw(st.one_of(st.just(b""), pieces, anything)) + body[stop:]
        many.append(body)
    return many


class Conversation:
    """What an agent sends: tools, a system prompt and all messages so far, the marker on the newest."""

    def __init__(self, head: str, *, is_spaced: bool = False) -> None:
        self.messages: list[dict[str, Any]] = []
        self._head = head
        self._separators = (", ", ": ") if is_spaced else (",", ":")

    def say(self, role: str, texts: list[str]) -> None:
        """Add a message of text blocks."""
        self.messages.append({"role": role, "content": [{"type": "text", "text": text} for text in texts]})

    def body(self, *, with_marker: bool = True) -> bytes:
        """Return the request that sends it all."""
        messages = json.loads(json.dumps(self.messages))
        if with_marker and messages:
            messages[-1]["content"][-1]["cache_control"] = MARKER
        request = {
            "model": "claude-sonnet-4-5",
            "tools": [{"name": "Bash", "description": self._head, "input_schema": {"type": "object"}}],
            "system": [{"type": "text", "text": self._head, "cache_control": MARKER}],
            "messages": messages,
            "max_tokens": 32000,
            "stream": True,
        }
        return json.dumps(request, separators=self._separators).encode()


texts = st.lists(st.text(min_size=1, max_size=200), min_size=1, max_size=3)


@st.composite
def conversations(draw: st.DrawFn) -> list[bytes]:
    """Draw the requests of a conversation that grows by a message or two a turn."""
    conversation = Conversation(draw(st.text(max_size=200)), is_spaced=draw(st.booleans()))
    sent = []
    for turn in range(draw(st.integers(1, 8))):
        if turn:
            conversation.say("assistant", draw(texts))
        conversation.say("user", draw(texts))
        sent.append(conversation.body(with_marker=draw(st.integers(0, 5)) > 0))
    return sent


def carry(delta: Delta) -> Delta:
    """Take a delta through the encoding it is stored in."""
    nothing = Delta(-1, 0, 0, [], [])
    return unpack_request(pack(RequestContent(nothing, delta))).body


def write_all(sent: list[bytes], writer: BlockWriter | None = None) -> list[Delta]:
    writer = writer or BlockWriter(HASH_KEY)
    return [carry(writer.write(body)) for body in sent]


def read_all(deltas: list[Delta]) -> list[bytes]:
    reader = BlockReader()
    return [reader.read(delta) for delta in deltas]


def restart(deltas: list[Delta]) -> BlockWriter:
    """Take up a segment in a writer of another process, which draws another key for its hashes."""
    writer, reader = BlockWriter(os.urandom(32)), BlockReader()
    for delta in deltas:
        body = reader.read(delta)
        writer.restore(body, reader.last_numbers, delta.new)
    writer.finish_restore()
    return writer


def count_new(deltas: list[Delta]) -> int:
    return sum(len(block) for delta in deltas for block in delta.new)


# --- Exactly the same bytes ---


@given(anything)
@example(b"")
@example(b'{"role":"user"')
@example(b'"}]"}]')
@example(b',"cache_control":,"cache_control":')
def test_what_is_cut_joins_again(body: bytes) -> None:
    """The pieces of any bytes join to those bytes, and none is empty."""
    parts = cut(body)
    assert b"".join(parts) == body
    assert all(parts)


@given(bodies())
def test_any_bodies_come_back_exactly(sent: list[bytes]) -> None:
    """Whatever was written, JSON or not, related or not, is read back byte for byte."""
    assert read_all(write_all(sent)) == sent


@given(conversations())
def test_conversations_come_back_exactly(sent: list[bytes]) -> None:
    """A conversation that grows under a moving marker is read back byte for byte."""
    assert read_all(write_all(sent)) == sent


@given(st.lists(conversations(), min_size=2, max_size=5), st.randoms(use_true_random=False))
def test_conversations_that_take_turns_come_back_exactly(many: list[list[bytes]], random: Any) -> None:
    """A main loop and its subagents in one segment, more of them than are remembered, do not mix."""
    turns = [number for number, sent in enumerate(many) for _ in sent]
    random.shuffle(turns)
    each = [iter(sent) for sent in many]
    sent = [next(each[number]) for number in turns]
    assert read_all(write_all(sent)) == sent


@given(st.one_of(bodies(), conversations()), st.data())
def test_a_restart_changes_nothing_that_is_read(sent: list[bytes], data: st.DataObject) -> None:
    """However often the writer is restarted and from wherever, all bodies are read back byte for byte."""
    deltas: list[Delta] = []
    writer = BlockWriter(HASH_KEY)
    for body in sent:
        if data.draw(st.booleans()):
            writer = restart(deltas)
        deltas.append(carry(writer.write(body)))
    assert read_all(deltas) == sent


@given(st.one_of(bodies(), conversations()))
def test_a_restarted_writer_knows_every_block(sent: list[bytes]) -> None:
    """Written again after a restart, the same bodies bring no block that was stored before."""
    deltas = write_all(sent)
    writer = restart(deltas)
    known = {block for delta in deltas for block in delta.new}
    for body in sent:
        delta = carry(writer.write(body))
        assert not known & set(delta.new)
        deltas.append(delta)
    assert read_all(deltas) == sent + sent


@given(bodies())
def test_a_block_is_stored_once(sent: list[bytes]) -> None:
    """No block is ever new twice."""
    new = [block for delta in write_all(sent) for block in delta.new]
    assert len(new) == len(set(new))


@given(bodies(), st.binary(min_size=32, max_size=32))
def test_the_hash_key_does_not_show(sent: list[bytes], key: bytes) -> None:
    """What is stored does not depend on the key that blocks are known by."""
    assert write_all(sent) == write_all(sent, BlockWriter(key))


def test_a_left_out_delta_is_noticed() -> None:
    """A reader that missed the request before does not make up another body."""
    conversation = Conversation("head")
    conversation.say("user", ["one"])
    first = conversation.body()
    conversation.say("user", ["two"])
    _, second = write_all([first, conversation.body()])
    with pytest.raises(IndexError):
        BlockReader().read(second)


# --- Once ---


@given(
    st.text(max_size=500),
    st.lists(st.tuples(texts, texts), min_size=1, max_size=8),
    st.sampled_from([0, 1, 3]),
)
def test_a_conversation_stores_each_message_once(
    head: str, turns: list[tuple[list[str], list[str]]], restart_every: int
) -> None:
    """What a turn adds to the segment is its new messages and a little, however long the conversation is."""
    conversation = Conversation(head)
    conversation.say("user", ["begin"])
    deltas = write_all([conversation.body()], writer := BlockWriter(HASH_KEY))
    for number, (answer, question) in enumerate(turns):
        before = len(conversation.body())
        conversation.say("assistant", answer)
        conversation.say("user", question)
        body = conversation.body()
        if restart_every and number % restart_every == 0:
            writer = restart(deltas)
        deltas.append(carry(writer.write(body)))
        assert count_new(deltas[-1:]) <= len(body) - before + TURN_BYTES


def test_a_long_conversation_costs_its_length_not_its_square() -> None:
    """Forty turns over 60 KB of tools store little more than the last request, of 2.9 MB sent."""
    conversation = Conversation("tool " * 12_000)
    sent = []
    for turn in range(40):
        conversation.say("user", [f"{turn} " + "result " * 80])
        sent.append(conversation.body())
    deltas = write_all(sent)
    assert sum(map(len, sent)) > 20 * len(sent[-1])
    assert count_new(deltas) <= 1.1 * len(sent[-1])
    # Nor do the references grow with the conversation: a turn tells what it shares by two numbers.
    assert max(len(delta.between) for delta in deltas[1:]) <= 10


def test_the_same_request_again_stores_nothing() -> None:
    """A retry of a request is a reference alone, also after a restart."""
    conversation = Conversation("head " * 1000)
    conversation.say("user", ["once", "and for all"])
    deltas = write_all([conversation.body()] * 3)
    deltas.append(carry(restart(deltas).write(conversation.body())))
    assert count_new(deltas[1:]) == 0
    assert read_all(deltas) == [conversation.body()] * 4


def test_a_moved_marker_does_not_make_a_message_new() -> None:
    """A long message is the same block with the marker on it and without."""
    conversation = Conversation("head")
    conversation.say("user", ["long " * 2000])
    first = conversation.body()
    conversation.say("assistant", ["short"])
    conversation.say("user", ["short"])
    deltas = write_all([first, conversation.body()])
    assert count_new(deltas[1:]) < 500


def test_in_spaced_json_a_message_is_stored_twice_at_most() -> None:
    """Where the marker is not known by its spelling, a message is new once with it and once without."""
    conversation = Conversation("head " * 1000, is_spaced=True)
    sent = []
    for turn in range(20):
        conversation.say("user", [f"turn {turn}: " + "text " * 200])
        sent.append(conversation.body())
    deltas = write_all(sent)
    assert read_all(deltas) == sent
    assert count_new(deltas) <= 2 * len(sent[-1]) + TURN_BYTES * len(sent)


def test_subagents_do_not_make_the_main_loop_new() -> None:
    """With more conversations taking turns than bases are remembered, each message is still stored once."""
    many = [Conversation(f"agent {number} " * 200) for number in range(5)]
    sent = []
    for turn in range(6):
        for number, conversation in enumerate(many):
            conversation.say("user", [f"turn {turn} of {number}: " + "text " * 100])
            sent.append(conversation.body())
    deltas = write_all(sent)
    assert read_all(deltas) == sent
    assert count_new(deltas) <= sum(len(conversation.body()) for conversation in many) + TURN_BYTES * len(
        sent
    )


@given(bodies())
def test_memory_is_bounded_by_bodies_and_blocks(sent: list[bytes]) -> None:
    """What is held for comparison is three requests at most, and about 120 bytes a block."""
    writer, reader = BlockWriter(HASH_KEY), BlockReader()
    sizes, blocks = [], 0
    for body in sent:
        delta = writer.write(body)
        blocks += len(delta.new)
        reader.read(delta)
        sizes.append(len(body) + 16 * len(reader.last_numbers))
        assert writer.retained_bytes <= sum(sorted(sizes)[-3:]) + 120 * blocks


# --- What two strings share ---

strings = st.one_of(st.binary(max_size=30), st.integers(0, 20_000).map(lambda length: b"x" * length))


def naive_prefix(a: bytes, b: bytes) -> int:
    shared = 0
    while shared < min(len(a), len(b)) and a[shared] == b[shared]:
        shared += 1
    return shared


@given(strings, strings, strings)
def test_common_prefix_agrees_with_the_naive_one(start: bytes, one: bytes, other: bytes) -> None:
    """The search finds what a loop finds, short or long, also where one starts the other."""
    for a, b in ((start + one, start + other), (start, start + other), (one, other), (start, start)):
        assert common_prefix(a, b) == naive_prefix(a, b)
        assert common_prefix(b, a) == naive_prefix(a, b)


@pytest.mark.parametrize("length", [4095, 4096, 4097, 8192, 12288, 12289, 28672, 100_000])
@pytest.mark.parametrize("tail", [b"", b"a", b"a" * 5000])
def test_common_prefix_at_the_edges_of_its_steps(length: int, tail: bytes) -> None:
    """The length is right on both sides of every step of the search."""
    shared = os.urandom(length)
    for by in (-1, 0, 1):
        start = shared[: length + by]
        assert common_prefix(start + tail, start + b"b") == len(start)


@given(strings, strings, strings, st.data())
def test_common_suffix_agrees_with_the_naive_one(
    one: bytes, other: bytes, end: bytes, data: st.DataObject
) -> None:
    """The search finds what a loop finds, and never more than the limit."""
    a, b = one + end, other + end
    limit = data.draw(st.integers(0, min(len(a), len(b))))
    naive = naive_prefix(a[::-1], b[::-1])
    assert common_suffix(a, b, limit) == min(naive, limit)
    assert common_suffix(b, a, limit) == min(naive, limit)
