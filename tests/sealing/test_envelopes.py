"""Envelopes open at their own place under their own key, unaltered, and nowhere else."""

import copy
import json
import logging
import os
import pickle
from collections.abc import Callable
from itertools import count
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from bailee.sealing.content import Content
from bailee.sealing.envelopes import (
    KEY_BYTES,
    NONCE_BYTES,
    OVERHEAD_BYTES,
    Place,
    SealBroken,
    SegmentCipher,
    associated_data,
)

KEY = bytes(range(KEY_BYTES))
PLACE = Place("account-1", "session-1", bytes(range(16)), 7, 42, 1)
TEXT = b"the quick brown fox"

places = st.builds(
    Place,
    account=st.text(max_size=20),
    session=st.text(max_size=20),
    segment=st.binary(min_size=16, max_size=16),
    sequence=st.integers(0, 2**63 - 1),
    exchange=st.integers(0, 2**63 - 1),
    kind=st.integers(0, 1),
)


def make_cipher(key: bytes = KEY) -> SegmentCipher:
    return SegmentCipher(key, os.urandom)


@given(st.binary(max_size=2000), places)
def test_roundtrip(plaintext: bytes, place: Place) -> None:
    """Any bytes come out of their envelope as they went in, for a fixed price in length."""
    envelope = make_cipher().seal(plaintext, place)
    assert make_cipher().open(envelope, place) == plaintext
    assert len(envelope) == len(plaintext) + OVERHEAD_BYTES


def test_the_layout_is_the_one_described() -> None:
    """Version, nonce, ciphertext and tag stand where the module says: AES-GCM by hand opens it."""
    envelope = SegmentCipher(KEY, lambda size: b"n" * size).seal(TEXT, PLACE)
    bound_to = b"bailee record 1" + msgspec.msgpack.encode(
        ["account-1", "session-1", bytes(range(16)), 7, 42, 1]
    )
    assert envelope[:1] == b"\x01"
    assert envelope[1:13] == b"n" * 12
    assert AESGCM(KEY).decrypt(b"n" * 12, envelope[13:], bound_to) == TEXT


def test_every_changed_byte_breaks_it() -> None:
    """Whichever byte is changed to whatever other value, the envelope does not open."""
    cipher = make_cipher()
    envelope = cipher.seal(TEXT, PLACE)
    for position in range(len(envelope)):
        for change in range(1, 256):
            altered = bytearray(envelope)
            altered[position] ^= change
            with pytest.raises(SealBroken):
                cipher.open(bytes(altered), PLACE)
    assert cipher.open(envelope, PLACE) == TEXT


def test_every_cut_breaks_it() -> None:
    """An envelope that was cut short anywhere, or added to, does not open and fails as one that is broken."""
    cipher = make_cipher()
    envelope = cipher.seal(TEXT, PLACE)
    for length in range(len(envelope)):
        with pytest.raises(SealBroken):
            cipher.open(envelope[:length], PLACE)
    with pytest.raises(SealBroken):
        cipher.open(envelope + b"\0", PLACE)


@pytest.mark.parametrize(
    "elsewhere",
    [
        msgspec.structs.replace(PLACE, account="account-2"),
        msgspec.structs.replace(PLACE, session="session-2"),
        msgspec.structs.replace(PLACE, segment=bytes(16)),
        msgspec.structs.replace(PLACE, sequence=8),
        msgspec.structs.replace(PLACE, exchange=43),
        msgspec.structs.replace(PLACE, kind=0),
        # the same letters, divided otherwise between two fields
        msgspec.structs.replace(PLACE, account="account-1s", session="ession-1"),
        msgspec.structs.replace(PLACE, account="session-1", session="account-1"),
    ],
    ids=["account", "session", "segment", "sequence", "exchange", "kind", "divided otherwise", "swapped"],
)
def test_another_place_breaks_it(elsewhere: Place) -> None:
    """An envelope moved to another account, session, segment, position, exchange or kind is shut."""
    cipher = make_cipher()
    envelope = cipher.seal(TEXT, PLACE)
    with pytest.raises(SealBroken):
        cipher.open(envelope, elsewhere)


@given(places, places)
def test_no_two_places_share_an_encoding(one: Place, other: Place) -> None:
    """What an envelope is bound to differs wherever the place does."""
    assert (associated_data(one) == associated_data(other)) == (one == other)


def test_another_key_breaks_it() -> None:
    """A key that differs in a single bit opens nothing."""
    envelope = make_cipher().seal(TEXT, PLACE)
    for bit in range(8 * KEY_BYTES):
        key = (int.from_bytes(KEY) ^ (1 << bit)).to_bytes(KEY_BYTES)
        with pytest.raises(SealBroken):
            make_cipher(key).open(envelope, PLACE)


def test_a_nonce_never_repeats_over_a_batch() -> None:
    """Each sealing draws a fresh nonce, also for the same text at the same place, as in a retry."""
    cipher = make_cipher()
    envelopes = [cipher.seal(TEXT, PLACE) for _ in range(20_000)]
    assert len({envelope[1 : 1 + NONCE_BYTES] for envelope in envelopes}) == len(envelopes)


def test_the_nonce_is_what_the_source_gave() -> None:
    """The whole nonce is random: all of it comes from the source, one draw of full width to an envelope."""
    drawn = count(1)
    cipher = SegmentCipher(KEY, lambda size: next(drawn).to_bytes(size))
    for number in (1, 2, 3):
        assert cipher.seal(TEXT, PLACE)[1 : 1 + NONCE_BYTES] == number.to_bytes(NONCE_BYTES)


@pytest.mark.parametrize("version", [0, 2, 255])
def test_an_unknown_version_is_refused_by_name(version: int) -> None:
    """An envelope of another version is told apart from one that was altered."""
    cipher = make_cipher()
    envelope = cipher.seal(TEXT, PLACE)
    with pytest.raises(SealBroken, match="version"):
        cipher.open(bytes([version]) + envelope[1:], PLACE)


def test_the_plaintext_is_not_in_the_envelope() -> None:
    """Of a long text not even a short run shows in the envelope."""
    text = bytes(range(256)) * 4
    envelope = make_cipher().seal(text, PLACE)
    assert not any(text[start : start + 8] in envelope for start in range(0, len(text), 8))


# --- The type content travels in ---

SECRET = b"sk-ant-a-secret"
SHOWN: dict[str, Callable[[Content], str]] = {
    "repr": repr,
    "str": str,
    "format": format,
    "format with a width": lambda content: format(content, ">200"),
    "f-string": lambda content: f"{content}",
    "f-string with !r": lambda content: f"{content!r}",
    "f-string with a specification": lambda content: f"{content:s}",
    "str.format": "{}".format,
    "percent s": lambda content: "%s" % (content,),  # noqa: UP031
    "percent r": lambda content: "%r" % (content,),  # noqa: UP031
    "inside a list": lambda content: str([content]),
    "inside a dictionary": lambda content: str({"content": content}),
    "an exception's text": lambda content: str(ValueError(content)),
    "an exception's repr": lambda content: repr(ValueError(content)),
}


@pytest.mark.parametrize("show", SHOWN.values(), ids=SHOWN.keys())
def test_content_shows_nothing(show: Callable[[Content], str]) -> None:
    """However content is turned into text, the text holds its size and none of its bytes."""
    shown = show(Content(SECRET))
    assert "secret" not in shown
    assert f"{len(SECRET)} bytes" in shown


def test_content_shows_nothing_in_a_log(caplog: pytest.LogCaptureFixture) -> None:
    """A log line about content does not hold it, whichever conversion the line asks for."""
    logging.getLogger("bailee").warning("got %s, that is %r", Content(SECRET), Content(SECRET))
    assert "secret" not in caplog.text
    assert caplog.text.count("15 bytes") == 2


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_content_refuses_pickle(protocol: int) -> None:
    """No protocol pickles content, alone or inside something else."""
    for held in (Content(SECRET), [Content(SECRET)]):
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(held, protocol)


def test_content_has_no_other_way_out() -> None:
    """Only `reveal` gives the bytes: not JSON, MessagePack, a copy, `bytes`, iteration or `vars`."""
    content = Content(SECRET)
    ways: list[Callable[[Any], object]] = [
        json.dumps,
        msgspec.json.encode,
        msgspec.msgpack.encode,
        copy.copy,
        copy.deepcopy,
        bytes,
        list,
        vars,
    ]
    for way in ways:
        with pytest.raises(TypeError):
            way(content)
    assert content.reveal() == SECRET


@given(st.binary(max_size=50), st.binary(max_size=50))
def test_content_compares_as_its_bytes(one: bytes, other: bytes) -> None:
    """Content is equal to content of the same bytes, and to nothing else, not even those bytes."""
    assert (Content(one) == Content(other)) == (one == other)
    assert len({Content(one), Content(one)}) == 1
    assert Content(one) != one
    assert len(Content(one)) == len(one)
