"""Applies to a copy of the vault, and of the accounts, what the ledger tells since the copy was made.

The ledger calls segments, people and sessions by commitments. They are made anew here for what the copy
holds, and compared. What is dropped is first named in temporary tables of the copy's connection, so that
memory stays bounded; the rows go at the end.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import msgspec
import sqlalchemy as sa

from bailee.accounts import tables as people_tables
from bailee.ledger import entries as told
from bailee.ledger.pseudonyms import name_with
from bailee.policy.periods import UNLIMITED, Period, tighten
from bailee.policy.problems import Problem
from bailee.sizes import tell_count
from bailee.vault import tables
from bailee.vault.ceilings import Ceiling, lower
from bailee.vault.copies import registry
from bailee.vault.holds import is_held

_BATCH = 5000
ERASED, EXPIRED, NO_KEY = "erased", "expired", "no key"
_RUN_LABEL = "run "  # what `bailee run` calls the keys that end with it


class Changes(msgspec.Struct):
    """What was applied, by count.

    Attributes:
        dropped: segments that were not put back, by why.
        facts_dropped: exchanges without content that were not put back.
        accounts_erased: accounts of the copy that were erased since, or whose pseudonyms are destroyed.
        tightened: segments whose terms got stricter.
        notes: what is stricter than it may have been, and what nobody knows any more, in words.
    """

    dropped: dict[str, int] = msgspec.field(default_factory=dict)
    facts_dropped: int = 0
    accounts_erased: int = 0
    consents: int = 0
    limits: int = 0
    keys_revoked: int = 0
    holds_placed: int = 0
    holds_released: int = 0
    accesses: int = 0
    tightened: int = 0
    notes: list[str] = msgspec.field(default_factory=list)


class Replay:
    """One application of a ledger to a copy.

    Args:
        vault: the copy of the vault, SQLite, in a transaction of its caller's.
        people: the copy of the accounts in the same way; None where the present accounts stay.
        known: ids of the accounts there are.
        salts: the salts of pseudonyms there are, by person.
        changes: told what was done.
    """

    def __init__(
        self,
        vault: sa.Connection,
        people: sa.Connection | None,
        known: Iterable[str],
        salts: Mapping[str, bytes],
        changes: Changes,
    ) -> None:
        self._vault = vault
        self._people = people
        self._known = set(known)
        self._salts = salts
        self.changes = changes
        self._persons = {name_with(salt): person for person, salt in salts.items()}
        self._sessions: dict[str, tuple[str, str]] = {}
        for statement in (
            "CREATE TEMP TABLE commitments (name TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID",
            "CREATE TEMP TABLE dropped (number INTEGER PRIMARY KEY, why TEXT NOT NULL, is_told INT NOT NULL)",
            "CREATE TEMP TABLE present (segment BLOB PRIMARY KEY) WITHOUT ROWID",
        ):
            vault.exec_driver_sql(statement)
        segments = tables.segments
        for batch in _batches(vault, sa.select(segments.c.number, segments.c.id)):
            rows = [(told.commit_segment(id), number) for number, id in batch]
            vault.exec_driver_sql("INSERT INTO commitments VALUES (?, ?)", rows)

    # --- What the ledger tells ---

    def forget_destroyed(self, entry: told.KeysDestroyed) -> None:
        """Drop the segments whose keys an entry tells were destroyed."""
        marks = ", ".join("?" * len(entry.segments))
        why = EXPIRED if entry.why == EXPIRED else ERASED
        self._vault.exec_driver_sql(
            "INSERT OR IGNORE INTO dropped SELECT number, ?, 1 FROM commitments "  # noqa: S608
            f"WHERE name IN ({marks})",
            (why, *entry.segments),
        )

    def apply(self, later: Sequence[told.AnyEntry]) -> None:
        """Apply what changed since the copy was made, in its order."""
        self._find_sessions(later)
        for entry in later:
            match entry:
                case told.Erased():
                    self._erase(entry)
                case told.TermsTightened():
                    self._tighten(entry)
                case told.HoldPlaced():
                    self._hold(entry)
                case told.HoldReleased():
                    self._release(entry)
                case told.CopyWithdrawn():
                    self._withdraw(entry)
                case told.CopyForgotten():
                    self._forget_copy(entry)
                case told.ConsentChanged() if self._people is not None:
                    self._consent(self._people, entry)
                case told.LimitChanged() if self._people is not None:
                    self._limit(self._people, entry)
                case told.KeyRevoked() if self._people is not None:
                    self._revoke(self._people, entry)
                case told.ContentRead() if self._people is not None:
                    self._record_access(self._people, entry)
                case _:
                    pass
        self._tell_unknown_copies(later)

    def _find_sessions(self, later: Sequence[told.AnyEntry]) -> None:
        """Find out which sessions of the copy the entries mean."""
        wanted: dict[str, set[str]] = {}
        for entry in later:
            if isinstance(entry, told.Erased | told.HoldPlaced | told.ContentRead) and entry.session:
                account = self._persons.get(entry.subject)
                if account is not None:
                    wanted.setdefault(account, set()).add(entry.session)
        exchanges = tables.exchanges
        for account, names in wanted.items():
            query = sa.select(exchanges.c.session).where(exchanges.c.account == account).distinct()
            for (session,) in self._vault.execute(query):
                name = name_with(self._salts[account], f"session {session}")
                if name in names:
                    self._sessions[name] = (account, session)

    def _erase(self, entry: told.Erased) -> None:
        account = self._persons.get(entry.subject)
        if account is None:
            return  # its salt is gone, and with it the account; what it held has no owner and goes below
        if entry.session is None:
            self._known.discard(account)
            return
        session = self._sessions.get(entry.session)
        if session is None:
            return
        registry.call_in_sessions(self._vault, *session, at_ms=entry.at_ms)
        exchanges, segments = tables.exchanges, tables.segments
        of_session = sa.and_(exchanges.c.account == session[0], exchanges.c.session == session[1])
        self._delete_facts(sa.and_(of_session, exchanges.c.started_ms <= entry.at_ms))
        # Begun before the erasure; what the session said later is in other segments.
        begun = sa.select(exchanges.c.segment).where(of_session, exchanges.c.segment.is_not(None))
        begun = begun.group_by(exchanges.c.segment)
        begun = begun.having(sa.func.min(exchanges.c.started_ms) <= entry.at_ms)
        self._drop(sa.and_(segments.c.number.in_(begun), ~is_held()), ERASED)

    def _tighten(self, entry: told.TermsTightened) -> None:
        account = self._persons.get(entry.subject)
        if account is not None:
            ceiling = Ceiling(Period.parse(entry.retention, where="ledger"), entry.trainable)
            self.changes.tightened += lower(self._vault, account, entry.flow, ceiling, at_ms=entry.at_ms)

    def _hold(self, entry: told.HoldPlaced) -> None:
        account = self._persons.get(entry.subject)
        holds = tables.holds
        if account is None or self._vault.execute(sa.select(holds).where(holds.c.id == entry.hold)).first():
            return
        session = self._sessions.get(entry.session or "", ("", None))[1]
        row = {
            "account": account,
            "id": entry.hold,
            # A session that is not in the copy may go on: all of the account is held rather than nothing.
            "session": session,
            "reason": "placed after the backup; its reason is with who placed it",
            "placed_by": "not known any more",
            "placed_ms": entry.at_ms,
        }
        self._vault.execute(sa.insert(holds), row)
        self.changes.holds_placed += 1
        if entry.session is not None and session is None:
            self.changes.notes.append(
                f"hold {entry.hold} is on a session that the backup has not: it covers the whole account now"
            )

    def _release(self, entry: told.HoldReleased) -> None:
        holds = tables.holds
        release = sa.update(holds).where(holds.c.id == entry.hold, holds.c.released_ms.is_(None))
        values = {
            "released_by": "not known any more",
            "released_ms": entry.at_ms,
            "release_reason": "released after the backup; its reason is with who released it",
        }
        self.changes.holds_released += self._vault.execute(release.values(values)).rowcount

    def _withdraw(self, entry: told.CopyWithdrawn) -> None:
        """Note how a copy outside the vault is since something was taken out of it."""
        if entry.digest == registry.ENDED:
            registry.remove(self._vault, entry.copy)
        else:
            registry.announce(self._vault, entry.copy, entry.digest)

    def _forget_copy(self, entry: told.CopyForgotten) -> None:
        for copy in registry.read_copies(self._vault, tables.copies.c.id == entry.copy):
            registry.forget(self._vault, copy, "forgotten after the backup; its reason is with who forgot it")

    def _tell_unknown_copies(self, later: Sequence[told.AnyEntry]) -> None:
        """Note how many copies outside the vault were made that the backup does not know of."""
        copies = registry.read_copies(self._vault, tables.copies.c.kind == registry.Kind.DATASET)
        known = {digest for copy in copies for digest in (copy.digest, copy.next_digest)}
        datasets = sum(isinstance(one, told.DatasetBuilt) and one.digest not in known for one in later)
        exports = sum(isinstance(one, told.ContentRead) and one.purpose == "export" for one in later)
        if datasets or exports:
            self.changes.notes.append(
                f"made since the backup, and followed no more: {tell_count(exports, 'export')}, "
                f"{tell_count(datasets, 'dataset')}; nothing is taken out of these"
            )

    def _consent(self, people: sa.Connection, entry: told.ConsentChanged) -> None:
        subject = self._persons.get(entry.subject)
        consents = people_tables.consents
        if subject is None:
            return
        same = sa.select(consents.c.number).where(
            consents.c.subject == subject,
            consents.c.kind == entry.consent,
            consents.c.at_ms == entry.at_ms,
            consents.c.given.is_(entry.given),
        )
        if people.execute(same).first() is None:
            row = {
                "subject": subject,
                "kind": entry.consent,
                "given": entry.given,
                "granted_by": self._persons.get(entry.by, entry.by),
                "at_ms": entry.at_ms,
            }
            people.execute(sa.insert(consents), row)
            self.changes.consents += 1

    def _limit(self, people: sa.Connection, entry: told.LimitChanged) -> None:
        subject = self._persons.get(entry.subject)
        accounts, organizations = people_tables.accounts, people_tables.organizations
        for table, key in ((accounts, accounts.c.id), (organizations, organizations.c.name)):
            found = people.execute(sa.select(table.c.retention).where(key == subject)).first()
            if found is None:
                continue
            # Never longer than it was: what the copy has may be later than what the ledger tells.
            before = Period.parse(found.retention, where="accounts") if found.retention else UNLIMITED
            after = tighten(before, Period.parse(entry.retention, where="ledger"))
            if after != before:
                people.execute(sa.update(table).where(key == subject).values(retention=str(after)))
                self.changes.limits += 1

    def _revoke(self, people: sa.Connection, entry: told.KeyRevoked) -> None:
        account = self._persons.get(entry.subject)
        keys = people_tables.keys
        if account is None:
            return
        in_force = sa.select(keys.c.id).where(keys.c.account == account, keys.c.revoked_ms.is_(None))
        for id in people.execute(in_force).scalars().all():
            if name_with(self._salts[account], f"key {id}") == entry.key:
                people.execute(sa.update(keys).where(keys.c.id == id).values(revoked_ms=entry.at_ms))
                self.changes.keys_revoked += 1

    def _record_access(self, people: sa.Connection, entry: told.ContentRead) -> None:
        account = self._persons.get(entry.subject)
        accesses, accounts = people_tables.accesses, people_tables.accounts
        if account is None or not people.execute(sa.select(accounts).where(accounts.c.id == account)).first():
            return
        same = sa.select(accesses.c.number).where(
            accesses.c.account == account,
            accesses.c.at_ms == entry.at_ms,
            accesses.c.purpose == entry.purpose,
        )
        if people.execute(same).first() is None:
            row = {
                "account": account,
                "session": self._sessions.get(entry.session or "", ("", None))[1],
                "reader": "not known any more",
                "purpose": entry.purpose,
                "reason": "read after the backup; the ledger keeps a commitment to the reason",
                "at_ms": entry.at_ms,
            }
            people.execute(sa.insert(accesses), row)
            self.changes.accesses += 1

    # --- What follows from it ---

    def end_runs(self, at_ms: int) -> None:
        """Revoke the keys of runs: none of these runs goes on, and their ends may be told nowhere."""
        self._revoke_all(at_ms, people_tables.keys.c.label.startswith(_RUN_LABEL, autoescape=True))

    def distrust(self, at_ms: int) -> None:
        """Take back every allowance that may have been taken back since, as nobody knows."""
        assert self._people is not None
        consents = people_tables.consents
        latest = sa.select(sa.func.max(consents.c.number)).group_by(consents.c.subject, consents.c.kind)
        given = sa.select(consents).where(
            consents.c.number.in_(latest),
            consents.c.given.is_(True),
            consents.c.kind.in_(["training", "dpp"]),
        )
        for row in self._people.execute(given).all():
            values = {"subject": row.subject, "kind": row.kind, "given": False}
            self._people.execute(sa.insert(consents), {**values, "granted_by": "restore", "at_ms": at_ms})
            self.changes.consents += 1
        self._revoke_all(at_ms, sa.true())
        self._vault.execute(sa.update(tables.segments).values(trainable=False))
        self.changes.notes.append(
            "what changed after the backup is not known: nothing trains and all keys are revoked until "
            "somebody gives them anew"
        )

    def drop_unowned(self, at_ms: int) -> set[str]:
        """Drop what accounts held that are not there any more; return the accounts that are.

        Args:
            at_ms: since when it is to go from copies outside the vault, milliseconds since 1970 UTC.
        """
        segments, exchanges = tables.segments, tables.exchanges
        copied = sa.select(tables.copies.c.account).where(tables.copies.c.account.is_not(None))
        owners = sa.select(segments.c.account).union(sa.select(exchanges.c.account), copied)
        gone = set(self._vault.execute(owners).scalars()) - self._known
        for account in gone:
            self._drop(segments.c.account == account, ERASED)
            self._delete_facts(exchanges.c.account == account)
            registry.call_in_account(self._vault, account, at_ms=at_ms)
            for table in (tables.holds, tables.ceilings, *tables.OF_REPORTS):
                self._vault.execute(sa.delete(table).where(table.c.account == account))
        return self._known

    def drop_expired(self, today: date) -> None:
        """Drop what has expired by now and is under no hold."""
        segments = tables.segments
        day = sa.case((segments.c.expires_on == tables.ERASED, ERASED), else_=EXPIRED)
        self._drop(sa.and_(segments.c.expires_on <= today, ~is_held()), day)

    def drop_keyless(self, present: Iterable[Sequence[bytes]]) -> None:
        """Drop what has no key.

        Args:
            present: the segments whose keys there are, in batches.
        """
        for batch in present:
            rows = [(segment,) for segment in batch]
            if rows:
                self._vault.exec_driver_sql("INSERT OR IGNORE INTO present VALUES (?)", rows)
        self._vault.exec_driver_sql(
            "INSERT OR IGNORE INTO dropped SELECT number, ?, 1 FROM segments "
            "WHERE is_destroyed OR id NOT IN (SELECT segment FROM present)",
            (NO_KEY,),
        )

    def delete_dropped(self, at_ms: int) -> None:
        """Delete the rows of what was dropped; from copies outside the vault it goes with the next sweep."""
        connection = self._vault
        for why, count in connection.exec_driver_sql("SELECT why, COUNT(*) FROM dropped GROUP BY why"):
            self.changes.dropped[why] = count
        # Named before they go: what of them has a key still.
        connection.exec_driver_sql(
            "CREATE TEMP TABLE due AS SELECT id AS segment, IIF(is_told, 'restored', why) AS why "
            "FROM dropped JOIN segments USING (number) WHERE id IN (SELECT segment FROM present)"
        )
        self.call_in_dropped(at_ms)
        for table, column in (("records", "segment"), ("exchanges", "segment"), ("segments", "number")):
            connection.exec_driver_sql(
                f"DELETE FROM {table} WHERE {column} IN (SELECT number FROM dropped)"  # noqa: S608
            )

    def call_in_dropped(self, at_ms: int) -> None:
        """Mark what copies outside the vault hold of what was dropped; the next sweep takes it out."""
        for why in (ERASED, EXPIRED):
            ids = self._vault.exec_driver_sql(
                "SELECT id FROM dropped JOIN segments USING (number) WHERE (why = ?) = ?",
                (EXPIRED, why == EXPIRED),
            )
            registry.call_in(self._vault, why, list(ids.scalars()), at_ms=at_ms)

    def list_due(self) -> Iterator[tuple[str, list[bytes]]]:
        """Give dropped segments whose keys are still there, with why: these are to be destroyed."""
        for why in (ERASED, EXPIRED, "restored"):
            rows = self._vault.exec_driver_sql("SELECT segment FROM due WHERE why = ?", (why,))
            for some in rows.partitions(_BATCH):
                yield why, [segment for (segment,) in some]

    def list_strays(self) -> Iterator[list[bytes]]:
        """Give segments that have a key, that are not in the copy, and that are not due."""
        rows = self._vault.exec_driver_sql(
            "SELECT segment FROM present WHERE segment NOT IN (SELECT id FROM segments) "
            "AND segment NOT IN (SELECT segment FROM due)"
        )
        for some in rows.partitions(_BATCH):
            yield [segment for (segment,) in some]

    def is_kept(self, segments: Sequence[bytes]) -> set[bytes]:
        """Return those of some segments that the copy still holds."""
        table = tables.segments
        return set(self._vault.execute(sa.select(table.c.id).where(table.c.id.in_(segments))).scalars())

    def _drop(self, which: sa.ColumnElement[bool], why: "str | sa.Case[Any]") -> None:
        segments = tables.segments
        reason = sa.literal(why) if isinstance(why, str) else why
        dropped = sa.table("dropped", sa.column("number"), sa.column("why"), sa.column("is_told"))
        rows = sa.select(segments.c.number, reason, sa.literal(0)).where(which)
        insert = sa.insert(dropped).prefix_with("OR IGNORE").from_select(["number", "why", "is_told"], rows)
        self._vault.execute(insert)

    def _delete_facts(self, which: sa.ColumnElement[bool]) -> None:
        exchanges = tables.exchanges
        gone = sa.delete(exchanges).where(which, exchanges.c.segment.is_(None))
        self.changes.facts_dropped += self._vault.execute(gone).rowcount

    def _revoke_all(self, at_ms: int, which: sa.ColumnElement[bool]) -> None:
        assert self._people is not None
        keys = people_tables.keys
        revoke = sa.update(keys).where(keys.c.revoked_ms.is_(None), which).values(revoked_ms=at_ms)
        self.changes.keys_revoked += self._people.execute(revoke).rowcount


def read_ledger(
    entries: Iterable[bytes],
    replay: Replay,
    *,
    start: int,
    applied: set[str],
    report: Callable[[int], None],
) -> tuple[list[told.AnyEntry], set[str], int]:
    """Read a whole ledger: keys that were destroyed go at once, what else changed is returned.

    Args:
        start: how many entries the ledger had as the copy was made.
        applied: ids of entries that the copy has waiting, so that what they tell of is in it.

    Returns:
        What to apply, which of `applied` the ledger has, and the time of its latest entry in milliseconds.

    Raises:
        Problem: an entry is not known: nobody could say what is not to be restored.
    """
    later: list[told.AnyEntry] = []
    there: set[str] = set()
    latest_ms = 0
    for index, data in enumerate(entries):
        try:
            entry = told.decode_entry(data)
        except msgspec.MsgspecError:
            raise Problem(
                f"entry {index} of the ledger is of a kind that this program does not know",
                where="ledger",
                fix="restore with the newer program that wrote it",
            ) from None
        latest_ms = max(latest_ms, entry.at_ms)
        report(index + 1)
        if isinstance(entry, told.KeysDestroyed):
            replay.forget_destroyed(entry)
        if entry.id in applied:
            there.add(entry.id)
        elif index >= start and not isinstance(
            entry, told.KeysDestroyed | told.Swept | told.DecisionMade | told.DatasetBuilt
        ):
            later.append(entry)
    return later, there, latest_ms


def _batches(connection: sa.Connection, query: sa.Select[Any]) -> Iterator[Sequence[Any]]:
    yield from connection.execute(query).partitions(_BATCH)
