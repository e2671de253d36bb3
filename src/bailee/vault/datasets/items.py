"""An item of a dataset: one exchange as a conversation, and how items rest in Parquet files."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bailee.policy.problems import Problem

if TYPE_CHECKING:
    import pyarrow as pa

# A row group is written once it has so many characters of text: until then it is in memory.
GROUP_BYTES = 16 * 1024 * 1024
BATCH_ROWS = 4096


class Conversation(msgspec.Struct, frozen=True):
    """An exchange as a flow tells it: each part is JSON.

    Attributes:
        messages: one by one, as the agent sent them.
        answer: the content blocks of the answer.
    """

    system: bytes
    tools: bytes
    messages: list[bytes]
    answer: bytes


class Origin(msgspec.Struct, frozen=True):
    """What verification needs of an item: its id, its segment as the ledger calls it, when it was said."""

    item: str
    segment: bytes
    started_ms: int


def name_item(segment: bytes, exchange: int) -> str:
    """Return an item's id: the same in every dataset, and nothing without the segment's random id."""
    return hashlib.sha256(b"bailee item 1" + segment + exchange.to_bytes(8)).hexdigest()[:32]


def load_arrow() -> Any:
    """Return pyarrow, with its Parquet part loaded.

    Raises:
        Problem: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise Problem(
            "a dataset is Parquet, and that takes a library that is not installed",
            where="pyarrow",
            fix="install it: pip install 'bailee[dataset]'",
        ) from None
    return pyarrow


def schema() -> "pa.Schema":
    """Return the columns of a dataset; `docs/datasets.md` says what they hold."""
    pa = load_arrow()
    text = pa.string()
    return pa.schema(
        [
            ("item", text),
            ("segment", text),
            ("account", text),
            ("session", text),
            ("started", pa.timestamp("ms", tz="UTC")),
            ("expires_on", pa.date32()),
            ("state", text),
            ("model", text),
            ("system", text),
            ("tools", text),
            ("messages", text),
            ("blocks", pa.list_(text)),
            ("answer", text),
            ("secrets_masked", pa.int32()),
        ]
    )


class ItemWriter:
    """Writes items into a Parquet file that takes its place when it is whole; used as a context.

    Attributes:
        count: how many items it has.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._new = path.with_name(f"{path.name}.new")
        self._rows: list[dict[str, object]] = []
        self._bytes = 0
        self.count = 0

    def __enter__(self) -> "ItemWriter":
        arrow = load_arrow()
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._file = os.fdopen(os.open(self._new, flags, 0o600), "wb")
        self._writer = arrow.parquet.ParquetWriter(self._file, schema(), compression="zstd")
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._write_group()
        self._writer.close()
        if kind is None:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()
        if kind is not None or not self.count:
            self._new.unlink()
        else:
            self._new.rename(self._path)

    def add(self, row: dict[str, object], size: int) -> None:
        """Add an item whose text has so many bytes."""
        self._rows.append(row)
        self._bytes += size
        self.count += 1
        if self._bytes > GROUP_BYTES:
            self._write_group()

    def _write_group(self) -> None:
        if self._rows:
            self._writer.write_table(load_arrow().Table.from_pylist(self._rows, schema=schema()))
        self._rows, self._bytes = [], 0


def read_origins(paths: Sequence[Path]) -> Iterator[Origin]:
    """Give where the items of files come from, a batch in memory at a time.

    Raises:
        Problem: a file is no Parquet file of items.
    """
    arrow = load_arrow()
    for path in paths:
        try:
            with arrow.parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(BATCH_ROWS, columns=["item", "segment", "started"]):
                    started = batch.column("started").cast(arrow.int64()).to_pylist()
                    items, segments = batch.column("item").to_pylist(), batch.column("segment").to_pylist()
                    for item, segment, moment in zip(items, segments, started, strict=True):
                        yield Origin(item, bytes.fromhex(segment), moment)
        except (arrow.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
            raise Problem(f"this is no file of a dataset: {error}", where=str(path)) from None


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
