"""An export that goes with the answer holds what one in a folder does, and lies nowhere while it is made."""

import io
import json
import os
import tarfile
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from bailee.flows.messages.conversations import read_text
from bailee.policy.plans import Plan
from bailee.policy.problems import Problem
from bailee.vault import tables
from bailee.vault.copies import registry
from bailee.vault.copies.registry import Maker
from bailee.vault.downloads import stream_account
from bailee.vault.exports import KINDS, export_account
from counterparts.keeping import Keeping

SAID = b"what nobody may find in clear"


@pytest.fixture
def keeping(tmp_path: Path) -> Iterator[Keeping]:
    """Give a home where ada said something in five sessions."""
    opened = Keeping(tmp_path / "home")
    opened.custody.directory.add("ada", Plan.PRO)
    for number in range(5):
        opened.record("ada", f"session-{number}", body=SAID + b" %d" % number, answer=b"\xff no text")
    yield opened
    opened.close()


def stream(keeping: Keeping, part_bytes: int = 1 << 20) -> Iterator[bytes]:
    account = keeping.custody.directory.get("ada")
    return stream_account(keeping.custody, account, read_text=read_text, part_bytes=part_bytes)


def export(keeping: Keeping, out: Path) -> None:
    account = keeping.custody.directory.get("ada")
    maker = Maker("ada", is_holder=True)
    export_account(keeping.custody, account, out, read_text=read_text, maker=maker)


def unpack(data: bytes) -> dict[str, bytes]:
    """Return the files of an archive by name, without their folder."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = {}
        for entry in archive:
            file = archive.extractfile(entry)
            assert file is not None
            assert entry.name.startswith("bailee-ada/")
            found[entry.name.removeprefix("bailee-ada/")] = file.read()
        return found


def find(folder: Path, text: bytes) -> list[Path]:
    """Return the files below a folder that hold a text."""
    return [path for path in folder.rglob("*") if path.is_file() and text in path.read_bytes()]


@pytest.mark.parametrize("part_bytes", [1 << 20, 100])
def test_it_holds_what_an_export_in_a_folder_holds(keeping: Keeping, tmp_path: Path, part_bytes: int) -> None:
    """Line by line, however small its files are cut; `export.json` tells of each of them."""
    export(keeping, tmp_path / "out")
    files = unpack(b"".join(stream(keeping, part_bytes)))
    for kind in KINDS:
        parts = [name for name in files if name == f"{kind}.jsonl" or name.startswith(f"{kind}-")]
        joined = b"".join(files[name] for name in parts)
        assert joined == (tmp_path / "out" / f"{kind}.jsonl").read_bytes(), kind
    assert ("content-0002.jsonl" in files) is (part_bytes == 100)
    told = json.loads(files["export.json"])["files"]
    assert {one["name"]: one["bytes"] for one in told} == {
        name: len(data) for name, data in files.items() if name.endswith(".jsonl")
    }
    assert b"yours" in files["README.txt"]


def test_nothing_of_it_lies_anywhere(
    keeping: Keeping, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not midway, and not after who takes it hung up; an export in a folder is found by the same search."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    pieces = stream(keeping, 100)
    for _ in range(8):
        next(pieces)
    assert find(tmp_path, SAID) == []
    del pieces
    assert find(tmp_path, SAID) == []
    assert list((tmp_path / "tmp").iterdir()) == []
    assert registry.list_copies(keeping.custody.vault) == []
    export(keeping, tmp_path / "tmp" / "out")
    assert [path.name for path in find(tmp_path, SAID)] == ["content.jsonl"]


def test_memory_does_not_grow_with_what_is_held(keeping: Keeping) -> None:
    """Of 16 MB no more than a few are in memory; who keeps what comes has all of it there."""
    for number in range(16):
        keeping.record("ada", f"long-{number:02}", body=os.urandom(500_000).hex().encode())

    def measure(*, keeps: bool) -> int:
        kept = []
        tracemalloc.start()
        for piece in stream(keeping):
            if keeps:
                kept.append(piece)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    taken = measure(keeps=False)
    assert taken < 10_000_000
    assert measure(keeps=True) > taken + 4_000_000


def test_an_altered_record_ends_it_with_a_problem(keeping: Keeping) -> None:
    """What came before is no whole archive."""
    table = tables.records
    with keeping.custody.vault.begin() as connection:
        last = connection.execute(sa.select(sa.func.max(table.c.segment))).scalar_one()
        connection.execute(sa.update(table).where(table.c.segment == last).values(exchange=1))
    given: list[bytes] = []
    with pytest.raises(Problem):
        given.extend(stream(keeping, 100))
    with pytest.raises(EOFError):
        unpack(b"".join(given))
