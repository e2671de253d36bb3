"""Looks a home over: what cannot be opened, what does not verify, what waits, and what to do about it."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import sqlalchemy as sa
import sqlalchemy.exc

from bailee.accounts.tables import outbox as accounts_outbox
from bailee.flows.feedback.queue import IssueState
from bailee.flows.forwarding.progress import list_progress
from bailee.ledger.log import FOLDER
from bailee.ledger.storage import DirectoryTiles
from bailee.ledger.verification import verify_ledger
from bailee.policy.problems import Problem
from bailee.service.running import find_running
from bailee.sizes import tell_count
from bailee.vault import tables
from bailee.vault.anchors import tell_rollback
from bailee.vault.backups.creation import list_key_copies
from bailee.vault.custody import Custody, open_custody
from bailee.vault.health import check_retention
from bailee.vault.holds import list_holds

# With longer and longer pauses, some minutes of trying.
_ATTEMPTS_TO_TELL = 5


class Finding(msgspec.Struct, frozen=True):
    """What one look found.

    Attributes:
        check: what was looked at.
        is_well: whether nobody has to do anything.
        told: what was found, in words.
        fix: what to do; empty if nothing.
    """

    check: str
    is_well: bool
    told: str
    fix: str = ""


def examine(home: Path) -> list[Finding]:
    """Look a home over; nothing is changed but what opening it changes."""
    if not home.is_dir():
        told = f"there is nothing in {home} yet"
        return [Finding("home", True, told, "begin with: bailee run -- claude, or bailee up")]
    try:
        custody = open_custody(home)
    except (Problem, OSError) as fault:
        fix = fault.fix if isinstance(fault, Problem) else ""
        return [Finding("home", False, str(fault), fix)]
    try:
        return [Finding("home", True, f"{home} opens: accounts, vault, keystore, ledger"), *_look(custody)]
    except (sqlalchemy.exc.SQLAlchemyError, Problem) as fault:
        return [Finding("home", False, str(getattr(fault, "orig", None) or fault))]
    finally:
        custody.close()


def _look(custody: Custody) -> Iterator[Finding]:
    running = find_running(custody.home)
    yield Finding(
        "service",
        True,
        f"runs at {running.url}, upstream {running.upstream}" if running else "does not run",
        "" if running else "without it nothing is swept by itself: bailee up, or bailee retention sweep",
    )
    health = check_retention(custody.vault, custody.keystore, custody.now_ms())
    last = "never" if health.silence_seconds is None else f"{health.silence_seconds:.0f} s ago"
    due = f"a key is due for {health.lag_seconds:.0f} s" if health.lag_seconds else "nothing is due"
    yield Finding("retention", not health.alarms, f"swept {last}, {due}")
    pending = health.copies_pending
    yield Finding(
        "copies outside the vault",
        not pending,
        f"{pending} still hold what is to go" if pending else "none holds what is to go",
        "see: bailee copies list" if pending else "",
    )
    for alarm in health.alarms:
        yield Finding("retention", False, alarm)
    yield _look_at_ledger(custody)
    yield _look_at_ledger_key(custody)
    yield from look_at_modes(custody.home)
    waiting = _count_waiting(custody)
    yield Finding(
        "entries for the ledger",
        True,
        f"{waiting} waiting",
        "the next sweep moves them" if waiting else "",
    )
    yield from _look_at_key_copies(custody)
    yield from _look_at_issues(custody)
    yield from _look_at_next_hops(custody)
    with custody.vault.connect() as connection:
        holds = list_holds(connection, tables.holds.c.released_ms.is_(None))
    yield Finding("legal holds", True, f"{tell_count(len(holds), 'hold')} in force")


def _look_at_key_copies(custody: Custody) -> Iterator[Finding]:
    try:
        known = list_key_copies(custody)
    except Problem as fault:
        yield Finding("copies of keys", False, f"it cannot be told how many there are: {fault}", fault.fix)
        return
    now_ms = custody.now_ms()
    over = [one for one in known if one.until_ms < now_ms]
    is_or_are = "is" if len(known) - len(over) == 1 else "are"
    yield Finding("copies of keys", True, f"{len(known) - len(over)} {is_or_are} within the window")
    for one in over:
        days = (now_ms - one.until_ms) / 86_400_000
        told = f"the one made with backup {one.backup[:8]} should have been deleted {days:.1f} days ago"
        yield Finding(
            "copies of keys", False, told, f"delete it, then: bailee backup forget {one.backup[:8]}"
        )


def _look_at_issues(custody: Custody) -> Iterator[Finding]:
    table = tables.issues
    query = sa.select(table.c.report, table.c.fault).where(table.c.state == IssueState.FAILED.value)
    with custody.vault.connect() as connection:
        for report, fault in connection.execute(query):
            told = f"the issue of {report} was not opened: {fault}"
            yield Finding("issues", False, told, f"open it by hand, then: bailee feedback close {report}")


def _look_at_next_hops(custody: Custody) -> Iterator[Finding]:
    """Tell of next hops that were tried in vain several times, or passed something over or by."""
    for one in list_progress(custody.vault):
        lost = (
            f"{one.refused} refused, {one.overdue} passed over after days"
            if one.refused + one.overdue
            else ""
        )
        is_down = one.attempts >= _ATTEMPTS_TO_TELL
        told = "; ".join(filter(None, (f"{one.fault}, {one.attempts} times" if is_down else "", lost)))
        yield Finding(
            f"forwarding to {one.target}",
            not is_down,
            told or f"{one.sent} sent",
            "see: bailee forwarding" if told else "",
        )


def _look_at_ledger(custody: Custody) -> Finding:
    verification = verify_ledger(DirectoryTiles(custody.home / FOLDER), custody.log.verifier)
    if verification.verified and (rollback := tell_rollback(custody.keystore.engine, custody.log)):
        return Finding(
            "ledger", False, f"is not the newest: {rollback}", "put the newest copy of the folder back"
        )
    if verification.verified and verification.checkpoint is not None:
        return Finding("ledger", True, f"verifies, {verification.checkpoint.size} entries")
    faults = "; ".join(f"{fault.path}: {fault.what}" for fault in verification.faults[:3])
    return Finding("ledger", False, f"does not verify: {faults}", "see: bailee ledger verify")


def _look_at_ledger_key(custody: Custody) -> Finding:
    try:
        custody.log.require_key()
    except Problem as fault:
        return Finding("key of the ledger", False, str(fault.what), fault.fix)
    return Finding("key of the ledger", True, "is there, and is that of its checkpoints")


def look_at_modes(home: Path) -> Iterator[Finding]:
    """Tell which of a home's folders and secrets others than their owner can look into."""
    inner = ("vault", "keystore", FOLDER, "keystore/kek", "keystore/pseudonyms.db", f"{FOLDER}/key")
    places = [place for place in (home, *(home / name for name in inner)) if place.exists()]
    open_to_others = [place for place in places if place.stat().st_mode & 0o077]
    if not open_to_others:
        yield Finding("permissions", True, "only their owner can look into the home's folders and secrets")
    for place in open_to_others:
        told = f"others can look into {place} (mode {place.stat().st_mode & 0o777:o})"
        yield Finding("permissions", False, told, f"run: chmod go= {place}")


def _count_waiting(custody: Custody) -> int:
    outboxes = (
        (custody.directory.engine, accounts_outbox),
        (custody.vault, tables.vault_outbox),
        (custody.keystore.engine, tables.keystore_outbox),
    )
    total = 0
    for engine, outbox in outboxes:
        with engine.connect() as connection:
            total += connection.execute(sa.select(sa.func.count()).select_from(outbox)).scalar_one()
    return total
