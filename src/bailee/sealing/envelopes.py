"""AES-256-GCM envelopes, bound to the place they belong to.

Envelope: one version byte (1), 12 bytes of nonce, then ciphertext and 16-byte tag (NIST SP 800-38D).
The nonce is random: a counter would repeat when a write is retried after a crash or when an old
copy of the store is put back, and a repeated GCM nonce gives away both texts. A key seals one
segment, far below the 2^32 messages that SP 800-38D section 8.3 allows with random nonces.
"""

from collections.abc import Callable

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 12
OVERHEAD_BYTES = 1 + NONCE_BYTES + 16
_VERSION = b"\x01"


class SealBroken(Exception):
    """An envelope does not open: another key, another place, or altered bytes."""


class Place(msgspec.Struct, frozen=True, array_like=True):
    """What an envelope is bound to as associated data, so that it opens nowhere else.

    Attributes:
        segment: 16 random bytes that name the segment.
        sequence: position in the segment, counted from 0.
        exchange: the exchange it is part of.
        kind: what it holds; see `vault.tables.Kind`.
    """

    account: str
    session: str
    segment: bytes
    sequence: int
    exchange: int
    kind: int


class SegmentCipher:
    """Seals and opens the records of one segment under its data key."""

    __slots__ = ("_cipher", "_random")

    def __init__(self, key: bytes, random: Callable[[int], bytes]) -> None:
        self._cipher = AESGCM(key)
        self._random = random

    def seal(self, plaintext: bytes, place: Place) -> bytes:
        """Return the envelope of a record at its place."""
        nonce = self._random(NONCE_BYTES)
        return _VERSION + nonce + self._cipher.encrypt(nonce, plaintext, associated_data(place))

    def open(self, envelope: bytes, place: Place) -> bytes:
        """Return what was sealed.

        Raises:
            SealBroken: the envelope does not belong to this key and place, or was altered.
        """
        if envelope[:1] != _VERSION or len(envelope) < OVERHEAD_BYTES:
            raise SealBroken("not an envelope of a version this program knows")
        nonce = envelope[1 : 1 + NONCE_BYTES]
        try:
            return self._cipher.decrypt(nonce, envelope[1 + NONCE_BYTES :], associated_data(place))
        except InvalidTag:
            raise SealBroken("altered, moved, or sealed under another key") from None


def associated_data(place: Place) -> bytes:
    """Encode a place; MessagePack is self-delimiting, so no two places share an encoding."""
    return b"bailee record 1" + msgspec.msgpack.encode(place)
