"""Checkpoints: how many entries a log has and what they hash to, signed (c2sp.org/tlog-checkpoint)."""

import base64
import binascii
import re

import msgspec

from bailee.ledger.merkle import HASH_BYTES
from bailee.ledger.notes import NoteRefused, Signer, Verifier, open_note

MAX_SIZE = 2**63 - 1
_SIZE = re.compile("0|[1-9][0-9]{0,18}")


class Checkpoint(msgspec.Struct, frozen=True):
    """What a log says of itself.

    Attributes:
        origin: the log's name, which is also the name of its key.
        size: how many entries it has.
        root: the Merkle tree hash of all of them.
    """

    origin: str
    size: int
    root: bytes


def sign_checkpoint(checkpoint: Checkpoint, signer: Signer) -> bytes:
    """Return the signed note of a checkpoint."""
    root = base64.b64encode(checkpoint.root).decode()
    return signer.sign(f"{checkpoint.origin}\n{checkpoint.size}\n{root}\n")


def open_checkpoint(note: bytes, verifier: Verifier) -> Checkpoint:
    """Return the checkpoint that a log's key has signed.

    Raises:
        NoteRefused: the note is not this key's, or no checkpoint of the log that the key is named for.
    """
    checkpoint = parse_checkpoint(open_note(note, (verifier,)).text)
    if checkpoint.origin != verifier.name:
        raise NoteRefused(f"it is of another log, {checkpoint.origin}")
    return checkpoint


def parse_checkpoint(text: str) -> Checkpoint:
    """Read a note's text as a checkpoint.

    Extension lines, which the specification allows and advises against, are refused: no log of ours has any.

    Raises:
        NoteRefused: it is no checkpoint.
    """
    lines = text.split("\n")
    if len(lines) != 4 or lines[3] or not lines[0] or not _SIZE.fullmatch(lines[1]):
        raise NoteRefused("it is signed, but not a checkpoint")
    size = int(lines[1])
    try:
        root = base64.b64decode(lines[2], validate=True)
    except (binascii.Error, ValueError):
        root = b""
    if len(root) != HASH_BYTES or base64.b64encode(root).decode() != lines[2] or size > MAX_SIZE:
        raise NoteRefused("it is signed, but not a checkpoint")
    return Checkpoint(lines[0], size, root)
