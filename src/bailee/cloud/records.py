"""What is known of a cloud session: a folder of its own, a record in it, and a lock while somebody drives it.

A session whose lock nobody holds is not running, whatever its record says.
"""

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from bailee.files import replace_file
from bailee.policy.problems import Problem

FOLDER = "cloud"
RECORD, LOG, INBOX, LOCK, WORK, STAGE = "session.json", "log", "inbox", "lock", "work", "stage"
_ID = re.compile(r"[0-9a-f]{12}")


class State(StrEnum):
    """Where a session stands."""

    STARTING = "starting"
    CLONING = "cloning"
    WORKING = "working"
    PUSHING = "pushing"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"
    LOST = "lost"  # whoever drove it was killed


ENDED = frozenset({State.DONE, State.FAILED, State.STOPPED, State.LOST})


class CloudSession(msgspec.Struct, frozen=True, kw_only=True):
    """A session, as it is written down.

    Attributes:
        account: the name of the account it works for.
        base: the branch it begins from; empty for the repository's own.
        branch: what it pushes to.
        allow: hosts besides those of its network level.
        turns: prompts, the first one included.
        exposed: names of secrets that it gets as variables.
        reason: why it ended, in words.
        receipt: of the flows of its last run, as JSON.
        has_unsaved: whether there may be work on its disk that was not pushed.
        created_ms, changed_ms: milliseconds since 1970 UTC.
    """

    id: str
    account: str
    repository: str
    base: str
    branch: str
    agent: str
    isolation: str
    network: str
    upstream: str
    allow: tuple[str, ...]
    setup: str
    seconds: int
    traffic_bytes: int
    turns: tuple[str, ...]
    answered: int
    state: State
    reason: str
    created_ms: int
    changed_ms: int
    receipt: str = ""
    has_unsaved: bool = False


class Sessions:
    """The cloud sessions of a home."""

    def __init__(self, home: Path) -> None:
        self._folder = home / FOLDER

    def folder(self, id: str) -> Path:
        """Return a session's folder."""
        return self._folder / id

    def make(self) -> str:
        """Make the folder of a new session, and return its id."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        id = secrets.token_hex(6)
        for name in (id, f"{id}/{WORK}"):
            (self._folder / name).mkdir(mode=0o700)
        return id

    def write(self, session: CloudSession) -> None:
        """Write a session's record in the place of the one before."""
        replace_file(self.folder(session.id) / RECORD, msgspec.json.encode(session))

    def change(self, id: str, **fields: Any) -> CloudSession:
        """Change what is known of a session, and return it."""
        changed = msgspec.structs.replace(self._read(id), **fields)
        self.write(changed)
        return changed

    def get(self, beginning: str) -> CloudSession:
        """Return the session whose id begins so.

        Raises:
            Problem: there is none, or several.
        """
        found = [id for id in self.ids() if id.startswith(beginning)]
        if len(found) != 1 or not beginning:
            what = "several cloud sessions begin" if len(found) > 1 else "no cloud session begins"
            raise Problem(f"{what} with {beginning[:40]!r}", where="SESSION", fix="see: bailee cloud list")
        return self.look(found[0])

    def all(self) -> list[CloudSession]:
        """Return all sessions, the newest first."""
        return sorted((self.look(id) for id in self.ids()), key=lambda one: -one.created_ms)

    def ids(self) -> list[str]:
        """Return the ids of all sessions."""
        if not self._folder.is_dir():
            return []
        known = [one.name for one in self._folder.iterdir() if (one / RECORD).exists()]
        return sorted(name for name in known if _ID.fullmatch(name))

    def look(self, id: str) -> CloudSession:
        """Return a session as it stands: one that nobody drives any more is lost, and is written so."""
        session = self._read(id)
        if session.state in ENDED or self.is_driven(id):
            return session
        reason = "whoever drove it was killed; what it had done is in its folder: bailee cloud patch"
        return self.change(id, state=State.LOST, reason=reason)

    def is_driven(self, id: str) -> bool:
        """Tell whether a process drives a session."""
        try:
            descriptor = os.open(self.folder(id) / LOCK, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    @contextmanager
    def driving(self, id: str) -> Iterator[int]:
        """Hold a session while driving it, and give the lock's descriptor.

        Raises:
            Problem: another process drives it.
        """
        path = self.folder(id) / LOCK
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise Problem(
                "the session is running", where=id, fix="wait, or stop it: bailee cloud stop"
            ) from None
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            yield descriptor
        finally:
            os.close(descriptor)

    def driver(self, id: str) -> int | None:
        """Return the process that drives a session; None for none."""
        try:
            written = (self.folder(id) / LOCK).read_text()
        except FileNotFoundError:
            return None
        return int(written) if written.isdigit() and self.is_driven(id) else None

    def remove(self, id: str) -> None:
        """Remove a session with its disk.

        Raises:
            Problem: it is running.
        """
        with self.driving(id):
            # Its record goes last: a removal that is cut off leaves a session that can be removed.
            for path in self.folder(id).iterdir():
                if path.name not in (RECORD, LOCK):
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        shutil.rmtree(self.folder(id))

    def _read(self, id: str) -> CloudSession:
        path = self.folder(id) / RECORD
        try:
            return msgspec.json.decode(path.read_bytes(), type=CloudSession)
        except (OSError, msgspec.MsgspecError) as fault:
            raise Problem(
                f"what is known of the session cannot be read: {fault}",
                where=str(path),
                fix=f"remove its folder: {path.parent}",
            ) from None
