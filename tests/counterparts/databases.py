"""A real PostgreSQL server: one for all tests of a run, on a socket in a folder of its own."""

import contextlib
import fcntl
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg

from counterparts.waiting import wait_for

# Nobody's data is in it: no sync, and a short log. Notifications and locks are as everywhere.
SETTINGS = (
    "fsync=off",
    "full_page_writes=off",
    "synchronous_commit=off",
    "listen_addresses=",
    "max_connections=200",
    "shared_buffers=32MB",
    "autovacuum=off",
    "max_wal_size=64MB",
    "min_wal_size=32MB",
)
STORES = ("accounts", "vault", "keystore", "pseudonyms")

_END_OTHERS = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""
# Deleting costs a few rows; TRUNCATE makes new files for every table and index.
_EMPTY = """
DO $$ DECLARE made RECORD; BEGIN
    SET LOCAL session_replication_role = replica;
    FOR made IN SELECT relname, relkind FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relname <> 'alembic_version' LOOP
        IF made.relkind = 'r' THEN
            EXECUTE 'DELETE FROM ' || quote_ident(made.relname);
        ELSIF made.relkind = 'S' THEN
            PERFORM setval(quote_ident(made.relname)::regclass, 1, false);
        END IF;
    END LOOP;
END $$
"""


class Server:
    """A running server.

    Args:
        folder: where it lies; its socket is in there.
    """

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "socket"
        self._folder = folder

    def url(self, name: str, role: str = "bailee", password: str = "") -> str:
        """Return what `BAILEE_DATABASE` is for a home whose databases' names begin so."""
        who = f"{role}:{password}" if password else role
        return f"postgresql://{who}@/{name}?host={self.socket}"

    def connect(
        self, database: str = "postgres", role: str = "bailee"
    ) -> "psycopg.Connection[tuple[object, ...]]":
        """Connect as whoever may do everything, each statement a transaction of its own."""
        return psycopg.connect(host=str(self.socket), dbname=database, user=role, autocommit=True)

    def empty(self, name: str) -> None:
        """Empty a home's databases, whoever is still connected: a tenth of the time of making them anew."""
        for store in STORES:
            with contextlib.suppress(psycopg.OperationalError), self.connect(f"{name}_{store}") as connection:
                connection.execute(_END_OTHERS)
                connection.execute(_EMPTY)

    def crash(self) -> None:
        """End every process of the server at once, as in a power cut: nobody is told, nothing is written."""
        _crash(self._folder)

    def start_again(self) -> None:
        """Start the server after a crash: it recovers what was committed."""

        def is_started() -> bool:
            # Not before the last process of the one that crashed has let go of its shared memory.
            with contextlib.suppress(subprocess.CalledProcessError):
                _run_server(self._folder)
                return True
            return False

        wait_for("the server to start again", is_started)

    def wait_until_ready(self) -> None:
        """Wait until the server takes connections again: it recovers where a process of it was killed."""

        def is_ready() -> bool:
            with contextlib.suppress(psycopg.OperationalError):
                self.connect().close()
                return True
            return False

        wait_for("the server to take connections", is_ready)

    def drop(self, name: str) -> None:
        """Drop a home's databases, whoever is still connected."""
        with self.connect() as connection:
            for store in STORES:
                connection.execute(f"DROP DATABASE IF EXISTS {name}_{store} WITH (FORCE)".encode())


def draw_name() -> str:
    """Return a name that no other home's databases begin with."""
    return f"home_{secrets.token_hex(6)}"


@contextlib.contextmanager
def sharing_server(run: str) -> Iterator[Server]:
    """Give the server of a test run; the first who asks starts it, and the last stops it.

    Each user holds a shared lock as long as it needs the server: one that is killed lets go of it too.

    Args:
        run: names the test run, over all its processes.
    """
    folder = Path(tempfile.gettempdir(), f"bailee-postgresql-{os.getuid()}-{run}")
    folder.mkdir(mode=0o755, exist_ok=True)
    with (folder / "users").open("w") as users:
        with _alone(folder):
            fcntl.flock(users, fcntl.LOCK_SH)
            if not (folder / "data" / "postmaster.pid").exists():
                _start(folder)
        try:
            yield Server(folder)
        finally:
            with _alone(folder):
                fcntl.flock(users, fcntl.LOCK_UN)
                if _is_last(users.fileno()):
                    _stop(folder)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_last(users: int) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _start(folder: Path) -> None:
    """Make a server's folder and start it."""
    for name in ("data", "socket"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(mode=0o700)
        if os.getuid() == 0:
            os.chown(folder / name, *_owner())
    making = ("initdb", "-U", "bailee", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
    _run(folder, *making, "-D", folder / "data")
    _run_server(folder)


def _run_server(folder: Path) -> None:
    data = folder / "data"
    settings = " ".join(
        f"-c {setting}" for setting in (*SETTINGS, f"unix_socket_directories={folder}/socket")
    )
    _run(folder, "pg_ctl", "-D", data, "-l", data / "log", "-o", settings, "--wait", "start")


def _stop(folder: Path) -> None:
    _crash(folder)  # nothing is kept
    shutil.rmtree(folder)


def _crash(folder: Path) -> None:
    _run(folder, "pg_ctl", "-D", folder / "data", "--mode", "immediate", "stop")


def _run(folder: Path, program: str, *arguments: object) -> None:
    """Run one of PostgreSQL's programs, as another user than root: it would refuse."""
    command = [str(_programs() / program), *map(str, arguments)]
    if os.getuid() == 0:
        user, group = _owner()
        command = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--", *command]
    environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder, env=environment)


def _programs() -> Path:
    """Return where PostgreSQL's programs are: Debian keeps those of each version apart."""
    versions = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3])
    )
    found = versions[-1] if versions else shutil.which("postgres")
    assert found, "PostgreSQL is not installed: run make setup"
    return Path(found).parent


def _owner() -> tuple[int, int]:
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        user = pwd.getpwnam("nobody")
    return user.pw_uid, user.pw_gid
