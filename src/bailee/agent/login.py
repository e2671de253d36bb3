"""The login of this machine's agent: a service and its token, in the keyring or in a file of its owner.

Both are one value: a token never goes to another service than the one that gave it.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from bailee.agent.service import Service, check_address
from bailee.agent.sessions.keys import has_keyring, read_secret, remove_secret, write_secret
from bailee.agent.state import make_private
from bailee.files import leftover, replace_file
from bailee.policy.problems import Problem

NAME = "login"  # in the keyring
FILE = "login"
KEYRING = "the system's keyring"
NAMED = "the login"


class Login(msgspec.Struct, frozen=True):
    """A service and the token that it gave."""

    service: str
    token: str

    def __repr__(self) -> str:
        return f"Login({self.service!r}, ...)"

    def to_service(self) -> Service:
        """Return the service as it is sent to."""
        return Service(self.service, self.token, NAMED)


def read_login(state: Path, environment: Mapping[str, str] = os.environ) -> Login | None:
    """Return the login: of the file, if it is there, else of the keyring; None if nobody is logged in.

    Raises:
        Problem: the file can be read by others, or what is kept cannot be understood.
    """
    path = state / FILE
    where = str(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        kept = read_secret(NAME) if has_keyring(environment) else None
        if kept is None:
            return None
        where, data = KEYRING, kept.encode()
    except OSError as fault:
        raise Problem(
            f"the login cannot be read: {fault.strerror}", where=where, fix="run: bailee logout"
        ) from None
    else:
        with os.fdopen(descriptor, "rb") as file:
            if os.fstat(descriptor).st_mode & 0o077:
                raise Problem(
                    "the login's token can be read by others", where=where, fix=f"run: chmod 600 {path}"
                )
            data = file.read()
    try:
        login = msgspec.json.decode(data, type=Login)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise Problem("the login cannot be understood", where=where, fix="run: bailee login") from None
    check_address(login.service, where=where)
    return login


def keep_login(state: Path, login: Login, environment: Mapping[str, str] = os.environ) -> str:
    """Keep a login in place of the one before, and tell where: in the keyring if there is one, else a file.

    Raises:
        Problem: the folder cannot be made or is open to others.
    """
    make_private(state)
    data = msgspec.json.encode(login)
    if has_keyring(environment) and write_secret(NAME, data.decode()):
        (state / FILE).unlink(missing_ok=True)
        return KEYRING
    replace_file(state / FILE, data)
    if has_keyring(environment):
        remove_secret(NAME)  # of the login before; what is in the file comes first in any case
    return str(state / FILE)


def drop_login(state: Path, environment: Mapping[str, str] = os.environ) -> None:
    """Forget the login, wherever it is kept.

    Raises:
        Problem: the keyring does not let go of it.
    """
    (state / FILE).unlink(missing_ok=True)
    leftover(state / FILE).unlink(missing_ok=True)
    # A keyring that does not answer, as on a machine without a desktop, has nothing of ours.
    if has_keyring(environment) and read_secret(NAME) is not None and not remove_secret(NAME):
        raise Problem(
            "the keyring did not let go of the login",
            where=KEYRING,
            fix="unlock it and run `bailee logout` again, or remove the entry by hand: bailee, login",
        )
