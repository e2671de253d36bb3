"""AES-256-GCM boxes: bytes sealed for one purpose, in files that are no part of a vault.

Box: one version byte (1), 12 random bytes of nonce, then ciphertext and tag, as in `sealing.envelopes`; the
context it was sealed in is associated data.
"""

from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bailee.sealing.envelopes import NONCE_BYTES, OVERHEAD_BYTES, SealBroken

_VERSION = b"\x01"


def seal_box(key: bytes, plaintext: bytes, context: bytes, random: Callable[[int], bytes]) -> bytes:
    """Return the box of some bytes; it opens with the same key and context only."""
    nonce = random(NONCE_BYTES)
    return _VERSION + nonce + AESGCM(key).encrypt(nonce, plaintext, b"bailee box 1" + context)


def open_box(key: bytes, box: bytes, context: bytes) -> bytes:
    """Return what was sealed.

    Raises:
        SealBroken: the box does not belong to this key and context, or was altered.
    """
    if box[:1] != _VERSION or len(box) < OVERHEAD_BYTES:
        raise SealBroken("not a box of a version this program knows")
    nonce = box[1 : 1 + NONCE_BYTES]
    try:
        return AESGCM(key).decrypt(nonce, box[1 + NONCE_BYTES :], b"bailee box 1" + context)
    except InvalidTag:
        raise SealBroken("altered, moved, or sealed under another key") from None
