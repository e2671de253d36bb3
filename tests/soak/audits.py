"""What must hold of a home at rest, whatever was killed before."""

import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa

from bailee.ledger.entries import KeysDestroyed, commit_segment, decode_entry
from bailee.ledger.log import FOLDER
from bailee.ledger.storage import DirectoryTiles
from bailee.ledger.verification import verify_ledger
from bailee.policy.problems import Problem
from bailee.vault import tables
from bailee.vault.custody import Custody, open_custody
from bailee.vault.reader import list_sessions, read_session
from bailee.vault.strays import PATIENCE_MS
from bailee.vault.tables import State
from soak.clocks import SharedClock
from soak.journals import Content, Journal, Said, digest
from soak.stores import check_store

# Enough of an envelope to be found by: its nonce, and more.
SAMPLE_BYTES = 32
MARGIN_MS = 120_000
# A reader may keep a sweep from emptying a write-ahead log; an idle recorder does it within 10 s.
OVERWRITING_SECONDS = 15.0


class Pieces(NamedTuple):
    """Bytes that a segment is found by in a file."""

    key: bytes
    record: bytes


class Held(NamedTuple):
    """What a home holds at rest."""

    contents: dict[int, Content]
    sessions: dict[int, str]
    states: dict[int, str]
    segments: dict[int, bytes]  # by exchange
    due: dict[bytes, date | None]  # by segment
    keys: dict[bytes, bytes]
    fresh: dict[bytes, int]  # keys of which the next sweeps tell whether anything was written under them
    days: dict[int, tuple[date, int]]  # by exchange: the segment's day, and for how many days it is held


@dataclass
class Auditor:
    """Audits one home again and again, and remembers what is gone for good.

    Attributes:
        note: the checkpoint of the last audit, with which the ledger has to begin.
        gone: exchanges that must never come back.
        destroyed: segments whose keys must never come back.
        entries: how many of the ledger's entries were read.
    """

    home: Path
    journal: Journal
    clock: SharedClock
    note: bytes | None = None
    gone: set[int] = field(default_factory=set)
    destroyed: set[bytes] = field(default_factory=set)
    entries: int = 0
    _known: dict[bytes, Pieces] = field(default_factory=dict)
    _ids: set[str] = field(default_factory=set)
    _told: set[str] = field(default_factory=set)

    def audit(self) -> list[str]:
        """Return what is wrong. The service is idle, and what is due or erased has just been swept."""
        try:
            custody = open_custody(self.home, clock=self.clock)
        except Problem as problem:
            return [f"the home does not open: {problem}"]
        try:
            found = list(check_store(custody.vault)) + list(check_store(custody.keystore.engine))
            held = read_held(custody)
            found += self._check_fates(held)
            found += self._check_segments(held)
            found += self._check_states(held)
            self._witness(held)
            found += self._check_ledger(custody)
            ended = self._list_ended(custody, held)
        except Problem as problem:
            found = [f"what is held cannot be read: {problem}"]
            ended = {}
        finally:
            custody.close()
        return found + list(self._check_bytes(ended))

    def _check_fates(self, held: Held) -> Iterator[str]:
        """Everything acknowledged is there as it was said, or is gone for a reason; nothing gone is back."""
        today = self.clock.today()
        taken: dict[int, set[bool]] = {}
        for said in list(self.journal.said.values()):
            is_here = said.exchange in held.contents
            name = f"exchange {said.exchange:x} of {said.session}"
            erasures = [one for one in self.journal.erasures if one.may_take(said)]
            is_erased = any(one.is_acknowledged and one.must_take(said) for one in erasures)
            if is_here and said.must_go_on <= today:
                yield f"{name} is held, and expired on {said.must_go_on}"
            elif is_here and is_erased:
                yield f"{name} is held, and was erased"
            elif is_here and held.contents[said.exchange] != said.content:
                yield f"{name} is held with other bytes than were said"
            elif not is_here and said.may_go_on > today and not erasures:
                yield f"{name} was acknowledged, and is lost"
            for number, one in enumerate(self.journal.erasures):
                if one.must_take(said) and said.may_go_on > today and len(erasures) == 1:
                    taken.setdefault(number, set()).add(is_here)
            if not is_here:
                self.gone.add(said.exchange)
                del self.journal.said[said.exchange]
                # One that was on its way meanwhile leaves its facts: it ended after the erasure.
                if is_erased and said.exchange in held.states:
                    yield f"facts of {name} are held, and it was erased"
        for number, fates in taken.items():
            if len(fates) > 1:
                yield f"the erasure of {self.journal.erasures[number].session} took a part of it only"
        self.journal.erasures.clear()
        for exchange in self.gone & held.contents.keys():
            yield f"exchange {exchange:x} of {held.sessions.get(exchange)} was gone, and is back"

    def _check_segments(self, held: Held) -> Iterator[str]:
        """No segment without its key, no key without its segment, none that is due, none that is back."""
        for segment in held.due.keys() - held.keys.keys():
            yield f"segment {segment.hex()} is there and its key is not"
        for segment in held.keys.keys() - held.due.keys() - held.fresh.keys():
            yield f"the key of segment {segment.hex()} is there and the segment is not"
        for segment, due in held.due.items():
            if due is not None and due <= self.clock.today():
                yield f"segment {segment.hex()} was due on {due}, and is there"
        for segment, at_ms in held.fresh.items():
            # A minute's patience, and the minutes that the sweep before this audit took.
            if at_ms < self.clock() * 1000 - PATIENCE_MS - MARGIN_MS:
                yield f"nobody looked whether the key of segment {segment.hex()} is a stray"
        for segment in self.destroyed & held.keys.keys():
            yield f"the key of segment {segment.hex()} was destroyed, and is back"

    def _check_states(self, held: Held) -> Iterator[str]:
        """Nothing is told as going on at rest, and what was acknowledged is told as complete."""
        for exchange, state in held.states.items():
            if state == State.OPEN:
                yield f"exchange {exchange:x} of {held.sessions[exchange]} is told as going on, at rest"
            said = self.journal.said.get(exchange)
            if said is not None and said.begun and state != State.COMPLETE:
                yield f"exchange {exchange:x} was acknowledged, and is told as {state}"

    def _witness(self, held: Held) -> None:
        """What is held now without having been acknowledged must stay as well."""
        for exchange, content in held.contents.items():
            if exchange not in self.journal.said:
                terms = held.days[exchange]
                session = held.sessions[exchange]
                self.journal.said[exchange] = Said(exchange, session, *terms, content, begun=0.0, ended=0.0)

    def _check_ledger(self, custody: Custody) -> Iterator[str]:
        """It verifies, begins with what it was, tells nothing twice, and tells of every key destroyed."""
        tiles = DirectoryTiles(self.home / FOLDER)
        verified = verify_ledger(tiles, custody.log.verifier, since=self.note)
        for fault in verified.faults:
            yield f"ledger, {fault.path}: {fault.what}"
        if not verified.verified:
            return
        self.note = custody.log.note()
        for data in custody.log.read(self.entries):
            self.entries += 1
            entry = decode_entry(data)
            if entry.id in self._ids:
                yield f"the ledger tells of {entry.id} twice"
            self._ids.add(entry.id)
            if isinstance(entry, KeysDestroyed):
                for segment in entry.segments:
                    if segment in self._told:
                        yield f"the ledger tells of the end of segment {segment} twice"
                    self._told.add(segment)

    def _list_ended(self, custody: Custody, held: Held) -> dict[bytes, Pieces]:
        """Return what is gone since the last audit by pieces of its bytes, and remember those of the rest."""
        ended = {segment: pieces for segment, pieces in self._known.items() if segment not in held.keys}
        self._known = {segment: pieces for segment, pieces in self._known.items() if segment in held.keys}
        self.destroyed |= ended.keys()
        records, segments = tables.records, tables.segments
        query = sa.select(segments.c.id, records.c.sealed).join(
            records, records.c.segment == segments.c.number
        )
        with custody.vault.connect() as connection:
            for id, sealed in connection.execute(query.where(records.c.sequence == 0)):
                if id in held.keys:
                    self._known[id] = Pieces(held.keys[id], sealed[:SAMPLE_BYTES])
        return ended

    def _check_bytes(self, ended: dict[bytes, Pieces]) -> Iterator[str]:
        """Of what is gone there is word in the ledger, and soon no byte of key or record in a file."""
        for segment in ended:
            if commit_segment(segment) not in self._told:
                yield f"the ledger does not tell that the key of segment {segment.hex()} is destroyed"
        deadline = time.monotonic() + OVERWRITING_SECONDS
        while found := list(find_pieces(self.home, ended)):
            if time.monotonic() > deadline:
                yield from found
                return
            time.sleep(0.5)


def find_pieces(home: Path, ended: dict[bytes, Pieces]) -> Iterator[str]:
    """Search all files of a home for bytes of what is gone."""
    for path in home.rglob("*") if ended else ():
        if not path.is_file():
            continue
        # By another process: closing a descriptor of a database here would drop every lock that SQLite holds
        # on it here ("How To Corrupt An SQLite Database File", section 2.2), and so it did.
        text = subprocess.run(["cat", path], capture_output=True, check=False).stdout
        for segment, pieces in ended.items():
            for name, piece in pieces._asdict().items():
                if piece in text:
                    yield f"bytes of the {name} of segment {segment.hex()} are in {path.name}, after its end"


def read_held(custody: Custody) -> Held:
    """Read everything that a home holds.

    Raises:
        Problem: a record does not open, or is missing.
    """
    contents: dict[int, Content] = {}
    for session in list_sessions(custody.vault):
        arguments = custody.vault, custody.keystore, session.account, session.id
        for one in read_session(*arguments, today=custody.today()):
            contents[one.exchange] = digest(one.request.reveal(), one.response.reveal())
    exchanges, segments = tables.exchanges, tables.segments
    columns = (exchanges.c.id, exchanges.c.session, exchanges.c.state, segments.c.id)
    query = sa.select(*columns, segments.c.day, segments.c.retention)
    query = query.outerjoin(segments, segments.c.number == exchanges.c.segment)
    with custody.vault.connect() as connection:
        rows = connection.execute(query).all()
        due = {row.id: row.expires_on for row in connection.execute(sa.select(segments))}
    with custody.keystore.engine.connect() as connection:
        keys = {row.segment: row.wrapped for row in connection.execute(sa.select(tables.keys))}
        fresh = {row.segment: row.at_ms for row in connection.execute(sa.select(tables.fresh_keys))}
    return Held(
        contents,
        {row[0]: row.session for row in rows},
        {row[0]: row.state for row in rows},
        {row[0]: row[3] for row in rows if row[3] is not None},
        due,
        keys,
        fresh,
        {row[0]: (row.day, int(row.retention.removesuffix("d"))) for row in rows if row.retention},
    )
