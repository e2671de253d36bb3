"""Merkle trees: known answers, the RFC's definitions taken literally, and an independent implementation."""

import proofbundle.merkle as proofbundle
import pymerkle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bailee.ledger.merkle import (
    EMPTY_ROOT,
    hash_leaf,
    hash_node,
    hash_tree,
    is_consistent,
    is_included,
    prove_consistency,
    prove_inclusion,
    tree_root,
)
from counterparts.ledgers import flip

# Leaves and roots that implementations of RFC 6962 share as known answers (first in Certificate
# Transparency's own tests): the root after each leaf.
LEAVES = [
    bytes.fromhex(leaf)
    for leaf in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    bytes.fromhex(root)
    for root in (
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    )
]
KNOWN_CONSISTENCY_6_8 = [
    bytes.fromhex(hash_)
    for hash_ in (
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    )
]
MAX = 600
HASHES = [hash_leaf(str(index).encode()) for index in range(MAX)]


def read_node(height: int, index: int) -> bytes:
    """Return the hash of a complete subtree of `HASHES`."""
    hashes = HASHES[index << height : (index + 1) << height]
    assert len(hashes) == 1 << height, "asked for a subtree that is not complete"
    return hash_tree(hashes)


def define_root(hashes: list[bytes]) -> bytes:
    """Return MTH as RFC 6962 section 2.1 writes it down."""
    if len(hashes) == 1:
        return hashes[0]
    middle = 1
    while middle * 2 < len(hashes):
        middle *= 2
    return hash_node(define_root(hashes[:middle]), define_root(hashes[middle:]))


def define_path(index: int, hashes: list[bytes]) -> list[bytes]:
    """Return PATH as RFC 6962 section 2.1.1 writes it down."""
    if len(hashes) == 1:
        return []
    middle = 1
    while middle * 2 < len(hashes):
        middle *= 2
    if index < middle:
        return [*define_path(index, hashes[:middle]), define_root(hashes[middle:])]
    return [*define_path(index - middle, hashes[middle:]), define_root(hashes[:middle])]


def define_consistency(old: int, hashes: list[bytes], whole: bool = True) -> list[bytes]:
    """Return SUBPROOF as RFC 6962 section 2.1.2 writes it down."""
    if old == len(hashes):
        return [] if whole else [define_root(hashes)]
    middle = 1
    while middle * 2 < len(hashes):
        middle *= 2
    if old <= middle:
        return [*define_consistency(old, hashes[:middle], whole), define_root(hashes[middle:])]
    return [*define_consistency(old - middle, hashes[middle:], False), define_root(hashes[:middle])]


sizes = st.integers(1, MAX)
places = sizes.flatmap(lambda size: st.tuples(st.integers(0, size - 1), st.just(size)))
pairs = sizes.flatmap(lambda new: st.tuples(st.integers(1, new), st.just(new)))


def test_known_roots() -> None:
    """The roots of the shared examples, and of no leaves the hash of nothing."""
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    hashes = [hash_leaf(leaf) for leaf in LEAVES]
    assert [hash_tree(hashes[:size]) for size in range(1, 9)] == ROOTS
    assert hash_tree([]) == tree_root(0, read_node) == EMPTY_ROOT


def test_known_proofs() -> None:
    """A shared example of a consistency proof, made and verified."""
    hashes = [hash_leaf(leaf) for leaf in LEAVES]

    def read(height: int, index: int) -> bytes:
        return hash_tree(hashes[index << height : (index + 1) << height])

    assert prove_consistency(6, 8, read) == KNOWN_CONSISTENCY_6_8
    assert is_consistent(6, 8, ROOTS[5], ROOTS[7], KNOWN_CONSISTENCY_6_8)
    assert not is_consistent(6, 8, ROOTS[4], ROOTS[7], KNOWN_CONSISTENCY_6_8)


@given(sizes)
def test_roots_are_as_defined(size: int) -> None:
    """However it is computed, the root is the RFC's."""
    assert hash_tree(HASHES[:size]) == tree_root(size, read_node) == define_root(HASHES[:size])


@given(places)
def test_audit_paths_are_as_defined(place: tuple[int, int]) -> None:
    """The path of any leaf in any size is the RFC's, and verifies."""
    index, size = place
    path = prove_inclusion(index, size, read_node)
    assert path == define_path(index, HASHES[:size])
    assert is_included(HASHES[index], index, size, path, hash_tree(HASHES[:size]))


@given(pairs)
def test_consistency_proofs_are_as_defined(pair: tuple[int, int]) -> None:
    """The proof between any two sizes is the RFC's, and verifies."""
    old, new = pair
    path = prove_consistency(old, new, read_node)
    assert path == define_consistency(old, HASHES[:new])
    assert is_consistent(old, new, hash_tree(HASHES[:old]), hash_tree(HASHES[:new]), path)


@given(places, st.data())
def test_no_other_audit_path_verifies(place: tuple[int, int], data: st.DataObject) -> None:
    """A path verifies for its leaf, index, size and root, whole and unaltered, and for nothing else."""
    index, size = place
    path, root = prove_inclusion(index, size, read_node), hash_tree(HASHES[:size])
    leaf = HASHES[index]
    assert not is_included(leaf, index, size, path, flip(root, data.draw(st.integers(0, 255))))
    assert not is_included(flip(leaf, data.draw(st.integers(0, 255))), index, size, path, root)
    other = data.draw(st.integers(-1, size + 3).filter(lambda other: other != index))
    assert not is_included(leaf, other, size, path, root)
    assert not is_included(leaf, index, size, [*path, root], root)
    if path:
        at = data.draw(st.integers(0, len(path) - 1))
        altered = [*path[:at], flip(path[at], data.draw(st.integers(0, 255))), *path[at + 1 :]]
        assert not is_included(leaf, index, size, altered, root)
        assert not is_included(leaf, index, size, path[:at] + path[at + 1 :], root)


@given(pairs, st.data())
def test_no_other_consistency_proof_verifies(pair: tuple[int, int], data: st.DataObject) -> None:
    """A proof verifies between its two sizes and roots, whole and unaltered, and for nothing else."""
    old, new = pair
    path = prove_consistency(old, new, read_node)
    before, after = hash_tree(HASHES[:old]), hash_tree(HASHES[:new])
    bit = st.integers(0, 255)
    assert not is_consistent(old, new, flip(before, data.draw(bit)), after, path)
    assert not is_consistent(old, new, before, flip(after, data.draw(bit)), path)
    assert not is_consistent(old, new, before, after, [*path, after])
    assert not is_consistent(new + 1, new, before, after, path)
    assert not is_consistent(-1, new, before, after, path)
    if path:
        at = data.draw(st.integers(0, len(path) - 1))
        altered = [*path[:at], flip(path[at], data.draw(bit)), *path[at + 1 :]]
        assert not is_consistent(old, new, before, after, altered)
        assert not is_consistent(old, new, before, after, path[:at] + path[at + 1 :])


def test_the_empty_tree_begins_every_tree() -> None:
    """From no leaves on nothing is to be proved, and nothing else is taken for a proof of it."""
    root = hash_tree(HASHES[:5])
    assert prove_consistency(0, 5, read_node) == []
    assert is_consistent(0, 5, EMPTY_ROOT, root, [])
    assert is_consistent(0, 0, EMPTY_ROOT, EMPTY_ROOT, [])
    assert not is_consistent(0, 0, root, root, [])
    assert not is_consistent(0, 5, root, root, [])
    assert not is_consistent(0, 5, EMPTY_ROOT, root, [root])


def test_what_is_not_there_is_not_proved() -> None:
    """A leaf or a size beyond the tree is an error."""
    for index in (-1, 5, 6):
        with pytest.raises(ValueError, match="no leaf"):
            prove_inclusion(index, 5, read_node)
    for old in (-1, 6):
        with pytest.raises(ValueError, match="does not hold"):
            prove_consistency(old, 5, read_node)


def test_a_path_grows_with_the_logarithm() -> None:
    """Of a tree of a million leaves a proof needs twenty hashes, each asked for once."""
    asked: list[tuple[int, int]] = []

    def read(height: int, index: int) -> bytes:
        asked.append((height, index))
        return HASHES[0]

    assert len(prove_inclusion(777_777, 1 << 20, read)) == 20
    assert len(asked) == 20
    prove_consistency(777_777, 1_000_000, read)
    assert len(asked) < 100


@settings(max_examples=25, deadline=None)
@given(pairs, st.data())
def test_independent_implementations_agree(pair: tuple[int, int], data: st.DataObject) -> None:
    """pymerkle and proofbundle find the same roots and paths; the latter also the same consistency proofs.

    pymerkle's consistency proofs have another shape than the RFC's, so only its roots speak for them.
    """
    old, new = pair
    leaves = [str(index).encode() for index in range(new)]
    before, root = hash_tree(HASHES[:old]), hash_tree(HASHES[:new])
    index = data.draw(st.integers(0, new - 1))
    path = prove_inclusion(index, new, read_node)

    tree = pymerkle.InmemoryTree(algorithm="sha256")
    tree.append_entries(leaves)
    assert (tree.get_root(old), tree.get_root()) == (before, root)
    inclusion = tree.prove_inclusion(index + 1, new)  # it counts leaves from 1, and puts the leaf first
    assert inclusion.path == [HASHES[index], *path]
    pymerkle.verify_inclusion(HASHES[index], root, inclusion)

    assert proofbundle.merkle_tree_hash(leaves) == root
    assert proofbundle.verify_inclusion(leaves[index], index, new, path, root)
    proof = prove_consistency(old, new, read_node)
    assert proofbundle.consistency_proof(leaves, old) == proof
    assert proofbundle.verify_consistency(old, new, proof, before, root)
    assert not proofbundle.verify_consistency(old, new, proof, before, flip(root, 0))
