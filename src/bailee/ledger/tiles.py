"""The layout of a tiled log: names, widths and contents of its files (c2sp.org/tlog-tiles). Pure.

A tile holds up to 256 consecutive hashes of one level; a hash of level L + 1 is the root of a full tile of
level L. A bundle holds the entries whose hashes are in the tile of level 0 with the same number. The last one
of each may be partial, and then its name tells its width.
"""

import re
import struct
from collections.abc import Iterator, Sequence

import msgspec

from bailee.ledger.merkle import HASH_BYTES

TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
MAX_LEVEL = 63
MAX_ENTRY_BYTES = 0xFFFF
MAX_BUNDLE_BYTES = TILE_WIDTH * (2 + MAX_ENTRY_BYTES)
_PATH = re.compile(r"tile/(entries|[0-9]{1,2})/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([0-9]{1,3}))?")
_LENGTH = struct.Struct(">H")


class BundleBroken(Exception):
    """A bundle is not a sequence of the entries its name says.

    Args:
        position: the first entry that cannot be read, counted from 0 in the bundle.
        what: the fault, without a full stop.
        entries: those before it.
    """

    def __init__(self, position: int, what: str, entries: list[bytes]) -> None:
        super().__init__(what)
        self.position = position
        self.what = what
        self.entries = entries


class Tile(msgspec.Struct, frozen=True):
    """One file of the log.

    Attributes:
        level: of the hashes, or None for a bundle of entries.
        index: its number within the level.
        width: how many hashes or entries it holds, 1 to 256; below that it is partial.
    """

    level: int | None
    index: int
    width: int = TILE_WIDTH

    @property
    def path(self) -> str:
        """Return its name, relative to the log, with `/` between folders."""
        name = f"tile/{'entries' if self.level is None else self.level}/{encode_index(self.index)}"
        return name if self.width == TILE_WIDTH else f"{name}.p/{self.width}"

    @property
    def full(self) -> "Tile":
        """Return the full tile that takes its place once there are enough hashes."""
        return Tile(self.level, self.index)

    def at(self, size: int) -> "Tile | None":
        """Return the tile of the same number in a log of `size` entries, None if it has none."""
        width = _count(self.level, size) - self.index * TILE_WIDTH
        return Tile(self.level, self.index, min(width, TILE_WIDTH)) if width > 0 else None


def encode_index(index: int) -> str:
    """Write a tile's number in path elements of three digits: 1234067 is `x001/x234/067`."""
    elements = [f"{index % 1000:03}"]
    while index := index // 1000:
        elements.append(f"x{index % 1000:03}")
    return "/".join(reversed(elements))


def parse_path(path: str) -> Tile | None:
    """Return the tile a path names, None if it is not a name that a tile can have."""
    found = _PATH.fullmatch(path)
    if found is None:
        return None
    level = None if found[1] == "entries" else int(found[1])
    index = int(found[2].replace("x", "").replace("/", ""))
    width = int(found[3]) if found[3] else TILE_WIDTH
    if (level or 0) > MAX_LEVEL or not 0 < width <= TILE_WIDTH:
        return None
    tile = Tile(level, index, width)
    return tile if tile.path == path else None  # no leading zeros, no full tile under a partial name


def levels(size: int) -> Iterator[int | None]:
    """Give the levels that a log of `size` entries has tiles of, bundles (None) first."""
    if size:
        yield None
    level = 0
    while _count(level, size):
        yield level
        level += 1


def list_partial_tiles(size: int) -> list[Tile]:
    """Return the partial tiles and bundle of a log of `size` entries."""
    found = []
    for level in levels(size):
        index, width = divmod(_count(level, size), TILE_WIDTH)
        if width:
            found.append(Tile(level, index, width))
    return found


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Write entries one after the other, each behind its length as a big-endian uint16."""
    return b"".join(_LENGTH.pack(len(entry)) + entry for entry in entries)


def decode_bundle(data: bytes, width: int) -> list[bytes]:
    """Return the entries of a bundle.

    Raises:
        BundleBroken: it is not exactly `width` entries of 1 to 65,535 bytes.
    """
    entries: list[bytes] = []
    at = 0
    for position in range(width):
        start = at + _LENGTH.size
        if start > len(data):
            raise BundleBroken(position, "the file ends before this entry", entries)
        at = start + _LENGTH.unpack_from(data, at)[0]
        if at == start:
            raise BundleBroken(position, "this entry is empty", entries)
        if at > len(data):
            raise BundleBroken(position, "the file ends within this entry", entries)
        entries.append(data[start:at])
    if at != len(data):
        raise BundleBroken(width, "the file goes on after its last entry", entries)
    return entries


def split_hashes(data: bytes) -> list[bytes]:
    """Return the hashes of a tile."""
    return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]


def _count(level: int | None, size: int) -> int:
    """Return how many hashes or entries a level has: a full tile below is one hash above."""
    return size >> TILE_HEIGHT * (level or 0)
