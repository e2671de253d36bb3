"""Merkle trees: hashing, roots and proofs (RFC 6962 section 2.1), their verification (RFC 9162 section 2.1).

Proofs are computed from the hashes of complete subtrees, which a `NodeReader` looks up, so their cost grows
with the logarithm of the tree.
"""

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()

# (height, index) -> hash of the complete subtree over the leaves index * 2^height to (index + 1) * 2^height.
NodeReader = Callable[[int, int], bytes]


def hash_leaf(entry: bytes) -> bytes:
    """Return the hash of an entry (RFC 6962 section 2.1: prefix 0x00)."""
    return sha256(b"\x00" + entry).digest()


def hash_node(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node (RFC 6962 section 2.1: prefix 0x01)."""
    return sha256(b"\x01" + left + right).digest()


def hash_tree(hashes: Sequence[bytes]) -> bytes:
    """Return the root over leaf hashes, or over the roots of equal complete subtrees.

    The last may be the root of a smaller subtree, complete or not: RFC 6962 splits a tree at powers of two,
    so whatever is left over at the right joins at the top, as an odd one does here.
    """
    if not hashes:
        return EMPTY_ROOT
    row = list(hashes)
    while len(row) > 1:
        above = [hash_node(row[at], row[at + 1]) for at in range(0, len(row) - 1, 2)]
        if len(row) % 2:
            above.append(row[-1])
        row = above
    return row[0]


def tree_root(size: int, read: NodeReader) -> bytes:
    """Return the root of the tree of the first `size` leaves."""
    return _range_root(0, size, read) if size else EMPTY_ROOT


def prove_inclusion(index: int, size: int, read: NodeReader) -> list[bytes]:
    """Return the audit path of a leaf, lowest hash first (RFC 6962 section 2.1.1).

    Raises:
        ValueError: there is no such leaf in a tree of that size.
    """
    if not 0 <= index < size:
        raise ValueError(f"no leaf {index} in a tree of {size}")
    start, stop = 0, size
    path: list[bytes] = []
    while stop - start > 1:
        middle = start + _split(stop - start)
        if index < middle:
            path.append(_range_root(middle, stop, read))
            stop = middle
        else:
            path.append(_range_root(start, middle, read))
            start = middle
    return path[::-1]


def prove_consistency(old: int, new: int, read: NodeReader) -> list[bytes]:
    """Return the proof that a tree of `new` leaves begins with that of `old` (RFC 6962 section 2.1.2).

    It is empty where there is nothing to prove: `old` is 0, or both are the same.

    Raises:
        ValueError: `old` is not within 0 and `new`.
    """
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {new} does not hold one of {old}")
    if old in (0, new):
        return []
    start, stop = 0, new
    path: list[bytes] = []
    while stop != old:
        middle = start + _split(stop - start)
        if old <= middle:
            path.append(_range_root(middle, stop, read))
            stop = middle
        else:
            path.append(_range_root(start, middle, read))
            start = middle
    if start:
        # The old tree ends in a subtree that the verifier cannot know; without a start it is the old tree.
        path.append(_range_root(start, stop, read))
    return path[::-1]


def is_included(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Verify an audit path (RFC 9162 section 2.1.3.2).

    Args:
        leaf: the leaf's hash; see `hash_leaf`.
    """
    if not 0 <= index < size:
        return False
    node, last = index, size - 1
    reached = leaf
    for sibling in path:
        if last == 0:
            return False
        if node & 1 or node == last:
            reached = hash_node(sibling, reached)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            reached = hash_node(reached, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and reached == root


def is_consistent(old: int, new: int, old_root: bytes, new_root: bytes, path: Sequence[bytes]) -> bool:
    """Verify that a tree begins with an older one (RFC 9162 section 2.1.4.2).

    A tree of no leaves begins every tree; the RFC leaves that case out.
    """
    if not 0 <= old <= new:
        return False
    if old == new:
        return not path and old_root == new_root and (old > 0 or old_root == EMPTY_ROOT)
    if old == 0:
        return not path and old_root == EMPTY_ROOT
    steps = list(path)
    if old & (old - 1) == 0:  # a power of two: the old root is itself a node of the new tree
        steps.insert(0, old_root)
    if not steps:
        return False
    node, last = old - 1, new - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    first = second = steps[0]
    for step in steps[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            first, second = hash_node(step, first), hash_node(step, second)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            second = hash_node(second, step)
        node, last = node >> 1, last >> 1
    return last == 0 and first == old_root and second == new_root


def _split(count: int) -> int:
    """Return the largest power of two below `count`, where RFC 6962 splits a tree."""
    return 1 << (count - 1).bit_length() - 1


def _range_root(start: int, stop: int, read: NodeReader) -> bytes:
    """Return the root over the leaves from `start` to `stop`, which is a subtree of some RFC 6962 tree."""
    nodes = [read(height, index) for height, index in _complete_subtrees(start, stop)]
    root = nodes.pop()
    while nodes:
        root = hash_node(nodes.pop(), root)
    return root


def _complete_subtrees(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Cut a subtree into complete ones, the largest first, as (height, index)."""
    while start < stop:
        height = (stop - start).bit_length() - 1
        yield height, start >> height
        start += 1 << height
