"""Everything that a home holds, opened together, and what may be done with it so that the ledger knows.

Each act is one transaction of the database it changes, with the entry that tells of it; `settle` moves
entries on to the ledger. What acts on the vault and reads the accounts stands here, and nowhere else.
"""

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Set
from datetime import UTC, date, datetime
from pathlib import Path

import msgspec
import sqlalchemy as sa

from bailee.accounts.directory import Directory, open_directory
from bailee.accounts.keys import revoke_keys
from bailee.accounts.people import Account
from bailee.accounts.tables import outbox as accounts_outbox
from bailee.database.engines import is_shared
from bailee.database.leases import Lease, holding, node_name
from bailee.database.presence import note_made, read_made, tell_lost
from bailee.ledger.entries import (
    ContentRead,
    CopiesReached,
    CopyForgotten,
    DatasetBuilt,
    Erased,
    HoldPlaced,
    HoldReleased,
    TermsTightened,
    decode_entry,
)
from bailee.ledger.log import CHECKPOINT, FOLDER, Log, open_log
from bailee.ledger.origins import bind
from bailee.ledger.outbox import move, put, read_latest_ids
from bailee.ledger.pseudonyms import OPERATOR, Pseudonyms, find_gone, open_pseudonyms
from bailee.ledger.receipts import find_entries, make_receipt
from bailee.policy.flows import FlowId
from bailee.policy.problems import Problem
from bailee.vault import tables
from bailee.vault.anchors import check_anchor, keep_anchor
from bailee.vault.ceilings import HELD, Ceiling, is_under, list_ended, lower, read_latest_each
from bailee.vault.copies import registry
from bailee.vault.copies.cascade import Cascade, Reached
from bailee.vault.erasure import Erasure, count_session, erase, mark_remnants, refuse_held
from bailee.vault.holds import Hold, PlacedHold, check_reason, count_gone, place_hold, release_hold
from bailee.vault.keystore import Keystore
from bailee.vault.proofs import forget_receipts
from bailee.vault.store import KEYSTORE, open_keys, open_vault
from bailee.vault.terms import terms_of

# What the ledger is called among the stores of a home.
LEDGER = "ledger"


class Custody:
    """A home's accounts, vault, keystore and ledger.

    Args:
        clock: seconds since 1970 UTC.
        random: gives that many random bytes.
    """

    def __init__(
        self,
        home: Path,
        *,
        directory: Directory,
        vault: sa.Engine,
        keystore: Keystore,
        pseudonyms: Pseudonyms,
        log: Log,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
    ) -> None:
        self.home = home
        self.directory = directory
        self.vault = vault
        self.keystore = keystore
        self.pseudonyms = pseudonyms
        self.log = log
        self._clock = clock
        self._random = random

    def now_ms(self) -> int:
        """Return milliseconds since 1970 UTC."""
        return int(self._clock() * 1000)

    def today(self) -> date:
        """Return the UTC day."""
        return datetime.fromtimestamp(self._clock(), UTC).date()

    def draw(self) -> str:
        """Return an id for an entry or a hold: 32 hexadecimal digits."""
        return self._random(16).hex()

    # --- Terms ---

    def tighten(self, account: Account, *, is_thorough: bool = True) -> int:
        """Bring what an account holds under the terms in force now; return how many segments changed.

        Args:
            is_thorough: look at all that is held, even if the terms are those that were applied last. Looser
                ones may have been in force in between: whoever loosened them was killed before it was noted.
        """
        ceilings = {flow: terms_of(account, flow) for flow in HELD}
        if not is_thorough and self._latest(account) == ceilings:
            return 0
        with self._alone("tightening"):
            latest = self._latest(account)
            # Where another process has just done it nothing is left to do.
            return sum(
                self._lower(account, flow, ceiling, latest[flow])
                for flow, ceiling in ceilings.items()
                if is_thorough or latest[flow] != ceiling
            )

    def _latest(self, account: Account) -> dict[FlowId, Ceiling | None]:
        with self.vault.connect() as connection:
            return read_latest_each(connection, account.id)

    def _lower(self, account: Account, flow: FlowId, ceiling: Ceiling, known: Ceiling | None) -> int:
        with self.vault.begin() as connection:
            changed = lower(connection, account.id, flow, ceiling, at_ms=self.now_ms())
            if changed or (known is not None and not is_under(ceiling, known)):
                entry = TermsTightened(
                    id=self.draw(),
                    at_ms=self.now_ms(),
                    subject=self.pseudonyms.name(account.id),
                    retention=str(ceiling.retention),
                    trainable=ceiling.trainable,
                    segments=changed,
                    flow=flow.value,
                )
                put(connection, tables.vault_outbox, [entry])
        return changed

    # --- Holds ---

    def hold(
        self, account: Account, session: str | None, *, reason: str, by: str, person: str = ""
    ) -> PlacedHold:
        """Place a legal hold on a session, or on all that an account holds.

        Args:
            by, person: who places it: see `_name_who`.

        Raises:
            Problem: nothing is known of that session, or all its keys are gone already; the account is being
                erased; or no reason is given.
        """
        if session is not None:
            count_session(self.vault, account.id, session)
        placed = Hold(self.draw()[:16], account.id, session, reason, by, self.now_ms())
        entry = HoldPlaced(
            id=self.draw(),
            at_ms=placed.placed_ms,
            hold=placed.id,
            subject=self.pseudonyms.name(account.id),
            session=None if session is None else self._name_session(account.id, session),
            by=self._name_who(by, person),
            reason=self.pseudonyms.name(account.id, f"reason {reason}"),
        )
        with self.vault.begin() as connection:
            place_hold(connection, placed)
            gone = count_gone(connection, self.keystore, placed, self.today())
            put(connection, tables.vault_outbox, [entry])
        return PlacedHold(**msgspec.structs.asdict(placed), gone=gone)

    def release(self, id: str, *, reason: str, by: str, person: str = "") -> Hold:
        """Release a legal hold.

        Raises:
            Problem: there is no such hold in force, or no reason is given.
        """
        with self.vault.begin() as connection:
            released = release_hold(connection, id, by=by, reason=reason, at_ms=self.now_ms())
            entry = HoldReleased(
                id=self.draw(),
                at_ms=self.now_ms(),
                hold=id,
                subject=self.pseudonyms.name(released.account),
                by=self._name_who(by, person),
                reason=self.pseudonyms.name(released.account, f"reason {reason}"),
            )
            put(connection, tables.vault_outbox, [entry])
        return released

    # --- Access ---

    def record_access(
        self, account: str, session: str | None, *, reader: str, purpose: str, reason: str, person: str = ""
    ) -> None:
        """Record, before it happens, that somebody other than the account holder reads content.

        Raises:
            Problem: no reason is given.
        """
        check_reason(reason)
        entry = ContentRead(
            id=self.draw(),
            at_ms=self.now_ms(),
            subject=self.pseudonyms.name(account),
            session=None if session is None else self._name_session(account, session),
            reader=self._name_who(reader, person),
            purpose=purpose,
            reason=self.pseudonyms.name(account, f"reason {reason}"),
        )
        self.directory.record_access(account, session, reader=reader, reason=reason, entry=entry)
        self.settle()

    def record_dataset(self, build: str, digest: str, items: int, *, builder: str) -> None:
        """Record that a dataset was built, by the digest of the manifest that is about to be in place."""
        entry = DatasetBuilt(
            id=self.draw(),
            at_ms=self.now_ms(),
            digest=digest,
            items=items,
            by=self.pseudonyms.name(f"{OPERATOR}{builder}"),
        )
        with self.vault.begin() as connection:
            registry.announce(connection, build, digest)
            put(connection, tables.vault_outbox, [entry])
        self.settle()

    # --- Copies ---

    def follow_copies(self, only: Collection[str] | None = None) -> Reached:
        """Take what is due out of the copies outside the vault, of all or of some."""
        return Cascade(self.vault, self.home, draw=self.draw, now_ms=self.now_ms).run(only)

    def forget_copy(self, copy: registry.Copy, *, reason: str, by: str) -> None:
        """Let nobody follow a copy any more, so that nothing is taken out of it.

        Raises:
            Problem: no reason is given.
        """
        who = f"{OPERATOR}{by}"
        told = self.pseudonyms.name(copy.account or who, f"reason {check_reason(reason)}")
        entry = CopyForgotten(
            id=self.draw(),
            at_ms=self.now_ms(),
            copy=copy.id,
            what=copy.kind,
            by=self.pseudonyms.name(who),
            reason=told,
        )
        with self.vault.begin() as connection:
            registry.forget(connection, copy, reason)
            put(connection, tables.vault_outbox, [entry])
        self.settle()

    # --- Erasure ---

    def erase_session(
        self, account: str, session: str, *, by: str, person: str = ""
    ) -> tuple[Erasure, bytes]:
        """Erase a session, and return what went with the receipt that proves it.

        Args:
            account: the account's id.
            by, person: who asks: see `_name_who`.

        Raises:
            Problem: nothing is known of that session, or a legal hold covers it.
        """
        count_session(self.vault, account, session)
        return self._erase(account, session, self._name_who(by, person))

    def erase_account(self, account: Account, *, by: str) -> tuple[Erasure, bytes]:
        """Erase all that an account holds, its keys and consents, and the account itself.

        Its keys are revoked first, so that a running service refuses what comes from then on. What was
        admitted until the account is gone goes as well; killed in between, a sweep goes on.

        Raises:
            Problem: a legal hold covers some of it; one that is placed after the look at holds finds the keys
                that agents present revoked, and nothing else changed.
        """
        refuse_held(self.vault, account.id, None)
        revoke_keys(self.directory, account.id, clock=self._clock)
        return self._erase(account.id, None, self._name_who(by))

    def finish_erasures(self) -> list[Account]:
        """Go on where erasures of accounts were killed, and mark what came of such accounts since.

        An account that is only missing is left alone: its database may be lost, and come back from a backup.

        Returns:
            The accounts there are.

        Raises:
            Problem: their settings cannot be read.
        """
        accounts = self.directory.all()
        with self.vault.connect() as connection:
            ended = list_ended(connection)
        for account in accounts:
            if account.id in ended:
                self._remove(account.id)
        for id in ended:
            mark_remnants(self.vault, id, at_ms=self.now_ms())
        self._forget_gone(ended)
        return [account for account in accounts if account.id not in ended]

    def _remove(self, account: str) -> None:
        """Remove an account whose erasure is decided: nothing of it is admitted from now on."""
        organization = self.directory.remove(account)
        forget_receipts(self.home, account)
        self.pseudonyms.forget(account)
        if organization is not None:
            self.pseudonyms.forget(organization)

    def _forget_gone(self, ended: Set[str]) -> None:
        """Destroy the salts that erasures did not come to, or that somebody drew anew."""
        known = self.pseudonyms.all().keys()
        # Read after the salts: whoever has one was there before.
        there: set[str | None] = set()
        for account in self.directory.all():
            there |= {account.id, account.organization}
        for person in find_gone(known, there, ended):
            self.pseudonyms.forget(person)

    def _name_who(self, words: str, person: str = "") -> str:
        """Return who does something: the user of this machine of that name, or an account by its id."""
        return self.pseudonyms.name(person or f"{OPERATOR}{words}")

    def _erase(self, account: str, session: str | None, by: str) -> tuple[Erasure, bytes]:
        before = self.log.size
        entry = Erased(
            id=self.draw(),
            at_ms=self.now_ms(),
            subject=self.pseudonyms.name(account),
            session=None if session is None else self._name_session(account, session),
            by=by,
            segments=0,
            records=0,
            exchanges=0,
            stored_bytes=0,
        )
        erased, segments = erase(self.vault, self.keystore, account, session, entry=entry)
        ids = [entry.id]
        if session is None:
            self._remove(account)
            # What was admitted before it was gone.
            while True:
                entry = msgspec.structs.replace(entry, id=self.draw(), at_ms=self.now_ms())
                late, more = erase(self.vault, self.keystore, account, None, entry=entry, again=True)
                if not late.is_something:
                    break
                ids.append(entry.id)
                segments += more
                erased = erased.with_later(late)
        with self.vault.connect() as connection:
            # With those that were being written as it was marked.
            found = registry.find_copies(connection, account, session, segments)
        copies = self._reach(erased.copies, found)
        if copies.reached or copies.pending or copies.holders:
            told = CopiesReached(
                id=self.draw(),
                at_ms=self.now_ms(),
                erasure=ids[0],
                reached=len(copies.reached),
                pending=len(copies.pending),
                holders=len(copies.holders),
            )
            ids.append(told.id)
            with self.vault.begin() as connection:
                put(connection, tables.vault_outbox, [told])
        self.settle()
        indices = find_entries(self.log, before, ids, segments)
        return msgspec.structs.replace(erased, copies=copies), make_receipt(self.log, indices)

    def _reach(self, marked: Reached, found: Iterable[registry.Copy]) -> Reached:
        """Follow the copies that hold something of what is erased, or did as it was marked.

        Returns:
            What became of each of them.
        """
        holding = {copy.id: copy for copy in (*marked.reached, *marked.holders)}
        done = self.follow_copies(holding.keys() | {copy.id for copy in found})
        told = {copy.id for copy in (*done.reached, *done.pending, *done.holders)}
        # What a sweep was faster with, or somebody had forgotten meanwhile.
        others = [copy for id, copy in holding.items() if id not in told]
        return msgspec.structs.replace(done, reached=done.reached + others)

    # --- The ledger ---

    def settle(self) -> int:
        """Move all entries that wait on to the ledger, and return how many those were.

        Raises:
            Problem: the ledger was put back to an older state: nothing is added, and what waits stays.
        """
        with self._alone("settling") as keep:
            known: set[str] | None = None

            def append(entries: Sequence[bytes]) -> None:
                # Killed after an append and before its entries were taken out, a mover leaves them to the
                # next.
                nonlocal known
                if known is None:
                    check_anchor(self.keystore.engine, self.log)
                    known = set(read_latest_ids(self.log))
                fresh = [entry for entry in entries if decode_entry(entry).id not in known]
                if fresh:
                    keep()
                    self.log.append(fresh)
                    keep_anchor(self.keystore.engine, self.log)

            moved = move(self.directory.engine, accounts_outbox, append)
            moved += move(self.vault, tables.vault_outbox, append)
            return moved + self.keystore.move_outbox(append)

    def accept_ledger(self) -> None:
        """Take the ledger that is there for the present one, as a restore does, which says so in it."""
        keep_anchor(self.keystore.engine, self.log)

    def close(self) -> None:
        """Close the databases."""
        self.directory.close()
        self.keystore.close()
        self.vault.dispose()
        self.pseudonyms.close()

    @contextlib.contextmanager
    def _alone(self, work: str) -> Iterator[Callable[[], None]]:
        """Do some work that nobody else may do meanwhile; gives what tells that it is still so, or raises.

        A lock of the home's own is free as soon as its holder is killed, where a lease has to run out first:
        it is for nodes that share the databases.
        """
        engine = self.keystore.engine
        if is_shared(engine):
            holder = f"{node_name()} {os.getpid()} {self.draw()}"
            with holding(Lease(engine, tables.leases, work, holder, self._clock)) as lease:
                yield lease.keep
            return
        with _locked(self.home / f"{work}.lock"):
            yield lambda: None

    def _name_session(self, account: str, session: str) -> str:
        return self.pseudonyms.name(account, f"session {session}")


def open_ledger(home: Path) -> Log:
    """Open a home's ledger, or make it in a new home.

    Raises:
        Problem: it was there once and is gone, or part of it is missing or damaged.
    """
    if LEDGER in read_made(home) and not (home / FOLDER / CHECKPOINT).exists():
        raise tell_lost(LEDGER, str(home / FOLDER))
    log = open_log(home / FOLDER, create=True)
    note_made(home, LEDGER)
    return log


def open_custody(
    home: Path,
    *,
    clock: Callable[[], float] = time.time,
    random: Callable[[int], bytes] = secrets.token_bytes,
) -> Custody:
    """Open, or make, everything that a home holds.

    Raises:
        Problem: a database, a key or the ledger cannot be used.
    """
    keystore = open_keys(home)
    try:
        log = open_ledger(home)
        bind(keystore.engine, tables.origins, log.verifier.name, where=str(home / FOLDER))
    except Problem:
        keystore.close()
        raise
    return Custody(
        home,
        directory=open_directory(home, clock=clock),
        vault=open_vault(home),
        keystore=keystore,
        pseudonyms=open_pseudonyms(home / KEYSTORE, random),
        log=log,
        clock=clock,
        random=random,
    )


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
