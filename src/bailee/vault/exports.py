"""Exports to a person everything that is held about them, readable, with the terms it is held under.

One JSON Lines file per kind. Session by session, so that memory holds one at a time; after each the lengths
of the files are written down in a file that takes the place of the one before at once. An export that was
interrupted is cut back to those lengths and goes on.
"""

import base64
import os
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import BinaryIO

import msgspec
import sqlalchemy as sa

from bailee.accounts.consents import list_changes
from bailee.accounts.directory import Account
from bailee.accounts.keys import list_keys
from bailee.policy.problems import Problem
from bailee.vault import tables
from bailee.vault.custody import Custody
from bailee.vault.holds import is_held, list_holds
from bailee.vault.reader import Transcript, list_exchanges, list_sessions, read_session

KINDS = ("account", "consents", "keys", "holds", "accesses", "sessions", "exchanges", "content")
STATE = "export.json"
README = "README.txt"

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


def export_account(
    custody: Custody,
    account: Account,
    out: Path,
    *,
    read_text: ReadText,
    report: Report = lambda done, total: None,
) -> Exported:
    """Write everything held about an account into a folder; an interrupted export goes on.

    Sessions that came or went while it was interrupted have it begin anew.

    Args:
        read_text: makes text of what was recorded: the flow knows how.
        report: told how many sessions are done, and of how many.

    Raises:
        Problem: the folder holds something else, or a record was altered.
    """
    found = _open_folder(out, account)
    state = found if found is not None and _is_valid(custody, out, found) else None
    was_resumed = state is not None
    if state is None:
        state = _State(account.id, custody.now_ms(), None, (0, 0), {}, {})
        _write_whole(out / STATE, msgspec.json.encode(state))
        for kind in KINDS:
            _open_cut(_partial(out, kind), 0).close()
        _append(out, state, _tell_account(custody, account))
        _save(custody, out, state)
    ids = _list_ids(custody, account)
    for done, id in enumerate(ids):
        report(done, len(ids))
        if state.after is None or id > state.after:
            _append(out, state, _tell_session(custody, account, id, read_text))
            state.after = id
            _save(custody, out, state)
    report(len(ids), len(ids))
    _write_whole(out / README, _tell_readme(account, state).encode())
    for kind in KINDS:
        _partial(out, kind).rename(out / f"{kind}.jsonl")
    (out / STATE).unlink()
    return Exported(state.lines, sum(state.lengths.values()), was_resumed)


def _open_folder(out: Path, account: Account) -> _State | None:
    """Make the folder, or take up the export in it."""
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    names = {path.name for path in out.iterdir()}
    taken = Problem(
        "the folder is not empty, and holds no interrupted export of this account",
        where=str(out),
        fix="name a new folder with --out",
    )
    if names <= {f"{STATE}.new"}:  # empty, or killed at its first write
        out.chmod(0o700)
        return None
    try:
        state = msgspec.json.decode((out / STATE).read_bytes(), type=_State)
    except (FileNotFoundError, msgspec.MsgspecError):
        raise taken from None
    ours = {STATE, f"{STATE}.new", README, f"{README}.new"}
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


def _list_ids(custody: Custody, account: Account) -> list[str]:
    table = tables.exchanges
    query = sa.select(table.c.session).where(table.c.account == account.id).distinct()
    with custody.vault.connect() as connection:
        return sorted(connection.execute(query).scalars())


def _tell_account(custody: Custody, account: Account) -> Iterator[tuple[str, dict[str, object]]]:
    facts = {name: getattr(account, name) for name in account.__struct_fields__}
    for name in ("retention", "organization_retention"):
        facts[name] = str(facts[name]) if facts[name] else None
    yield "account", facts
    names = {known.id: known.name for known in custody.directory.all()}
    for change in list_changes(custody.directory, account):
        by = names.get(change.granted_by, change.granted_by)
        facts = {"kind": change.kind, "given": change.given, "was": change.was, "by": by}
        scope = "account" if change.subject == account.id else "organization"
        yield "consents", {"at": _moment(change.at_ms), **facts, "for": scope}
    for key in list_keys(custody.directory):
        if key.account == account.name:
            revoked = None if key.revoked_ms is None else _moment(key.revoked_ms)
            yield (
                "keys",
                {"id": key.id, "label": key.label, "created": _moment(key.created_ms), "revoked": revoked},
            )
    with custody.vault.connect() as connection:
        holds = list_holds(connection, tables.holds.c.account == account.id)
    for hold in holds:
        facts = msgspec.to_builtins(hold)
        facts["placed"] = _moment(facts.pop("placed_ms"))
        released = facts.pop("released_ms")
        facts["released"] = None if released is None else _moment(released)
        yield "holds", facts
    for access in custody.directory.list_accesses(account.id):
        facts = msgspec.to_builtins(access)
        yield "accesses", {"at": _moment(facts.pop("at_ms")), **facts}


def _tell_session(
    custody: Custody, account: Account, id: str, read_text: ReadText
) -> Iterator[tuple[str, dict[str, object]]]:
    for session in list_sessions(custody.vault, account=account.id, session=id, flow=None):
        if session.id == id:
            facts = msgspec.to_builtins(session)
            started, last = facts.pop("started_ms"), facts.pop("last_ms")
            yield "sessions", {**facts, "started": _moment(started), "last": _moment(last)}
    terms = _list_terms(custody, account.id, id)
    for exchange in list_exchanges(custody.vault, account=account.id, session=id):
        facts = msgspec.to_builtins(exchange)
        decision = msgspec.json.decode(facts.pop("decision"))
        facts["id"] = f"{exchange.id:x}"
        facts["started"] = _moment(facts.pop("started_ms"))
        held = terms.get(exchange.id, {"retention": "none", "expires_on": None, "trainable": False})
        facts["terms"] = {"purpose": decision["terms"]["purpose"], **held}
        yield "exchanges", {**facts, "decision": decision}
    for transcript in read_session(custody.vault, custody.keystore, account.id, id, today=custody.today()):
        said: dict[str, object] = {"exchange": f"{transcript.exchange:x}", "session": id}
        for name, data in read_text(transcript).items():
            said.update(_tell_bytes(name, data))
        yield "content", said


def _list_terms(custody: Custody, account: str, session: str) -> dict[int, dict[str, object]]:
    """Return the terms in force for each exchange of which content is held."""
    segments, exchanges = tables.segments, tables.exchanges
    columns = [segments.c.retention, segments.c.expires_on, segments.c.trainable, is_held().label("is_held")]
    query = sa.select(exchanges.c.id, *columns).select_from(
        exchanges.join(segments, segments.c.number == exchanges.c.segment)
    )
    query = query.where(exchanges.c.account == account, exchanges.c.session == session)
    with custody.vault.connect() as connection:
        return {
            row.id: {
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
    _write_whole(out / STATE, msgspec.json.encode(state))


def _write_whole(path: Path, data: bytes) -> None:
    """Write a file that takes the place of the one before at once."""
    new = path.with_name(f"{path.name}.new")
    with _open_cut(new, 0) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)


def _open_cut(path: Path, length: int) -> BinaryIO:
    """Open a file that only its owner may read, cut to a length, at its end."""
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")
    file.truncate(length)
    file.seek(length)
    return file


def _partial(out: Path, kind: str) -> Path:
    return out / f"{kind}.jsonl.partial"


def _moment(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


def _day(day: date | None) -> str | None:
    """Return a day; one that is to be erased has none."""
    return None if day is None or day == tables.ERASED else day.isoformat()


def _tell_readme(account: Account, state: _State) -> str:
    counts = "\n".join(f"  {kind + '.jsonl':16} {_MEANING[kind]} ({state.lines[kind]})" for kind in KINDS)
    return f"""What is held about {account.name}

Exported on {_moment(state.begun_ms)}. Each file holds one JSON object a line; times are UTC.

{counts}

Terms. `purpose` says what it may be used for, `retention` for how long it is held and `expires_on` the day
on which it is destroyed (null: nothing is held, or it has no end), `trainable` whether it may train models.
`decision` is what the policy said when it came, with every rule that had a part. With `legal_hold` it is
kept beyond that day until the hold is released. Where `is_kept` is false the content was never held, or is
destroyed already.

Content is as it crossed the gateway, with compression taken off. What is no text is in base64, under a name
that ends so.

These files are no longer under custody: they do not expire, and are not encrypted. Erase what is held with
`bailee accounts erase {account.name}`.
"""


_MEANING = {
    "account": "the account: plan, organization, limits, what is in force",
    "consents": "consents given and ended: when, and by whom",
    "keys": "keys, by their facts; the secrets are not kept",
    "holds": "legal holds, placed and released",
    "accesses": "who else read your content, when and why",
    "sessions": "conversations, by their facts",
    "exchanges": "requests and answers, by their facts, with terms and decision",
    "content": "what was said: requests and answers in full",
}
