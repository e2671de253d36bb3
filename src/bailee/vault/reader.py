"""Reads what is held: sessions and exchanges by their facts, content by opening their segments."""

import heapq
from collections.abc import Iterator, Sequence
from datetime import date
from itertools import groupby

import msgspec
import sqlalchemy as sa

from bailee.policy.flows import FlowId
from bailee.policy.problems import Problem
from bailee.sealing.content import Content
from bailee.sealing.envelopes import Place, SealBroken, SegmentCipher
from bailee.vault import tables
from bailee.vault.blocks import BlockReader
from bailee.vault.contents import unpack_request, unpack_response
from bailee.vault.holds import is_held
from bailee.vault.keystore import Keystore
from bailee.vault.records import read_records


class Session(msgspec.Struct, frozen=True):
    """One conversation of an agent, by its facts.

    Attributes:
        started_ms, last_ms: milliseconds since 1970 UTC of its first and last request.
        expires_on: the day on which the last segment expires; None if nothing is held, or without end.
        stored_bytes: size of its sealed records.
    """

    account: str
    id: str
    started_ms: int
    last_ms: int
    exchanges: int
    request_bytes: int
    response_bytes: int
    stored_bytes: int
    input_tokens: int
    output_tokens: int
    retention: str
    expires_on: date | None
    trainable: bool


class Exchange(msgspec.Struct, frozen=True):
    """One request and its answer, by its facts; see `tables.exchanges` for the units."""

    id: int
    flow: str
    session: str
    key: str
    started_ms: int
    first_byte_ms: int | None
    duration_ms: int | None
    state: str
    reason: str | None
    upstream: str
    path: str
    model: str | None
    status: int | None
    request_bytes: int
    response_bytes: int | None
    input_tokens: int | None
    output_tokens: int | None
    cache_read_tokens: int | None
    cache_creation_tokens: int | None
    stop_reason: str | None
    is_kept: bool
    decision: str


class Transcript(msgspec.Struct, frozen=True):
    """The content of one exchange, byte for byte as it crossed the gateway."""

    exchange: int
    request_headers: Content
    request: Content
    response_headers: Content
    response: Content


def list_sessions(
    engine: sa.Engine,
    *,
    account: str | None = None,
    session: str | None = None,
    flow: FlowId | None = FlowId.MESSAGES,
    limit: int | None = None,
) -> list[Session]:
    """Return sessions, the one used last first.

    Args:
        session: the beginning of an id; an id that is meant in full is found alone.
        flow: only with exchanges of this flow; None for any.
    """
    exchanges, segments, records = tables.exchanges, tables.segments, tables.records
    c = exchanges.c
    facts = sa.select(
        c.account,
        c.session,
        sa.func.min(c.started_ms).label("started_ms"),
        sa.func.max(c.started_ms).label("last_ms"),
        sa.func.count().label("exchanges"),
        sa.func.coalesce(sa.func.sum(c.request_bytes), 0).label("request_bytes"),
        sa.func.coalesce(sa.func.sum(c.response_bytes), 0).label("response_bytes"),
        sa.func.coalesce(sa.func.sum(c.input_tokens), 0).label("input_tokens"),
        sa.func.coalesce(sa.func.sum(c.output_tokens), 0).label("output_tokens"),
    )
    facts = facts.group_by(c.account, c.session)
    if flow is not None:
        facts = facts.where(c.flow == flow.value)
    if account is not None:
        facts = facts.where(c.account == account)
    if session is not None:
        facts = facts.where(c.session.startswith(session, autoescape=True))
    facts = facts.order_by(sa.desc("last_ms")).limit(limit)
    with engine.connect() as connection:
        sessions = []
        for row in connection.execute(facts):
            held = sa.and_(segments.c.account == row.account, segments.c.session == row.session)
            terms = connection.execute(
                sa.select(segments.c.retention, segments.c.expires_on, segments.c.trainable)
                .where(held)
                .order_by(segments.c.day)
            ).all()
            stored = connection.execute(
                sa.select(sa.func.coalesce(sa.func.sum(sa.func.length(records.c.sealed)), 0))
                .join(segments, segments.c.number == records.c.segment)
                .where(held)
            ).scalar_one()
            sessions.append(
                Session(
                    account=row.account,
                    id=row.session,
                    started_ms=row.started_ms,
                    last_ms=row.last_ms,
                    exchanges=row.exchanges,
                    request_bytes=row.request_bytes,
                    response_bytes=row.response_bytes,
                    stored_bytes=stored,
                    input_tokens=row.input_tokens,
                    output_tokens=row.output_tokens,
                    retention=" and ".join(dict.fromkeys(term.retention for term in terms)) or "none",
                    expires_on=_latest([term.expires_on for term in terms]),
                    trainable=any(term.trainable for term in terms),
                )
            )
    exact = [one for one in sessions if one.id == session]
    return exact or sessions


def _latest(days: Sequence[date | None]) -> date | None:
    """Return the day on which the last of them expires; None if there is none, or one never does."""
    known = [day for day in days if day is not None]
    return max(known) if known and len(known) == len(days) else None


def list_exchanges(
    engine: sa.Engine,
    *,
    account: str | None = None,
    session: str | None = None,
    key: str | None = None,
    flow: str | None = None,
    since_ms: int = 0,
) -> list[Exchange]:
    """Return exchanges in the order they began.

    Args:
        since_ms: when the first may have begun, milliseconds since 1970 UTC.
    """
    table, decisions = tables.exchanges, tables.decisions
    query = sa.select(table, decisions.c.body).join(decisions).order_by(table.c.started_ms, table.c.id)
    asked = (table.c.account, account), (table.c.session, session), (table.c.key, key), (table.c.flow, flow)
    for column, wanted in asked:
        if wanted is not None:
            query = query.where(column == wanted)
    if since_ms:
        query = query.where(table.c.started_ms >= since_ms)
    fields = [name for name in Exchange.__struct_fields__ if name not in ("is_kept", "decision")]
    with engine.connect() as connection:
        return [
            Exchange(
                **{name: getattr(row, name) for name in fields},
                is_kept=row.segment is not None,
                decision=row.body,
            )
            for row in connection.execute(query)
        ]


def read_session(
    engine: sa.Engine,
    keystore: Keystore,
    account: str,
    session: str,
    *,
    today: date,
    segment: int | None = None,
) -> Iterator[Transcript]:
    """Open a session's segments and give its exchanges' content, in the order they began.

    Args:
        today: the UTC day; a segment that has expired is not opened, whether or not its key is gone yet,
        unless
            a legal hold keeps it.
        segment: the number of the one segment to open; every other stays sealed.

    Raises:
        Problem: a record was altered, moved or taken out.
    """
    table = tables.segments
    is_open = sa.or_(table.c.expires_on.is_(None), table.c.expires_on > today, is_held())
    query = sa.select(table).where(table.c.account == account, table.c.session == session, is_open)
    if segment is not None:
        query = query.where(table.c.number == segment)
    with engine.connect() as connection:
        open_segments = connection.execute(query.order_by(table.c.day)).all()
    for _, of_a_day in groupby(open_segments, key=lambda segment: segment.day):
        opened = []
        for found in of_a_day:
            key = keystore.get(found.id)
            if key is not None:
                opened.append(_read_segment(engine, found, SegmentCipher(key, lambda size: b"")))
        # Segments of one day differ in their terms, and terms may go back and forth within it.
        yield from heapq.merge(*opened, key=lambda transcript: transcript.exchange)


def _read_segment(
    engine: sa.Engine, segment: "sa.Row[tuple[object, ...]]", cipher: SegmentCipher
) -> Iterator[Transcript]:
    blocks = BlockReader()
    requests: dict[int, tuple[bytes, bytes]] = {}
    answers: dict[int, tuple[bytes, list[bytes]]] = {}
    for expected, record in enumerate(read_records(engine, segment.number)):
        sequence, exchange, kind, sealed = record
        if sequence != expected:
            raise _broken(segment.session, f"record {expected} is missing")
        place = Place(segment.account, segment.session, segment.id, sequence, exchange, kind)
        try:
            packed = cipher.open(sealed, place)
        except SealBroken as broken:
            raise _broken(segment.session, f"record {sequence} does not open: {broken}") from None
        if kind == tables.Kind.REQUEST:
            content = unpack_request(packed)
            requests[exchange] = blocks.read(content.headers), blocks.read(content.body)
        else:
            stretch = unpack_response(packed)
            headers, data = answers.get(exchange, (b"", []))
            answers[exchange] = stretch.headers or headers, [*data, stretch.data]
    for exchange, (headers, body) in sorted(requests.items()):
        answer_headers, answer = answers.get(exchange, (b"", []))
        yield Transcript(
            exchange, Content(headers), Content(body), Content(answer_headers), Content(b"".join(answer))
        )


def _broken(session: str, what: str) -> Problem:
    return Problem(
        f"session {session}: {what}",
        where="vault.db",
        fix="put the vault back from a backup; what is shown without it would not be what was said",
    )
