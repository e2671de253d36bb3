"""Reads tiles of a log while somebody may be appending to it.

A reader takes the checkpoint first and then what it needs. By then an appender may have put a wider tile in
the place of a partial one; its beginning is the same, so the reader takes that.
"""

from collections.abc import Callable

from bailee.ledger.merkle import HASH_BYTES, hash_tree
from bailee.ledger.storage import TileStorage
from bailee.ledger.tiles import TILE_HEIGHT, TILE_WIDTH, Tile, decode_bundle, split_hashes
from bailee.policy.problems import Problem


def read_tile(storage: TileStorage, tile: Tile, current_size: Callable[[], int]) -> tuple[Tile, bytes] | None:
    """Return the file of a tile, or of a wider one that took its place meanwhile; None if it is missing.

    Args:
        current_size: reads how many entries the log has by now.
    """
    wanted = tile
    while True:
        for candidate in dict.fromkeys((wanted, wanted.full)):
            data = storage.read(candidate.path)
            if data is not None:
                return candidate, data
        wider = tile.at(current_size())
        if wider is None or wider.width <= wanted.width:
            return None
        wanted = wider


class TileReader:
    """Reads hashes and entries of a log at one size; holds the tiles of hashes that it has read."""

    def __init__(
        self, storage: TileStorage, size: int, current_size: Callable[[], int], *, where: str
    ) -> None:
        self._storage = storage
        self._size = size
        self._current_size = current_size
        self._where = where
        self._tiles: dict[tuple[int, int], list[bytes]] = {}

    def read_bundle(self, index: int) -> list[bytes]:
        """Return the entries of a bundle.

        Raises:
            Problem: it is missing.
            BundleBroken: it is malformed.
        """
        wanted, found, data = self._read(None, index)
        return decode_bundle(data, found.width)[: wanted.width]

    def read_node(self, height: int, index: int) -> bytes:
        """Return the hash of a complete subtree; a `merkle.NodeReader`.

        Raises:
            Problem: its tile is missing or of a wrong length.
        """
        level, within = divmod(height, TILE_HEIGHT)
        number, offset = divmod(index << within, TILE_WIDTH)
        if (level, number) not in self._tiles:
            wanted, found, data = self._read(level, number)
            if len(data) != found.width * HASH_BYTES:
                raise self._damaged(
                    f"{found.path} has {len(data)} bytes in place of {found.width * HASH_BYTES}"
                )
            self._tiles[level, number] = split_hashes(data)[: wanted.width]
        return hash_tree(self._tiles[level, number][offset : offset + (1 << within)])

    def _read(self, level: int | None, index: int) -> tuple[Tile, Tile, bytes]:
        wanted = Tile(level, index).at(self._size)
        assert wanted is not None, "asked for what lies beyond the log"
        read = read_tile(self._storage, wanted, self._current_size)
        if read is None:
            raise self._damaged(f"{wanted.path} is missing")
        return wanted, *read

    def _damaged(self, what: str) -> Problem:
        return damaged(what, self._where)


def damaged(what: str, where: str) -> Problem:
    """Return the problem of a ledger that is not as it was written."""
    return Problem(f"the ledger is damaged: {what}", where=where, fix="see: bailee ledger verify")
