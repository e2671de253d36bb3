"""The key that a machine's sessions are sealed under: in the system's keyring, or in a file of its owner."""

import os
import sys
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping
from pathlib import Path

from bailee.agent.state import make_private
from bailee.policy.problems import Problem
from bailee.sealing.envelopes import KEY_BYTES
from bailee.sealing.wrapping import create_key_file, read_key_file

SERVICE = "bailee"
NAME = "sessions"
FILE = "key"
WHAT = "the key of the sessions on this machine"


def open_key(
    state: Path,
    *,
    environment: Mapping[str, str] = os.environ,
    random: Callable[[int], bytes] = os.urandom,
) -> bytes:
    """Return the key, made at the first call. A file that is there is used; else a keyring; else a file.

    Raises:
        Problem: the file can be read by others, or it or the keyring's entry is no key, or it is missing
            although there are sessions.
    """
    make_private(state)
    path = state / FILE
    if path.exists():
        return read_key_file(path, WHAT)
    has_sessions = any((state / "sessions").glob("*.session"))
    if has_keyring(environment):
        if (kept := read_secret(NAME)) is not None:
            return _decode(kept)
        if not has_sessions:
            key = random(KEY_BYTES)
            if write_secret(NAME, b64encode(key).decode()):
                return key
    if has_sessions:
        raise Problem(
            f"{WHAT} is missing, so that these cannot be opened",
            where=str(path),
            fix="unlock the keyring it is in, put the file back, or remove the sessions: "
            f"rm -r {state / 'sessions'}",
        )
    return create_key_file(path, WHAT, random)


def has_keyring(environment: Mapping[str, str]) -> bool:
    """Tell whether this system has a keyring that a program can use: loading the library takes 60 ms."""
    if environment.get("BAILEE_KEYRING", "").strip().lower() in ("off", "0", "no", "false"):
        return False
    return sys.platform == "darwin" or bool(environment.get("DBUS_SESSION_BUS_ADDRESS"))


def read_secret(name: str) -> str | None:
    """Return an entry of the keyring; None if there is none, or no keyring that answers."""
    try:
        import keyring

        return keyring.get_password(SERVICE, name)
    except Exception:  # its backends raise errors of their own, without a common class
        return None


def write_secret(name: str, value: str) -> bool:
    """Put an entry into the keyring and tell whether it is there now."""
    try:
        import keyring

        keyring.set_password(SERVICE, name, value)
        return keyring.get_password(SERVICE, name) == value
    except Exception:  # as above
        return False


def remove_secret(name: str) -> bool:
    """Take an entry out of the keyring and tell whether it is gone now."""
    try:
        import keyring

        if keyring.get_password(SERVICE, name) is not None:
            keyring.delete_password(SERVICE, name)
        return keyring.get_password(SERVICE, name) is None
    except Exception:  # as above
        return False


def _decode(kept: str) -> bytes:
    try:
        key = b64decode(kept, validate=True)
    except (Base64Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise Problem(
            "the keyring's entry for the sessions is no key",
            where=f"keyring: {SERVICE}, {NAME}",
            fix="remove the entry; sessions sealed under the one before cannot be opened any more",
        )
    return key
