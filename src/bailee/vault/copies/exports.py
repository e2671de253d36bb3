"""Takes lines out of an export that somebody other than the account holder made."""

import hashlib
from collections.abc import Callable, Mapping
from typing import BinaryIO

import msgspec

from bailee.ledger.entries import commit_segment
from bailee.policy.problems import Problem
from bailee.vault.copies.folders import NEW, File, Folder
from bailee.vault.copies.registry import Copy, Due, name_session

INDEX = "export.json"
README = "README.txt"
KINDS = ("account", "consents", "keys", "holds", "accesses", "sessions", "exchanges", "content")
PARTIAL = ".partial"


class Withdrawal(msgspec.Struct, frozen=True):
    """What was taken out later, and when (UTC).

    Attributes:
        taken: lines by file, or items by reason.
    """

    at: str
    taken: dict[str, int]


class Index(msgspec.Struct, frozen=True):
    """What `export.json` says of an export that is done; while it is written it tells how far it has come.

    Attributes:
        id: drawn for this export.
        account: the account's id.
        begun_at: a moment, UTC.
    """

    id: str
    account: str
    begun_at: str
    files: list[File]
    withdrawn: list[Withdrawal] = []


class Marker(msgspec.Struct, frozen=True):
    """What `export.json` says in any case."""

    id: str = ""


class _Line(msgspec.Struct, frozen=True):
    """What a line says of where it belongs; `sessions` has the session as `id`."""

    session: str | None = None
    id: str | None = None
    segment: str | None = None


def encode_index(index: Index) -> bytes:
    """Encode an index as JSON for people and programs."""
    return msgspec.json.format(msgspec.json.encode(index), indent=2) + b"\n"


def read_marker(data: bytes) -> str:
    """Return the id that an `export.json` bears; empty if it is none."""
    try:
        return msgspec.json.decode(data, type=Marker).id
    except msgspec.MsgspecError:
        return ""


def read_index(data: bytes) -> Index:
    """Decode an index.

    Raises:
        Problem: it is none.
    """
    try:
        return msgspec.json.decode(data, type=Index)
    except msgspec.MsgspecError as error:
        raise Problem(f"{INDEX} is not as it was written: {error}") from None


def take_out(folder: Folder, copy: Copy, index: Index, due: list[Due], *, at: str) -> Index:
    """Write the files anew without the lines of what is due, beside their places; return the new index.

    What a line tells is told by session, or by segment where only part of a session went. A session whose
    exchanges are all gone goes with them.

    Raises:
        Problem: a file is not as it was written.
    """
    gone = {one.segment for one in due}
    segments = {commit_segment(segment) for segment in gone}
    named: dict[str, bool] = {}
    left: set[str] = set()

    def is_gone(session: str) -> bool:
        if session not in named:
            named[session] = name_session(copy.account or "", session) in gone
        return named[session]

    def stays(line: _Line) -> bool:
        if line.segment in segments or (line.session is not None and is_gone(line.session)):
            return False
        if line.session is not None:
            left.add(line.session)
        return True

    files = {file.name: file for file in index.files}
    taken: dict[str, int] = {}
    rules: Mapping[str, Callable[[_Line], bool]] = {
        "exchanges.jsonl": stays,
        "content.jsonl": stays,
        "sessions.jsonl": lambda line: line.id in left,
    }
    for name, rule in rules.items():
        folder.check(files[name])
        with folder.open(name) as old, folder.writing(name) as new:
            kept = _filter(old, new, rule)
        taken[name] = files[name].items - kept
        if taken[name]:
            files[name] = folder.describe(name + NEW, kept)
        else:
            folder.remove(name + NEW)
    if not any(taken.values()):
        return index
    withdrawal = Withdrawal(at, {name: count for name, count in taken.items() if count})
    return msgspec.structs.replace(
        index, files=list(files.values()), withdrawn=[*index.withdrawn, withdrawal]
    )


def _filter(old: BinaryIO, new: BinaryIO, stays: Callable[[_Line], bool]) -> int:
    decoder = msgspec.json.Decoder(_Line)
    kept = 0
    for line in old:
        if stays(decoder.decode(line)):
            new.write(line)
            kept += 1
    return kept


def remove_contents(folder: Folder) -> None:
    """Remove what an export wrote, but for its index."""
    names = [f"{kind}.jsonl{end}" for kind in KINDS for end in ("", PARTIAL, NEW)]
    for name in [*names, README, README + NEW, INDEX + NEW]:
        folder.remove(name)


def digest(data: bytes | None) -> str:
    """Return the SHA-256 of an index in hexadecimal; empty if there is none."""
    return "" if data is None else hashlib.sha256(data).hexdigest()
