"""Takes what is due out of the copies that lie outside the vault: after its keys are destroyed, never before.

Each copy is a few steps that are safe to do again: new files beside the old ones, the digest of the new index
in the registry together with the entry for the ledger, the files into their places, the index last, and then
what was due is settled. Until that last step the copy is pending, and whoever sweeps next goes on.
"""

from collections.abc import Callable, Collection
from pathlib import Path

import msgspec
import sqlalchemy as sa

from bailee.database.leases import node_name
from bailee.ledger.entries import CopyWithdrawn, commit_segment
from bailee.ledger.outbox import put
from bailee.moments import tell_moment
from bailee.policy.problems import Problem
from bailee.vault import tables
from bailee.vault.copies import exports, registry
from bailee.vault.copies.folders import File, Folder, forget_lock, holding_copy, open_folder
from bailee.vault.copies.registry import ENDED, Copy, Due, Kind

BEING_WRITTEN = "it is just being written; whoever writes it, or the next sweep, takes it out"


class Told(msgspec.Struct, frozen=True):
    """A copy as an erasure or a sweep tells of it; `why` it is pending, empty if it is not."""

    id: str
    kind: Kind
    folder: str
    why: str = ""


class Reached(msgspec.Struct, frozen=True):
    """How far an erasure or a sweep came with copies.

    Attributes:
        reached: those that hold nothing of it any more.
        pending: those that still do.
        holders: those that the account holder made: theirs, and left as they are.
    """

    reached: list[Told] = []
    pending: list[Told] = []
    holders: list[Told] = []


class Cascade:
    """Takes what is due out of copies.

    Args:
        draw: gives an id for an entry.
        now_ms: gives milliseconds since 1970 UTC.
    """

    def __init__(
        self, engine: sa.Engine, home: Path, *, draw: Callable[[], str], now_ms: Callable[[], int]
    ) -> None:
        self._engine = engine
        self._home = home
        self._draw = draw
        self._now_ms = now_ms

    def run(self, only: Collection[str] | None = None) -> Reached:
        """Take what is due out of all copies, or only of some; what cannot be reached stays pending."""
        done = Reached()
        for copy in registry.list_pending(self._engine):
            if only is None or copy.id in only:
                why = self._reach(copy)
                told = Told(copy.id, copy.kind, copy.folder, why)
                (done.holders if copy.is_holders else done.pending if why else done.reached).append(told)
        return done

    def _reach(self, copy: Copy) -> str:
        """Take what is due out of a copy; return why it could not be done, empty if it was."""
        with holding_copy(self._home, copy.id, patient=False) as is_ours:
            if not is_ours:
                return BEING_WRITTEN
            # Another may have been at it, and is done.
            fresh = registry.get(self._engine, copy.id)
            if fresh is None or fresh.due_ms is None:
                return ""
            with self._engine.connect() as connection:
                due = registry.list_due(connection, copy.id)
            try:
                if not copy.is_holders:
                    self._take_out(fresh, due)
            except (Problem, OSError) as error:
                return self._stay(fresh, error)
            self._settle(fresh, due)
            return ""

    def _stay(self, copy: Copy, error: Problem | OSError) -> str:
        """Note why a copy is pending; where another machine may see what this one does not, it is asked."""
        text = error.what if isinstance(error, Problem) else f"{error.strerror}: {error.filename}"
        if isinstance(error, Problem) and error.fix:
            text = f"{text} ({error.fix})"
        if copy.node != node_name():
            return f"it was written on {copy.node}: {text}"
        if text != copy.fault:
            registry.note_fault(self._engine, copy.id, text)
        return text

    def _settle(self, copy: Copy, due: list[Due]) -> None:
        with self._engine.begin() as connection:
            if copy.is_ended:
                registry.remove(connection, copy.id)
            else:
                registry.settle(connection, copy.id, due)
        if copy.is_ended:
            forget_lock(self._home, copy.id)

    def _take_out(self, copy: Copy, due: list[Due]) -> None:
        """Take what is due out of a copy.

        Raises:
            Problem, OSError: it is not as it was written, is gone, or cannot be written.
        """
        # Killed between the end of the folder and that of its row here.
        is_gone = copy.next_digest == ENDED
        if is_gone and not Path(copy.folder).exists():
            return
        with open_folder(Path(copy.folder)) as folder:
            if is_gone and not folder.has(index_of(copy.kind)):
                return
            copy = _find_state(self._engine, copy, folder)
            if copy.is_ended:
                self._end(copy, folder)
            elif copy.digest is None:
                _cut_back(copy, folder, due)
            elif copy.kind is Kind.EXPORT:
                self._change_export(copy, folder, due)
            else:
                self._change_dataset(copy, folder, due)

    def _change_export(self, copy: Copy, folder: Folder, due: list[Due]) -> None:
        index = exports.read_index(folder.read(exports.INDEX) or b"")
        new = exports.take_out(folder, copy, index, due, at=tell_moment(self._now_ms()))
        if new is not index:
            taken = sum(new.withdrawn[-1].taken.values())
            data = exports.encode_index(new)
            change_index(
                self._engine, copy, folder, data, index.files, new.files, self._entry(copy, data, taken)
            )

    def _change_dataset(self, copy: Copy, folder: Folder, due: list[Due]) -> None:
        from bailee.vault.datasets import withdrawal
        from bailee.vault.datasets.manifests import MANIFEST, encode

        manifest = withdrawal.read_manifest(folder.read(MANIFEST) or b"")
        reasons = {commit_segment(one.segment): one.why for one in due}
        parts = {withdrawal.name_part(one.part) for one in due}
        new = withdrawal.take_out(
            folder,
            manifest,
            lambda item, segment: reasons.get(segment),
            only=parts,
            at=tell_moment(self._now_ms()),
        )
        if new is not manifest:
            taken = sum(new.withdrawn[-1].taken.values())
            data = encode(new)
            entry = self._entry(copy, data, taken)
            change_index(self._engine, copy, folder, data, manifest.files, new.files, entry)

    def _end(self, copy: Copy, folder: Folder) -> None:
        """Remove an export whole: its account was erased. What somebody else put beside it stays."""
        entry = CopyWithdrawn(
            id=self._draw(), at_ms=self._now_ms(), copy=copy.id, what=copy.kind, digest=ENDED, taken=0
        )
        with self._engine.begin() as connection:
            registry.announce(connection, copy.id, ENDED)
            put(connection, tables.vault_outbox, [entry])
        exports.remove_contents(folder)
        folder.sync()
        folder.remove(exports.INDEX)
        if not folder.names():
            folder.path.rmdir()

    def _entry(self, copy: Copy, index: bytes, taken: int) -> CopyWithdrawn:
        digest = exports.digest(index)
        return CopyWithdrawn(
            id=self._draw(), at_ms=self._now_ms(), copy=copy.id, what=copy.kind, digest=digest, taken=taken
        )


def change_index(
    engine: sa.Engine,
    copy: Copy,
    folder: Folder,
    data: bytes,
    before: list[File],
    after: list[File],
    entry: CopyWithdrawn,
) -> None:
    """Let the files written beside their places take them, and a new index after them, so that the ledger
    knows.
    """
    index = index_of(copy.kind)
    with folder.writing(index) as file:
        file.write(data)
    with engine.begin() as connection:
        registry.announce(connection, copy.id, entry.digest)
        put(connection, tables.vault_outbox, [entry])
    folder.replace(index, before, after)
    registry.confirm(engine, copy.id, entry.digest)


def _find_state(engine: sa.Engine, copy: Copy, folder: Folder) -> Copy:
    """Check that a folder holds the copy, finish what was interrupted, and return the copy as it is then.

    Raises:
        Problem: it holds something else, or the index is not as it was written.
    """
    index = index_of(copy.kind)
    present = folder.digest(index)
    following = folder.digest(index + ".new")
    if copy.next_digest and present != copy.next_digest and copy.digest and following == copy.next_digest:
        before, after = (_read_files(copy.kind, folder.read(name) or b"") for name in (index, index + ".new"))
        _check_digest(copy, present, folder)
        folder.replace(index, before, after)
        present = copy.next_digest
    if copy.next_digest and present == copy.next_digest:
        registry.confirm(engine, copy.id, present)
        return msgspec.structs.replace(copy, digest=present, next_digest=None)
    if copy.digest is not None:
        _check_digest(copy, present, folder)
    elif _read_id(copy.kind, folder) != copy.id:
        raise Problem("the folder does not hold it any more", where=str(folder.path))
    return copy


def _check_digest(copy: Copy, present: str, folder: Folder) -> None:
    if _read_id(copy.kind, folder) != copy.id:
        raise Problem("the folder does not hold it any more", where=str(folder.path))
    if present != copy.digest:
        raise Problem(f"{index_of(copy.kind)} is not as it was written", where=str(folder.path))


def _read_id(kind: Kind, folder: Folder) -> str:
    if kind is Kind.EXPORT:
        return exports.read_marker(folder.read(exports.INDEX) or b"")
    from bailee.vault.datasets.manifests import BUILDING, MANIFEST
    from bailee.vault.datasets.withdrawal import read_marker

    return read_marker(folder.read(MANIFEST) or folder.read(BUILDING) or b"")


def _read_files(kind: Kind, data: bytes) -> list[File]:
    if kind is Kind.EXPORT:
        return exports.read_index(data).files
    from bailee.vault.datasets.withdrawal import read_manifest

    return read_manifest(data).files


def _cut_back(copy: Copy, folder: Folder, due: list[Due]) -> None:
    """Remove what an interrupted copy has of what is due; it writes the rest anew when it goes on."""
    if copy.kind is Kind.EXPORT:
        exports.remove_contents(folder)
    else:
        from bailee.vault.datasets.withdrawal import remove_parts

        remove_parts(folder, {one.part for one in due})
    folder.sync()


def index_of(kind: Kind) -> str:
    """Return the name of a copy's index file."""
    return exports.INDEX if kind is Kind.EXPORT else "manifest.json"


def read_id(path: Path, kind: Kind) -> str:
    """Return the id that a folder bears; empty if it holds no copy of that kind.

    Raises:
        Problem: there is no such folder.
    """
    with open_folder(path) as folder:
        return _read_id(kind, folder)
