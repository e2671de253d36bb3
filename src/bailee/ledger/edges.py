"""The right edge of a log: what is not yet full, which is all that an append has to know. Pure."""

from collections.abc import Sequence

import msgspec

from bailee.ledger.merkle import EMPTY_ROOT, hash_leaf, hash_tree
from bailee.ledger.tiles import TILE_HEIGHT, TILE_WIDTH, Tile, encode_bundle


class Edge(msgspec.Struct, frozen=True):
    """The partial tiles of a log and its partial bundle.

    Attributes:
        size: how many entries the log has.
        rows: the hashes of each level's partial tile, level 0 first; empty where there is none.
        bundle: the bytes of the partial bundle.
    """

    size: int = 0
    rows: tuple[tuple[bytes, ...], ...] = ()
    bundle: bytes = b""

    @property
    def root(self) -> bytes:
        """Return the root of the log."""
        return root_of(self.rows)


def root_of(rows: Sequence[Sequence[bytes]]) -> bytes:
    """Return the root of a log whose partial tiles hold these hashes, level 0 first.

    What a level leaves over is a smaller subtree at the right of the level above.
    """
    rest: bytes | None = None
    for row in rows:
        hashes = [*row, rest] if rest is not None else list(row)
        if hashes:
            rest = hash_tree(hashes)
    return EMPTY_ROOT if rest is None else rest


def grow(edge: Edge, entries: Sequence[bytes]) -> tuple[Edge, dict[str, bytes]]:
    """Return the edge once entries are appended, and the files that are new then, by path."""
    files: dict[str, bytes] = {}
    rows = [list(row) for row in edge.rows]
    size, bundle = edge.size, bytearray(edge.bundle)
    for entry in entries:
        bundle += encode_bundle((entry,))
        size += 1
        if size % TILE_WIDTH == 0:
            files[Tile(None, size // TILE_WIDTH - 1).path] = bytes(bundle)
            bundle.clear()
        _add(rows, hash_leaf(entry), size, files)
    grown = Edge(size, tuple(tuple(row) for row in rows), bytes(bundle))
    known = {tile.path for tile, _ in _partial_files(edge)}
    files.update((tile.path, data) for tile, data in _partial_files(grown) if tile.path not in known)
    return grown, files


def _add(rows: list[list[bytes]], leaf: bytes, size: int, files: dict[str, bytes]) -> None:
    """Add a leaf to the rows of a log that has `size` entries with it; what gets full moves a level up."""
    rising, level = leaf, 0
    while True:
        if level == len(rows):
            rows.append([])
        row = rows[level]
        row.append(rising)
        if len(row) < TILE_WIDTH:
            return
        files[Tile(level, (size >> TILE_HEIGHT * (level + 1)) - 1).path] = b"".join(row)
        rising = hash_tree(row)
        row.clear()
        level += 1


def _partial_files(edge: Edge) -> list[tuple[Tile, bytes]]:
    found = []
    if edge.bundle:
        found.append((Tile(None, edge.size // TILE_WIDTH, edge.size % TILE_WIDTH), edge.bundle))
    for level, row in enumerate(edge.rows):
        if row:
            found.append((Tile(level, edge.size >> TILE_HEIGHT * (level + 1), len(row)), b"".join(row)))
    return found
