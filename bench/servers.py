"""A PostgreSQL server of a benchmark's own, with the settings it ships with, on a socket in a folder."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg

# The defaults, and so waiting for the disk at each commit. Loading a table in the transaction that empties it
# is not logged at this level of the log (PostgreSQL, "Populating a Database"): it halves the time of loading.
SETTINGS = ("listen_addresses=", "wal_level=minimal", "max_wal_senders=0")


class ServerMissing(Exception):
    """There is no PostgreSQL here."""


class Server:
    """A running server.

    Args:
        socket: the folder of its socket.
    """

    def __init__(self, socket: Path) -> None:
        self.socket = socket

    def url(self, name: str) -> str:
        """Return what `BAILEE_DATABASE` is for a home whose databases' names begin so."""
        return f"postgresql://bailee@/{name}?host={self.socket}"

    def connect(self, database: str = "postgres") -> "psycopg.Connection[tuple[object, ...]]":
        """Connect as whoever may do everything, each statement a transaction of its own."""
        return psycopg.connect(host=str(self.socket), dbname=database, user="bailee", autocommit=True)

    def version(self) -> str:
        """Return its version."""
        with self.connect() as connection:
            return str(connection.execute("SHOW server_version").fetchone()[0]).split()[0]  # type: ignore[index]

    def drop(self, name: str) -> None:
        """Drop a home's databases, or one of that very name."""
        with self.connect() as connection:
            query = "SELECT datname FROM pg_database WHERE datname = %s OR datname LIKE %s"
            for (database,) in connection.execute(query, (name, f"{name}\\_%")).fetchall():
                connection.execute(f"DROP DATABASE {database} WITH (FORCE)".encode())


@contextlib.contextmanager
def running_server(parent: Path) -> Iterator[Server]:
    """Start a server in a new folder below `parent`, and leave nothing of it behind.

    Below the folder for temporary files where `parent` cannot be entered by the server's user.

    Raises:
        ServerMissing: it is not installed.
    """
    if find_programs() is None:
        raise ServerMissing("PostgreSQL is not installed: run make setup")
    parent = parent.resolve()
    if os.getuid() == 0 and any(not above.stat().st_mode & 0o001 for above in (parent, *parent.parents)):
        parent = Path(tempfile.gettempdir())
    folder = Path(tempfile.mkdtemp(prefix="bailee-postgresql-", dir=parent))
    # A socket's name has 107 bytes at most.
    socket = Path(tempfile.mkdtemp(prefix="bailee-socket-"))
    try:
        folder.chmod(0o755)
        data = folder / "data"
        for made in (data, socket):
            made.mkdir(mode=0o700, exist_ok=True)
            if os.getuid() == 0:
                os.chown(made, *_owner())
        _run("initdb", "-D", data, "-U", "bailee", "-A", "trust", "-E", "UTF8", "--locale=C")
        settings = " ".join(f"-c {setting}" for setting in (*SETTINGS, f"unix_socket_directories={socket}"))
        _run("pg_ctl", "-D", data, "-l", data / "log", "-o", settings, "--wait", "start")
        try:
            yield Server(socket)
        finally:
            _run("pg_ctl", "-D", data, "--mode", "immediate", "stop")  # nothing is kept
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(socket, ignore_errors=True)


def find_programs() -> Path | None:
    """Return where PostgreSQL's programs are (Debian keeps those of each version apart), None if nowhere."""
    versions = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3])
    )
    found = versions[-1] if versions else shutil.which("postgres")
    return Path(found).parent if found else None


def _run(program: str, *arguments: object) -> None:
    """Run one of PostgreSQL's programs, as another user than root: it would refuse."""
    programs = find_programs()
    assert programs is not None
    command = [str(programs / program), *map(str, arguments)]
    if os.getuid() == 0:
        user, group = _owner()
        command = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--", *command]
    environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/", env=environment)


def _owner() -> tuple[int, int]:
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        user = pwd.getpwnam("nobody")
    return user.pw_uid, user.pw_gid
