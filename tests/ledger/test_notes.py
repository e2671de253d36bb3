"""Signed notes and checkpoints: known answers, and every bit of a note."""

import base64

import proofbundle.checkpoint as proofbundle
import pytest

from bailee.ledger.checkpoints import Checkpoint, open_checkpoint, parse_checkpoint, sign_checkpoint
from bailee.ledger.notes import (
    MAX_SIGNATURES,
    Note,
    NoteRefused,
    Signer,
    Verifier,
    open_note,
    parse_signer,
    parse_verifier,
)
from bailee.policy.problems import Problem
from counterparts.ledgers import flip

# The known answer of golang.org/x/mod/sumdb/note, whose format the specification is.
VERIFIER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
SIGNER = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
NOTE = (
    TEXT + "\n— PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
).encode()
# The example of c2sp.org/tlog-checkpoint.
BODY = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"


@pytest.fixture
def signer() -> Signer:
    return Signer("bailee.local/ledger/test", bytes(range(32)))


def test_known_keys_and_note() -> None:
    """The known keys are read and written, and the known text gets the known signature."""
    signer = parse_signer(SIGNER, where="key")
    assert signer.verifier == parse_verifier(VERIFIER)
    assert (signer.export(), signer.verifier.text) == (SIGNER, VERIFIER)
    assert signer.sign(TEXT) == NOTE
    assert open_note(NOTE, [signer.verifier]) == Note(TEXT, ("PeterNeumann",))


def test_every_bit_of_a_note_counts() -> None:
    """With any one bit flipped the note is refused; with the signature left unchecked some are taken."""
    verifier = parse_verifier(VERIFIER)
    for bit in range(len(NOTE) * 8):
        with pytest.raises(NoteRefused):
            open_note(flip(NOTE, bit), [verifier])


def test_without_the_check_altered_notes_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: it is the signature that refuses them."""
    monkeypatch.setattr(Verifier, "is_signed", lambda *args: True)
    assert open_note(NOTE.replace(b"think", b"thank"), [parse_verifier(VERIFIER)])


@pytest.mark.parametrize("text", [VERIFIER, SIGNER])
def test_a_damaged_key_is_refused(text: str) -> None:
    """A key with any bit flipped, or any part of it, is no key; nothing of a private key is told."""
    data = text.encode()
    damaged = [flip(data, bit) for bit in range(len(data) * 8)]
    damaged += [data[:length] for length in range(len(data))]
    for one in damaged:
        read = one.decode("utf-8", "replace")
        with pytest.raises(Problem) as refused:
            parse_verifier(read) if text is VERIFIER else parse_signer(read, where="key")
        assert "AYEKFALVFGyNhPJEMzD1" not in str(refused.value)


def test_a_key_of_another_kind_is_refused() -> None:
    """A key of another type or length is refused even if its id fits."""
    for name in ("a+b", "a b", "", "a\u2003b", "a\tb"):
        with pytest.raises(Problem):
            Signer(name, bytes(32))
    for text in ("PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "x", "", "a+b+c"):
        with pytest.raises(Problem):
            parse_verifier(text)


def test_a_signer_shows_nothing(signer: Signer) -> None:
    """No representation of a signer holds its key."""
    encoded = base64.b64encode(bytes(range(32))).decode()[:40]
    assert encoded not in f"{signer} {signer!r}"


def test_unknown_signatures_are_ignored(signer: Signer) -> None:
    """Others may sign too, before or after; a wrong signature in a known name is not ignored."""
    other = Signer("example.com/witness", bytes(32))
    note, theirs = signer.sign(TEXT), other.sign(TEXT).rpartition(b"\n\n")[2]
    ours = note.rpartition(b"\n\n")[2]
    for signatures in (theirs + ours, ours + theirs):
        both = TEXT.encode() + b"\n" + signatures
        assert open_note(both, [signer.verifier]).signers == (signer.verifier.name,)
        assert len(open_note(both, [signer.verifier, other.verifier]).signers) == 2
    wrong = other.sign("another text\n").rpartition(b"\n\n")[2]
    with pytest.raises(NoteRefused, match="does not fit"):
        open_note(note + wrong, [signer.verifier, other.verifier])
    with pytest.raises(NoteRefused, match="none"):
        open_note(note, [other.verifier])
    with pytest.raises(NoteRefused, match="none"):
        open_note(note, [])


def test_limits_of_a_note(signer: Signer) -> None:
    """Many signatures are taken, too many are not; texts may have empty lines."""
    line = Signer("example.com/witness", bytes(32)).sign(TEXT).rpartition(b"\n\n")[2]
    note = signer.sign("first\n\nsecond\n")
    assert open_note(note + line * 16, [signer.verifier]).text == "first\n\nsecond\n"
    with pytest.raises(NoteRefused, match="more than"):
        open_note(note + line * MAX_SIGNATURES, [signer.verifier])
    with pytest.raises(NoteRefused, match="too long"):
        open_note(note + line * 100_000, [signer.verifier])
    for text in ("no newline", "a\x00\n", "a\r\n"):
        with pytest.raises(ValueError, match="newline"):
            signer.sign(text)


@pytest.mark.parametrize(
    "note", [b"", b"\n", b"\n\n", TEXT.encode(), TEXT.encode() + b"\n", b"\xff\n\n\xff\n"]
)
def test_what_is_no_note_is_refused(note: bytes, signer: Signer) -> None:
    """Text without signatures is no note."""
    with pytest.raises(NoteRefused):
        open_note(note, [signer.verifier])


def test_the_specifications_example_of_a_checkpoint() -> None:
    """Origin, size and root are read from the example and written as it is."""
    checkpoint = parse_checkpoint(BODY)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20852163)
    assert checkpoint.root.hex().startswith("0ac5186a91863e8e")
    signer = Signer(checkpoint.origin, bytes(32))
    note = sign_checkpoint(checkpoint, signer)
    assert note.decode().startswith(BODY + "\n— example.com/behind-the-sofa ")
    assert open_checkpoint(note, signer.verifier) == checkpoint


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("20852163", "020852163"),
        ("20852163", "-1"),
        ("20852163", "+1"),
        ("20852163", "1_0"),
        ("20852163", "\N{ARABIC-INDIC DIGIT ONE}"),
        ("20852163", ""),
        ("20852163", str(2**63)),
        ("q2I=", "q2J="),
        ("q2I=", "q2I"),
        ("CsUY", ""),
        ("q2I=\n", "q2I=\nmore\n"),
        ("q2I=\n", "q2I=\n\n"),
        ("example.com/behind-the-sofa", ""),
    ],
)
def test_what_is_no_checkpoint_is_refused(old: str, new: str) -> None:
    """Other encodings of the same, and lines beyond, are refused."""
    with pytest.raises(NoteRefused):
        parse_checkpoint(BODY.replace(old, new))


def test_a_checkpoint_of_another_log_is_refused(signer: Signer) -> None:
    """A log's key speaks for the log it is named for."""
    note = sign_checkpoint(Checkpoint("bailee.local/ledger/other", 0, bytes(32)), signer)
    with pytest.raises(NoteRefused, match="another log"):
        open_checkpoint(note, signer.verifier)


def test_an_independent_implementation_reads_our_checkpoints(signer: Signer) -> None:
    """proofbundle takes our key and our note, and none with a bit flipped."""
    checkpoint = Checkpoint(signer.verifier.name, 300, bytes(range(32)))
    note = sign_checkpoint(checkpoint, signer)
    read = proofbundle.verify_checkpoint(note.decode(), signer.verifier.text)
    assert (read["ok"], read["origin"], read["tree_size"]) == (True, checkpoint.origin, 300), read
    assert not proofbundle.verify_checkpoint(note.decode().replace("300", "301"), signer.verifier.text)["ok"]
