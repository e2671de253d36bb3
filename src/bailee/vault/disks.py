"""Disks of cloud sessions as the vault knows them: a segment whose content lies in a file beside it.

So a disk has a key of its own in the keystore, and what holds for segments holds for it: it goes with its
account and on its day, a legal hold keeps it, and once its key is destroyed no copy of the file opens. Its
terms are those of a conversation, counted from the day it was last at work; while it is, it has no day.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta

import msgspec
import sqlalchemy as sa
import sqlalchemy.exc

from bailee.accounts.people import Account
from bailee.ledger.entries import DiskDestroyed, KeysDestroyed, commit_segment, decode_entry
from bailee.ledger.outbox import put
from bailee.ledger.receipts import Receipt, find_entries, make_receipt
from bailee.manifests import load_manifest
from bailee.policy.decisions import decide
from bailee.policy.flows import FlowId
from bailee.policy.periods import UNLIMITED, Period, tighten
from bailee.policy.plans import Location, Provider
from bailee.policy.problems import Problem
from bailee.vault import ceilings, tables
from bailee.vault.custody import Custody
from bailee.vault.decisions import number_decision
from bailee.vault.holds import covering, list_holds, lock_holds
from bailee.vault.keystore import Keystore
from bailee.vault.recording import decided_of

# No flow of this name tightens it: its terms are looked at with each sweep (`set_terms`).
FLOW = tables.DISKS
_NUMBER_SHIFT = 2  # as in `vault.writer`
_LEAST = timedelta(days=2)


class Held(msgspec.Struct, frozen=True):
    """How a disk is held.

    Attributes:
        account: the account's id.
        expires_on: the day that begins with it gone; None while it is at work, or without end.
        is_marked: whether it is erased, so that its key is about to go.
    """

    account: str
    retention: str
    expires_on: date | None
    is_marked: bool


def name_session(id: str) -> str:
    """Return the session that a cloud session's disk is a segment of; no client can name one so."""
    return f"cloud/{id}"


def begin_disk(
    vault: sa.Engine,
    keystore: Keystore,
    account: Account,
    id: str,
    *,
    at_ms: int,
    most: Period = UNLIMITED,
    random: Callable[[int], bytes] = os.urandom,
) -> bytes:
    """Make the segment of a disk with its key, and return its id.

    Args:
        id: the cloud session's.
        at_ms: milliseconds since 1970 UTC.
        most: how long it is held if the terms would hold it longer.

    Raises:
        Problem: the account is being erased.
    """
    manifest, context = load_manifest("bailee"), account.to_context(Provider.ANTHROPIC)
    decision = decide(
        manifest.flow(FlowId.MESSAGES), msgspec.structs.replace(context, location=Location.CLOUD)
    )
    segment, number = random(16), int.from_bytes(random(8)) >> _NUMBER_SHIFT
    keystore.create(segment, number=number, at_ms=at_ms)
    keystore.flush()
    day = datetime.fromtimestamp(at_ms / 1000, UTC).date()
    retention = tighten(most, decision.terms.retention)
    ends = retention.expires_on(day)
    row = {
        "number": number,
        "id": segment,
        "account": account.id,
        "session": name_session(id),
        "day": day,
        "retention": str(retention),
        # Killed before the session is there, it goes as if it had been. Terms that hold nothing leave it a
        # whole day: a sweep may fall between this and its first moment at work, even over midnight.
        "expires_on": ends and max(ends, day + _LEAST),
        "trainable": False,
        "flow": FLOW,
    }

    def write() -> None:
        with vault.begin() as connection:
            decided = decided_of(decision)
            row["decision"] = number_decision(connection, decided, at_ms=at_ms, random=random)
            if ceilings.has_ended(connection, account.id):
                raise Problem("the account is being erased", where=account.name)
            connection.execute(sa.insert(tables.segments), row)

    try:
        write()
    except sqlalchemy.exc.IntegrityError:
        write()  # another process was the first to write the decision down
    return segment


def set_terms(vault: sa.Engine, segment: bytes, retention: Period | None, written: date | None) -> None:
    """Say how long a disk is held; what is erased, or destroyed, stays so.

    Args:
        retention: None leaves it as it is.
        written: the UTC day it was last at work; None while it is, and while a hold keeps it.
    """
    table = tables.segments
    values: dict[str, object] = {}
    if retention is not None:
        values["retention"] = str(retention)
    if written is not None:
        values["day"] = written
    values["expires_on"] = retention.expires_on(written) if retention and written else None
    is_erased = sa.and_(table.c.expires_on.is_not(None), table.c.expires_on == tables.ERASED)
    change = sa.update(table).where(table.c.id == segment, table.c.is_destroyed.is_(False), ~is_erased)
    with vault.begin() as connection:
        connection.execute(change.values(**values))


def tighten_disks(vault: sa.Engine, account: str, retention: Period) -> int:
    """Bring the disks at rest of an account under terms that may be stricter; return how many changed.

    One at work gets its day when it ends. A hold on anything of the account keeps all of its disks.

    Args:
        account: its id.
        retention: that of its conversations.
    """
    table, changed = tables.segments, 0
    at_rest = sa.and_(
        table.c.account == account,
        table.c.flow == FLOW,
        table.c.is_destroyed.is_(False),
        table.c.expires_on.is_not(None),
        table.c.expires_on != tables.ERASED,
    )
    with vault.begin() as connection:
        lock_holds(connection)
        if list_holds(connection, covering(account)):
            return 0
        for row in connection.execute(sa.select(table).where(at_rest)).all():
            own = Period.parse(row.retention, where="vault.db")
            ends = tighten(own, retention).expires_on(row.day)
            # One that has more than its terms give was never at work: its first moment has not come.
            if row.expires_on > (own.expires_on(row.day) or row.expires_on):
                continue
            if ends is not None and ends < row.expires_on:
                values = {"retention": str(tighten(own, retention)), "expires_on": ends}
                connection.execute(sa.update(table).where(table.c.number == row.number).values(values))
                changed += 1
    return changed


def read_held(vault: sa.Engine, segments: Iterable[bytes]) -> dict[bytes, Held]:
    """Return how disks are held, by id; one whose rows are gone is left out."""
    return _read(vault, tables.segments.c.id.in_(list(segments)))


def read_held_of(vault: sa.Engine, id: str) -> dict[bytes, Held]:
    """Return how all that a cloud session left is held, by its ids: its disk, and snapshots of it."""
    return _read(vault, tables.segments.c.session == name_session(id))


def _read(vault: sa.Engine, which: sa.ColumnElement[bool]) -> dict[bytes, Held]:
    table = tables.segments
    columns = (table.c.id, table.c.account, table.c.retention, table.c.expires_on, table.c.is_destroyed)
    query = sa.select(*columns).where(table.c.flow == FLOW, which)
    with vault.connect() as connection:
        return {
            row.id: Held(
                row.account,
                row.retention,
                None if row.expires_on == tables.ERASED else row.expires_on,
                row.is_destroyed or row.expires_on == tables.ERASED,
            )
            for row in connection.execute(query)
        }


def destroy_keys(
    custody: Custody, id: str, segments: Iterable[bytes], *, by: str, person: str = ""
) -> list[str]:
    """Destroy the keys of all that a cloud session left; return the ids of the ledger's entries of that.

    Args:
        id: the cloud session's.
        segments: its disk, and snapshots of it.
        by, person: who asks: see `Custody.erase_session`.

    Raises:
        Problem: a legal hold covers it.
    """
    held = read_held_of(custody.vault, id)
    if gone := [one for one in segments if one not in held]:
        # Their rows are gone, as with a vault that was put back from before them.
        custody.keystore.destroy(gone, why="erased", at_ms=custody.now_ms())
        custody.keystore.truncate_log()
    if not held:
        return []
    account = next(iter(held.values())).account
    _, receipt = custody.erase_session(account, name_session(id), by=by, person=person)
    proven = [decode_entry(one.entry) for one in msgspec.json.decode(receipt, type=Receipt).entries]
    return [entry.id for entry in proven if not isinstance(entry, KeysDestroyed)]


class Gone(msgspec.Struct, frozen=True):
    """A disk, or a snapshot of one, that was removed; see `DiskDestroyed`."""

    segment: bytes
    retention: str
    digest: str
    sealed_bytes: int


def prove_destruction(
    custody: Custody, gone: Sequence[Gone], *, told: Iterable[str] = (), start: int = 0
) -> bytes:
    """Tell the ledger that disks whose keys are destroyed are gone too, and return the receipt of all that.

    Args:
        told: ids of entries that belong to it, besides that of the key.
        start: how long the ledger was before the first of them.

    Raises:
        Problem: the ledger cannot be written, or does not tell of the key's destruction.
    """
    custody.settle()  # word of the key
    known = find_entries(custody.log, start, list(told), [one.segment for one in gone])
    entries = [decode_entry(next(custody.log.read(index, index + 1))) for index in known]
    destroyed = [entry for entry in entries if isinstance(entry, KeysDestroyed)]
    size = custody.log.size
    written = [
        DiskDestroyed(
            id=custody.draw(),
            at_ms=custody.now_ms(),
            disk=commit_segment(one.segment),
            why=next(entry.why for entry in destroyed if commit_segment(one.segment) in entry.segments),
            retention=one.retention,
            digest=one.digest,
            sealed_bytes=one.sealed_bytes,
        )
        for one in gone
    ]
    with custody.vault.begin() as connection:
        put(connection, tables.vault_outbox, written)
    custody.settle()
    ids = [entry.id for entry in written]
    return make_receipt(custody.log, [*known, *find_entries(custody.log, size, ids, [])])
