"""Receipts: they prove their entries with the public key alone, and no bit of them can change."""

from pathlib import Path

import msgspec
import pytest

from bailee.ledger import receipts
from bailee.ledger.entries import CopiesReached, Erased, KeysDestroyed, commit_segment, encode_entry
from bailee.ledger.log import Log, open_log
from bailee.ledger.notes import Signer
from bailee.ledger.receipts import (
    ProvenEntry,
    Receipt,
    ReceiptRefused,
    encode_receipt,
    join_receipts,
    make_receipt,
    split_receipts,
    verify_receipt,
)
from bailee.policy.problems import Problem
from counterparts.ledgers import flip, make_entries


@pytest.fixture
def log(tmp_path: Path) -> Log:
    log = open_log(tmp_path / "ledger", create=True)
    log.append(make_entries(0, 300))
    return log


def unnoticed(receipt: bytes, log: Log) -> list[int]:
    """Flip each bit of a receipt and return those after which it is taken."""
    taken = []
    for bit in range(len(receipt) * 8):
        try:
            verify_receipt(flip(receipt, bit), log.verifier)
        except ReceiptRefused:
            continue
        taken.append(bit)
    return taken


def test_a_receipt_proves_its_entries(log: Log) -> None:
    """It gives the entries asked for, in order, whatever is appended later."""
    receipt = make_receipt(log, [299, 7, 0, 7])
    log.append(make_entries(300, 301))
    proven = verify_receipt(receipt, log.verifier)
    assert [(entry.index, entry.entry) for entry in proven] == [
        (index, make_entries(index, index + 1)[0]) for index in (0, 7, 299)
    ]
    assert msgspec.json.decode(receipt)["version"] == 1


def test_every_bit_of_a_receipt_counts(log: Log) -> None:
    """With any one bit flipped it is refused."""
    assert unnoticed(make_receipt(log, [7, 256]), log) == []


def test_without_the_one_encoding_bits_go_unnoticed(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: a receipt that is only decoded can be altered in its layout."""
    receipt = make_receipt(log, [7])
    monkeypatch.setattr(receipts, "encode_receipt", lambda _: receipts_seen[-1])
    receipts_seen: list[bytes] = []
    taken = 0
    for bit in range(len(receipt) * 8):
        receipts_seen.append(flip(receipt, bit))
        try:
            verify_receipt(receipts_seen[-1], log.verifier)
        except ReceiptRefused:
            continue
        taken += 1
    assert taken > 0


def test_without_the_proof_any_entry_is_taken(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: it is the proof that binds an entry to the checkpoint."""
    receipt = msgspec.json.decode(make_receipt(log, [7]), type=Receipt)
    forged = encode_receipt(
        msgspec.structs.replace(receipt, entries=[ProvenEntry(7, b"forged", receipt.entries[0].proof)])
    )
    with pytest.raises(ReceiptRefused, match="entry 7 is not in the ledger"):
        verify_receipt(forged, log.verifier)
    monkeypatch.setattr(receipts, "is_included", lambda *args: True)
    assert verify_receipt(forged, log.verifier)


def test_forged_receipts_are_refused(log: Log) -> None:
    """Another origin, other entries, an order of their own, none at all, unknown fields: refused."""
    receipt = msgspec.json.decode(make_receipt(log, [7, 8]), type=Receipt)
    first, second = receipt.entries
    for changes in (
        {"origin": "bailee.local/ledger/other"},
        {"entries": []},
        {"entries": [second, first]},
        {"entries": [first, first]},
        {"entries": [ProvenEntry(8, first.entry, first.proof)]},
        {"entries": [ProvenEntry(7, first.entry, first.proof[:-1])]},
        {"entries": [ProvenEntry(7 + 512, first.entry, first.proof)]},
        {"entries": [ProvenEntry(-1, first.entry, first.proof)]},
        {"checkpoint": ""},
    ):
        with pytest.raises(ReceiptRefused):
            verify_receipt(encode_receipt(msgspec.structs.replace(receipt, **changes)), log.verifier)
    whole = make_receipt(log, [7])
    for wrong in (
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        whole + b" ",
        whole.replace(b"{", b'{\n  "more": 1,', 1),
        whole.replace(b'"version": 1', b'"version": 2'),
        whole.replace(b'"origin"', b'"\\u006frigin"'),
        whole.replace(b'"checkpoint": "', b'"checkpoint": "\\ud800'),
    ):
        with pytest.raises(ReceiptRefused):
            verify_receipt(wrong, log.verifier)


def test_a_receipt_of_another_ledger_is_refused(log: Log) -> None:
    """Another key of the same name verifies nothing."""
    other = Signer(log.verifier.name, bytes(32)).verifier
    with pytest.raises(ReceiptRefused, match="checkpoint does not hold"):
        verify_receipt(make_receipt(log, [7]), other)


@pytest.mark.parametrize("between", ["array", "lines"])
def test_several_in_one_file_are_each_as_they_were_made(log: Log, between: str) -> None:
    """In an array or one below the other each is verified by itself, and a changed one is found."""
    made = [make_receipt(log, [number]) for number in range(3)]
    data = b"".join(join_receipts(made)) if between == "array" else b"\n".join(made)
    assert split_receipts(data) == made
    changed = split_receipts(data.replace(b'"index": 1', b'"index": 2', 1))
    verify_receipt(changed[0], log.verifier)
    with pytest.raises(ReceiptRefused):
        verify_receipt(changed[1], log.verifier)


def test_one_alone_is_taken_as_it_is(log: Log) -> None:
    """Nothing is taken off a file of one, where each bit counts; control: of several what is between them
    is.
    """
    made = make_receipt(log, [1])
    assert split_receipts(made) == [made]
    assert split_receipts(made + b" ") == [made + b" "]
    assert split_receipts(made + b" \n" + made) == [made, made]
    assert b"".join(join_receipts([])) == b"[]\n"
    assert split_receipts(b"[]\n") == []


def test_what_is_not_there_gets_no_receipt(log: Log, tmp_path: Path) -> None:
    """No entries, one beyond the end, or one that was altered on the disk: an error, no receipt."""
    with pytest.raises(Problem, match="at least one"):
        make_receipt(log, [])
    with pytest.raises(Problem, match="no entry 300"):
        make_receipt(log, [300])
    bundle = tmp_path / "ledger" / "tile" / "entries" / "000"
    bundle.write_bytes(bundle.read_bytes().replace(b'{"n":7}', b'{"n":8}', 1))
    with pytest.raises(Problem, match="entry 7 is not what"):
        make_receipt(log, [7])


def erase(log: Log) -> tuple[int, int]:
    """Append what an erasure of one segment leaves, and return where."""
    commitment = commit_segment(b"segment")
    erased = Erased(
        id="a", at_ms=1, subject="s", session="t", by="b", segments=1, records=2, exchanges=1, stored_bytes=3
    )
    gone = KeysDestroyed(id="b", at_ms=2, why="erased", segments=(commitment,))
    first, second = log.append([encode_entry(erased), encode_entry(gone)])
    return first, second


def test_an_erasure_is_proven_by_its_keys(log: Log) -> None:
    """A receipt of an erasure holds the keys' destruction: without it, it proves that one was asked for."""
    whole, asked = erase(log)
    assert len(verify_receipt(make_receipt(log, [whole, asked]), log.verifier)) == 2
    with pytest.raises(ReceiptRefused, match="1 segments were erased, and of 0 keys"):
        verify_receipt(make_receipt(log, [whole]), log.verifier)


def test_control_without_the_keys(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: not looked for, the keys are not missed."""
    monkeypatch.setattr(receipts, "_require_deeds", lambda entries: None)
    assert verify_receipt(make_receipt(log, [erase(log)[0]]), log.verifier)


def test_an_erasure_tells_what_became_of_copies(log: Log) -> None:
    """Taken out of a receipt, the entry that a copy is still pending is missed; so is one of fewer copies."""
    erased = Erased(
        id="a",
        at_ms=1,
        subject="s",
        session="t",
        by="b",
        segments=0,
        records=0,
        exchanges=1,
        stored_bytes=0,
        copies=2,
    )
    told = CopiesReached(id="b", at_ms=2, erasure="a", reached=1, pending=1, holders=0)
    fewer = CopiesReached(id="c", at_ms=2, erasure="a", reached=1, pending=0, holders=0)
    other = CopiesReached(id="d", at_ms=2, erasure="e", reached=1, pending=1, holders=0)
    first, second, third, fourth = log.append([encode_entry(one) for one in (erased, told, fewer, other)])
    assert verify_receipt(make_receipt(log, [first, second]), log.verifier)
    for indices in ([first], [first, third], [first, fourth]):
        with pytest.raises(ReceiptRefused, match="2 copies held what was erased"):
            verify_receipt(make_receipt(log, indices), log.verifier)
