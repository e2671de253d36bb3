"""What is known of a cloud session: a folder of its own, a record in it, and a lock while somebody drives it.

A session whose lock nobody holds is not running, whatever its record says. What a person wrote stands sealed
in its record, under the key of its disk; without that key it is not there.
"""

import fcntl
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from bailee.cloud import disks
from bailee.files import replace_file
from bailee.policy.problems import Problem
from bailee.sandbox.machines import Limits
from bailee.sealing.boxes import open_box, seal_box
from bailee.sealing.envelopes import SealBroken
from bailee.vault.store import open_keys

FOLDER = "cloud"
RECORD, LOCK, WORK = disks.RECORD, "lock", disks.WORK
CHANGES = "changes.lock"  # beside the sessions: whoever changes one holds it for that moment
_ID = re.compile(r"[0-9a-f]{12}")
# How long somebody who is about to drive waits for who seals or opens a session, and how long between looks.
_PATIENCE, _LOOK_SECONDS = 300.0, 0.05
_PROBE_SECONDS = 0.5


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


STOP_REASON = "it was stopped"
ENDED = frozenset({State.DONE, State.FAILED, State.STOPPED, State.LOST})


class CloudSession(msgspec.Struct, frozen=True, kw_only=True):
    """A session, as it is written down.

    Attributes:
        account: the name of the account it works for.
        base: the branch it begins from; empty for the repository's own.
        branch: what it pushes to.
        allow: hosts besides those of its network level.
        turns: prompts, the first one included.
        answered: how many of them nobody works on any more, those included that were stopped at work.
        exposed: names of secrets that it gets as variables.
        reason: why it ended, in words.
        receipt: of the flows of its last run, as JSON.
        limits: what its machine may take.
        keys: the ids of its turns' keys, by which what it did is found.
        is_set_up: whether its clone and what its set-up does are whole. What lies on the disk says nothing of
            that: whatever ran there may have put it there.
        has_unsaved: whether there may be work on its disk that was not pushed.
        created_ms, changed_ms: milliseconds since 1970 UTC.
        disk: the id of its disk and key (`vault.disks`), in hexadecimal digits.
        disk_digest, disk_bytes: SHA-256 and size of the disk that was sealed last; empty and 0 before that.
        retention: the terms that it is held under.
        is_fresh: whether its set-up runs whatever is kept of an earlier one.
        begun_from: the id of the session whose snapshot it began from; empty if it was set up itself.
        snapshot: the id of the snapshot that it made, as `disk`; empty where there is none.
        snapshot_digest, snapshot_bytes: SHA-256 and size of that, sealed.
        snapshot_ms: when it was made, milliseconds since 1970 UTC.
        sealed: what a person wrote (`Words`), as it stands in the record; empty in memory.
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
    limits: Limits = Limits()
    is_set_up: bool = False
    has_unsaved: bool = False
    keys: tuple[str, ...] = ()
    disk: str = ""
    disk_digest: str = ""
    disk_bytes: int = 0
    retention: str = ""
    is_fresh: bool = False
    begun_from: str = ""
    snapshot: str = ""
    snapshot_digest: str = ""
    snapshot_bytes: int = 0
    snapshot_ms: int = 0
    sealed: bytes = b""


class Words(msgspec.Struct, frozen=True, array_like=True):
    """What is sealed of a record."""

    turns: tuple[str, ...] = ()
    setup: str = ""
    agent: str = ""


class NoSuchSession(Problem):
    """There is none, or none that whoever asks may see."""


class WrongState(Problem):
    """A session is not in a state in which that can be done."""


class Sessions:
    """The cloud sessions of a home.

    Args:
        random: gives that many random bytes.
    """

    def __init__(self, home: Path, *, random: Callable[[int], bytes] = os.urandom) -> None:
        self._home = home
        self._folder = home / FOLDER
        self._random = random
        self._opening = threading.Lock()
        self._keys: Callable[[bytes], bytes | None] | None = None

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
        """Write a session's record in the place of the one before.

        Where its key is destroyed, what a person wrote goes with this.
        """
        if not session.disk:  # of an earlier program: it gets one as soon as it rests
            replace_file(self.folder(session.id) / RECORD, msgspec.json.encode(session))
            return
        words = Words(session.turns, session.setup, session.agent)
        sealed = b""
        if (key := self.key(session)) is not None:
            sealed = seal_box(key, msgspec.msgpack.encode(words), _bind(session), self._random)
        written = msgspec.structs.replace(session, turns=(), setup="", agent="", sealed=sealed)
        replace_file(self.folder(session.id) / RECORD, msgspec.json.encode(written))

    def key(self, session: CloudSession) -> bytes | None:
        """Return the key of a session's own; None where it is destroyed.

        Raises:
            Problem: the keystore cannot be used.
        """
        return self.key_of(session.disk)

    def key_of(self, disk: str) -> bytes | None:
        """Return the key of a disk or a snapshot by its id; None where it is destroyed, or there is none.

        Raises:
            Problem: the keystore cannot be used.
        """
        with self._opening:
            if self._keys is None:
                self._keys = open_keys(self._home).get
        return self._keys(bytes.fromhex(disk)) if disk else None

    def seal_copy(self, id: str, data: bytes) -> bytes:
        """Seal what is kept beside a session's disk; nothing where its key is destroyed."""
        session = self.read_facts(id)
        key = self.key(session)
        return b"" if key is None else seal_box(key, data, _bind_copy(id), self._random)

    def open_copy(self, id: str, sealed: bytes) -> bytes:
        """Return what was sealed.

        Raises:
            Problem: it was altered, or belongs to another session.
        """
        session = self.read_facts(id)
        key = self.key(session)
        if key is None:
            return b""
        try:
            return open_box(key, sealed, _bind_copy(id))
        except SealBroken as fault:
            raise self._tell_unreadable(id, str(fault)) from None

    def change(self, id: str, **fields: Any) -> CloudSession:
        """Change what is known of a session, and return it."""
        return self.change_by(id, lambda session: fields)

    def change_by(self, id: str, make: Callable[[CloudSession], dict[str, Any]]) -> CloudSession:
        """Change what is known of a session by what is known, and return it; who else changes it waits."""
        descriptor = os.open(self._folder / CHANGES, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            session = self.read(id)
            changed = msgspec.structs.replace(session, **make(session))
            self.write(changed)
            return changed
        finally:
            os.close(descriptor)

    def get(self, beginning: str) -> CloudSession:
        """Return the session whose id begins so.

        Raises:
            Problem: there is none, or several.
        """
        return self.look(self.find(beginning))

    def find(self, beginning: str) -> str:
        """Return the one id that begins so, and look no further.

        Raises:
            Problem: there is none, or several.
        """
        found = [id for id in self.ids() if id.startswith(beginning)]
        if len(found) != 1 or not beginning:
            what = "several cloud sessions begin" if len(found) > 1 else "no cloud session begins"
            raise NoSuchSession(
                f"{what} with {beginning[:40]!r}", where="SESSION", fix="see: bailee cloud list"
            )
        return found[0]

    def all(self) -> list[CloudSession]:
        """Return all sessions that can be read, the newest first."""
        found = []
        for id in self.ids():
            with suppress(Problem):
                found.append(self.look(id))
        return sorted(found, key=lambda one: -one.created_ms)

    def list_unreadable(self) -> list[Problem]:
        """Return what is wrong with the sessions that cannot be read."""
        found = []
        for id in self.ids():
            try:
                self.read(id)
            except Problem as problem:
                found.append(problem)
        return found

    def ids(self) -> list[str]:
        """Return the ids of all sessions."""
        if not self._folder.is_dir():
            return []
        known = [one.name for one in self._folder.iterdir() if (one / RECORD).exists()]
        return sorted(name for name in known if _ID.fullmatch(name))

    def look(self, id: str) -> CloudSession:
        """Return a session as it stands: one that nobody drives any more is lost, and is written so."""
        session = self.read(id)
        return session if session.state in ENDED or self.is_driven(id) else self.mark_lost(id)

    def mark_lost(self, id: str) -> CloudSession:
        """Write down that nobody drives a session any more, unless it has ended."""
        reason = "whoever drove it was killed; what it had done is on its disk: bailee cloud save"

        def end(session: CloudSession) -> dict[str, Any]:
            return {} if session.state in ENDED else {"state": State.LOST, "reason": reason}

        return self.change_by(id, end)

    def is_driven(self, id: str) -> bool:
        """Tell whether a process drives a session."""
        try:
            descriptor = os.open(self.folder(id) / LOCK, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            # Shared, so that of several that look at once none takes another for the driver.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def is_clear(self, id: str) -> bool:
        """Tell whether something of a session lies in clear that nobody is at: its driver was killed."""
        # One that nobody has driven yet has no lock, and nothing on its disk.
        folder = self.folder(id)
        return (folder / LOCK).exists() and disks.has_clear(folder) and not self.is_driven(id)

    @contextmanager
    def driving(self, id: str, *, is_patient: bool = True, held: int | None = None) -> Iterator[int]:
        """Hold a session while driving it, and give the lock's descriptor.

        Args:
            is_patient: wait for somebody who is only sealing it, or opening it.
            held: what `holding` gave to whoever had this process drive it; it is closed at the end.

        Raises:
            Problem: another process drives it.
        """
        descriptor = self._hold(id, is_patient=is_patient) if held is None else held
        try:
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def holding(self, id: str) -> Iterator[int]:
        """Hold a session for a process that will drive it, and give the lock's descriptor.

        Whoever has the descriptor holds the session too (flock(2)), so that from here to the driver's end
        there is no moment in which it looks as if nobody drove it.

        Raises:
            Problem: another process drives it.
        """
        descriptor = self._hold(id, is_patient=True)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _hold(self, id: str, *, is_patient: bool) -> int:
        path = self.folder(id) / LOCK
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            raise _tell_gone(id) from None
        try:
            self._lock(id, descriptor, is_patient=is_patient)
            os.ftruncate(descriptor, 0)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _lock(self, id: str, descriptor: int, *, is_patient: bool) -> None:
        began = time.monotonic()
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waited = time.monotonic() - began
                # `is_driven` holds it for a moment too.
                is_at_rest = waited < _PROBE_SECONDS or self.read_facts(id).state in ENDED
                if not is_patient or waited > _PATIENCE or not is_at_rest:
                    raise WrongState(
                        "the session is running", where=id, fix="wait, or stop it: bailee cloud stop"
                    ) from None
                time.sleep(_LOOK_SECONDS)
            else:
                return

    def driver(self, id: str) -> int | None:
        """Return the process that drives a session; None for none, or one that is only about to."""
        try:
            written = (self.folder(id) / LOCK).read_text()
        except FileNotFoundError:
            return None
        return int(written) if written.isdigit() and self.is_driven(id) else None

    def remove(self, id: str) -> None:
        """Remove the folder of a session that its caller is driving; its key is another's to destroy."""
        # Its record goes last: a removal that is cut off leaves a session that can be removed.
        self.remove_content(id)
        disks.remove(self.folder(id))

    def remove_content(self, id: str) -> None:
        """Remove all of a session but its record, which its caller is driving."""
        for path in list(self.folder(id).iterdir()):
            if path.name not in (RECORD, LOCK):
                disks.remove(path)

    def read(self, id: str) -> CloudSession:
        """Return a session as it was written down, with what a person wrote if its key is there.

        Raises:
            Problem: it cannot be read, or was altered.
        """
        session = self.read_facts(id)
        key = self.key(session) if session.sealed else None
        if key is None:
            return msgspec.structs.replace(session, sealed=b"")
        try:
            words = msgspec.msgpack.decode(open_box(key, session.sealed, _bind(session)), type=Words)
        except (SealBroken, msgspec.MsgspecError) as fault:
            raise self._tell_unreadable(id, str(fault)) from None
        return msgspec.structs.replace(session, sealed=b"", **msgspec.structs.asdict(words))

    def read_facts(self, id: str) -> CloudSession:
        """Return a session as it was written down, with what a person wrote left sealed.

        Raises:
            NoSuchSession: it is not there, as where somebody has just removed it.
            Problem: it cannot be read.
        """
        try:
            return msgspec.json.decode((self.folder(id) / RECORD).read_bytes(), type=CloudSession)
        except FileNotFoundError:
            raise _tell_gone(id) from None
        except (OSError, msgspec.MsgspecError) as fault:
            raise self._tell_unreadable(id, str(fault)) from None

    def _tell_unreadable(self, id: str, fault: str) -> Problem:
        return Problem(
            f"what is known of the session cannot be read: {fault}",
            where=str(self.folder(id) / RECORD),
            fix=f"remove it: bailee cloud rm {id}",
        )


def _tell_gone(id: str) -> NoSuchSession:
    return NoSuchSession(
        f"there is no cloud session {id} any more", where="SESSION", fix="see: bailee cloud list"
    )


def _bind(session: CloudSession) -> bytes:
    """Return what the words of a session are bound to: its disk too, so that no older one takes its place."""
    return f"cloud session {session.id} {session.disk_digest}".encode()


def _bind_copy(id: str) -> bytes:
    """Return what a copy is bound to: not the disk, which is sealed after it."""
    return f"cloud session {id} copy".encode()
