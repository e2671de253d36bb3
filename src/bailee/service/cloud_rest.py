"""Cloud sessions between rest and work: at rest everything of one is sealed, at work its machine has it."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

from bailee.accounts.directory import open_directory
from bailee.accounts.keys import revoke_key
from bailee.cloud import disks
from bailee.cloud.disks import SealedDisk
from bailee.cloud.records import ENDED, CloudSession, Sessions
from bailee.flows.git.grants import withdraw_grant
from bailee.policy.flows import FlowId
from bailee.policy.problems import Problem
from bailee.sizes import tell_count
from bailee.vault.disks import begin_disk, set_terms
from bailee.vault.store import open_keys, open_vault
from bailee.vault.terms import terms_of


def make_disk(home: Path, account: str, id: str) -> str:
    """Make the key of a new session's disk, and return the disk's id in hexadecimal digits.

    Args:
        account: its name.

    Raises:
        Problem: there is no such account, or it is being erased.
    """
    directory, vault, keys = open_directory(home), open_vault(home), open_keys(home)
    try:
        at_ms = time.time_ns() // 1_000_000
        return begin_disk(vault, keys, directory.get(account), id, at_ms=at_ms).hex()
    finally:
        directory.close()
        vault.dispose()
        keys.close()


@contextlib.contextmanager
def at_work(home: Path, sessions: Sessions, id: str) -> Iterator[None]:
    """Have a session's disk in clear while its caller drives it, and seal it after that.

    Raises:
        Problem: what is sealed was altered, its key is destroyed, or what is in clear cannot be sealed.
    """
    try:
        session = adopt(home, sessions, id)
        if (key := sessions.key(session)) is None:
            raise Problem(
                "its disk cannot be opened any more: its key is destroyed",
                where=id,
                fix="what expired or was erased is gone; begin another: bailee cloud start",
            )
        _hold(home, session)
        disks.open_disk(sessions.folder(id), key, id, session.disk_digest)
        yield
    finally:
        rest(home, sessions, id)


def rest(home: Path, sessions: Sessions, id: str) -> None:
    """Seal what lies in clear of a session that its caller drives, and let its time begin.

    Raises:
        Problem: it cannot be sealed; it is still there, and the next sweep tries again.
    """
    session = adopt(home, sessions, id)
    key, folder = sessions.key(session), sessions.folder(id)
    if key is None:
        disks.remove_clear(folder)
        return

    def note(sealed: SealedDisk) -> None:
        if sealed.left_out:
            what = tell_count(sealed.left_out, "name")
            sys.stdout.write(f"bailee: {what} not kept, as nothing can open so long a path\n")
            sys.stdout.flush()
        sessions.change(id, disk_digest=sealed.digest, disk_bytes=sealed.size)

    try:
        disks.seal(folder, key, id, random=os.urandom, note=note)
    except OSError as error:
        raise Problem(
            f"its disk cannot be sealed: {error.strerror}",
            where=str(folder),
            fix="make room in the home; the next sweep tries again",
        ) from None
    _let_go(home, sessions, session)


def settle(home: Path, sessions: Sessions) -> list[str]:
    """Seal what killed drivers have left in clear, end their tokens, and return the ids of whose that was."""
    settled = []
    for id in sessions.ids():
        # One that somebody has just begun to drive is theirs; one that cannot be sealed stays for a person.
        with contextlib.suppress(Problem, OSError):
            if _is_left(sessions, id):
                with sessions.driving(id, is_patient=False):
                    _take_back(home, sessions.mark_lost(id))
                    rest(home, sessions, id)
                settled.append(id)
    return settled


def _is_left(sessions: Sessions, id: str) -> bool:
    """Tell whether nobody drives a session that stands as if somebody did."""
    facts = sessions.read_facts(id)
    if not facts.disk or sessions.is_clear(id):
        return True
    return bool(facts.keys) and facts.state not in ENDED and not sessions.is_driven(id)


def _take_back(home: Path, session: CloudSession) -> None:
    """Let the tokens of a killed session open nothing any more: neither the service nor a repository."""
    if not session.keys:
        return
    directory = open_directory(home)
    try:
        for key in session.keys:
            withdraw_grant(home, key)
            with contextlib.suppress(Problem):  # revoked before
                revoke_key(directory, key)
    finally:
        directory.close()


def adopt(home: Path, sessions: Sessions, id: str) -> CloudSession:
    """Return a session, with a key if an earlier program has begun it without one."""
    session = sessions.read(id)
    if session.disk:
        return session
    return sessions.change(id, disk=make_disk(home, session.account, id))


def last_worked(session: CloudSession) -> date:
    """Return the UTC day that a session was last at work."""
    return datetime.fromtimestamp(session.changed_ms / 1000, UTC).date()


def _hold(home: Path, session: CloudSession) -> None:
    """Let a disk have no end while it is at work."""
    vault = open_vault(home)
    try:
        set_terms(vault, bytes.fromhex(session.disk), None, None)
    finally:
        vault.dispose()


def _let_go(home: Path, sessions: Sessions, session: CloudSession) -> None:
    """Let the time of a disk begin, under the terms of its account."""
    directory, vault = open_directory(home), open_vault(home)
    try:
        terms = terms_of(directory.get(session.account), FlowId.MESSAGES)
        set_terms(vault, bytes.fromhex(session.disk), terms.retention, last_worked(session))
        sessions.change(session.id, retention=str(terms.retention))
    finally:
        directory.close()
        vault.dispose()
