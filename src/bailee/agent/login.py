"""The token of a login: in the keyring, or in a file of its owner. A key in the environment comes first."""

import os
from collections.abc import Mapping
from pathlib import Path

from bailee.agent.sessions.keys import has_keyring, read_secret, remove_secret, write_secret
from bailee.agent.state import make_private
from bailee.files import replace_file
from bailee.policy.problems import Problem

NAME = "token"
FILE = "token"


def read_token(state: Path, environment: Mapping[str, str] = os.environ) -> str:
    """Return the token; empty if nobody is logged in.

    Raises:
        Problem: the file can be read by others.
    """
    path = state / FILE
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return (read_secret(NAME) or "") if has_keyring(environment) else ""
    with os.fdopen(descriptor, encoding="ascii", errors="replace") as file:
        if os.fstat(descriptor).st_mode & 0o077:
            raise Problem("the token can be read by others", where=str(path), fix=f"run: chmod 600 {path}")
        return file.read().strip()


def keep_token(state: Path, token: str, environment: Mapping[str, str] = os.environ) -> str:
    """Keep a token and tell where: in the keyring where there is one, else in a file."""
    make_private(state)
    if has_keyring(environment) and write_secret(NAME, token):
        (state / FILE).unlink(missing_ok=True)
        return "the system's keyring"
    replace_file(state / FILE, token.encode() + b"\n")
    return str(state / FILE)


def drop_token(state: Path, environment: Mapping[str, str] = os.environ) -> None:
    """Forget the token, wherever it is kept."""
    (state / FILE).unlink(missing_ok=True)
    if has_keyring(environment):
        remove_secret(NAME)
