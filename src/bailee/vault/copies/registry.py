"""The registry of copies: where exports and datasets lie, what they hold, what is to be taken out of them.

A copy is registered before anything is written, and each segment before its content is. So whatever was
killed when, what a copy may hold is known.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from bailee.database.leases import node_name
from bailee.database.statements import run_among
from bailee.policy.problems import Problem
from bailee.vault import tables
from bailee.vault.ceilings import has_ended

# A statement takes 32,766 parameters in SQLite, 65,535 in PostgreSQL.
IDS_IN_A_STATEMENT = 10_000
_FIND_COPIED = "SELECT 1 FROM copied WHERE segment {among} LIMIT 1"
ENDED = ""


class Kind(StrEnum):
    """What a copy is."""

    EXPORT = "export"
    DATASET = "dataset"


class Maker(NamedTuple):
    """Who makes a copy, in words, and whether they are the holder of the account that is in it."""

    name: str
    is_holder: bool = False


class Copy(msgspec.Struct, frozen=True):
    """A copy; times are milliseconds since 1970 UTC. `vault.tables.copies` says what each column holds."""

    id: str
    kind: Kind
    account: str | None
    folder: str
    node: str
    made_by: str
    is_holders: bool
    made_ms: int
    digest: str | None = None
    next_digest: str | None = None
    due_ms: int | None = None
    is_ended: bool = False
    fault: str = ""
    forgotten: str | None = None


class Due(NamedTuple):
    """A segment that is to be taken out of a copy, the part it is in, and why."""

    segment: bytes
    part: int
    why: str


def name_session(account: str, session: str) -> bytes:
    """Return what stands for a session among segments, for facts that are in none: 16 bytes."""
    text = f"{account}\0{session}".encode()
    return hashlib.sha256(b"bailee session 1" + text).digest()[:16]


# --- Making ---


def register(
    engine: sa.Engine, id: str, kind: Kind, account: str | None, folder: Path, maker: Maker, at_ms: int
) -> Copy:
    """Register a copy that is about to be written, or the place where an interrupted one goes on.

    Raises:
        Problem: it is of an account whose erasure is decided.
    """
    table = tables.copies
    path, node = str(folder.resolve()), node_name()
    with engine.begin() as connection:
        anew: dict[str, object] = {"digest": None, "next_digest": None, "forgotten": None}
        anew |= {"folder": path, "node": node}
        if not maker.is_holder:
            # Whoever goes on with what an account holder began makes it their own.
            anew |= {"made_by": maker.name, "is_holders": False}
        if not connection.execute(sa.update(table).where(table.c.id == id).values(anew)).rowcount:
            new = Copy(id, kind, account, path, node, maker.name, maker.is_holder, at_ms)
            connection.execute(sa.insert(table), msgspec.to_builtins(new))
        # Last, for SQLite: whoever erases has called in what was registered before, and is seen from then on.
        if account is not None and has_ended(connection, account):
            raise Problem("the account is being erased", where=path)
    found = get(engine, id)
    assert found is not None
    return found


def enter(engine: sa.Engine, copy: str, segments: Sequence[bytes], *, part: int = 0) -> None:
    """Note that segments are about to be written into a copy; in a later part than before, if they were."""
    table = tables.copied
    with engine.begin() as connection:
        for some in _chunks(segments):
            known = sa.and_(table.c.copy == copy, table.c.segment.in_(some))
            connection.execute(sa.update(table).where(known).values(part=part))
            there = set(connection.execute(sa.select(table.c.segment).where(known)).scalars())
            rows = [{"copy": copy, "segment": one, "part": part} for one in some if one not in there]
            if rows:
                connection.execute(sa.insert(table), rows)


def announce(connection: sa.Connection, copy: str, digest: str) -> None:
    """Note, in the caller's transaction, the index file that is about to be in place; `ENDED` for none."""
    table = tables.copies
    connection.execute(sa.update(table).where(table.c.id == copy).values(next_digest=digest))


def confirm(engine: sa.Engine, copy: str, digest: str) -> None:
    """Note that an index file is in place."""
    table = tables.copies
    with engine.begin() as connection:
        connection.execute(sa.update(table).where(table.c.id == copy).values(digest=digest, next_digest=None))


# --- What is due ---


def call_in(connection: sa.Connection, why: str, segments: Sequence[bytes], *, at_ms: int) -> None:
    """Mark that segments are to be taken out of every copy, in the transaction that ends them here.

    The transaction has written before, for SQLite: one that reads first fails as soon as another has written.
    """
    table, copies = tables.copied, tables.copies
    for some in _chunks(segments):
        # Most are in no copy, and preparing `in_` alone takes longer than destroying the keys.
        if not run_among(connection, _FIND_COPIED, some).first():
            continue
        of_them = table.c.segment.in_(some)
        if connection.execute(sa.update(table).where(of_them).values(why=why)).rowcount:
            holding = sa.select(table.c.copy).where(of_them)
            is_new = sa.and_(copies.c.id.in_(holding), copies.c.due_ms.is_(None))
            connection.execute(sa.update(copies).where(is_new).values(due_ms=at_ms))


def call_in_account(connection: sa.Connection, account: str, *, at_ms: int) -> None:
    """Mark that every copy of an account is to go."""
    table = tables.copies
    due = sa.func.coalesce(table.c.due_ms, at_ms)
    change = sa.update(table).where(table.c.account == account, table.c.forgotten.is_(None))
    connection.execute(change.values(is_ended=True, due_ms=due))
    # Nobody follows these: that there were some is all that is left to forget.
    forgotten = sa.and_(table.c.account == account, table.c.forgotten.isnot(None))
    connection.execute(sa.delete(table).where(forgotten))


def call_in_sessions(connection: sa.Connection, account: str, session: str | None, *, at_ms: int) -> None:
    """Mark that the facts of a session, or all that is of an account, are to be taken out of every copy."""
    if session is None:
        call_in_account(connection, account, at_ms=at_ms)
    else:
        call_in(connection, "erased", [name_session(account, session)], at_ms=at_ms)


def list_due(connection: sa.Connection, copy: str) -> list[Due]:
    """Return what is to be taken out of a copy."""
    table = tables.copied
    query = sa.select(table.c.segment, table.c.part, table.c.why)
    rows = connection.execute(query.where(table.c.copy == copy, table.c.why.isnot(None)))
    return [Due(*row) for row in rows]


def settle(connection: sa.Connection, copy: str, done: Sequence[Due]) -> None:
    """Note that what was due is taken out; what has become due meanwhile stays so."""
    table, copies = tables.copied, tables.copies
    for some in _chunks([one.segment for one in done]):
        connection.execute(sa.delete(table).where(table.c.copy == copy, table.c.segment.in_(some)))
    is_due = sa.select(table.c.copy).where(table.c.copy == copy, table.c.why.isnot(None)).exists()
    rest = sa.and_(copies.c.id == copy, copies.c.is_ended.is_(False), ~is_due)
    connection.execute(sa.update(copies).where(rest).values(due_ms=None, fault=""))


def remove(connection: sa.Connection, copy: str) -> None:
    """Take a copy that is gone, and all that it held, out of the registry."""
    connection.execute(sa.delete(tables.copied).where(tables.copied.c.copy == copy))
    connection.execute(sa.delete(tables.copies).where(tables.copies.c.id == copy))


def note_fault(engine: sa.Engine, copy: str, fault: str) -> None:
    """Note why nothing could be taken out of a copy."""
    table = tables.copies
    with engine.begin() as connection:
        connection.execute(sa.update(table).where(table.c.id == copy).values(fault=fault))


def forget(connection: sa.Connection, copy: Copy, reason: str) -> None:
    """Let nobody follow a copy any more; of an account that was erased nothing is kept."""
    table = tables.copies
    connection.execute(sa.delete(tables.copied).where(tables.copied.c.copy == copy.id))
    if copy.is_ended:
        connection.execute(sa.delete(table).where(table.c.id == copy.id))
    else:
        change = sa.update(table).where(table.c.id == copy.id)
        connection.execute(change.values(forgotten=reason, due_ms=None, fault=""))


def locate(engine: sa.Engine, copy: str, folder: Path) -> None:
    """Note where a copy lies now."""
    table = tables.copies
    where = {"folder": str(folder), "node": node_name(), "fault": ""}
    with engine.begin() as connection:
        connection.execute(sa.update(table).where(table.c.id == copy).values(where))


# --- What there is ---


def get(engine: sa.Engine, id: str) -> Copy | None:
    """Return a copy, or None if there is none of that id."""
    return next(iter(list_copies(engine, tables.copies.c.id == id)), None)


def list_copies(engine: sa.Engine, *which: sa.ColumnElement[bool]) -> list[Copy]:
    """Return copies, the one made first first."""
    with engine.connect() as connection:
        return read_copies(connection, *which)


def read_copies(connection: sa.Connection, *which: sa.ColumnElement[bool]) -> list[Copy]:
    """Return copies as a transaction sees them, the one made first first."""
    table = tables.copies
    query = sa.select(table).where(*which).order_by(table.c.made_ms, table.c.id)
    rows = [dict(row._mapping) for row in connection.execute(query)]
    return [Copy(**{**row, "kind": Kind(row["kind"])}) for row in rows]


def list_pending(engine: sa.Engine) -> list[Copy]:
    """Return the copies of which something is to be taken out."""
    return list_copies(engine, tables.copies.c.due_ms.isnot(None))


def find_copies(
    connection: sa.Connection, account: str, session: str | None, segments: Sequence[bytes]
) -> list[Copy]:
    """Return the copies that an erasure reaches: those that hold any of the segments, or facts of it."""
    table = tables.copies
    found: set[str] = set()
    names = list(segments) if session is None else [*segments, name_session(account, session)]
    for some in _chunks(names):
        query = sa.select(tables.copied.c.copy).where(tables.copied.c.segment.in_(some)).distinct()
        found.update(connection.execute(query).scalars())
    which: sa.ColumnElement[bool] = table.c.id.in_(sorted(found))
    if session is None:
        which = sa.or_(which, table.c.account == account)
    return read_copies(connection, which, table.c.forgotten.is_(None))


def count_due(connection: sa.Connection, due: sa.ColumnElement[bool]) -> int:
    """Return of how many copies something is to be taken out once segments are due.

    Args:
        due: matches those segments.
    """
    copied, copies, segments = tables.copied, tables.copies, tables.segments
    holding = copied.join(segments, segments.c.id == copied.c.segment)
    of_due = sa.select(copied.c.copy).select_from(holding).where(due)
    which = sa.or_(copies.c.due_ms.isnot(None), copies.c.id.in_(of_due))
    query = sa.select(sa.func.count()).select_from(copies).where(which, copies.c.is_holders.is_(False))
    count: int = connection.execute(query).scalar_one()
    return count


def count_segments(engine: sa.Engine) -> Mapping[str, tuple[int, int]]:
    """Return of each copy how many segments and sessions it holds, and how many of them are due."""
    table = tables.copied
    query = sa.select(table.c.copy, sa.func.count(), sa.func.count(table.c.why)).group_by(table.c.copy)
    with engine.connect() as connection:
        return {copy: (held, due) for copy, held, due in connection.execute(query)}


def _chunks(ids: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(ids), IDS_IN_A_STATEMENT):
        yield ids[start : start + IDS_IN_A_STATEMENT]
