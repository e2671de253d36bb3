"""What a home holds, looked at from outside the service."""

import contextlib
import shutil
from datetime import UTC, datetime
from pathlib import Path

from bailee.accounts.directory import open_directory
from bailee.accounts.keys import create_key
from bailee.policy.flows import FlowId
from bailee.vault.reader import Exchange, Transcript, list_exchanges, list_sessions, read_session
from bailee.vault.store import open_keys, open_vault
from counterparts.waiting import wait_for

FIRST_HOME = Path(__file__).resolve().parents[1] / "database" / "schema-1"


def make_key(home: Path) -> str:
    """Make the default account where there is none, and a key for it."""
    directory = open_directory(home)
    try:
        return create_key(directory, directory.ensure_default().name)[1]
    finally:
        directory.close()


def read_exchanges(home: Path, session: str | None = None) -> list[Exchange]:
    """Return the recorded exchanges, the one begun first first."""
    vault = open_vault(home)
    try:
        return list_exchanges(vault, session=session)
    finally:
        vault.dispose()


def read_transcripts(home: Path, flow: FlowId = FlowId.MESSAGES) -> dict[int, Transcript]:
    """Open everything that is held of a flow, and return content by exchange."""
    vault, keys = open_vault(home), open_keys(home)
    today = datetime.now(UTC).date()
    try:
        return {
            transcript.exchange: transcript
            for session in list_sessions(vault, flow=flow)
            for transcript in read_session(vault, keys, session.account, session.id, today=today)
        }
    finally:
        keys.close()
        vault.dispose()


def wait_until_ended(home: Path, session: str) -> Exchange:
    """Wait until the only exchange of a session has ended on disk, and return it."""

    def ended() -> Exchange | None:
        found = read_exchanges(home, session)
        assert len(found) <= 1
        return found[0] if found and found[0].state != "open" else None

    return wait_for(f"the end of the exchange of {session}", ended)


def find_bytes(folder: Path, *pieces: bytes) -> list[Path]:
    """Return the files below a folder that hold any of the pieces.

    Where a running service takes a file away meanwhile, what was in it may be in another: it begins anew.
    """

    def search() -> list[Path]:
        files = [path for path in folder.rglob("*") if path.is_file()]
        return [path for path in files if any(piece in path.read_bytes() for piece in pieces)]

    for _ in range(20):
        with contextlib.suppress(FileNotFoundError):
            return search()
    return search()


def copy_first_home(home: Path) -> Path:
    """Make a home as the first program left one: accounts ada (pro, training) and bob (team), two sessions.

    It was made on 2026-11-24 by the program before there were revisions (`git show d73daaa`), and has never
    been opened by another since.
    """
    shutil.copytree(FIRST_HOME, home)
    for path in [home, *home.rglob("*")]:
        path.chmod(0o700 if path.is_dir() else 0o600)
    return home
