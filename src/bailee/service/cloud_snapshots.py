"""Snapshots of set-up: a session of the same account and the same set-up begins where it ended before.

A snapshot belongs to the session that made it. Its key is of its own, since it goes sooner: after a week, or
by the account's terms. It is destroyed with that session as well, in one receipt, and a hold keeps both.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from pathlib import Path

from bailee.accounts.directory import open_directory
from bailee.accounts.people import Account
from bailee.cloud.records import CloudSession, Sessions
from bailee.cloud.snapshots import SNAPSHOT, NotKept, bind, open_snapshot, purpose_of, seal_snapshot
from bailee.files import replace_file, sync_folder
from bailee.policy.flows import FlowId
from bailee.policy.periods import NONE, Period, tighten
from bailee.policy.problems import Problem
from bailee.sandbox.machines import Machine, NotAnswered
from bailee.vault.custody import Custody
from bailee.vault.disks import Gone, begin_disk, prove_destruction, read_held, set_terms
from bailee.vault.store import open_keys, open_vault
from bailee.vault.terms import terms_of

LONGEST = Period.days(7)
RECEIPTS = "receipts"
_LOOKS, _LOOK_SECONDS = 4, 0.5
Clock = Callable[[], int]


def terms_of_snapshot(account: Account) -> Period:
    """Return how long snapshots of an account are held."""
    return tighten(LONGEST, terms_of(account, FlowId.MESSAGES).retention)


def begin_from_snapshot(
    home: Path, sessions: Sessions, session: CloudSession, *, clock: Clock = time.time_ns
) -> tuple[CloudSession | None, str]:
    """Make the empty disk of a session from a snapshot, if one is kept for it.

    Returns:
        The session that made it, None for none; and what is to be said of it.
    """
    maker = find_snapshot(home, sessions, session, clock=clock)
    if maker is None:
        return None, ""
    key = sessions.key_of(maker.snapshot)
    made = _day(maker.snapshot_ms).isoformat()
    try:
        if key is None:
            raise NotKept("its key is destroyed")
        open_snapshot(
            sessions.folder(maker.id),
            sessions.folder(session.id),
            key,
            bind(maker.id, purpose_of(session)),
            maker.snapshot_digest,
        )
    except NotKept as fault:
        return None, f"the snapshot of {made} does not open, and set-up runs anew: {fault}"
    return maker, f"set-up taken from a snapshot of {made}; --fresh makes it anew"


def find_snapshot(
    home: Path, sessions: Sessions, session: CloudSession, *, clock: Clock = time.time_ns
) -> CloudSession | None:
    """Return the session that made the newest snapshot that a session may begin from; None for none."""
    directory = open_directory(home)
    try:
        retention = terms_of_snapshot(directory.get(session.account))
    finally:
        directory.close()
    today, wanted = _day(clock() // 1_000_000), purpose_of(session)
    found = []
    for id in sessions.ids():
        with contextlib.suppress(Problem):  # one that cannot be read has none
            facts = sessions.read_facts(id)
            ends = retention.expires_on(_day(facts.snapshot_ms))
            is_held = facts.snapshot and (ends is None or today < ends)
            # What a person wrote is opened last: most sessions are of something else.
            if is_held and purpose_of(facts)._replace(setup=wanted.setup) == wanted:
                found.append(sessions.read(id))
    matching = [one for one in found if purpose_of(one) == wanted]
    return max(matching, key=lambda one: one.snapshot_ms, default=None)


def keep_snapshot(
    home: Path,
    sessions: Sessions,
    id: str,
    machine: Machine,
    *,
    values: Iterable[str],
    is_over: Callable[[], bool],
    clock: Clock = time.time_ns,
) -> str:
    """Keep the disk of a session that is just set up, and return why it is not; empty if it is.

    Args:
        values: of this session alone, such as its token: a disk that has one of them is not kept.
        is_over: whether there is no time left for it.
    """
    session, at_ms = sessions.read(id), clock() // 1_000_000
    directory, vault, keys = open_directory(home), open_vault(home), open_keys(home)
    try:
        account = directory.get(session.account)
        if terms_of_snapshot(account).is_none:
            return "the account's terms hold nothing"
        if not _is_quiet(machine):
            return "set-up left something running, which another session would not have"
        segment = begin_disk(vault, keys, account, id, at_ms=at_ms, most=LONGEST)
        try:
            with machine.resting():
                sealed = seal_snapshot(
                    sessions.folder(id),
                    _require(keys.get(segment)),
                    bind(id, purpose_of(session)),
                    values=[value.encode() for value in values],
                    is_over=is_over,
                    random=os.urandom,
                )
        except BaseException as fault:
            set_terms(vault, segment, NONE, _day(at_ms))  # its key goes with the next sweep
            if isinstance(fault, NotKept | NotAnswered | OSError):
                return str(fault)
            raise
    finally:
        directory.close()
        vault.dispose()
        keys.close()
    sessions.change(
        id,
        snapshot=segment.hex(),
        snapshot_digest=sealed.digest,
        snapshot_bytes=sealed.size,
        snapshot_ms=at_ms,
    )
    return ""


def sweep_snapshot(
    custody: Custody, sessions: Sessions, session: CloudSession, account: Account, *, is_held: bool
) -> None:
    """Bring a snapshot under the terms in force, or remove what is left of it, with a receipt.

    Args:
        is_held: whether a legal hold keeps it.

    Raises:
        Problem: somebody has just begun to drive the session.
    """
    segment = bytes.fromhex(session.snapshot)
    if sessions.key_of(session.snapshot) is not None:
        day = None if is_held else _day(session.snapshot_ms)
        set_terms(custody.vault, segment, terms_of_snapshot(account), day)
        return
    with sessions.driving(session.id, is_patient=False):
        remove_file(sessions, session.id)
        known = read_held(custody.vault, [segment]).get(segment)
        receipt = prove_destruction(custody, [tell_gone(session, known.retention if known else str(LONGEST))])
        path = sessions.folder(RECEIPTS) / f"{session.id}-snapshot.json"
        path.parent.mkdir(mode=0o700, exist_ok=True)
        replace_file(path, receipt)
        sessions.change(session.id, snapshot="", snapshot_digest="", snapshot_bytes=0, snapshot_ms=0)


def tell_gone(session: CloudSession, retention: str) -> Gone:
    """Return what the ledger is told of a snapshot."""
    return Gone(bytes.fromhex(session.snapshot), retention, session.snapshot_digest, session.snapshot_bytes)


def remove_file(sessions: Sessions, id: str) -> None:
    """Remove the file of a snapshot, whose key is another's to destroy."""
    (sessions.folder(id) / SNAPSHOT).unlink(missing_ok=True)
    sync_folder(sessions.folder(id))


def _is_quiet(machine: Machine) -> bool:
    """Tell whether nothing runs that set-up left: what Git does after it has answered ends within moments."""
    for _ in range(_LOOKS):
        if not machine.has_left():
            return True
        time.sleep(_LOOK_SECONDS)
    return False


def _day(at_ms: int) -> date:
    return datetime.fromtimestamp(at_ms / 1000, UTC).date()


def _require(key: bytes | None) -> bytes:
    if key is None:
        raise NotKept("the account is being erased")
    return key
