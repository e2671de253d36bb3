"""Ledgers for tests: one whose files are in memory, and entries that tell their own index."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from bailee.ledger.storage import LOCK


class MemoryTiles:
    """The files of a ledger in a dictionary; a `TileStorage`, and its own `Appending`."""

    def __init__(self, files: Mapping[str, bytes] = {}, *, interrupted: bool = False) -> None:
        self.files = dict(files)
        self.interrupted = interrupted

    def read(self, path: str) -> bytes | None:
        return self.files.get(path)

    def names(self, folder: str) -> list[str]:
        inner = [path.removeprefix(f"{folder}/") for path in self.files if path.startswith(f"{folder}/")]
        return sorted({path.partition("/")[0] for path in inner})

    def paths(self) -> Iterator[str]:
        yield from list(self.files)

    @contextlib.contextmanager
    def appending(self) -> Iterator["MemoryTiles"]:
        yield self

    @contextlib.contextmanager
    def resting(self) -> Iterator[bool]:
        yield self.interrupted

    def write(self, files: Mapping[str, bytes]) -> None:
        self.files.update(files)

    def settle(self) -> None:
        self.interrupted = False

    def remove(self, paths: Iterable[str]) -> None:
        for path in paths:
            self.files.pop(path, None)


def make_entries(start: int, stop: int) -> list[bytes]:
    """Return entries that tell their index."""
    return [f'{{"n":{index}}}'.encode() for index in range(start, stop)]


def read_files(directory: Path) -> dict[str, bytes]:
    """Return the files of a ledger but for its lock, by path."""
    files = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name != LOCK}


def flip(data: bytes, bit: int) -> bytes:
    """Return the data with one bit flipped."""
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]
