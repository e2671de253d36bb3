"""Receipts: some entries of a ledger in a file that proves itself, offline, with the public key alone.

A receipt is JSON, in exactly one encoding: what does not encode to the same bytes again is refused, so that
no bit of it can change unnoticed.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import msgspec

from bailee.ledger.checkpoints import open_checkpoint
from bailee.ledger.entries import (
    CopiesReached,
    DiskDestroyed,
    Erased,
    KeysDestroyed,
    commit_segment,
    decode_entry,
)
from bailee.ledger.log import Log
from bailee.ledger.merkle import hash_leaf, is_included
from bailee.ledger.notes import NoteRefused, Verifier
from bailee.policy.problems import Problem

VERSION: Literal[1] = 1
_BETWEEN = re.compile(rb"(?<=\n\})[\s,]+(?=\{)")


class ReceiptRefused(Exception):
    """A receipt does not prove what it says."""


class ProvenEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of a receipt; bytes are base64 in the file.

    Attributes:
        proof: the audit path from the entry to the checkpoint's root, lowest hash first.
    """

    index: int
    entry: bytes
    proof: list[bytes]


class Receipt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a receipt file holds.

    Attributes:
        origin: the ledger's name.
        checkpoint: the signed note of the ledger as the receipt was made.
        entries: in the order of their indices, none of them twice.
    """

    version: Literal[1]
    origin: str
    checkpoint: str
    entries: list[ProvenEntry]


def make_receipt(log: Log, indices: Iterable[int]) -> bytes:
    """Return the receipt of some entries, as of the present checkpoint.

    Raises:
        Problem: no entry is asked for or one that is not there, or what is needed of the ledger is damaged.
    """
    wanted = sorted(set(indices))
    if not wanted:
        raise Problem("a receipt is of at least one entry")
    note = log.note()
    checkpoint = log.checkpoint(note)
    entries = []
    for index in wanted:
        proof = log.prove(index, checkpoint.size).path
        entry = next(log.read(index, index + 1))
        if not is_included(hash_leaf(entry), index, checkpoint.size, proof, checkpoint.root):
            raise Problem(
                f"the ledger is damaged: entry {index} is not what its checkpoint is signed over",
                where=checkpoint.origin,
                fix="see: bailee ledger verify",
            )
        entries.append(ProvenEntry(index, entry, proof))
    return encode_receipt(Receipt(VERSION, checkpoint.origin, note.decode(), entries))


def find_entries(log: Log, start: int, ids: Sequence[str], segments: Sequence[bytes]) -> list[int]:
    """Return where the ledger tells of an erasure: its own entries, and the keys destroyed for it.

    Looks from `start` on, and through all of the ledger where a key had been destroyed earlier already.

    Raises:
        Problem: the ledger does not tell of all of it.
    """
    for first in (start, 0):
        missing = {commit_segment(segment) for segment in segments}
        untold = set(ids)
        found = []
        for index, data in enumerate(log.read(first), first):
            entry = decode_entry(data)
            if entry.id in untold:
                found.append(index)
                untold.discard(entry.id)
            elif isinstance(entry, KeysDestroyed) and not missing.isdisjoint(entry.segments):
                found.append(index)
                missing.difference_update(entry.segments)
        if not untold and not missing:
            return found
    raise Problem(
        "the ledger does not tell of this erasure",
        where="ledger",
        fix="see: bailee ledger verify; what was erased is gone",
    )


def encode_receipt(receipt: Receipt) -> bytes:
    """Return the one encoding of a receipt."""
    return msgspec.json.format(msgspec.json.encode(receipt), indent=2) + b"\n"


def join_receipts(receipts: Iterable[bytes]) -> Iterator[bytes]:
    """Give several receipts as one JSON array, piece by piece; each stays as it was made."""
    before = b"[\n"
    for receipt in receipts:
        yield before + receipt.rstrip()
        before = b",\n"
    yield b"\n]\n" if before == b",\n" else b"[]\n"


def split_receipts(data: bytes) -> list[bytes]:
    """Return the receipts of a file, one or several, as they were made; what is none comes as it is.

    They may stand in an array or one below the other: each begins and ends with a brace at the beginning of a
    line, and what lies between them proves nothing.
    """
    whole = data.strip()
    is_array = whole.startswith(b"[") and whole.endswith(b"]")
    if is_array:
        whole = whole[1:-1].strip()
    if is_array and not whole:
        return []
    found = _BETWEEN.split(whole)
    # One that stands alone is as it is: each bit of its file matters.
    return [one.strip() + b"\n" for one in found] if is_array or len(found) > 1 else [data]


def verify_receipt(data: bytes, verifier: Verifier) -> list[ProvenEntry]:
    """Return the entries that a receipt proves to be in the ledger of a key.

    Raises:
        ReceiptRefused: it is malformed, of another ledger, or any bit of it is not as it was made.
    """
    try:
        receipt = msgspec.json.decode(data, type=Receipt)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        what = f"this is not a receipt, or not all of one (version {VERSION})"
        raise ReceiptRefused(f"{what}: {error}") from None
    if encode_receipt(receipt) != data:
        what = "it was changed after it was made, if only in its spaces"
        raise ReceiptRefused(f"{what}: take the file as it was given out")
    try:
        checkpoint = open_checkpoint(receipt.checkpoint.encode(), verifier)
    except NoteRefused as refused:
        raise ReceiptRefused(f"its checkpoint does not hold: {refused}") from None
    if receipt.origin != checkpoint.origin:
        raise ReceiptRefused("its origin is not that of its checkpoint")
    indices = [entry.index for entry in receipt.entries]
    if not indices or indices != sorted(set(indices)):
        raise ReceiptRefused("it has no entries, or not in the order of their indices")
    for proven in receipt.entries:
        leaf = hash_leaf(proven.entry)
        if not is_included(leaf, proven.index, checkpoint.size, proven.proof, checkpoint.root):
            raise ReceiptRefused(
                f"entry {proven.index} is not in the ledger that its checkpoint is signed over"
            )
    _require_deeds(receipt.entries)
    return receipt.entries


def _require_deeds(entries: Sequence[ProvenEntry]) -> None:
    """Refuse a receipt that tells of an erasure and not of what was done for it.

    An erasure is told of before its keys go and its copies are reached: that entry alone proves that it was
    asked for, not that it was done.
    """
    erased = 0
    copies: dict[str, int] = {}
    followed: dict[str, int] = {}
    destroyed: set[str] = set()
    disks: set[str] = set()
    for proven in entries:
        try:
            entry = decode_entry(proven.entry)
        except msgspec.MsgspecError:
            continue  # of a later program
        if isinstance(entry, Erased):
            erased += entry.segments
            copies[entry.id] = entry.copies
        elif isinstance(entry, CopiesReached):
            followed[entry.erasure] = entry.reached + entry.pending + entry.holders
        elif isinstance(entry, KeysDestroyed):
            destroyed.update(entry.segments)
        elif isinstance(entry, DiskDestroyed):
            disks.add(entry.disk)
    if disks - destroyed:
        raise ReceiptRefused("it tells that a disk was destroyed, and not that its key was")
    if len(destroyed) < erased:
        raise ReceiptRefused(
            f"it tells that {erased} segments were erased, and of {len(destroyed)} keys that were destroyed"
        )
    for id, count in copies.items():
        if followed.get(id, 0) < count:
            raise ReceiptRefused(
                f"it tells that {count} copies held what was erased, and not what became of all of them"
            )
