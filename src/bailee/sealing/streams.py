"""AES-256-GCM streams: files of any length, sealed and opened with the memory of one chunk.

The construction is STREAM (Hoang, Reyhanitabar, Rogaway, Vizár: "Online Authenticated-Encryption and its
Nonce-Reuse Misuse-Resistance", 2015) as age lays it out (C2SP, "age", section "Payload"): every stream has a
key of its own, derived by HKDF-SHA-256 (RFC 5869) from a fresh salt, and the nonce of a chunk is its number
and whether it is the last. So no chunk can be altered, moved, taken out, added or cut off unnoticed.

Stream: one version byte (1), 32 bytes of salt, then chunks of 256 KiB, each with its tag; the last may be
shorter.
"""

import hashlib
import os
from collections.abc import Callable
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from bailee.sealing.envelopes import KEY_BYTES, SealBroken

CHUNK = 256 * 1024
_VERSION = b"\x01"
_SALT_BYTES = 32
_HEADER_BYTES = len(_VERSION) + _SALT_BYTES
_TAG_BYTES = 16
_SEALED_CHUNK = CHUNK + _TAG_BYTES


class SealingWriter:
    """Seals what is written to it into a file, which is whole once `finish` has returned.

    Attributes:
        size: bytes of the sealed file so far.
    """

    def __init__(self, file: BinaryIO, key: bytes, context: bytes, random: Callable[[int], bytes]) -> None:
        self._file = file
        salt = random(_SALT_BYTES)
        self._cipher = _derive(key, salt, context)
        self._waiting = bytearray()
        self._number = 0
        self._digest = hashlib.sha256()
        self.size = 0
        self._put(_VERSION + salt)

    def write(self, data: "bytes | bytearray | memoryview[int]") -> int:
        """Seal some bytes."""
        self._waiting += data
        # What fills a chunk exactly waits: it may be the last.
        while len(self._waiting) > CHUNK:
            self._seal(bytes(self._waiting[:CHUNK]), is_last=False)
            del self._waiting[:CHUNK]
        return len(data)

    def finish(self) -> str:
        """Seal the last chunk, have the file on the disk, and return the SHA-256 of it."""
        self._seal(bytes(self._waiting), is_last=True)
        self._waiting.clear()
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._digest.hexdigest()

    def _seal(self, plain: bytes, *, is_last: bool) -> None:
        self._put(self._cipher.encrypt(_nonce(self._number, is_last), plain, None))
        self._number += 1

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)


class OpeningReader:
    """Opens a sealed file, from its beginning or from anywhere; nothing comes out that was not authenticated.

    Attributes:
        size: bytes that were sealed.

    Raises:
        SealBroken: here and in reading: another key, another context, or altered bytes.
    """

    def __init__(self, file: BinaryIO, key: bytes, context: bytes) -> None:
        self._file = file
        header = file.read(_HEADER_BYTES)
        if len(header) != _HEADER_BYTES or header[:1] != _VERSION:
            raise SealBroken("not a sealed stream of a version this program knows")
        self._cipher = _derive(key, header[1:], context)
        sealed = os.fstat(file.fileno()).st_size - _HEADER_BYTES
        self._chunks = -(-sealed // _SEALED_CHUNK)
        self.size = sealed - self._chunks * _TAG_BYTES
        if self._chunks == 0 or self.size < 0:
            raise SealBroken("the end of it is missing")
        self._digest = hashlib.sha256(header)
        self._is_in_order = True
        self._next = 0  # the chunk that the file stands at
        self._number, self._chunk = -1, b""
        self._at = 0

    def read(self, size: int) -> bytes:
        """Return so many bytes, fewer at the end."""
        number, start = divmod(self._at, CHUNK)
        if number == self._number and start + size <= len(self._chunk):  # as a rule
            self._at += size
            return self._chunk[start : start + size]
        found = []
        while size > 0 and self._at < self.size:
            number, start = divmod(self._at, CHUNK)
            piece = self._open(number)[start : start + size]
            found.append(piece)
            self._at += len(piece)
            size -= len(piece)
        return b"".join(found)

    def seek(self, at: int) -> None:
        """Go on reading at another place."""
        self._at = at

    def tell(self) -> int:
        """Return where reading goes on."""
        return self._at

    def finish(self) -> str:
        """Open what was not read yet, and return the SHA-256 of the sealed file, which was read in order."""
        assert self._is_in_order
        while self._next < self._chunks:
            self._open(self._next)
        return self._digest.hexdigest()

    def _open(self, number: int) -> bytes:
        if number != self._number:
            if number != self._next:
                self._file.seek(_HEADER_BYTES + number * _SEALED_CHUNK)
                self._is_in_order = False
            sealed = self._file.read(_SEALED_CHUNK)
            self._digest.update(sealed)
            try:
                nonce = _nonce(number, number == self._chunks - 1)
                self._chunk = self._cipher.decrypt(nonce, sealed, None)
            except (InvalidTag, ValueError):
                raise SealBroken("altered, cut off, moved, or sealed under another key") from None
            self._number, self._next = number, number + 1
        return self._chunk


def _derive(key: bytes, salt: bytes, context: bytes) -> AESGCM:
    derivation = HKDF(SHA256(), KEY_BYTES, salt, b"bailee stream 1" + context)
    return AESGCM(derivation.derive(key))


def _nonce(number: int, is_last: bool) -> bytes:
    return number.to_bytes(11) + bytes([is_last])
