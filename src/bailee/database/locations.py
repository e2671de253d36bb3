"""Where a home's databases are: SQLite files in it, or databases of a PostgreSQL server."""

import os
import re
import secrets
from pathlib import Path

import msgspec
import sqlalchemy as sa
import sqlalchemy.exc

from bailee.files import sync_folder, write_private
from bailee.policy.problems import Problem

VARIABLE = "BAILEE_DATABASE"
MARKER = "database"  # in a home: the server it was used with
RESTORING = "restoring"  # in a home: the restore that has begun to replace what is there
EXAMPLE = "postgresql://USER@HOST:5432/NAME"
# Four databases and never one: each has a lifetime of its own, and so have its backups.
STORES = ("accounts", "vault", "keystore", "pseudonyms")
_PORT = 5432
# A name has 63 bytes in PostgreSQL, and `_pseudonyms` takes 11 of them.
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,51}")


class Server(msgspec.Struct, frozen=True):
    """A PostgreSQL server and the name that a home's databases begin with.

    Attributes:
        url: as the environment gives it; it may hold a password.
        address: the same without user, password and options.
    """

    url: sa.URL
    address: str

    def database(self, store: str) -> str:
        """Return the name of a store's database."""
        return f"{self.url.database}_{store}"


def find_server(home: Path) -> Server | None:
    """Return the server that a home's databases are on, or None where they are files in it.

    Raises:
        Problem: the variable is no such URL, or says otherwise than what the home was used with: what is held
            would seem to be gone, and what is erased would be erased in the wrong place.
    """
    server = parse_server(text) if (text := os.environ.get(VARIABLE, "")) else None
    known = _read_marker(home)
    if known and server is None:
        raise Problem(
            f"this home's databases are on {known}, and {VARIABLE} is not set",
            where=str(home),
            fix=f"set {VARIABLE} to {EXAMPLE} of that server",
        )
    if known and server is not None and known != server.address:
        raise Problem(
            f"this home's databases are on {known}, and {VARIABLE} says {server.address}",
            where=str(home),
            fix=f"name that server there; if it has moved, write its new address into {home / MARKER}",
        )
    if server is not None and not known and _has_files(home):
        raise Problem(
            f"this home's databases are SQLite files, and {VARIABLE} says {server.address}",
            where=str(home),
            fix=f"unset {VARIABLE}, or choose another home",
        )
    return server


def parse_server(text: str) -> Server:
    """Return what a URL names; it is not repeated in what is raised, for it may hold a password.

    Raises:
        Problem: it is no URL of PostgreSQL with a host and a name.
    """
    fix = f"give {EXAMPLE}; the password may be in a password file (~/.pgpass)"
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        raise Problem("this is no URL of a database", where=VARIABLE, fix=fix) from None
    host = url.host or url.query.get("host")
    if url.get_backend_name() != "postgresql" or not isinstance(host, str):
        raise Problem("this is no URL of PostgreSQL with one host", where=VARIABLE, fix=fix)
    if not _NAME.fullmatch(url.database or ""):
        raise Problem(
            f"{url.database!r} cannot begin the names of databases",
            where=VARIABLE,
            fix="use up to 52 lower-case letters, digits and _, such as /bailee",
        )
    url = url.set(drivername="postgresql+psycopg")
    return Server(url, f"postgresql://{host}:{url.port or _PORT}/{url.database}")


def mark(home: Path, server: Server) -> None:
    """Note in a home which server its databases are on, so that no other is ever taken for it."""
    if _read_marker(home):
        return
    # Whole or not at all, and under a drawn name: two processes may open a new home at once.
    staged = home / f".{MARKER}.{secrets.token_hex(8)}"
    write_private(staged, f"{server.address}\n".encode())
    staged.rename(home / MARKER)
    sync_folder(home)


def _read_marker(home: Path) -> str:
    try:
        return (home / MARKER).read_text().strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise Problem(
            f"it cannot be told where this home's databases are: {error}",
            where=str(home / MARKER),
            fix="check the file and its owner",
        ) from None


def _has_files(home: Path) -> bool:
    return any(home.glob("*.db")) or any(home.glob("*/*.db"))
