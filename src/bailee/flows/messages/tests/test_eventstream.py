"""The framing of Bedrock's streams, against botocore's own decoder."""

import json
from base64 import b64decode

import pytest
from botocore.eventstream import ChecksumMismatch, EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from bailee.flows.messages.eventstream import MessageBoundary, encode_chunk, encode_message, encode_ping

NAMES = st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1, max_size=40)


def decode(data: bytes) -> list[tuple[dict[str, object], bytes]]:
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    return [(message.headers, message.payload) for message in buffer]


@given(st.dictionaries(NAMES, st.text(max_size=60), max_size=5), st.binary(max_size=500))
def test_a_message_is_what_botocore_decodes(headers: dict[str, str], payload: bytes) -> None:
    """Any headers of text and any payload come out of botocore's decoder as they went in."""
    assert decode(encode_message(headers.items(), payload)) == [(headers, payload)]


def test_a_changed_byte_is_noticed() -> None:
    """The checksums are right: with one byte of the payload changed, botocore refuses the message."""
    message = bytearray(encode_chunk(b'{"type":"message_stop"}'))
    message[-8] ^= 1
    with pytest.raises(ChecksumMismatch):
        decode(bytes(message))


def test_a_chunk_holds_its_event_in_base64() -> None:
    """A chunk is an event of type `chunk` whose JSON carries the event of the Messages API in base64."""
    [(headers, payload)] = decode(encode_chunk(b'{"type":"message_stop"}'))
    assert headers == {
        ":event-type": "chunk",
        ":content-type": "application/json",
        ":message-type": "event",
    }
    assert b64decode(json.loads(payload)["bytes"]) == b'{"type":"message_stop"}'


def test_a_ping_is_a_chunk_with_a_ping() -> None:
    """What is put into a silent stream is a `ping` event of the Messages API."""
    [(_, payload)] = decode(encode_ping())
    assert json.loads(b64decode(json.loads(payload)["bytes"])) == {"type": "ping"}


@given(st.lists(st.binary(max_size=80), max_size=6), st.data())
def test_the_boundary_is_known_wherever_the_stream_is_cut(payloads: list[bytes], data: st.DataObject) -> None:
    """However the bytes are cut, the boundary is reported exactly where a message ends, and nowhere else."""
    messages = [encode_chunk(payload) for payload in payloads]
    stream = b"".join(messages)
    ends = {sum(map(len, messages[:count])) for count in range(len(messages) + 1)}
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)))) | {len(stream)})
    boundary = MessageBoundary()
    position = 0
    for cut in cuts:
        boundary.feed(stream[position:cut])
        position = cut
        assert boundary.at_boundary == (cut in ends)


def test_a_ping_at_each_boundary_leaves_a_stream_that_botocore_reads() -> None:
    """Pings put wherever a boundary is reported leave every message of the stream as it was."""
    events = [b'{"n":%d}' % number for number in range(5)]
    stream = b"".join(map(encode_chunk, events))
    boundary = MessageBoundary()
    sent = bytearray()
    for position in range(len(stream)):
        sent += stream[position : position + 1]
        boundary.feed(stream[position : position + 1])
        if boundary.at_boundary:
            sent += encode_ping()
    decoded = [b64decode(json.loads(payload)["bytes"]) for _, payload in decode(bytes(sent))]
    assert decoded == [event for each in events for event in (each, b'{"type":"ping"}')]


@pytest.mark.parametrize("stream", [b"event: ping\ndata: {}\n\n", b"\xff" * 12, b"\0" * 12])
def test_what_is_not_this_format_never_has_a_boundary(stream: bytes) -> None:
    """In a stream that is not this format no boundary is reported, however long it goes on."""
    boundary = MessageBoundary()
    boundary.feed(stream)
    assert not boundary.at_boundary
    boundary.feed(encode_ping())
    assert not boundary.at_boundary
