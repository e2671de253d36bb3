"""Exports that go with an answer: packed while they are read, so that nothing of them lies anywhere in clear.

A tar archive (POSIX.1-2001, pax), compressed with gzip (RFC 1952), with the files of an export in a folder.
A tar archive says before each file how long it is, and sessions tell of several kinds in turn: a kind that
is long is cut into files of some megabytes, so that memory holds no more of it than that.
"""

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from itertools import chain, repeat

import msgspec

from bailee.accounts.people import Account
from bailee.moments import tell_moment
from bailee.vault.copies.exports import INDEX, KINDS, README, Index, encode_index
from bailee.vault.copies.folders import File
from bailee.vault.copies.readmes import tell_readme
from bailee.vault.custody import Custody
from bailee.vault.exports import ReadText, list_ids, read_segments, tell_account, tell_session

PART_BYTES = 4 << 20


def stream_account(
    custody: Custody,
    account: Account,
    *,
    read_text: ReadText,
    part_bytes: int = PART_BYTES,
    more: Mapping[str, Iterator[dict[str, object]]] = {},
) -> Iterator[bytes]:
    """Give everything held about an account to its holder, as a tar.gz, piece by piece.

    It is registered as no copy: it lies in no folder that anybody could follow it to. No connection to a
    database is open while a piece waits for whoever takes it.

    Args:
        read_text: makes text of what was recorded: the flow knows how.
        part_bytes: a kind goes on in another file once one has so many bytes.
        more: kinds of what is held beside the vault's records, and the facts of a line each.

    Raises:
        Problem: a record was altered; what was given so far is no whole archive.
    """
    begun_ms = custody.now_ms()
    archive = _Archive(f"bailee-{account.name}", begun_ms // 1000)
    kinds = {kind: _Kind(kind) for kind in (*KINDS, *more)}
    sessions = (
        tell_session(custody, account, id, read_segments(custody, account.id, id), read_text)
        for id in list_ids(custody, account)
    )
    others = (zip(repeat(kind), told, strict=False) for kind, told in more.items())
    told = chain(tell_account(custody, account), chain.from_iterable(sessions), chain.from_iterable(others))
    for name, facts in told:
        kind = kinds[name]
        kind.add(msgspec.json.encode(facts) + b"\n")
        if kind.length >= part_bytes:
            yield archive.add(*kind.take())
    for kind in kinds.values():
        if kind.length or not kind.files:
            yield archive.add(*kind.take())
    begun_at = tell_moment(begun_ms)
    lines = {kind.name: kind.lines for kind in kinds.values()}
    yield archive.add(README, tell_readme(account.name, begun_at, lines, is_holders=True).encode())
    files = [file for kind in kinds.values() for file in kind.files]
    yield archive.add(INDEX, encode_index(Index(custody.draw(), account.id, begun_at, files)))
    yield archive.finish()


class _Kind:
    """The lines of a kind that are in no file yet, and the files there are."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.files: list[File] = []
        self.lines = 0
        self.length = 0
        self._waiting: list[bytes] = []

    def add(self, line: bytes) -> None:
        self._waiting.append(line)
        self.length += len(line)

    def take(self) -> tuple[str, bytes]:
        """Return the name and the content of its next file."""
        data = b"".join(self._waiting)
        number = f"-{len(self.files) + 1:04}" if self.files else ""
        name = f"{self.name}{number}.jsonl"
        self.files.append(File(name, hashlib.sha256(data).hexdigest(), len(data), len(self._waiting)))
        self.lines += len(self._waiting)
        self.length = 0
        self._waiting = []
        return name, data


class _Archive:
    """Packs files, and gives what has come of it."""

    def __init__(self, folder: str, at: int) -> None:
        self._folder = folder
        self._at = at
        self._packed = io.BytesIO()
        self._compressed = gzip.GzipFile(fileobj=self._packed, mode="wb", compresslevel=6, mtime=at)
        self._tar = tarfile.open(fileobj=self._compressed, mode="w|")  # noqa: SIM115 (ends with the answer)

    def add(self, name: str, data: bytes) -> bytes:
        entry = tarfile.TarInfo(f"{self._folder}/{name}")
        entry.size, entry.mode, entry.mtime = len(data), 0o600, self._at
        self._tar.addfile(entry, io.BytesIO(data))
        return self._take()

    def finish(self) -> bytes:
        self._tar.close()
        self._compressed.close()
        return self._take()

    def _take(self) -> bytes:
        packed = self._packed.getvalue()
        self._packed.seek(0)
        self._packed.truncate()
        return packed
