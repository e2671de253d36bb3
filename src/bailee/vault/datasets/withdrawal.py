"""Takes items out of a dataset: its files written anew without them, and a manifest that says so."""

from collections import Counter
from collections.abc import Callable, Collection

import msgspec

from bailee.policy.problems import Problem
from bailee.vault.copies.exports import Withdrawal
from bailee.vault.copies.folders import NEW, File, Folder
from bailee.vault.datasets.items import load_arrow
from bailee.vault.datasets.manifests import MANIFEST, Manifest

# Tells from an item's id and its segment, as the ledger calls it, why it is to go; None if it stays.
Judge = Callable[[str, str], str | None]


class _Marker(msgspec.Struct, frozen=True):
    build: str = ""


def read_marker(data: bytes) -> str:
    """Return the id of the build that a manifest, or a build that goes on, bears; empty if it is none."""
    try:
        return msgspec.json.decode(data, type=_Marker).build
    except msgspec.MsgspecError:
        return ""


def read_manifest(data: bytes) -> Manifest:
    """Decode a manifest.

    Raises:
        Problem: it is none.
    """
    try:
        return msgspec.json.decode(data, type=Manifest)
    except msgspec.MsgspecError as error:
        raise Problem(f"{MANIFEST} is not as it was written: {error}") from None


def take_out(
    folder: Folder, manifest: Manifest, judge: Judge, *, only: Collection[str] | None = None, at: str
) -> Manifest:
    """Write files anew without what is to go, beside their places; return the new manifest.

    Memory holds a row group at a time: some 16 MB of text.

    Args:
        only: the names of the files to look at; all of them if left out.

    Raises:
        Problem: a file is not as it was built, or the library that reads it is not installed.
    """
    files: list[File] = []
    taken: Counter[str] = Counter()
    for file in manifest.files:
        if only is not None and file.name not in only:
            files.append(file)
            continue
        folder.check(file)
        kept, gone = _filter(folder, file, judge)
        taken.update(gone)
        if not gone:
            folder.remove(file.name + NEW)
            files.append(file)
        elif kept:
            files.append(folder.describe(file.name + NEW, kept))
        else:
            folder.remove(file.name + NEW)
    if not taken:
        return manifest
    left = _read_accounts(folder, files)
    counts = msgspec.structs.replace(manifest.counts, items=manifest.counts.items - taken.total())
    return msgspec.structs.replace(
        manifest,
        counts=counts,
        consents=[basis for basis in manifest.consents if basis.account in left],
        files=files,
        withdrawn=[*manifest.withdrawn, Withdrawal(at, dict(sorted(taken.items())))],
    )


def _filter(folder: Folder, file: File, judge: Judge) -> tuple[int, Counter[str]]:
    """Write a file without what is to go; return how many items stay, and how many go for which reason."""
    arrow = load_arrow()
    kept = 0
    gone: Counter[str] = Counter()
    try:
        with folder.open(file.name) as old, folder.writing(file.name) as new:
            source = arrow.parquet.ParquetFile(old)
            with arrow.parquet.ParquetWriter(new, source.schema_arrow, compression="zstd") as writer:
                for group in range(source.num_row_groups):
                    table = source.read_row_group(group)
                    items, segments = table.column("item").to_pylist(), table.column("segment").to_pylist()
                    why = [judge(item, segment) for item, segment in zip(items, segments, strict=True)]
                    gone.update(reason for reason in why if reason is not None)
                    stays = table.filter(arrow.array([reason is None for reason in why], arrow.bool_()))
                    kept += stays.num_rows
                    if stays.num_rows:
                        writer.write_table(stays)
    except (arrow.ArrowException, KeyError) as error:
        raise Problem(f"{file.name} is no file of a dataset: {error}", where=str(folder.path)) from None
    return kept, gone


def _read_accounts(folder: Folder, files: list[File]) -> set[str]:
    """Return the accounts that files, in their places or beside them, have items of."""
    arrow = load_arrow()
    found: set[str] = set()
    for file in files:
        name = file.name + NEW if folder.has(file.name + NEW) else file.name
        with folder.open(name) as opened:
            for batch in arrow.parquet.ParquetFile(opened).iter_batches(columns=["account"]):
                found.update(batch.column("account").unique().to_pylist())
    return found


def remove_parts(folder: Folder, parts: Collection[int]) -> None:
    """Remove parts of a build that is not done: it writes them anew when it goes on."""
    for part in parts:
        for name in (name_part(part), name_facts(part)):
            folder.remove(name)
            folder.remove(name + NEW)


def name_part(number: int) -> str:
    """Return the name of a part's file."""
    return f"part-{number:05}.parquet"


def name_facts(number: int) -> str:
    """Return the name of the file that says what a part came to, while the build goes on."""
    return f"part-{number:05}.json"
