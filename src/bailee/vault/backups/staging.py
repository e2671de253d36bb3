"""Makes in a folder of the home what a restore will put into its place, with every erasure applied.

Nothing of the home is changed by it. What is staged is whole before `installing` begins.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import sqlalchemy as sa

from bailee.accounts.backups import insert_people, read_people
from bailee.accounts.directory import Directory
from bailee.accounts.removal import remove_account
from bailee.accounts.tables import ACCOUNTS as ACCOUNTS_STORE
from bailee.accounts.tables import accounts as accounts_table
from bailee.accounts.tables import organizations
from bailee.database.engines import open_database, truncate_log
from bailee.database.snapshots import count_rows
from bailee.database.sqlite import open_file
from bailee.files import create_private, sync_folder, write_private
from bailee.ledger.copies import copy_log
from bailee.ledger.entries import AnyEntry, Restored, decode_entry, tell_destroyed
from bailee.ledger.log import FOLDER as LEDGER
from bailee.ledger.log import KEY, open_log
from bailee.ledger.notes import Verifier
from bailee.ledger.outbox import put
from bailee.ledger.pseudonyms import (
    OPERATOR,
    PSEUDONYMS,
    Pseudonyms,
    is_account,
    name_with,
    open_pseudonyms,
    salts,
)
from bailee.moments import begin_of
from bailee.policy.problems import Problem
from bailee.vault import tables
from bailee.vault.backups.keycopies import KeyCopy
from bailee.vault.backups.manifests import (
    ACCOUNTS,
    PARTS,
    VAULT,
    Manifest,
    check_part,
    checkpoint_of,
    read_manifest,
)
from bailee.vault.backups.replaying import Changes, Replay, read_ledger
from bailee.vault.backups.sources import (
    KEK,
    Present,
    Request,
    check_ledger,
    check_request,
    check_window,
    find_verifier,
    look_over,
    open_key_copy,
)
from bailee.vault.ceilings import lower, read_latest_each
from bailee.vault.destruction import forget_facts
from bailee.vault.holds import check_reason
from bailee.vault.store import KEYSTORE
from bailee.vault.sweeping import facts_from
from bailee.vault.terms import terms_of

STAGING = "restore"  # a folder in the home
DUE = "due"
RESULT = "result"
# A clock that is behind what the ledger tells would keep what has expired.
_CLOCK_TOLERANCE_MS = 60 * 60 * 1000
Progress = Callable[[int, int], None]


class Restoration(msgspec.Struct, frozen=True):
    """What a restore puts back, or would.

    Attributes:
        backup: its id.
        entry: the id of the ledger's entry that tells of it.
        keystore, accounts, ledger: whether each was still there, or where it comes from.
        ledger_entries: how many entries were applied.
        ledger_until_ms: when the latest of them was written: what was erased later is not known.
        segments, records, exchanges, people: how many came back.
        keys: how many keys came back from the copy; None where the keystore was still there.
        keys_destroyed: keys that are still there and open what was dropped, or what the backup does not hold.
        keys_kept: keys that open what the backup does not hold, kept because a legal hold is in force.
        unknown: why it was accepted that what was erased after the backup is not known; None if it is.
    """

    backup: str
    made_ms: int
    entry: str
    keystore: str
    accounts: str
    ledger: str
    ledger_entries: int
    ledger_until_ms: int
    segments: int
    records: int
    exchanges: int
    people: int
    keys: int | None
    keys_destroyed: int
    keys_kept: int
    unknown: str | None
    changes: Changes


class Due(msgspec.Struct, frozen=True):
    """Keys that the restore will destroy; one line of a file."""

    why: str
    segments: list[bytes]


def stage(
    home: Path,
    request: Request,
    *,
    now_ms: int,
    random: Callable[[int], bytes] = os.urandom,
    report: Progress = lambda done, total: None,
) -> Restoration:
    """Stage what a backup holds and may still be held.

    Args:
        now_ms: milliseconds since 1970 UTC.

    Raises:
        Problem: the backup, the ledger or the copy of the keys does not hold, or something that is needed is
            not named.
    """
    if request.unknown is not None:
        check_reason(request.unknown)
    present = look_over(home)
    if present.ledger:  # that it is another home's backup is told first
        read_manifest(request.backup, find_verifier(home, None))
    check_request(request, present, home)
    copy = open_key_copy(request, home, now_ms) if request.keys is not None else None
    verifier = find_verifier(home, copy)
    manifest = read_manifest(request.backup, verifier)
    folder = home / STAGING
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    try:
        return _Stage(home, request, present, copy, verifier, manifest, now_ms, random).go(report)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


class _Stage:
    def __init__(
        self,
        home: Path,
        request: Request,
        present: Present,
        copy: KeyCopy | None,
        verifier: Verifier,
        manifest: Manifest,
        now_ms: int,
        random: Callable[[int], bytes],
    ) -> None:
        self._home = home
        self._folder = home / STAGING
        self._request = request
        self._present = present
        self._copy = copy
        self._verifier = verifier
        self._manifest = manifest
        self._now_ms = now_ms
        self._random = random
        self._changes = Changes()

    def go(self, report: Progress) -> Restoration:
        ledger, size = self._stage_ledger(report)
        total = sum(part.bytes for part in self._manifest.parts.values())
        done = 0

        def count(read: int) -> None:
            nonlocal done
            done += read
            report(done, total)

        for name in PARTS:
            check_part(self._request.backup, name, self._manifest, self._folder / name, count)
        vault = open_file(self._folder / VAULT, tables.VAULT)
        if self._present.accounts:
            people = open_database(self._home / ACCOUNTS_STORE.file, ACCOUNTS_STORE)
        else:
            people = open_file(self._folder / "accounts.db", ACCOUNTS_STORE)
        try:
            restoration = self._fill(vault, people, ledger, size, report)
            truncate_log(vault)
            truncate_log(people)
        finally:
            vault.dispose()
            people.dispose()
        (self._folder / ACCOUNTS).unlink()
        write_private(self._folder / RESULT, msgspec.json.encode(restoration))
        sync_folder(self._folder)
        return restoration

    # --- The ledger ---

    def _stage_ledger(self, report: Progress) -> tuple[Path, int]:
        """Find the ledger to go by, verify it, and return where it is and how many entries it has."""
        backup, since = self._request.backup, self._manifest.checkpoint
        own = checkpoint_of(self._manifest, self._verifier, backup)
        what = "the ledger of the backup"
        if check_ledger(backup / LEDGER, self._verifier, since, what=what, report=report) != own.size:
            raise Problem(
                f"{what} is not the one its manifest tells of", where=str(backup), fix="use another backup"
            )
        if self._present.ledger:
            path = self._home / LEDGER
            return path, check_ledger(path, self._verifier, since, what="the ledger here", report=report)
        path = self._folder / LEDGER
        copy_log(self._request.ledger or backup / LEDGER, path, self._verifier)
        size = check_ledger(path, self._verifier, since, what="this ledger", report=report)
        if size <= own.size and self._request.unknown is None:
            raise Problem(
                f"this ledger tells of nothing after the backup: both have {size} entries",
                where="--ledger",
                fix="name a newer copy; if there is none, say why that is accepted: --accept-unknown REASON",
            )
        assert self._copy is not None
        write_private(path / KEY, f"{self._copy.secrets.ledger_key}\n".encode())
        return path, size

    # --- The databases ---

    def _fill(
        self, vault: sa.Engine, people: sa.Engine, ledger: Path, size: int, report: Progress
    ) -> Restoration:
        known_salts = self._read_salts()
        waiting = self._read_waiting()
        with vault.begin() as connection:
            pending = [decode_entry(row.entry) for row in connection.execute(sa.select(tables.vault_outbox))]
            if not self._present.accounts:
                self._put_people(people, known_salts)
            with people.connect() as holder:
                known = list(holder.execute(sa.select(accounts_table.c.id)).scalars())
            writer = None if self._present.accounts else people.connect()
            replay = Replay(connection, writer, known, known_salts, self._changes)
            applied = {entry.id for entry in pending}
            later, there, latest_ms = read_ledger(
                open_log(ledger).read(0, size),
                replay,
                start=self._manifest.ledger_from,
                applied=applied | {entry.id for entry in waiting},
                report=lambda done: report(done, size),
            )
            self._check_clock(latest_ms)
            fresh = [entry for entry in waiting if entry.id not in there and entry.id not in applied]
            apply_erasures(replay, [*later, *fresh])
            today = datetime.fromtimestamp(self._now_ms / 1000, UTC).date()
            if writer is not None:
                replay.end_runs(self._now_ms)
                if self._is_unknown(size):
                    replay.distrust(self._now_ms)
            owners = replay.drop_unowned(self._now_ms)
            if writer is not None:
                for account in set(known) - owners:
                    remove_account(writer, account)
                    self._changes.accounts_erased += 1
                writer.commit()
                writer.close()
            self._tighten(connection, people)
            replay.drop_expired(today)
            replay.drop_keyless(self._list_present())
            replay.delete_dropped(self._now_ms)
            keys, destroyed, kept = self._settle_keys(connection, replay)
            if not self._present.pseudonyms:
                self._stage_pseudonyms(people)
            self._leave_word(connection, pending, fresh, there)
            restoration = self._tell(connection, people, size, latest_ms, keys, destroyed, kept)
            put(connection, tables.vault_outbox, [self._entry(restoration, known_salts)])
        before = begin_of(facts_from(today))
        while forget_facts(vault, before_ms=before):
            pass
        return restoration

    def _read_salts(self) -> dict[str, bytes]:
        if not self._present.pseudonyms:
            assert self._copy is not None
            return dict(self._copy.secrets.salts)
        pseudonyms = open_pseudonyms(self._home / KEYSTORE, self._random)
        try:
            return pseudonyms.all()
        finally:
            pseudonyms.close()

    def _read_waiting(self) -> list[AnyEntry]:
        """Return what the vault that is replaced has not yet told the ledger."""
        if not (self._present.vault and self._present.ledger):
            return []
        engine = open_database(self._home / tables.VAULT.file, tables.VAULT)
        try:
            with engine.connect() as connection:
                query = sa.select(tables.vault_outbox).order_by(tables.vault_outbox.c.number)
                return [decode_entry(row.entry) for row in connection.execute(query)]
        finally:
            engine.dispose()

    def _put_people(self, people: sa.Engine, known_salts: Mapping[str, bytes]) -> None:
        with people.begin() as connection, (self._folder / ACCOUNTS).open("rb") as file:
            _, gone = insert_people(connection, read_people(file, known_salts))
            self._changes.accounts_erased += gone

    def _check_clock(self, latest_ms: int) -> None:
        if latest_ms - self._now_ms > _CLOCK_TOLERANCE_MS:
            raise Problem(
                "this machine's clock is behind the ledger, so that what has expired would come back",
                where=datetime.fromtimestamp(self._now_ms / 1000, UTC).isoformat(timespec="seconds"),
                fix="set the clock",
            )
        if self._copy is not None:
            check_window(self._copy, max(latest_ms, self._now_ms))

    def _is_unknown(self, size: int) -> bool:
        return size <= checkpoint_of(self._manifest, self._verifier, self._request.backup).size

    def _tighten(self, connection: sa.Connection, people: sa.Engine) -> None:
        """Bring what each account holds under the terms that are in force for it."""
        for account in Directory(people, _no_pseudonyms).all():
            for flow, known in read_latest_each(connection, account.id).items():
                if known != (ceiling := terms_of(account, flow)):
                    changed = lower(connection, account.id, flow, ceiling, at_ms=self._now_ms)
                    self._changes.tightened += changed

    def _list_present(self) -> Iterator[Sequence[bytes]]:
        """Give the segments whose keys there are."""
        if not self._present.keystore:
            assert self._copy is not None
            for batch in self._copy.read_keys():
                yield [segment for segment, _ in batch]
            return
        engine = open_database(self._home / tables.KEYSTORE.file, tables.KEYSTORE)
        try:
            with engine.connect().execution_options(yield_per=5000) as connection:
                yield from connection.execute(sa.select(tables.keys.c.segment)).scalars().partitions()
        finally:
            engine.dispose()

    def _settle_keys(self, connection: sa.Connection, replay: Replay) -> tuple[int | None, int, int]:
        """Stage the keys that come back, or note those that are to be destroyed; return how many of each."""
        due = list(replay.list_due())
        if not self._present.keystore:
            return self._stage_keystore(replay, due), sum(len(some) for _, some in due), 0
        in_force = sa.select(tables.holds.c.id).where(tables.holds.c.released_ms.is_(None))
        is_held = connection.execute(in_force).first() is not None
        strays = 0
        destroyed = 0
        with os.fdopen(create_private(self._folder / DUE), "wb") as file:

            def note(why: str, some: list[bytes]) -> None:
                file.write(msgspec.json.encode(Due(why, some)) + b"\n")

            for why, some in due:
                note(why, some)
                destroyed += len(some)
            for some in replay.list_strays():
                strays += len(some)
                if not is_held:
                    note("restored", some)
            file.flush()
            os.fsync(file.fileno())
        return None, destroyed + (0 if is_held else strays), strays if is_held else 0

    def _stage_keystore(self, replay: Replay, due: Iterable[tuple[str, list[bytes]]]) -> int:
        assert self._copy is not None
        keystore = open_file(self._folder / "keys.db", tables.KEYSTORE)
        count = 0
        with keystore.begin() as connection:
            connection.execute(sa.insert(tables.origins), {"number": 1, "origin": self._verifier.name})
            for batch in self._copy.read_keys():
                kept = replay.is_kept([segment for segment, _ in batch])
                rows = [{"segment": segment, "wrapped": key} for segment, key in batch if segment in kept]
                if rows:
                    connection.execute(sa.insert(tables.keys), rows)
                count += len(rows)
            for why, some in due:
                told = tell_destroyed(some, why=why, at_ms=self._now_ms, draw=self._draw)
                put(connection, tables.keystore_outbox, told)
        truncate_log(keystore)
        keystore.dispose()
        if self._request.kek is not None:
            write_private(self._folder / KEK, self._request.kek.read_bytes())
        return count

    def _stage_pseudonyms(self, people: sa.Engine) -> None:
        """Stage the salts of who is there; those of operators and organizations stay, they name nobody."""
        assert self._copy is not None
        engine = open_file(self._folder / "pseudonyms.db", PSEUDONYMS)
        with people.connect() as connection:
            there = set(connection.execute(sa.select(accounts_table.c.id)).scalars())
            there |= set(connection.execute(sa.select(organizations.c.name)).scalars())
        rows = [
            {"person": person, "salt": salt}
            for person, salt in self._copy.secrets.salts.items()
            if person in there or not is_account(person)
        ]
        with engine.begin() as connection:
            if rows:
                connection.execute(sa.insert(salts), rows)
        truncate_log(engine)
        engine.dispose()

    def _leave_word(
        self, connection: sa.Connection, pending: list[AnyEntry], fresh: list[AnyEntry], there: set[str]
    ) -> None:
        """Leave for the ledger what it does not have yet, and nothing that it has."""
        connection.execute(sa.delete(tables.vault_outbox))
        put(connection, tables.vault_outbox, [one for one in pending if one.id not in there])
        put(connection, tables.vault_outbox, fresh)

    def _tell(
        self,
        connection: sa.Connection,
        people: sa.Engine,
        size: int,
        latest_ms: int,
        keys: int | None,
        destroyed: int,
        kept: int,
    ) -> Restoration:
        counts = count_rows(connection, (tables.segments, tables.records, tables.exchanges))
        with people.connect() as reading:
            persons = count_rows(reading, (accounts_table,))["accounts"]
        ledger = "home" if self._present.ledger else "copy" if self._request.ledger else "backup"
        return Restoration(
            backup=self._manifest.id,
            made_ms=self._manifest.made_ms,
            entry=self._draw(),
            keystore="home" if self._present.keystore else "copy",
            accounts="home" if self._present.accounts else "backup",
            ledger=ledger,
            ledger_entries=size,
            ledger_until_ms=latest_ms,
            segments=counts["segments"],
            records=counts["records"],
            exchanges=counts["exchanges"],
            people=0 if self._present.accounts else persons,
            keys=keys,
            keys_destroyed=destroyed,
            keys_kept=kept,
            unknown=self._request.unknown if self._is_unknown(size) else None,
            changes=self._changes,
        )

    def _entry(self, restoration: Restoration, known_salts: Mapping[str, bytes]) -> Restored:
        operator = f"{OPERATOR}{self._request.by}"
        # One without a salt has never been named; what it signs is named by one that nobody keeps.
        salt = known_salts.get(operator) or self._random(32)
        reason = restoration.unknown
        return Restored(
            id=restoration.entry,
            at_ms=self._now_ms,
            backup=restoration.backup,
            by=name_with(salt),
            entries=restoration.ledger_entries,
            segments=restoration.segments,
            dropped=self._changes.dropped,
            unknown=None if reason is None else name_with(salt, f"reason {reason}"),
        )

    def _draw(self) -> str:
        return self._random(16).hex()


def apply_erasures(replay: Replay, later: Sequence[AnyEntry]) -> None:
    """Apply what the ledger tells since the backup; what a control takes out to see that it matters."""
    replay.apply(later)


def _no_pseudonyms() -> Pseudonyms:
    raise AssertionError("nobody is named while a restore is staged")
