"""Signed notes with Ed25519 signatures (c2sp.org/signed-note), and their keys as text.

The text of a signer's key is that of golang.org/x/mod/sumdb/note, which first had these notes, so that a key
file says whose it is.
"""

import base64
import binascii
import re
import unicodedata
from collections.abc import Iterable
from hashlib import sha256

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from bailee.policy.problems import Problem

SEED_BYTES = 32
MAX_NOTE_BYTES = 1_000_000
MAX_SIGNATURES = 100  # a verifier must accept 16 and should have a limit
_ED25519 = b"\x01"
_KEY_ID_BYTES = 4
_PRIVATE = "PRIVATE+KEY+"
_KEY_ID = re.compile("[0-9a-f]{8}")
_DASH = "\N{EM DASH} "


class NoteRefused(Exception):
    """A note is malformed, or not signed by a key that was asked for."""


class Note(msgspec.Struct, frozen=True):
    """A note that a known key has signed.

    Attributes:
        text: what was signed, its final newline included.
        signers: names of the known keys whose signatures it carries.
    """

    text: str
    signers: tuple[str, ...]


class Verifier(msgspec.Struct, frozen=True):
    """A public key and its name."""

    name: str
    public: bytes

    @property
    def key_id(self) -> bytes:
        """Return the four bytes that name the key beside its name; no strong hash."""
        return sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:_KEY_ID_BYTES]

    @property
    def text(self) -> str:
        """Return the key as text: name, key id in hex and base64 of type and key, with `+` between."""
        encoded = base64.b64encode(_ED25519 + self.public).decode()
        return f"{self.name}+{self.key_id.hex()}+{encoded}"

    def is_signed(self, text: bytes, signature: bytes) -> bool:
        """Return whether a signature over a text is this key's."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, text)
        except InvalidSignature:
            return False
        return True


class Signer:
    """A private key and its name; no representation shows the key."""

    __slots__ = ("_key", "verifier")

    def __init__(self, name: str, seed: bytes) -> None:
        if not _is_name(name):
            raise Problem("a key's name has no spaces and no plus sign", where=repr(name))
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.verifier = Verifier(name, self._key.public_key().public_bytes_raw())

    def sign(self, text: str) -> bytes:
        """Return the note of a text that ends with a newline.

        Raises:
            ValueError: the text cannot be a note's.
        """
        if not text.endswith("\n") or not _is_printable(text):
            raise ValueError("a note's text ends with a newline and has no other control characters")
        signature = self.verifier.key_id + self._key.sign(text.encode())
        return f"{text}\n{_DASH}{self.verifier.name} {base64.b64encode(signature).decode()}\n".encode()

    def export(self) -> str:
        """Return the private key as text. It is the secret."""
        encoded = base64.b64encode(_ED25519 + self._key.private_bytes_raw()).decode()
        return f"{_PRIVATE}{self.verifier.name}+{self.verifier.key_id.hex()}+{encoded}"


def parse_verifier(text: str) -> Verifier:
    """Read a verifier key.

    Raises:
        Problem: the text is not a key, or damaged.
    """
    parsed = _parse_key(text.strip())
    verifier = Verifier(parsed[0], parsed[2]) if parsed else None
    if parsed is None or verifier is None or verifier.key_id != parsed[1]:
        raise Problem(
            "this is not a verifier key, or it is damaged",
            fix="give the one line that `bailee ledger key` prints, or a file that holds it",
        )
    return verifier


def parse_signer(text: str, *, where: str) -> Signer:
    """Read a signer key, found at `where`.

    Raises:
        Problem: the text is not a key, or damaged; no part of it is shown.
    """
    parsed = _parse_key(text.removeprefix(_PRIVATE).strip()) if text.startswith(_PRIVATE) else None
    signer = Signer(parsed[0], parsed[2]) if parsed else None
    if parsed is None or signer is None or signer.verifier.key_id != parsed[1]:
        raise Problem(
            "the ledger's key is not a signer key, or it is damaged",
            where=where,
            fix="put the file back from its own backup",
        )
    return signer


def open_note(data: bytes, verifiers: Iterable[Verifier]) -> Note:
    """Return the note, if at least one of the keys signed it.

    Signatures of unknown keys are ignored, as the specification demands.

    Raises:
        NoteRefused: the note is malformed, carries a wrong signature of a known key, or none of one.
    """
    text, lines = _split(data)
    known = {(verifier.name, verifier.key_id): verifier for verifier in verifiers}
    signers: list[str] = []
    for line in lines:
        name, key_id, signature = _parse_signature(line)
        verifier = known.get((name, key_id))
        if verifier is None:
            continue
        if not verifier.is_signed(text.encode(), signature):
            raise NoteRefused(f"the signature of {name} does not fit the text")
        signers.append(name)
    if not signers:
        raise NoteRefused("none of its signatures is by the key that was asked for")
    return Note(text, tuple(signers))


def _split(data: bytes) -> tuple[str, list[str]]:
    if len(data) > MAX_NOTE_BYTES:
        raise NoteRefused("it is too long for a note")
    try:
        note = data.decode()
    except UnicodeDecodeError:
        raise NoteRefused("it is not UTF-8") from None
    text, separator, signatures = note.rpartition("\n\n")
    if not separator or not signatures.endswith("\n") or not _is_printable(note):
        raise NoteRefused("it is not a signed note")
    lines = signatures.removesuffix("\n").split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise NoteRefused(f"it has more than {MAX_SIGNATURES} signatures")
    return text + "\n", lines


def _parse_signature(line: str) -> tuple[str, bytes, bytes]:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    signature = _decode_base64(encoded)
    if (
        not line.startswith(_DASH)
        or not _is_name(name)
        or signature is None
        or len(signature) <= _KEY_ID_BYTES
    ):
        raise NoteRefused("one of its signature lines is malformed")
    return name, signature[:_KEY_ID_BYTES], signature[_KEY_ID_BYTES:]


def _parse_key(text: str) -> tuple[str, bytes, bytes] | None:
    """Return the name, key id and 32 bytes that a key's text holds, None if it holds no such thing."""
    name, _, rest = text.partition("+")
    key_id, _, encoded = rest.partition("+")  # base64 may hold a plus itself
    key = _decode_base64(encoded)
    if not _is_name(name) or not _KEY_ID.fullmatch(key_id) or key is None:
        return None
    if len(key) != len(_ED25519) + SEED_BYTES or not key.startswith(_ED25519):
        return None
    return name, bytes.fromhex(key_id), key[len(_ED25519) :]


def _decode_base64(encoded: str) -> bytes | None:
    """Return the bytes, None unless the text is the one base64 encoding they have (RFC 4648 section 4)."""
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if base64.b64encode(data).decode() == encoded else None


def _is_name(name: str) -> bool:
    return bool(name) and not any(
        character == "+" or character.isspace() or unicodedata.category(character) == "Cc"
        for character in name
    )


def _is_printable(text: str) -> bool:
    return not any(character < " " and character != "\n" for character in text)
