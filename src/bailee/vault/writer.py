"""Writes exchanges into sealed segments, many to a transaction."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from typing import Any

import msgspec
import sqlalchemy as sa
import sqlalchemy.exc

from bailee.database.engines import watch_others
from bailee.database.statements import Insert
from bailee.policy.decisions import Terms
from bailee.policy.problems import Problem
from bailee.sealing.envelopes import Place, SegmentCipher
from bailee.vault import tables
from bailee.vault.blocks import BlockReader, BlockWriter
from bailee.vault.ceilings import HELD, cover_late, read_latest_ms
from bailee.vault.contents import RequestContent, ResponseContent, pack, unpack_request
from bailee.vault.decisions import number_decision
from bailee.vault.frames import Again, Begin, Decided, Finish, Frame, Part
from bailee.vault.keystore import Keystore
from bailee.vault.records import read_records
from bailee.vault.segments import FIND_SEGMENT, Segment

SEGMENTS_IN_MEMORY_BYTES = 16 * 1024 * 1024
SEGMENTS_IN_MEMORY = 512
# An answer longer than this is written in stretches, so that memory stays bounded and a killed
# recorder loses at most this much of an answer that nobody has received in full.
STRETCH_BYTES = 256 * 1024
# More than this to a transaction, and there is no time for thorough compression.
_FEW_EXCHANGES = 4
# Numbers of segments are drawn, 62 bits wide, so that no database has to be asked for one before the commit.
_NUMBER_SHIFT = 2

Row = dict[str, Any]
# Account, session, UTC day, number of the decision; and of what came late (`_is_late`) the exchange, else 0.
_Where = tuple[str, str, date, int, int]


class _OpenExchange(msgspec.Struct):
    segment: Segment | None
    data: list[bytes]
    size: int = 0
    is_erased: bool = False


class VaultWriter:
    """Takes in frames and commits them; not for use by two threads or two processes at once.

    Args:
        engine: the vault's database.
        random: gives that many random bytes.
        clock: seconds since 1970 UTC, for the ledger.
    """

    def __init__(
        self,
        engine: sa.Engine,
        keystore: Keystore,
        random: Callable[[int], bytes],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine = engine
        # All writing is on one connection, which so sees others' commits and not its own.
        self._connection = engine.connect()
        # Looking a segment up takes 0.15 ms less than on a connection that the pool gives out each time.
        self._reading = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self._watch = watch_others(self._connection)
        self._vault_version = self._watch()
        self._clock = clock
        self._keystore = keystore
        self._random = random
        self._decisions: dict[bytes, tuple[int, Terms]] = {}
        self._segments: OrderedDict[_Where, Segment] = OrderedDict()
        # When the terms of accounts' flows were tightened last, as far as was asked since others wrote.
        self._ceilings: dict[tuple[str, str], int] = {}
        # Segments that were let go of with something still to be written into them.
        self._let_go: list[Segment] = []
        self._open: dict[int, _OpenExchange] = {}
        self._begun: dict[int, Row] = {}
        self._ended: list[int] = []
        # The ends of exchanges whose beginning is in the database already.
        self._later: list[Row] = []
        self._records: list[Row] = []
        self._new_segments: list[tuple[Segment, Row]] = []
        self._durable: list[int] = []
        self._held_bytes = 0
        self._keystore_version = keystore.read_version()
        self._insert_exchanges = Insert(engine, tables.exchanges)
        self._insert_records = Insert(engine, tables.records)

    @property
    def open_exchanges(self) -> list[int]:
        """Exchanges begun and not finished."""
        return list(self._open)

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for the next `commit`."""
        return bool(self._ended or self._durable)

    def take(self, frames: Iterable[Frame]) -> None:
        """Take in frames that have arrived; nothing of them is durable before `commit`.

        What others changed is looked at once, before the first: all of the frames are older than the look.
        """
        self._forget_erased()
        self._forget_tightened()
        for frame in frames:
            match frame:
                case Begin():
                    self._begin(frame)
                case Part():
                    self._part(frame)
                case Finish():
                    self._finish(frame)
                case Decided():
                    self._decide(frame)
                case Again():
                    self._take_again(frame)

    def commit(self) -> list[int]:
        """Make all that was taken in durable and return the exchanges that ended with it.

        Keys go first: a record without its key would be lost, a key without a record harms nobody.
        """
        self._flush()
        durable, self._durable = self._durable, []
        return durable

    def _flush(self) -> None:
        if not (self._begun or self._ended or self._records):
            return
        self._forget_erased()
        self._keystore.flush()
        try:
            self._write()
        except sa.exc.IntegrityError:
            # A session was erased between the look and the commit.
            self._forget_erased()
            self._write()

    def _write(self) -> None:
        with self._connection.begin():
            connection = self._connection
            if self._new_segments:
                connection.execute(sa.insert(tables.segments), [row for _, row in self._new_segments])
                begun = [
                    (segment.number, segment.account, segment.flow, segment.admitted_ms)
                    for segment, _ in self._new_segments
                ]
                cover_late(connection, begun)
            self._insert_exchanges(connection, list(self._begun.values()))
            # Records first: whoever waits here for a segment that is being deleted holds no exchange of it.
            self._insert_records(connection, self._records)
            if self._later:
                connection.execute(_END_EXCHANGE, self._later)
        self._settle_keys()
        for segment, _ in self._new_segments:
            segment.is_durable = True
        self._durable += self._ended
        self._begun, self._ended, self._later, self._records, self._new_segments = {}, [], [], [], []
        self._let_go.clear()
        self._trim()

    def _settle_keys(self) -> None:
        """Note that what keys were made for is written.

        Raises:
            Problem: a sweep has destroyed keys meanwhile as a killed recorder's, so that nothing was kept.
        """
        numbers = {segment.id: segment.number for segment, _ in self._new_segments}
        if not numbers:
            return
        if self._keystore.read_version() != self._keystore_version:
            gone = numbers.keys() - self._keystore.select_held(list(numbers))
            if gone and self._mark_erased([numbers[id] for id in gone]):
                raise Problem("this recorder stood still for so long that its keys were destroyed")
        self._keystore.settle()

    def _mark_erased(self, numbers: list[int]) -> int:
        """Mark segments as erased, and return how many were neither that nor destroyed already."""
        table = tables.segments
        mark = sa.update(table).where(
            table.c.number.in_(numbers),
            table.c.is_destroyed.is_(False),
            sa.or_(table.c.expires_on.is_(None), table.c.expires_on != tables.ERASED),
        )
        with self._connection.begin():
            return self._connection.execute(mark.values(expires_on=tables.ERASED)).rowcount

    def _forget_erased(self) -> None:
        """Let go of segments whose key another process destroyed, and of what was to be written there."""
        version = self._keystore.read_version()
        if version == self._keystore_version:
            return
        self._keystore_version = version
        # A segment that is not written yet cannot have been erased: nobody else knows of it.
        in_use = [one.segment for one in self._open.values() if one.segment is not None]
        known = [*self._segments.values(), *self._let_go, *in_use]
        written = {segment.id: segment.number for segment in known if segment.is_durable}
        held = self._keystore.select_held(list(written))
        numbers = {number for id, number in written.items() if id not in held}
        if not numbers:
            return
        for place, segment in list(self._segments.items()):
            if segment.number in numbers:
                self._held_bytes -= segment.blocks.retained_bytes
                del self._segments[place]
        self._records = [record for record in self._records if record["segment"] not in numbers]
        for row in self._begun.values():
            if row["segment"] in numbers:
                row["segment"] = None
        for exchange in self._open.values():
            if exchange.segment is not None and exchange.segment.number in numbers:
                exchange.segment, exchange.data, exchange.is_erased = None, [], True

    def _forget_tightened(self) -> None:
        """Let go of segments whose terms another process tightened: what comes now may have looser ones."""
        version = self._watch()
        if version == self._vault_version:
            return
        self._vault_version = version
        self._ceilings.clear()
        table = tables.segments
        known = {segment.number: place for place, segment in self._segments.items() if segment.is_durable}
        query = sa.select(table.c.number, table.c.decision, table.c.retention, table.c.trainable)
        query = query.where(
            table.c.number.in_(known),
            sa.or_(table.c.expires_on.is_(None), table.c.expires_on != tables.ERASED),
        )
        rows = {row.number: row for row in self._reading.execute(query)}
        for number, place in known.items():
            row = rows.get(number)
            terms = self._terms_of(place)
            if row is None or (row.retention, row.trainable) != (str(terms.retention), terms.trainable):
                segment = self._segments.pop(place)
                self._held_bytes -= segment.blocks.retained_bytes
                self._let_go.append(segment)

    def _terms_of(self, place: _Where) -> Terms:
        return next(terms for number, terms in self._decisions.values() if number == place[3])

    def interrupt_open(self) -> int:
        """Mark the exchanges that an earlier service left open as interrupted; return how many there were."""
        table = tables.exchanges
        mark = (
            sa.update(table)
            .where(table.c.state == tables.State.OPEN)
            .values(state=tables.State.INTERRUPTED, reason="the service ended before the answer did")
        )
        with self._connection.begin():
            return self._connection.execute(mark).rowcount

    def close(self) -> None:
        """Close the connection; what was not committed is lost."""
        self._reading.close()
        self._connection.close()

    def _decide(self, frame: Decided) -> None:
        if frame.digest in self._decisions:
            return
        try:
            number = self._number(frame)
        except sa.exc.IntegrityError:
            number = self._number(frame)  # another node's recorder was the first
        self._decisions[frame.digest] = (number, frame.terms)

    def _number(self, frame: Decided) -> int:
        with self._connection.begin():
            return number_decision(
                self._connection, frame, at_ms=int(self._clock() * 1000), random=self._random
            )

    def _begin(self, frame: Begin) -> None:
        if frame.decision not in self._decisions:
            raise Problem("a record came without the decision that makes its terms", where="recorder")
        if frame.keep and frame.account and frame.flow not in HELD:
            raise Problem(f"nobody would tighten the terms of what {frame.flow} holds", where="recorder")
        decision, terms = self._decisions[frame.decision]
        segment = self._segment(frame, decision, terms) if frame.keep else None
        self._begun[frame.exchange] = {
            **_NO_END,
            "id": frame.exchange,
            "account": frame.account,
            "session": frame.session,
            "key": frame.key,
            "decision": decision,
            "flow": frame.flow,
            "segment": segment.number if segment else None,
            "started_ms": frame.started_ms,
            "state": tables.State.OPEN.value,
            "upstream": frame.upstream,
            "path": frame.path,
            "request_bytes": frame.request_bytes,
        }
        self._open[frame.exchange] = _OpenExchange(segment, [])
        if segment is not None:
            before = segment.blocks.retained_bytes
            content = RequestContent(segment.blocks.write(frame.headers), segment.blocks.write(frame.body))
            self._held_bytes += segment.blocks.retained_bytes - before
            packed = pack(content, is_hurried=len(self._begun) > _FEW_EXCHANGES)
            self._record(segment, frame.exchange, tables.Kind.REQUEST, packed)

    def _take_again(self, frame: Again) -> None:
        id = frame.begin.exchange
        query = sa.select(tables.exchanges.c.id).where(tables.exchanges.c.id == id)
        is_there = self._reading.execute(query).first() is not None
        if is_there:
            self._durable.append(id)
        else:
            self._begin(frame.begin)
            self._finish(frame.finish)

    def _part(self, frame: Part) -> None:
        exchange = self._open.get(frame.exchange)
        if exchange is None or exchange.is_erased:
            return
        if exchange.segment is None:
            raise Problem("content came for an exchange that keeps none", where="recorder")
        exchange.data.append(frame.data)
        exchange.size += len(frame.data)
        if exchange.size >= STRETCH_BYTES:
            content = ResponseContent(b"", b"".join(exchange.data))
            self._record(exchange.segment, frame.exchange, tables.Kind.RESPONSE, pack(content))
            exchange.data, exchange.size = [], 0

    def _finish(self, frame: Finish) -> None:
        exchange = self._open.pop(frame.exchange, None)
        if exchange is None:
            return
        if exchange.segment is not None:
            content = ResponseContent(frame.headers, b"".join([*exchange.data, frame.data]))
            self._record(exchange.segment, frame.exchange, tables.Kind.RESPONSE, pack(content))
        elif (frame.data or frame.headers) and not exchange.is_erased:
            raise Problem("content came for an exchange that keeps none", where="recorder")
        facts: Row = {name: getattr(frame, name) for name in _NO_END}
        self._ended.append(frame.exchange)
        begun = self._begun.get(frame.exchange)
        if begun is not None:
            begun.update(facts)
        else:
            self._later.append({"ended": frame.exchange, **facts})

    def _record(self, segment: Segment, exchange: int, kind: int, packed: bytes) -> None:
        sequence, sealed = segment.seal(packed, exchange, kind)
        self._records.append(
            {
                "segment": segment.number,
                "sequence": sequence,
                "exchange": exchange,
                "kind": kind,
                "sealed": sealed,
            }
        )

    def _segment(self, frame: Begin, decision: int, terms: Terms) -> Segment:
        day = datetime.fromtimestamp(frame.started_ms / 1000, UTC).date()
        late = frame.exchange if self._is_late(frame) else 0
        place = (frame.account, frame.session, day, decision, late)
        segment = self._segments.get(place)
        if segment is None:
            segment = self._segments[place] = self._find_segment(place, terms, frame)
        self._segments.move_to_end(place)
        return segment

    def _is_late(self, frame: Begin) -> bool:
        """Tell whether its account's terms were tightened since a request was admitted.

        It gets a segment of its own, which comes under what was in force in between (`cover_late`). The one
        that its session writes in now may have been begun after that was loosened again.
        """
        flow = (frame.account, frame.flow)
        latest = self._ceilings.get(flow)
        if latest is None:
            latest = self._ceilings[flow] = read_latest_ms(self._reading, *flow)
        return frame.started_ms <= latest

    def _find_segment(self, place: _Where, terms: Terms, frame: Begin) -> Segment:
        account, session, day, decision, late = place
        wanted = {
            "account": account,
            "session": session,
            "day": day,
            "decision": decision,
            "retention": str(terms.retention),
            "trainable": terms.trainable,
        }
        begun = [] if late else self._reading.execute(FIND_SEGMENT, wanted).all()
        if begun:
            # Its newest records may still be waiting. Before its key is asked for: writing looks what was
            # erased, and a segment that it does not know of yet would be taken for one that is held.
            self._flush()
        for found in begun:
            key = self._keystore.get(found.id)
            if key is None:
                continue  # erased, and its rows are about to go too
            segment = Segment(found.number, found.id, account, session, SegmentCipher(key, self._random))
            self._restore(segment)
            return segment
        id, number = self._random(16), int.from_bytes(self._random(8)) >> _NUMBER_SHIFT
        key = self._keystore.create(id, number=number, at_ms=int(self._clock() * 1000))
        segment = Segment(number, id, account, session, SegmentCipher(key, self._random))
        segment.blocks = BlockWriter(self._random(32))
        segment.is_durable = False
        segment.flow, segment.admitted_ms = frame.flow, frame.started_ms
        row = {
            "number": segment.number,
            "id": id,
            "account": account,
            "session": session,
            "day": day,
            "decision": decision,
            "retention": str(terms.retention),
            "expires_on": terms.retention.expires_on(day),
            "trainable": terms.trainable,
            "flow": frame.flow,
        }
        self._new_segments.append((segment, row))
        return segment

    def _restore(self, segment: Segment) -> None:
        """Take up a segment that was begun before a restart or fell out of memory."""
        segment.blocks = BlockWriter(self._random(32))
        reader = BlockReader()
        for record in read_records(self._engine, segment.number):
            segment.next_sequence = record.sequence + 1
            if record.kind == tables.Kind.REQUEST:
                place = Place(
                    segment.account,
                    segment.session,
                    segment.id,
                    record.sequence,
                    record.exchange,
                    record.kind,
                )
                content = unpack_request(segment.cipher.open(record.sealed, place))
                for delta in (content.headers, content.body):
                    body = reader.read(delta)
                    segment.blocks.restore(body, reader.last_numbers, delta.new)
        segment.blocks.finish_restore()
        self._held_bytes += segment.blocks.retained_bytes

    def _is_crowded(self) -> bool:
        return self._held_bytes > SEGMENTS_IN_MEMORY_BYTES or len(self._segments) > SEGMENTS_IN_MEMORY

    def _trim(self) -> None:
        """Let go of the segments used longest ago, down to the memory that is allowed."""
        if not self._is_crowded():
            return
        in_use = {id(exchange.segment) for exchange in self._open.values()}
        for place, segment in list(self._segments.items()):
            if not self._is_crowded():
                return
            if id(segment) not in in_use:
                self._held_bytes -= segment.blocks.retained_bytes
                del self._segments[place]


_NO_END: Row = dict.fromkeys(
    (
        "state",
        "reason",
        "status",
        "first_byte_ms",
        "duration_ms",
        "response_bytes",
        "model",
        "input_tokens",
        "output_tokens",
        "cache_read_tokens",
        "cache_creation_tokens",
        "stop_reason",
    )
)


_END_EXCHANGE = sa.update(tables.exchanges).where(tables.exchanges.c.id == sa.bindparam("ended"))
