"""Key-encryption keys: what wraps the data keys of segments before they rest in a keystore."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bailee.files import sync_folder, write_private
from bailee.policy.problems import Problem
from bailee.sealing.envelopes import KEY_BYTES, NONCE_BYTES


class KeyWrapper(Protocol):
    """Wraps data keys; a local file by default, a key management service behind the same two calls."""

    def wrap(self, key: bytes, segment: bytes) -> bytes:
        """Encrypt a data key, bound to the segment it belongs to."""
        ...

    def unwrap(self, wrapped: bytes, segment: bytes) -> bytes:
        """Return the data key.

        Raises:
            Problem: the wrapped key was altered, moved to another segment or wrapped by another key.
        """
        ...


class FileKeyWrapper:
    """A key-encryption key in a local file that only its owner can read."""

    def __init__(self, key: bytes, path: Path, random: Callable[[int], bytes]) -> None:
        self._cipher = AESGCM(key)
        self._path = path
        self._random = random

    def wrap(self, key: bytes, segment: bytes) -> bytes:
        """Encrypt a data key with AES-256-GCM, the segment's name as associated data."""
        nonce = self._random(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, key, b"bailee key 1" + segment)

    def unwrap(self, wrapped: bytes, segment: bytes) -> bytes:
        """Return the data key; see `KeyWrapper.unwrap`."""
        try:
            return self._cipher.decrypt(
                wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], b"bailee key 1" + segment
            )
        except (InvalidTag, ValueError):
            raise Problem(
                "a segment's key does not unwrap under this key-encryption key",
                where=str(self._path),
                fix="put back the key-encryption key that this keystore was made with",
            ) from None


def open_key_file(path: Path, random: Callable[[int], bytes] = os.urandom, *, create: bool) -> FileKeyWrapper:
    """Read the key-encryption key at `path`, or make it if `create` is set and there is none.

    Args:
        create: set only for an empty keystore: a new key beside old wrapped keys would open nothing.

    Raises:
        Problem: the file is missing, of the wrong length, or readable by others than its owner.
    """
    what = "the key-encryption key"
    try:
        return FileKeyWrapper(read_key_file(path, what), path, random)
    except FileNotFoundError:
        if not create:
            raise Problem(
                f"{what} is missing, so what is held cannot be opened",
                where=str(path),
                fix="put the file back from its own backup",
            ) from None
    return FileKeyWrapper(create_key_file(path, what, random), path, random)


def read_key_file(path: Path, what: str) -> bytes:
    """Return the key of 32 bytes in a file.

    Args:
        what: what a person is told of it as.

    Raises:
        FileNotFoundError: it is not there.
        Problem: it is of another length, or readable by others than its owner.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC), "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        key = file.read(KEY_BYTES + 1)
    if mode & 0o077:
        raise Problem(f"{what} can be read by others", where=str(path), fix=f"run: chmod 600 {path}")
    if len(key) != KEY_BYTES:
        raise Problem(
            f"{what} has {len(key)} bytes in place of {KEY_BYTES}",
            where=str(path),
            fix="put the file back from its own backup",
        )
    return key


def create_key_file(path: Path, what: str, random: Callable[[int], bytes]) -> bytes:
    """Make a key in a file of its owner, and return it; of several makers all get the key of one."""
    key = random(KEY_BYTES)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Written beside and linked into place: a crash leaves no short key, and a race leaves one winner.
    # The name is drawn: one by process id would be taken for ever by a process that was killed in between.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    write_private(temporary, key)
    try:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return read_key_file(path, what)
    finally:
        temporary.unlink()
    sync_folder(path.parent)
    return key
