"""Exports to a person everything that is held about them, readable, with the terms it is held under.

One JSON Lines file per kind. Session by session, so that memory holds one at a time; after each the lengths
of the files are written down in a file that takes the place of the one before at once. An export that was
interrupted is cut back to those lengths and goes on.
"""

import base64
import hashlib
import os
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import BinaryIO

import msgspec
import sqlalchemy as sa

from bailee.accounts.consents import list_changes
from bailee.accounts.keys import list_keys
from bailee.accounts.people import Account
from bailee.files import replace_file
from bailee.ledger.entries import commit_segment
from bailee.moments import tell_moment
from bailee.policy.problems import Problem
from bailee.vault import tables
from bailee.vault.copies import registry
from bailee.vault.copies.exports import INDEX, KINDS, PARTIAL, README, Index, digest, encode_index
from bailee.vault.copies.folders import File, holding_copy
from bailee.vault.copies.readmes import tell_readme
from bailee.vault.copies.registry import Kind, Maker, name_session
from bailee.vault.custody import Custody
from bailee.vault.holds import is_held, list_holds
from bailee.vault.reader import Transcript, list_exchanges, list_sessions, read_session

ReadText = Callable[[Transcript], dict[str, bytes]]
Report = Callable[[int, int], None]


class Exported(msgspec.Struct, frozen=True):
    """What an export holds: how many lines each file has, and how many bytes they are together."""

    lines: dict[str, int]
    bytes: int
    was_resumed: bool


class _State(msgspec.Struct):
    """How far an export has come.

    Attributes:
        id: drawn for this export.
        after: the session written last; None before the first.
        held: segments and exchanges of the sessions written, to notice that they changed since.
        lengths, lines: of each file, in bytes and lines.
    """

    account: str
    begun_ms: int
    after: str | None
    held: tuple[int, int]
    lengths: dict[str, int]
    lines: dict[str, int]
    id: str = ""


def export_account(
    custody: Custody,
    account: Account,
    out: Path,
    *,
    read_text: ReadText,
    maker: Maker,
    report: Report = lambda done, total: None,
) -> Exported:
    """Write everything held about an account into a folder; an interrupted export goes on.

    Sessions that came or went while it was interrupted have it begin anew. What was to go while it was
    written is taken out before this returns.

    Args:
        read_text: makes text of what was recorded: the flow knows how.
        maker: who makes it; one that the account holder makes is theirs, and stays as it is.
        report: told how many sessions are done, and of how many.

    Raises:
        Problem: the folder holds something else, or a record was altered.
    """
    found = _open_folder(out, account)
    id = (found.id if found else "") or custody.draw()
    with holding_copy(custody.home, id):
        done = _write(custody, account, out, found, id, read_text, maker, report)
    custody.follow_copies({id})
    return done


def _write(
    custody: Custody,
    account: Account,
    out: Path,
    found: _State | None,
    id: str,
    read_text: ReadText,
    maker: Maker,
    report: Report,
) -> Exported:
    state = found if found is not None and found.id and _is_valid(custody, out, found) else None
    was_resumed = state is not None
    if state is None:
        state = _State(account.id, custody.now_ms(), None, (0, 0), {}, {}, id)
        replace_file(out / INDEX, msgspec.json.encode(state))
    # Before anything of the account is written: an interrupted export is known too.
    registry.register(custody.vault, id, Kind.EXPORT, account.id, out, maker, custody.now_ms())
    if not was_resumed:
        for kind in KINDS:
            _open_cut(_partial(out, kind), 0).close()
        _append(out, state, tell_account(custody, account))
        _save(custody, out, state)
    ids = list_ids(custody, account)
    for done, session in enumerate(ids):
        report(done, len(ids))
        if state.after is None or session > state.after:
            segments = read_segments(custody, account.id, session)
            # Noted before it is written.
            registry.enter(custody.vault, id, [*segments.values(), name_session(account.id, session)])
            _append(out, state, tell_session(custody, account, session, segments, read_text))
            state.after = session
            _save(custody, out, state)
    report(len(ids), len(ids))
    begun_at = tell_moment(state.begun_ms)
    readme = tell_readme(account.name, begun_at, state.lines, is_holders=maker.is_holder)
    replace_file(out / README, readme.encode())
    _finish(custody, out, state)
    return Exported(state.lines, sum(state.lengths.values()), was_resumed)


def _finish(custody: Custody, out: Path, state: _State) -> None:
    """Let the files take their names, and the index the place of what told how far it has come."""
    files = []
    for kind in KINDS:
        with _partial(out, kind).open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        files.append(File(f"{kind}.jsonl", sha256, state.lengths[kind], state.lines[kind]))
    index = encode_index(Index(state.id, state.account, tell_moment(state.begun_ms), files))
    with custody.vault.begin() as connection:
        registry.announce(connection, state.id, digest(index))
    for kind in KINDS:
        _partial(out, kind).rename(out / f"{kind}.jsonl")
    replace_file(out / INDEX, index)
    registry.confirm(custody.vault, state.id, digest(index))


def _open_folder(out: Path, account: Account) -> _State | None:
    """Make the folder, or take up the export in it."""
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    names = {path.name for path in out.iterdir()}
    taken = Problem(
        "the folder is not empty, and holds no interrupted export of this account",
        where=str(out),
        fix="name a new folder with --out",
    )
    if names <= {f"{INDEX}.new"}:  # empty, or killed at its first write
        out.chmod(0o700)
        return None
    try:
        state = msgspec.json.decode((out / INDEX).read_bytes(), type=_State)
    except (FileNotFoundError, msgspec.MsgspecError):
        raise taken from None
    ours = {INDEX, f"{INDEX}.new", README, f"{README}.new"}
    ours |= {name for kind in KINDS for name in (f"{kind}.jsonl", f"{kind}.jsonl.partial")}
    if state.account != account.id or names - ours:
        raise taken
    return state


def _is_valid(custody: Custody, out: Path, state: _State) -> bool:
    """Tell whether what was written is there, and is still what is held."""
    for kind in KINDS:
        path = _partial(out, kind)
        if not path.exists() or path.stat().st_size < state.lengths.get(kind, 0):
            return False
        _open_cut(path, state.lengths.get(kind, 0)).close()
    return bool(state.lines) and state.held == _count_held(custody, state)


def _count_held(custody: Custody, state: _State) -> tuple[int, int]:
    counts = []
    with custody.vault.connect() as connection:
        for table in (tables.segments, tables.exchanges):
            query = sa.select(sa.func.count()).select_from(table).where(table.c.account == state.account)
            counts.append(
                connection.execute(query.where(table.c.session <= (state.after or ""))).scalar_one()
            )
    return counts[0], counts[1]


def list_ids(custody: Custody, account: Account) -> list[str]:
    """Return the sessions that something of the account is held of, reports and all."""
    table = tables.exchanges
    query = sa.select(table.c.session).where(table.c.account == account.id).distinct()
    with custody.vault.connect() as connection:
        return sorted(connection.execute(query).scalars())


def tell_account(custody: Custody, account: Account) -> Iterator[tuple[str, dict[str, object]]]:
    """Tell what is held about an account apart from its sessions: kinds, and the facts of a line each."""
    facts = {name: getattr(account, name) for name in account.__struct_fields__}
    for name in ("retention", "organization_retention"):
        facts[name] = str(facts[name]) if facts[name] else None
    yield "account", facts
    names = {known.id: known.name for known in custody.directory.all()}
    for change in list_changes(custody.directory, account):
        by = names.get(change.granted_by, change.granted_by)
        facts = {"kind": change.kind, "given": change.given, "was": change.was, "by": by}
        scope = "account" if change.subject == account.id else "organization"
        yield "consents", {"at": tell_moment(change.at_ms), **facts, "for": scope}
    for key in list_keys(custody.directory):
        if key.account == account.name:
            revoked = None if key.revoked_ms is None else tell_moment(key.revoked_ms)
            yield (
                "keys",
                {
                    "id": key.id,
                    "label": key.label,
                    "created": tell_moment(key.created_ms),
                    "revoked": revoked,
                    "origin": key.origin,
                    "made_by": key.made_by,
                },
            )
    with custody.vault.connect() as connection:
        holds = list_holds(connection, tables.holds.c.account == account.id)
    for hold in holds:
        facts = msgspec.to_builtins(hold)
        facts["placed"] = tell_moment(facts.pop("placed_ms"))
        released = facts.pop("released_ms")
        facts["released"] = None if released is None else tell_moment(released)
        yield "holds", facts
    for access in custody.directory.list_accesses(account.id):
        facts = msgspec.to_builtins(access)
        yield "accesses", {"at": tell_moment(facts.pop("at_ms")), **facts}


def read_segments(custody: Custody, account: str, session: str) -> dict[int, bytes]:
    """Return the ids of a session's segments that can be opened, by number."""
    table = tables.segments
    query = sa.select(table.c.number, table.c.id).where(
        table.c.account == account, table.c.session == session, table.c.is_destroyed.is_(False)
    )
    with custody.vault.connect() as connection:
        return {row.number: row.id for row in connection.execute(query.order_by(table.c.day))}


def tell_session(
    custody: Custody, account: Account, id: str, segments: dict[int, bytes], read_text: ReadText
) -> Iterator[tuple[str, dict[str, object]]]:
    """Tell what is held of a session: kinds, and the facts of a line each; content comes last.

    Args:
        segments: as `read_segments` gives them.

    Raises:
        Problem: a record was altered.
    """
    for session in list_sessions(custody.vault, account=account.id, session=id, flow=None):
        if session.id == id:
            facts = msgspec.to_builtins(session)
            started, last = facts.pop("started_ms"), facts.pop("last_ms")
            facts |= {"started": tell_moment(started), "last": tell_moment(last)}
            yield "sessions", facts | _list_notes(custody, account.id, id)
    terms = _list_terms(custody, account.id, id)
    named = {number: commit_segment(segment) for number, segment in segments.items()}
    for exchange in list_exchanges(custody.vault, account=account.id, session=id):
        held = terms.get(exchange.id, {"retention": "none", "expires_on": None, "trainable": False})
        segment = held.pop("segment", None)
        if exchange.is_kept and segment not in segments:
            continue  # of a segment that has begun, or ended, since the session was looked at
        facts = msgspec.to_builtins(exchange)
        decision = msgspec.json.decode(facts.pop("decision"))
        facts["id"] = f"{exchange.id:x}"
        facts["segment"] = named[segment] if isinstance(segment, int) else None
        facts["started"] = tell_moment(facts.pop("started_ms"))
        facts["terms"] = {"purpose": decision["terms"]["purpose"], **held}
        yield "exchanges", {**facts, "decision": decision}
    for number, name in named.items():
        for transcript in _open(custody, account.id, id, number):
            said: dict[str, object] = {
                "exchange": f"{transcript.exchange:x}",
                "session": id,
                "segment": name,
            }
            for what, data in read_text(transcript).items():
                said.update(_tell_bytes(what, data))
            yield "content", said


def _open(custody: Custody, account: str, session: str, segment: int) -> Iterator[Transcript]:
    vault, keystore = custody.vault, custody.keystore
    return read_session(vault, keystore, account, session, today=custody.today(), segment=segment)


def _list_notes(custody: Custody, account: str, report: str) -> dict[str, object]:
    """Return what is noted of a report: its triage, and its issue; nothing of what is none."""
    notes: dict[str, object] = {}
    with custody.vault.connect() as connection:
        for table in tables.OF_REPORTS:
            query = sa.select(table).where(table.c.account == account, table.c.report == report)
            if (row := connection.execute(query).first()) is not None:
                notes[table.name] = {
                    name.replace("_ms", ""): tell_moment(value) if name.endswith("_ms") else value
                    for name, value in row._mapping.items()
                    if name not in ("account", "report", "exchange")
                }
    return notes


def _list_terms(custody: Custody, account: str, session: str) -> dict[int, dict[str, object]]:
    """Return the terms in force for each exchange of which content is held."""
    segments, exchanges = tables.segments, tables.exchanges
    c = segments.c
    columns = [c.number, c.retention, c.expires_on, c.trainable, is_held().label("is_held")]
    query = sa.select(exchanges.c.id, *columns).select_from(
        exchanges.join(segments, segments.c.number == exchanges.c.segment)
    )
    query = query.where(exchanges.c.account == account, exchanges.c.session == session)
    with custody.vault.connect() as connection:
        return {
            row.id: {
                "segment": row.number,
                "retention": row.retention,
                "expires_on": _day(row.expires_on),
                "trainable": row.trainable,
                "legal_hold": row.is_held,
            }
            for row in connection.execute(query)
        }


def _tell_bytes(name: str, data: bytes) -> dict[str, object]:
    """Return bytes as text, or where they are none as base64."""
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}


def _append(out: Path, state: _State, told: Iterator[tuple[str, dict[str, object]]]) -> None:
    files = {kind: _open_cut(_partial(out, kind), state.lengths.get(kind, 0)) for kind in KINDS}
    try:
        for kind, facts in told:
            files[kind].write(msgspec.json.encode(facts) + b"\n")
            state.lines[kind] = state.lines.get(kind, 0) + 1
        for kind, file in files.items():
            file.flush()
            os.fsync(file.fileno())
            state.lengths[kind] = file.tell()
            state.lines.setdefault(kind, 0)
    finally:
        for file in files.values():
            file.close()


def _save(custody: Custody, out: Path, state: _State) -> None:
    state.held = _count_held(custody, state)
    replace_file(out / INDEX, msgspec.json.encode(state))


def _open_cut(path: Path, length: int) -> BinaryIO:
    """Open a file that only its owner may read, cut to a length, at its end."""
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")
    file.truncate(length)
    file.seek(length)
    return file


def _partial(out: Path, kind: str) -> Path:
    return out / f"{kind}.jsonl{PARTIAL}"


def _day(day: date | None) -> str | None:
    """Return a day; one that is to be erased has none."""
    return None if day is None or day == tables.ERASED else day.isoformat()
