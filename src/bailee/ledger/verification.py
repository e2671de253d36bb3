"""Verifies a whole ledger offline, with its public key alone.

Every entry is hashed anew from its bundle, every tile of every level is compared with that, and the root with
the signed checkpoint; no file may be missing and none too many. The memory this takes is that of one bundle
and one tile of each level.
"""

from collections.abc import Callable, Sequence

import msgspec

from bailee.ledger.checkpoints import Checkpoint, open_checkpoint
from bailee.ledger.edges import root_of
from bailee.ledger.log import CHECKPOINT, KEY, VERIFIER, is_leftover
from bailee.ledger.merkle import EMPTY_ROOT, HASH_BYTES, hash_leaf, hash_tree
from bailee.ledger.notes import NoteRefused, Verifier
from bailee.ledger.reading import read_tile
from bailee.ledger.storage import LOCK, TileStorage, is_temporary
from bailee.ledger.tiles import TILE_WIDTH, BundleBroken, Tile, decode_bundle, parse_path, split_hashes

MAX_FAULTS = 100
_OTHER_FILES = {CHECKPOINT, KEY, VERIFIER, LOCK}

# Called with how many entries are done, and of how many.
Progress = Callable[[int, int], None]


class Fault(msgspec.Struct, frozen=True):
    """One thing that is not as it should be.

    Attributes:
        what: the fault in one sentence, without a full stop.
        path: the file it was found in, relative to the ledger.
        entry: the index of the entry it concerns, if it concerns one.
    """

    what: str
    path: str
    entry: int | None = None


class Verification(msgspec.Struct):
    """What the verification of a ledger found.

    Attributes:
        checkpoint: what is signed; None if the signature does not hold.
        faults: what is wrong, at most `MAX_FAULTS` of it.
        leftovers: files that an append that was interrupted has left; they are no part of the ledger, and the
            next append takes them away.
        since: the size of the earlier checkpoint that the ledger was compared with.
    """

    checkpoint: Checkpoint | None = None
    faults: list[Fault] = []
    leftovers: list[str] = []
    since: int | None = None

    @property
    def verified(self) -> bool:
        """Return whether nothing is wrong."""
        return self.checkpoint is not None and not self.faults

    def add(self, what: str, path: str, entry: int | None = None) -> None:
        """Note a fault; those past `MAX_FAULTS` are dropped."""
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(Fault(what, path, entry))


def verify_ledger(
    storage: TileStorage,
    verifier: Verifier,
    *,
    since: bytes | None = None,
    progress: Progress = lambda done, total: None,
) -> Verification:
    """Verify a ledger as it is now; appenders may go on meanwhile.

    Args:
        since: the note of an earlier checkpoint, kept elsewhere. With it a rollback and a history written
            anew are found, even by somebody who holds the private key.
    """
    found = Verification()
    with storage.resting() as interrupted:
        note = storage.read(CHECKPOINT)
        strays = _list_strays(storage, found, note, verifier)
    if found.checkpoint is None:
        return found
    for path in strays:
        if is_temporary(path) or (interrupted and is_leftover(path, found.checkpoint.size)):
            found.leftovers.append(path)
        else:
            found.add("this file is no part of the ledger that the checkpoint is signed over", path)
    written = storage.read(VERIFIER)
    if written is not None and written != f"{verifier.text}\n".encode():
        found.add("this is not the key that the ledger is verified with", VERIFIER)
    earlier = _open_earlier(since, verifier, found)
    _Walk(storage, found, found.checkpoint, earlier, verifier).go(progress)
    return found


def _list_strays(
    storage: TileStorage, found: Verification, note: bytes | None, verifier: Verifier
) -> list[str]:
    """Open the checkpoint, and return the files that a ledger of its size does not have."""
    if note is None:
        found.add("the checkpoint is missing", CHECKPOINT)
        return []
    try:
        found.checkpoint = open_checkpoint(note, verifier)
    except NoteRefused as refused:
        found.add(f"the checkpoint does not hold: {refused}", CHECKPOINT)
        return []
    size = found.checkpoint.size
    strays = []
    for path in storage.paths():
        tile = parse_path(path)
        if path not in _OTHER_FILES and (tile is None or tile.at(size) != tile):
            strays.append(path)
    return sorted(strays)


def _open_earlier(since: bytes | None, verifier: Verifier, found: Verification) -> Checkpoint | None:
    if since is None or found.checkpoint is None:
        return None
    try:
        earlier = open_checkpoint(since, verifier)
    except NoteRefused as refused:
        found.add(f"the earlier checkpoint does not hold: {refused}", CHECKPOINT)
        return None
    found.since = earlier.size
    if earlier.size > found.checkpoint.size:
        found.add(
            f"the ledger was rolled back: it has {found.checkpoint.size} entries and once had {earlier.size}",
            CHECKPOINT,
        )
        return None
    return earlier


class _Walk:
    """One walk over all entries, with the tiles that they should have beside the tiles that are there."""

    def __init__(
        self,
        storage: TileStorage,
        found: Verification,
        checkpoint: Checkpoint,
        earlier: Checkpoint | None,
        verifier: Verifier,
    ) -> None:
        self._storage = storage
        self._found = found
        self._checkpoint = checkpoint
        self._earlier = earlier
        self._verifier = verifier
        self._rows: list[list[bytes]] = []  # hashes of each level since its last full tile
        self._held: list[list[bytes]] = []  # the same, as the tiles of the level below have it
        self._differing: list[tuple[Tile, int]] = []  # tile of level 0, and the position in it
        self._substituted = False  # a hash was taken from a tile, as its entry cannot be read

    def go(self, progress: Progress) -> None:
        """Verify everything, and note what is wrong."""
        size = self._checkpoint.size
        self._compare_earlier(())
        for index in range(-(-size // TILE_WIDTH)):
            self._take_bundle(index)
            progress(min(size, (index + 1) * TILE_WIDTH), size)
        for level, row in enumerate(self._rows):
            if level and row:
                self._compare_tile(level, size >> 8 * (level + 1))
        is_right = root_of(self._rows) == self._checkpoint.root
        self._tell_differing(is_right and not self._substituted)
        if not is_right:
            self._found.add("the entries do not hash to the root that it is signed over", CHECKPOINT)

    def _take_bundle(self, index: int) -> None:
        bundle = Tile(None, index).at(self._checkpoint.size)
        tile = Tile(0, index).at(self._checkpoint.size)
        assert bundle is not None
        assert tile is not None
        stored = self._read_hashes(tile)
        leaves = self._read_leaves(bundle)
        if len(leaves) < bundle.width:
            self._substituted = True
            leaves += stored[len(leaves) :] or [b""] * (bundle.width - len(leaves))
        for position, (leaf, hash_) in enumerate(zip(leaves, stored, strict=False)):
            if leaf != hash_ and len(self._differing) < MAX_FAULTS:
                self._differing.append((tile, position))
        self._compare_earlier(leaves)
        self._rise(0, index, leaves, stored or leaves)

    def _rise(self, level: int, index: int, hashes: list[bytes], held: list[bytes]) -> None:
        """Add hashes to a level; a full tile becomes one hash of the level above."""
        if level == len(self._rows):
            self._rows.append([])
            self._held.append([])
        row = self._rows[level]
        row += hashes
        self._held[level] += held
        if len(row) == TILE_WIDTH:
            stored = self._compare_tile(level, index) if level else held
            root = hash_tree(row)
            held_root = root if stored == row else hash_tree(stored)
            row.clear()
            self._held[level].clear()
            self._rise(level + 1, index // TILE_WIDTH, [root], [held_root])

    def _compare_tile(self, level: int, index: int) -> list[bytes]:
        """Compare a tile above level 0 with what lies below it, and return its hashes.

        Where it agrees with a tile below that is itself at fault, nothing new is wrong.
        """
        tile = Tile(level, index).at(self._checkpoint.size)
        assert tile is not None
        row = self._rows[level]
        stored = self._read_hashes(tile) or list(row)
        for position, (right, hash_) in enumerate(zip(row, stored, strict=True)):
            if hash_ not in (right, self._held[level][position]):
                below = Tile(level - 1, index * TILE_WIDTH + position).path
                self._found.add(f"hash {position} is not the root of {below}", tile.path)
        return stored

    def _read_leaves(self, bundle: Tile) -> list[bytes]:
        """Return the hashes of a bundle's entries, up to the first that cannot be read."""
        read = read_tile(self._storage, bundle, self._current_size)
        first = bundle.index * TILE_WIDTH
        if read is None:
            self._found.add("the file is missing", bundle.path, first)
            return []
        file, data = read
        try:
            entries = decode_bundle(data, file.width)
        except BundleBroken as broken:
            is_one = broken.position < file.width
            self._found.add(broken.what, file.path, first + broken.position - (not is_one))
            entries = broken.entries
        return [hash_leaf(entry) for entry in entries[: bundle.width]]

    def _read_hashes(self, tile: Tile) -> list[bytes]:
        """Return the hashes of a tile, none if it cannot be used."""
        read = read_tile(self._storage, tile, self._current_size)
        if read is None:
            self._found.add("the file is missing", tile.path)
            return []
        file, data = read
        if len(data) != file.width * HASH_BYTES:
            right = file.width * HASH_BYTES
            self._found.add(f"the file has {len(data)} bytes in place of {right}", file.path)
            return []
        return split_hashes(data)[: tile.width]

    def _current_size(self) -> int:
        try:
            return open_checkpoint(self._storage.read(CHECKPOINT) or b"", self._verifier).size
        except NoteRefused:
            return 0

    def _compare_earlier(self, leaves: Sequence[bytes]) -> None:
        """Compare with the earlier checkpoint once the walk comes past its size.

        The root at that size is made from the very entries that are there now: no proof has to be believed.
        """
        earlier = self._earlier
        if earlier is None:
            return
        before = sum(len(row) << 8 * level for level, row in enumerate(self._rows))
        if before + len(leaves) < earlier.size:
            return
        self._earlier = None
        rows = [list(row) for row in self._rows] or [[]]
        rows[0] += leaves[: earlier.size - before]
        if earlier.root != (root_of(rows) if earlier.size else EMPTY_ROOT):
            self._found.add(
                f"the history was rewritten: its first {earlier.size} entries are not those of the earlier "
                "checkpoint",
                CHECKPOINT,
            )

    def _tell_differing(self, is_tile_at_fault: bool) -> None:
        """Tell which entries and stored hashes disagree.

        Which of the two was altered is known where the entries lead to the signed root: then the tile was.
        """
        for tile, position in self._differing:
            bundle = Tile(None, tile.index, tile.width)
            entry = tile.index * TILE_WIDTH + position
            if is_tile_at_fault:
                self._found.add(
                    f"hash {position} is not that of the entry in {bundle.path}", tile.path, entry
                )
            else:
                self._found.add(f"the entry does not hash to what {tile.path} holds", bundle.path, entry)
