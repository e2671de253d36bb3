"""Searches files for bytes that must be in none, however they may be packed."""

import base64
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import zstandard

_ZSTANDARD = b"\x28\xb5\x2f\xfd"
_GZIP = b"\x1f\x8b\x08"
_ZLIB = (b"\x78\x01", b"\x78\x9c", b"\x78\xda")
_MOST_BYTES = 64 * 1024 * 1024
_STEP = 4096


def find_hidden(folders: Iterable[Path], *pieces: bytes) -> list[Path]:
    """Return the files below folders that hold any of the pieces: as they are, encoded, or compressed."""
    sought = [form for piece in pieces for form in encode(piece)]
    return [path for path in list_files(folders) if _holds(read_or_nothing(path), sought)]


def list_files(folders: Iterable[Path]) -> Iterator[Path]:
    """Give the files below folders."""
    for folder in folders:
        yield from (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def list_recent(folder: Path, since: float, *, apart_from: Path, depth: int = 2) -> Iterator[Path]:
    """Give the files in a shared folder, down to a depth, that were written since a moment."""
    for entry in os.scandir(folder):
        path = Path(entry.path)
        if apart_from.is_relative_to(path) or entry.is_symlink():
            continue
        try:
            if entry.is_dir() and depth > 1:
                yield from list_recent(path, since, apart_from=apart_from, depth=depth - 1)
            elif entry.is_file() and entry.stat().st_mtime >= since and entry.stat().st_size < _MOST_BYTES:
                yield path
        except (FileNotFoundError, PermissionError):
            continue  # another's, and gone or not ours to read


def list_open(process: int) -> Iterator[Path]:
    """Give the files that a process holds open, those without a name as well."""
    for entry in Path(f"/proc/{process}/fd").iterdir():
        if entry.is_file():
            yield entry


def read_or_nothing(path: Path) -> bytes:
    """Read a file; one that is gone holds nothing."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, PermissionError):
        return b""


def encode(piece: bytes) -> list[bytes]:
    """Return the forms in which a piece may stand inside a longer text: itself, hexadecimal, base64."""
    forms = [piece, piece.hex().encode(), piece.hex().upper().encode()]
    for shift in range(3):
        # Of what stands before and behind, the characters at the edges tell as well; those between do not.
        encoded = base64.b64encode(bytes(shift) + piece)
        start, end = (shift * 8 + 5) // 6, (shift + len(piece)) * 8 // 6
        forms += [encoded[start:end], encoded[start:end].translate(bytes.maketrans(b"+/", b"-_"))]
    return forms


def _holds(data: bytes, sought: list[bytes]) -> bool:
    return any(form in text for text in (data, *unpack(data)) for form in sought)


def unpack(data: bytes) -> Iterator[bytes]:
    """Give what anything in some bytes that looks like a compressed stream unpacks to, as far as it goes."""
    makers: list[tuple[bytes, Callable[[], Callable[[bytes], bytes]]]] = [
        (_ZSTANDARD, lambda: zstandard.ZstdDecompressor().decompressobj().decompress),
        (_GZIP, lambda: zlib.decompressobj(31).decompress),
        *[(mark, lambda: zlib.decompressobj().decompress) for mark in _ZLIB],
    ]
    for mark, make in makers:
        start = data.find(mark)
        while start != -1:
            yield _inflate(make(), data[start : start + _MOST_BYTES])
            start = data.find(mark, start + 1)


def _inflate(take: Callable[[bytes], bytes], data: bytes) -> bytes:
    """Unpack step by step, so that what comes before a fault is not lost with it."""
    text = b""
    for start in range(0, len(data), _STEP):
        try:
            text += take(data[start : start + _STEP])
        except (zlib.error, zstandard.ZstdError, EOFError):
            break
    return text
