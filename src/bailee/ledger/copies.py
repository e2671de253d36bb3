"""Copies a ledger into another folder, and brings such a copy up to date: no private key is in it.

Tiles that are full never change, so that only what is new is copied; the checkpoint comes last.
"""

from collections.abc import Iterator
from pathlib import Path

from bailee.ledger.checkpoints import Checkpoint, open_checkpoint
from bailee.ledger.log import CHECKPOINT, VERIFIER, is_leftover
from bailee.ledger.merkle import tree_root
from bailee.ledger.notes import NoteRefused, Verifier
from bailee.ledger.reading import TileReader, damaged
from bailee.ledger.storage import Appending, DirectoryTiles
from bailee.ledger.tiles import TILE_WIDTH, Tile, levels, list_partial_tiles
from bailee.policy.problems import Problem

_FILES_AT_A_TIME = 64


def copy_log(source: Path, target: Path, verifier: Verifier) -> bytes:
    """Copy a ledger as it is now, or add to an earlier copy what is new; return the note of its checkpoint.

    Appenders wait meanwhile. The copy is not verified here; what is in it already is not read again.

    Raises:
        Problem: a file of the ledger is missing, or the target holds a copy that is not of this ledger, or of
            one that this ledger does not continue.
    """
    tiles, copy = DirectoryTiles(source), DirectoryTiles(target)
    with tiles.resting():
        note = tiles.read(CHECKPOINT)
        if note is None:
            raise damaged("its checkpoint is missing", str(source))
        try:
            checkpoint = open_checkpoint(note, verifier)
        except NoteRefused as refused:
            raise damaged(f"its checkpoint does not hold: {refused}", str(source)) from None
        before = _read_size(tiles, copy, checkpoint, verifier, source, target)
        if before > checkpoint.size:
            raise Problem(
                f"this copy has {before} entries, more than the ledger, which has {checkpoint.size}",
                where=str(target),
                fix="the ledger was rolled back: see bailee ledger verify --since",
            )
        with copy.appending() as appending:
            if appending.interrupted:
                appending.remove([path for path in copy.paths() if is_leftover(path, before)])
            _copy_tiles(tiles, copy, appending, checkpoint, source)
            appending.write({VERIFIER: f"{verifier.text}\n".encode()})
            appending.write({CHECKPOINT: note})
            narrower = set(list_partial_tiles(before)) - set(list_partial_tiles(checkpoint.size))
            appending.remove(tile.path for tile in narrower)
            appending.settle()
    return note


def list_tiles(size: int) -> Iterator[Tile]:
    """Give all tiles and bundles of a log of `size` entries."""
    for level in levels(size):
        count = size >> 8 * (level or 0)
        for index in range(-(-count // TILE_WIDTH)):
            tile = Tile(level, index).at(size)
            assert tile is not None
            yield tile


def _copy_tiles(
    tiles: DirectoryTiles, copy: DirectoryTiles, appending: Appending, checkpoint: Checkpoint, source: Path
) -> None:
    waiting: dict[str, bytes] = {}
    for tile in list_tiles(checkpoint.size):
        if (copy.root / tile.path).exists():
            continue
        data = tiles.read(tile.path)
        if data is None:
            raise damaged(f"{tile.path} is missing", str(source))
        waiting[tile.path] = data
        if len(waiting) == _FILES_AT_A_TIME:
            appending.write(waiting)
            waiting = {}
    appending.write(waiting)


def _read_size(
    tiles: DirectoryTiles,
    copy: DirectoryTiles,
    checkpoint: Checkpoint,
    verifier: Verifier,
    source: Path,
    target: Path,
) -> int:
    """Return how many entries the copy has, 0 where there is none."""
    note = copy.read(CHECKPOINT)
    if note is None:
        return 0
    other = Problem(
        "there is a ledger here that is not an earlier copy of this one",
        where=str(target),
        fix="name another folder",
    )
    try:
        earlier = open_checkpoint(note, verifier)
    except NoteRefused:
        raise other from None
    if 0 < earlier.size <= checkpoint.size:
        reader = TileReader(tiles, checkpoint.size, lambda: checkpoint.size, where=str(source))
        if tree_root(earlier.size, reader.read_node) != earlier.root:
            raise other
    return earlier.size
