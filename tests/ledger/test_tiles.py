"""The layout of tiles: names, widths and bundles, with the specification's own examples."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bailee.ledger.edges import Edge, grow
from bailee.ledger.merkle import EMPTY_ROOT, hash_leaf, hash_tree
from bailee.ledger.tiles import (
    BundleBroken,
    Tile,
    decode_bundle,
    encode_bundle,
    encode_index,
    levels,
    list_partial_tiles,
    parse_path,
)
from counterparts.ledgers import make_entries


def test_the_specifications_example_of_a_number() -> None:
    """Tile 1234067 is `x001/x234/067`, and small numbers have three digits."""
    assert encode_index(1234067) == "x001/x234/067"
    assert [encode_index(index) for index in (0, 999, 1000)] == ["000", "999", "x001/000"]
    assert Tile(0, 1234067, 17).path == "tile/0/x001/x234/067.p/17"
    assert Tile(None, 5).path == "tile/entries/005"


def test_the_specifications_example_of_a_tree() -> None:
    """70,000 entries: 273 full tiles of level 0 and one of 112, one full of level 1, one of 17, one of 1."""
    assert list_partial_tiles(70_000) == [
        Tile(None, 273, 112),
        Tile(0, 273, 112),
        Tile(1, 1, 17),
        Tile(2, 0, 1),
    ]
    assert list(levels(70_000)) == [None, 0, 1, 2]
    assert Tile(0, 272).at(70_000) == Tile(0, 272, 256)
    assert Tile(1, 0).at(70_000) == Tile(1, 0, 256)
    assert Tile(0, 274).at(70_000) is None
    assert list_partial_tiles(256) == [Tile(1, 0, 1)]
    assert list_partial_tiles(0) == []


@given(st.one_of(st.none(), st.integers(0, 63)), st.integers(0, 10**12), st.integers(1, 256))
def test_a_path_names_one_tile(level: int | None, index: int, width: int) -> None:
    """The path of any tile is read back as that tile."""
    tile = Tile(level, index, width)
    assert parse_path(tile.path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/0",
        "tile/0/0000",
        "tile/00/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/0/x000/001",
        "tile/0/001/002",
        "tile/0/x001",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p/1000",
        "tile/0/000.p/",
        "tile/0/000.p",
        "tile/0/000/",
        "/tile/0/000",
        "tile/entries/000\n",
        "tile/0/\N{ARABIC-INDIC DIGIT ONE}00",
        "tile/data/000",
        "checkpoint",
        "",
    ],
)
def test_what_is_no_path_of_a_tile_is_refused(path: str) -> None:
    """Names with other digits, zeros, levels or widths than the one encoding are no tiles."""
    assert parse_path(path) is None


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=256))
def test_bundles_are_read_back(entries: list[bytes]) -> None:
    """Entries come out of a bundle as they went in, in their number and no other."""
    data = encode_bundle(entries)
    assert decode_bundle(data, len(entries)) == entries
    with pytest.raises(BundleBroken):
        decode_bundle(data, len(entries) + 1)
    with pytest.raises(BundleBroken):
        decode_bundle(data + b"\0", len(entries))


def test_a_broken_bundle_names_its_entry() -> None:
    """Cut at any byte, a bundle names the first entry that is not whole and gives those before it."""
    entries = [b"a", b"bc", b"def"]
    data = encode_bundle(entries)
    assert data == b"\x00\x01a\x00\x02bc\x00\x03def"
    for length in range(len(data)):
        with pytest.raises(BundleBroken) as broken:
            decode_bundle(data[:length], 3)
        assert broken.value.position == (length >= 3) + (length >= 7)
        assert broken.value.entries == entries[: broken.value.position]
    with pytest.raises(BundleBroken, match="empty"):
        decode_bundle(b"\x00\x01a\x00\x00", 2)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 700), max_size=6))
def test_however_it_grows_a_log_is_the_same(steps: list[int]) -> None:
    """Whatever the batches, root, tiles and bundles are those of its entries."""
    edge, files = Edge(), dict[str, bytes]()
    for step in steps:
        edge, new = grow(edge, make_entries(edge.size, edge.size + step))
        files.update(new)
    entries = make_entries(0, edge.size)
    hashes = [hash_leaf(entry) for entry in entries]
    assert edge.size == sum(steps)
    assert edge.root == (hash_tree(hashes) if hashes else EMPTY_ROOT)
    for level in levels(edge.size):
        for index in range(edge.size // (256 ** ((level or 0) + 1)) + 1):
            tile = Tile(level, index).at(edge.size)
            if tile is None:
                continue
            span = 256 ** (level or 0)
            first = tile.index * 256
            if level is None:
                right = encode_bundle(entries[first : first + tile.width])
            else:
                nodes = range(first, first + tile.width)
                right = b"".join(hash_tree(hashes[node * span : (node + 1) * span]) for node in nodes)
            assert files[tile.path] == right, tile.path
