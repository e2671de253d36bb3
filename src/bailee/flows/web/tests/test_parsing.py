"""What comes from an agent is read the same in whatever pieces it comes, and never with a fault."""

import contextlib
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bailee.flows.web.hello import Hello, NotHello, read_hello
from bailee.flows.web.targets import Unreadable, read_target


def make_hello(name: str) -> bytes:
    """Return what OpenSSL sends first."""
    sent = ssl.MemoryBIO()
    context = ssl.create_default_context()
    connection = context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        connection.do_handshake()
    return sent.read()


HELLO = make_hello("Allowed.Example")


def split(data: bytes, sizes: list[int]) -> bytes:
    """Return the same ClientHello in records of these sizes."""
    body, records = data[5:], b""
    for size in [*sizes, len(body)]:
        if piece := body[:size]:
            records += data[:3] + len(piece).to_bytes(2, "big") + piece
            body = body[size:]
    return records


def test_the_name_is_read() -> None:
    """The name that OpenSSL asks for, in lower case."""
    assert read_hello(HELLO) == Hello("allowed.example", False)


@given(sizes=st.lists(st.integers(min_value=1, max_value=120), max_size=8))
def test_any_records_say_the_same(sizes: list[int]) -> None:
    """A hello in many records, as some clients send it to hide its name, says what it says in one."""
    assert read_hello(split(HELLO, sizes)) == Hello("allowed.example", False)


@given(length=st.integers(min_value=0, max_value=len(HELLO) - 1))
def test_a_part_is_no_answer(length: int) -> None:
    """Nothing is decided on a hello that is not whole."""
    assert read_hello(HELLO[:length]) is None


@given(at=st.integers(min_value=0, max_value=len(HELLO) - 1), value=st.integers(min_value=0, max_value=255))
def test_a_changed_byte_is_no_fault(at: int, value: int) -> None:
    """Whatever byte is changed: a hello, not yet one, or none; never another error."""
    changed = bytearray(HELLO)
    changed[at] = value
    try:
        found = read_hello(changed)
    except NotHello:
        return
    assert found is None or isinstance(found, Hello)


@given(data=st.binary(max_size=200))
def test_any_bytes_are_no_fault(data: bytes) -> None:
    """Bytes of anything else are refused or waited for."""
    with contextlib.suppress(NotHello):
        read_hello(data)


@given(text=st.text(max_size=80))
def test_any_text_is_a_target_or_none(text: str) -> None:
    """A text is unreadable, or its target reads back as itself: there is one way to write each."""
    try:
        target = read_target(text, 443)
    except Unreadable:
        return
    assert read_target(str(target)) == target
    assert target.host == target.host.lower()
    assert not target.host.endswith(".")


@pytest.mark.parametrize(
    "text",
    [
        "a b:1",
        "a\x00:1",
        "a:b:1",
        "[::1",
        "a:0",
        "a:65536",
        "a:-1",
        "user@host:1",
        "host/x:1",
        "",
        ":1",
        "a..b:1",
    ],
)
def test_ambiguous_targets_are_unreadable(text: str) -> None:
    """What two programs could read in two ways is refused before anything is looked up."""
    with pytest.raises(Unreadable):
        read_target(text)
