"""Each block of a conversation once per segment: how a request that repeats itself is told by what is new.

An agent sends its whole conversation again every turn. A request is cut into blocks (a message, a tool,
a content block) and written as references to blocks the segment already holds, plus the blocks it does
not. The cut is only a hint: whatever the bytes are, JSON or not, joining the blocks gives them back
exactly. Blocks are known by a keyed hash that is made afresh for each segment, lives only in memory,
and so says nothing to anybody outside it.
"""

import hashlib
import re
from array import array
from bisect import bisect_right
from itertools import accumulate

import msgspec

# Where a message, a tool or a content block starts in compact or spaced JSON. Inside a JSON string a
# quote is escaped, so `{"` starts an object wherever it stands. A nested schema's {"type":"string"
# is not a start: cutting there made 500 blocks of a 27-tool request for nothing.
_STARTS = re.compile(rb'\{"(?:role|name|type": ?"t)')
# Agents move the cache marker to the newest message each turn. Cut before it, and after the string
# it follows, so that the message is the same block with and without it (14x -> 18x on a 13-turn session).
_MARKER = b',"cache_control":'
_END = b'"}]'
_SHORT_BYTES = 32  # up to here the bytes themselves are the name: hashing them would cost more
_BASES = 3  # requests remembered as a base: the main loop, a subagent, a token count take turns


class Delta(msgspec.Struct, frozen=True, array_like=True):
    """A sequence of blocks, told by what it shares with an earlier one of the segment.

    Attributes:
        base: index of the earlier sequence in the segment, or -1 for none.
        prefix: how many blocks it starts with are the base's.
        suffix: how many blocks it ends with are the base's.
        between: the numbers of the blocks that stand between.
        new: blocks seen for the first time, numbered on from those the segment held before.
    """

    base: int
    prefix: int
    suffix: int
    between: list[int]
    new: list[bytes]


class _Base(msgspec.Struct, frozen=True):
    index: int
    body: bytes
    numbers: "array[int]"
    ends: "array[int]"

    @property
    def retained_bytes(self) -> int:
        return len(self.body) + 16 * len(self.numbers)


def cut(body: bytes) -> list[bytes]:
    """Cut a body at the starts of its messages, tools and content blocks; the pieces join to the body."""
    starts = [match.start() for match in _STARTS.finditer(body)]
    pieces = [body[a:b] for a, b in zip([0, *starts], [*starts, len(body)], strict=True) if a < b]
    cuts: list[bytes] = []
    for piece in pieces:
        for part in _cut_before(piece, _MARKER, 0):
            cuts.extend(_cut_before(part, _END, 1))
    return cuts


def _cut_before(piece: bytes, mark: bytes, keep: int) -> list[bytes]:
    """Cut a piece before every mark, `keep` bytes of the mark staying with what precedes it."""
    if mark not in piece:
        return [piece]
    parts = []
    start = 0
    at = piece.find(mark)
    while at != -1:
        if at + keep > start:
            parts.append(piece[start : at + keep])
        start = at + keep
        at = piece.find(mark, at + len(mark))
    parts.append(piece[start:])
    return parts


class BlockWriter:
    """Numbers the blocks of one segment while it is being written."""

    def __init__(self, hash_key: bytes) -> None:
        self._hash_key = hash_key
        self._bases_bytes = 0
        self._numbers: dict[bytes, int] = {}
        self._bases: list[_Base] = []
        self._count = 0  # sequences written

    @property
    def retained_bytes(self) -> int:
        """Memory held for comparison, in bytes, blocks' names included (about 120 bytes each)."""
        return self._bases_bytes + 120 * len(self._numbers)

    def write(self, body: bytes) -> Delta:
        """Tell a body by what is new in it, and remember it."""
        base, start, stop = self._best_base(body)
        prefix = suffix = 0
        if base is not None:
            prefix = bisect_right(base.ends, start)
            start = base.ends[prefix - 1] if prefix else 0
            suffix, stop = _whole_suffix(base, len(body) - stop, len(body), prefix)
        new: list[bytes] = []
        pieces = cut(body[start:stop])
        between = [self._number(piece, new) for piece in pieces]
        self._remember(body, base, prefix, suffix, pieces, between)
        return Delta(base.index if base else -1, prefix, suffix, between, new)

    def restore(self, body: bytes, numbers: "array[int]", new: list[bytes]) -> None:
        """Take up a sequence that was written before a restart."""
        for piece in new:
            self._numbers[self._name(piece)] = len(self._numbers)
        self._add_base(_Base(self._count, body, numbers, array("q")))

    def finish_restore(self) -> None:
        """Forget restored bodies whose block ends are not known; the numbers are all that is needed."""
        self._bases, self._bases_bytes = [], 0

    def _name(self, piece: bytes) -> bytes:
        if len(piece) <= _SHORT_BYTES:
            return piece
        # 33 bytes cannot collide with a short piece, which is at most 32.
        return hashlib.blake2b(piece, digest_size=_SHORT_BYTES + 1, key=self._hash_key).digest()

    def _number(self, piece: bytes, new: list[bytes]) -> int:
        name = self._name(piece)
        number = self._numbers.get(name)
        if number is None:
            number = self._numbers[name] = len(self._numbers)
            new.append(piece)
        return number

    def _best_base(self, body: bytes) -> tuple[_Base | None, int, int]:
        best, start, stop = None, 0, len(body)
        for base in reversed(self._bases):
            prefix = common_prefix(base.body, body)
            suffix = common_suffix(base.body, body, min(len(base.body), len(body)) - prefix)
            if prefix + suffix > start + len(body) - stop:
                best, start, stop = base, prefix, len(body) - suffix
            if stop - start < len(body) // 8:
                break  # close enough that no other base would save more than the search for it costs
        return best, start, stop

    def _remember(
        self,
        body: bytes,
        base: _Base | None,
        prefix: int,
        suffix: int,
        pieces: list[bytes],
        between: list[int],
    ) -> None:
        lengths = accumulate(map(len, pieces), initial=base.ends[prefix - 1] if base and prefix else 0)
        next(lengths)
        if base is None:
            numbers, ends = array("q", between), array("q", lengths)
        else:
            tail = len(base.numbers) - suffix
            numbers = base.numbers[:prefix] + array("q", between) + base.numbers[tail:]
            shift = len(body) - len(base.body)
            ends = base.ends[:prefix] + array("q", lengths)
            ends.extend(end + shift for end in base.ends[tail:])
            if 2 * (prefix + suffix) > len(base.numbers):
                self._drop_base(base)  # its successor in the same conversation serves as well
        self._add_base(_Base(self._count, body, numbers, ends))

    def _add_base(self, base: _Base) -> None:
        if len(self._bases) == _BASES:
            self._drop_base(self._bases[0])
        self._bases.append(base)
        self._bases_bytes += base.retained_bytes
        self._count += 1

    def _drop_base(self, base: _Base) -> None:
        self._bases.remove(base)
        self._bases_bytes -= base.retained_bytes


def _whole_suffix(base: _Base, shared: int, length: int, prefix: int) -> tuple[int, int]:
    """Return how many whole blocks lie in the last `shared` bytes of the base, and where they start."""
    first = len(base.body) - shared
    tail = bisect_right(base.ends, first - 1) + 1 if first > 0 else 0
    tail = max(tail, prefix)
    suffix = len(base.numbers) - tail
    if suffix <= 0:
        return 0, length
    start = base.ends[tail - 1] if tail else 0
    return suffix, length - (len(base.body) - start)


class BlockReader:
    """Gives back, in the order they were written, the bodies that a `BlockWriter` told as deltas."""

    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self._sequences: list[array[int]] = []

    def read(self, delta: Delta) -> bytes:
        """Return the body of the next delta.

        Raises:
            IndexError: a delta before this one was left out, or they come in another order.
        """
        self._blocks.extend(delta.new)
        numbers = array("q", delta.between)
        if delta.base >= 0:
            base = self._sequences[delta.base]
            numbers = base[: delta.prefix] + numbers + base[len(base) - delta.suffix :]
        self._sequences.append(numbers)
        return b"".join([self._blocks[number] for number in numbers])

    @property
    def last_numbers(self) -> "array[int]":
        """The block numbers of the body read last."""
        return self._sequences[-1]


def common_prefix(a: bytes, b: bytes) -> int:
    """Return how many bytes two strings start with in common.

    A binary search over slices compares with memcmp: 20 µs at 200 KB, where a loop takes 10 ms.
    """
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    step = 4096
    while low + step < high and a[low : low + step] == b[low : low + step]:
        low += step
        step *= 2
    high = min(high, low + step)
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def common_suffix(a: bytes, b: bytes, limit: int) -> int:
    """Return how many bytes two strings end with in common, at most `limit`."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        if a[len(a) - middle : len(a) - low] == b[len(b) - middle : len(b) - low]:
            low = middle
        else:
            high = middle - 1
    return low
