"""The disks of cloud sessions, under the terms of their accounts: gone on their day, kept by a legal hold.

A disk holds what an agent saw of a repository, so that it goes as a conversation does, counted from the day
the session was last at work. Under zero data retention it goes as soon as the session has ended. Its key goes
as a segment's does, by the vault's own sweep; what is left of it goes here, with a receipt.
"""

import contextlib
import time
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import NamedTuple

from bailee.accounts.directory import Directory
from bailee.accounts.keys import list_keys
from bailee.cloud.disks import SEALED
from bailee.cloud.records import CloudSession, NoSuchSession, Sessions
from bailee.cloud.snapshots import SNAPSHOT
from bailee.files import replace_file
from bailee.flows.git.grants import list_grants, withdraw_grant
from bailee.policy.flows import FlowId
from bailee.policy.problems import Problem
from bailee.service import cloud_orders
from bailee.service.cloud_rest import adopt, last_worked, settle
from bailee.service.cloud_snapshots import RECEIPTS, sweep_snapshot
from bailee.vault.custody import Custody, open_custody
from bailee.vault.disks import Gone, Held, destroy_keys, prove_destruction, read_held, read_held_of, set_terms
from bailee.vault.erasure import refuse_held
from bailee.vault.holds import read_covered
from bailee.vault.store import open_vault
from bailee.vault.terms import terms_of


class HeldDisk(NamedTuple):
    """What is held of a session's disk.

    Attributes:
        size: bytes at rest; 0 before it was sealed first.
        until: the day that begins with it gone; None while it is at work, on hold, or without end.
    """

    size: int
    until: date | None


def tell_held(home: Path, sessions: Iterable[CloudSession]) -> dict[str, HeldDisk]:
    """Return what is held of the disks of sessions, by their ids."""
    found = list(sessions)
    vault = open_vault(home)
    try:
        held = read_held(vault, [bytes.fromhex(one.disk) for one in found])
    finally:
        vault.dispose()
    told = {}
    for one in found:
        known = held.get(bytes.fromhex(one.disk))
        told[one.id] = HeldDisk(one.disk_bytes, known.expires_on if known else None)
    return told


def sweep_disks(home: Path, custody: Custody | None = None) -> list[str]:
    """Seal what killed drivers left, bring disks under the terms in force, and remove those without a key.

    Args:
        custody: the home's; opened only if there is something to look at, if it is left out.

    Returns:
        The ids of the sessions that went.
    """
    sessions = Sessions(home)
    if not sessions.ids():
        return []
    settle(home, sessions)
    with contextlib.ExitStack() as stack:
        if custody is None:
            custody = stack.enter_context(contextlib.closing(open_custody(home)))
        with custody.vault.connect() as connection:
            held = {account for account, _ in read_covered(connection)}
        accounts = {one.name: one for one in custody.directory.all()}
        gone = []
        for id in sessions.ids():
            # One that cannot be read is left for a person, as is one that somebody has just begun to drive.
            with contextlib.suppress(Problem, OSError):
                session = sessions.read_facts(id)
                if not session.disk or sessions.is_driven(id):
                    continue
                account = accounts.get(session.account)
                if sessions.key(session) is None:
                    _remove(custody, sessions, id)
                    gone.append(id)
                elif account is not None:
                    # A hold keeps it whatever it covers: what is on a disk belongs to what was said of it.
                    kept = account.id in held
                    retention = terms_of(account, FlowId.MESSAGES).retention
                    written = None if kept else last_worked(session)
                    set_terms(custody.vault, bytes.fromhex(session.disk), retention, written)
                    if session.retention != str(retention):
                        with sessions.driving(id, is_patient=False):
                            sessions.change(id, retention=str(retention))
                    if session.snapshot:
                        sweep_snapshot(custody, sessions, session, account, is_held=kept)
    return gone


def sweep_grants(home: Path, directory: Directory) -> None:
    """Take away what killed sessions left of their way to repositories: it goes with its key."""
    if granted := list_grants(home):
        now_ms = time.time_ns() // 1_000_000
        in_force = {key.id for key in list_keys(directory) if key.is_in_force(now_ms)}
        for key in set(granted) - in_force:
            withdraw_grant(home, key)


def remove_session(home: Path, id: str, *, by: str, person: str = "") -> bytes:
    """Destroy the key of a session, remove it with its disk, and return the receipt.

    Args:
        by, person: who asks: see `Custody.erase_session`.

    Raises:
        Problem: it is running, or a legal hold keeps it.
    """
    sessions = Sessions(home)
    with contextlib.closing(open_custody(home)) as custody:
        return _remove(custody, sessions, id, by=by, person=person)


def list_of_account(home: Path, account: str) -> list[CloudSession]:
    """Return the sessions of an account by its name, with what a person wrote left sealed."""
    sessions, found = Sessions(home), []
    for id in sessions.ids():
        with contextlib.suppress(Problem):  # one that cannot be read is nobody's
            found.append(sessions.read_facts(id))
    return [one for one in found if one.account == account]


def remove_of_account(home: Path, account: str, *, by: str, person: str = "") -> Iterator[tuple[str, bytes]]:
    """End the sessions of an account, remove them, and give their ids and receipts as they go.

    Args:
        account: its name, or the name it had.
        by, person: who asks: see `Custody.erase_session`.

    Raises:
        Problem: some of them cannot be removed, such as for a legal hold; the others are.
    """
    faults = []
    for session in list_of_account(home, account):
        with contextlib.suppress(Problem):  # it does not run
            cloud_orders.stop(home, session.id)
        try:
            yield session.id, remove_session(home, session.id, by=by, person=person)
        except NoSuchSession:
            continue  # somebody was faster
        except Problem as problem:
            faults.append(problem)
    if faults:
        raise faults[0]


def receipt_of(home: Path, id: str) -> Path:
    """Return where the receipt of a session that is gone lies."""
    return Sessions(home).folder(RECEIPTS) / f"{id}.json"


def _remove(custody: Custody, sessions: Sessions, id: str, *, by: str = "", person: str = "") -> bytes:
    with sessions.driving(id):
        if id not in sessions.ids():
            # Somebody removed it while this waited for them.
            raise NoSuchSession(f"there is no cloud session {id} any more", fix="see: bailee cloud list")
        known = read_held_of(custody.vault, id)
        session = _read_if_readable(custody, sessions, id, is_known=bool(known))
        segments = [one.hex() for one in known]
        if session is not None:
            named = [one for one in (session.disk, session.snapshot) if one]
            segments = list(dict.fromkeys((*named, *segments)))
        told: list[str] = []
        start = 0
        if any(sessions.key_of(one) is not None for one in segments):
            for held in known.values():
                refuse_held(custody.vault, held.account, None)
            start = custody.log.size
            told = destroy_keys(custody, id, [bytes.fromhex(one) for one in segments], by=by, person=person)
        gone = [_tell_gone(sessions, id, one, session, known.get(bytes.fromhex(one))) for one in segments]
        sessions.remove_content(id)
        receipt = prove_destruction(custody, gone, told=told, start=start)
        path = receipt_of(custody.home, id)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        replace_file(path, receipt)
        sessions.remove(id)
        return receipt


def _read_if_readable(
    custody: Custody, sessions: Sessions, id: str, *, is_known: bool
) -> CloudSession | None:
    """Return what is written of a session; None where that is broken and the vault knows what it held."""
    try:
        session = sessions.read_facts(id)
        return session if session.disk else adopt(custody.home, sessions, id)
    except Problem:
        if not is_known:
            raise
        return None


def _tell_gone(
    sessions: Sessions, id: str, segment: str, session: CloudSession | None, held: Held | None
) -> Gone:
    """Return what a receipt says of a disk or a snapshot."""
    name, digest, size = "", "", 0
    if session is not None and segment == session.disk:
        name, digest, size = SEALED, session.disk_digest, session.disk_bytes
    elif session is not None and segment == session.snapshot:
        name, digest, size = SNAPSHOT, session.snapshot_digest, session.snapshot_bytes
    retention = held.retention if held else session.retention if session else ""
    # By what is there: a digest of what was never sealed, or is gone, would prove nothing.
    if name and (sessions.folder(id) / name).exists():
        return Gone(bytes.fromhex(segment), retention, digest, size)
    return Gone(bytes.fromhex(segment), retention, "", 0)
