"""The log itself: appends, reads and proves.

An append writes bundles and tiles first and the checkpoint last, each file beside its place and then moved
there. Until the checkpoint is replaced nothing has happened; what an appender that was killed leaves behind
lies beyond the checkpoint, and the next one takes it away.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from bailee.ledger.checkpoints import Checkpoint, open_checkpoint, sign_checkpoint
from bailee.ledger.edges import Edge, grow
from bailee.ledger.merkle import EMPTY_ROOT, HASH_BYTES, hash_leaf, prove_consistency, prove_inclusion
from bailee.ledger.notes import SEED_BYTES, NoteRefused, Signer, Verifier, parse_signer, parse_verifier
from bailee.ledger.reading import TileReader, damaged
from bailee.ledger.storage import Appending, DirectoryTiles, TileStorage, is_temporary
from bailee.ledger.tiles import (
    MAX_ENTRY_BYTES,
    TILE_WIDTH,
    BundleBroken,
    Tile,
    decode_bundle,
    list_partial_tiles,
    parse_path,
    split_hashes,
)
from bailee.policy.problems import Problem

FOLDER = "ledger"  # in a home
CHECKPOINT = "checkpoint"
KEY = "key"
VERIFIER = "verifier"
_RESTORE = "put the file back from its own backup"


class Inclusion(msgspec.Struct, frozen=True):
    """The proof that an entry is in the log of `size` entries; see `merkle.is_included`."""

    index: int
    size: int
    path: list[bytes]


class Log:
    """An append-only log; open it with `open_log`."""

    def __init__(
        self, storage: TileStorage, verifier: Verifier, load_signer: Callable[[], Signer], *, where: str
    ) -> None:
        self.verifier = verifier
        self._storage = storage
        self._load_signer = load_signer
        self._where = where
        self._signer: Signer | None = None
        self._edge: tuple[bytes, Edge] | None = None  # as of the checkpoint it comes with

    @property
    def size(self) -> int:
        """Return how many entries the log has now."""
        return self.checkpoint().size

    def note(self) -> bytes:
        """Return the signed note of the present checkpoint.

        Raises:
            Problem: it is missing.
        """
        note = self._storage.read(CHECKPOINT)
        if note is None:
            raise damaged("its checkpoint is missing", self._where)
        return note

    def checkpoint(self, note: bytes | None = None) -> Checkpoint:
        """Return the present checkpoint, or the one of a note.

        Raises:
            Problem: it is missing, or not signed by the log's key.
        """
        try:
            return open_checkpoint(self.note() if note is None else note, self.verifier)
        except NoteRefused as refused:
            raise damaged(f"its checkpoint does not hold: {refused}", self._where) from None

    def read(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Give the entries from `start` up to `stop` or the present end, one bundle in memory at a time.

        Raises:
            Problem: a bundle is missing or malformed. Altered entries are not found here but by verification.
        """
        size = self.size
        reader = self._reader(size)
        stop = size if stop is None else min(stop, size)
        while start < stop:
            index, first = divmod(start, TILE_WIDTH)
            try:
                entries = reader.read_bundle(index)
            except BundleBroken as broken:
                entry = index * TILE_WIDTH + broken.position
                raise damaged(f"entry {entry}: {broken.what}", self._where) from None
            chosen = entries[first : first + stop - start]
            yield from chosen
            start += len(chosen)

    def prove(self, index: int, size: int | None = None) -> Inclusion:
        """Return the proof that an entry is in the log as it is now, or as it was with `size` entries.

        Raises:
            Problem: there is no such entry, or a tile that the proof needs is damaged.
        """
        size = self.size if size is None else size
        if not 0 <= index < size:
            raise Problem(f"there is no entry {index}", where=f"a ledger of {size} entries")
        return Inclusion(index, size, prove_inclusion(index, size, self._reader(size).read_node))

    def prove_consistency(self, old: int, new: int | None = None) -> list[bytes]:
        """Return the proof that the log of now, or of `new` entries, begins with that of `old` entries.

        Raises:
            Problem: the log is shorter than that, or a tile that the proof needs is damaged.
        """
        new = self.size if new is None else new
        if not 0 <= old <= new:
            raise Problem(f"a ledger of {new} entries does not hold one of {old}", where=self._where)
        return prove_consistency(old, new, self._reader(new).read_node)

    def append(self, entries: Sequence[bytes]) -> range:
        """Append entries, all of them or none, and return their indices; they are durable on return.

        Raises:
            Problem: an entry is empty or over 65,535 bytes, the log is damaged or cannot be written. After
                a failure to write the entries may still be there, as after a power failure.
        """
        for entry in entries:
            if not 0 < len(entry) <= MAX_ENTRY_BYTES:
                raise Problem(
                    f"an entry of the ledger has 1 to {MAX_ENTRY_BYTES} bytes, and this one has {len(entry)}"
                )
        known, self._edge = self._edge, None
        with _telling_of_the_disk(self._where), self._storage.appending() as appending:
            note, edge = self._load_edge(appending, known)
            start = edge.size
            if entries:
                note, edge = self._write(appending, edge, entries)
        self._edge = note, edge
        return range(start, edge.size)

    def sign(self, text: str) -> bytes:
        """Return a text as a note signed with the log's key; it must not read as a checkpoint does.

        Raises:
            Problem: the key is missing.
        """
        return self._get_signer().sign(text)

    def export_key(self) -> str:
        """Return the log's private key as text. It is the secret.

        Raises:
            Problem: it is missing.
        """
        return self._get_signer().export()

    def require_key(self) -> None:
        """Raise Problem if the private key is missing, damaged, or not that of the checkpoints."""
        self._load_signer()

    def _get_signer(self) -> Signer:
        if self._signer is None:
            self._signer = self._load_signer()
        return self._signer

    def _reader(self, size: int) -> TileReader:
        return TileReader(self._storage, size, lambda: self.size, where=self._where)

    def _load_edge(self, appending: Appending, known: tuple[bytes, Edge] | None) -> tuple[bytes, Edge]:
        note = self.note()
        if known is not None and known[0] == note and not appending.interrupted:
            return known
        checkpoint = self.checkpoint(note)
        size = checkpoint.size
        if appending.interrupted:
            appending.remove([path for path in self._storage.paths() if is_leftover(path, size)])
            appending.settle()
        else:
            _refuse_more_than(self._storage, size, self._where)
        return note, read_edge(self._storage, checkpoint, where=self._where)

    def _write(self, appending: Appending, edge: Edge, entries: Sequence[bytes]) -> tuple[bytes, Edge]:
        signer = self._get_signer()
        grown, files = grow(edge, entries)
        note = sign_checkpoint(Checkpoint(self.verifier.name, grown.size, grown.root), signer)
        appending.write(files)
        appending.write({CHECKPOINT: note})
        narrower = set(list_partial_tiles(edge.size)) - set(list_partial_tiles(grown.size))
        appending.remove(tile.path for tile in narrower)
        return note, grown


def open_log(
    directory: Path,
    *,
    create: bool = False,
    origin: str | None = None,
    random: Callable[[int], bytes] = os.urandom,
) -> Log:
    """Open the log in a folder.

    Args:
        create: make it if there is none, and clear away what an appender that was killed has left. Without
            it nothing is changed and no private key is needed until an append.
        origin: the name of a log that is made; drawn if left out.

    Raises:
        Problem: there is no log and none is to be made, or part of it is missing or damaged.
    """
    storage = DirectoryTiles(directory)

    def load_signer() -> Signer:
        signer = _read_signer(directory / KEY)
        if signer is None:
            raise Problem(
                "the ledger's key is missing, so nothing can be added",
                where=str(directory / KEY),
                fix=_RESTORE,
            )
        if signer.verifier != verifier:
            raise Problem(
                "the ledger's key and its verifier key are not a pair",
                where=str(directory / VERIFIER),
                fix=_RESTORE,
            )
        return signer

    if create:
        with _telling_of_the_disk(str(directory)):
            _create(storage, origin, random)
    text = storage.read(VERIFIER)
    if text is None:
        if storage.read(CHECKPOINT) is not None:
            raise damaged("its verifier key is missing", str(directory))
        raise Problem("there is no ledger here", where=str(directory), fix="name another home with --home")
    try:
        verifier = parse_verifier(text.decode("utf-8", "replace"))
    except Problem:
        raise damaged(f"{VERIFIER} is not a verifier key", str(directory)) from None
    log = Log(storage, verifier, load_signer, where=str(directory))
    if create:
        load_signer()
        log.append(())
    return log


@contextmanager
def _telling_of_the_disk(where: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Problem(
            f"the ledger cannot be written: {error.strerror}",
            where=where,
            fix="check the folder's owner and the space on the disk",
        ) from None


def read_edge(storage: TileStorage, checkpoint: Checkpoint, *, where: str) -> Edge:
    """Read the right edge of a log that nobody is appending to.

    Raises:
        Problem: it is not what the checkpoint is signed over: to go on would sign another history.
    """
    rows: list[tuple[bytes, ...]] = []
    bundle = b""
    leaves: tuple[bytes, ...] = ()
    for tile in list_partial_tiles(checkpoint.size):
        data = storage.read(tile.path)
        if data is None:
            raise damaged(f"{tile.path} is missing", where)
        if tile.level is None:
            try:
                leaves = tuple(hash_leaf(entry) for entry in decode_bundle(data, tile.width))
            except BundleBroken as broken:
                raise damaged(f"{tile.path}: {broken.what}", where) from None
            bundle = data
            continue
        if len(data) != tile.width * HASH_BYTES:
            raise damaged(f"{tile.path} has a wrong length", where)
        rows += [()] * (tile.level - len(rows)) + [tuple(split_hashes(data))]
    edge = Edge(checkpoint.size, tuple(rows), bundle)
    if edge.root != checkpoint.root or leaves != (rows[0] if rows else ()):
        raise damaged("its last tiles are not what its checkpoint is signed over", where)
    return edge


def _create(storage: DirectoryTiles, origin: str | None, random: Callable[[int], bytes]) -> None:
    """Make what a log needs and does not have; the lock leaves one winner, and a crash no half file."""
    with storage.appending() as appending:
        if storage.read(CHECKPOINT) is not None and storage.read(VERIFIER) is not None:
            return
        signer = _read_signer(storage.root / KEY)
        for path in (CHECKPOINT, VERIFIER, "tile"):
            if signer is None and (storage.read(path) is not None or storage.names(path)):
                raise Problem(
                    "the ledger's key is missing, so nothing can be added",
                    where=str(storage.root / KEY),
                    fix=_RESTORE,
                )
        if storage.read(CHECKPOINT) is None and storage.names("tile"):
            raise damaged("its checkpoint is missing", str(storage.root))
        if signer is None:
            name = origin or f"bailee.local/ledger/{random(8).hex()}"
            signer = Signer(name, random(SEED_BYTES))
            appending.write({KEY: f"{signer.export()}\n".encode()})
        appending.write({VERIFIER: f"{signer.verifier.text}\n".encode()})
        if storage.read(CHECKPOINT) is None:
            empty = Checkpoint(signer.verifier.name, 0, EMPTY_ROOT)
            appending.write({CHECKPOINT: sign_checkpoint(empty, signer)})


def _read_signer(path: Path) -> Signer | None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        text = file.read().decode("utf-8", "replace")
    if mode & 0o077:
        raise Problem("the ledger's key can be read by others", where=str(path), fix=f"run: chmod 600 {path}")
    return parse_signer(text, where=str(path))


def is_leftover(path: str, size: int) -> bool:
    """Return whether a file is what an interrupted append to a log of `size` entries leaves behind."""
    tile = parse_path(path)
    return is_temporary(path) or (tile is not None and tile.at(size) != tile)


def _refuse_more_than(storage: TileStorage, size: int, where: str) -> None:
    """Refuse to append where entries lie beyond the checkpoint that no interrupted append explains.

    An old checkpoint put back would have the log sign a second history over the first. Looking at the last
    bundle alone costs 20 µs and finds it unless its files were put back too, which only a checkpoint kept
    elsewhere can tell.
    """
    last = Tile(None, size // TILE_WIDTH)
    present = last.at(size)
    names = [name for name in storage.names(f"{last.path}.p") if not is_temporary(name)]
    if storage.read(last.path) is not None or names != ([str(present.width)] if present else []):
        raise damaged(f"its checkpoint says {size} entries, and its bundles are not of that size", where)
