"""Archives of sessions' disks: whatever an agent left comes back, and nothing else comes out."""

import io
import os
import stat
import tarfile
import time
from pathlib import Path

import pytest

from bailee.cloud.archives import LONGEST_PATH, pack, remove_tree, survey, unpack
from bailee.cloud.disks import TICK_SECONDS
from bailee.policy.problems import Problem


def round_trip(folder: Path, out: Path) -> int:
    """Pack a folder and unpack it; return how much was left out."""
    buffer = io.BytesIO()
    left_out = pack(folder, buffer)
    buffer.seek(0)
    out.mkdir()
    unpack(buffer, out)
    return left_out


def test_what_an_agent_leaves_comes_back(tmp_path: Path) -> None:
    """Contents, modes, times, links of both kinds, pipes, names of any bytes, folders nobody may read."""
    tree, out = tmp_path / "tree", tmp_path / "out"
    (tree / "a").mkdir(parents=True)
    (tree / "a" / "run").write_bytes(b"#!/bin/sh\n")
    (tree / "a" / "run").chmod(0o4755)
    (tree / "a" / os.fsdecode(b"n\xff\n\xc3\xbc")).write_bytes(bytes(512))
    (tree / "empty").touch()
    (tree / "again").hardlink_to(tree / "a" / "run")
    (tree / "link").symlink_to("/etc/passwd")
    (tree / "up").symlink_to("../../..")
    os.mkfifo(tree / "pipe")
    (tree / "closed").mkdir()
    (tree / "closed" / "in").write_text("x")
    os.utime(tree / "a" / "run", ns=(1_700_000_000_123_456_789, 1_700_000_000_123_456_789))
    (tree / "closed").chmod(0o500)
    assert round_trip(tree, out) == 0
    run = (out / "a" / "run").stat()
    assert stat.S_IMODE(run.st_mode) == 0o755  # and no set-user-id bit
    assert run.st_mtime_ns == 1_700_000_000_123_456_789
    assert run.st_ino == (out / "again").stat().st_ino
    assert (out / "link").readlink() == Path("/etc/passwd")
    assert (out / "up").readlink() == Path("../../..")
    assert stat.S_ISFIFO((out / "pipe").stat().st_mode)
    assert stat.S_IMODE((out / "closed").stat().st_mode) == 0o500
    assert (out / "closed" / "in").read_text() == "x"
    assert (out / "a" / os.fsdecode(b"n\xff\n\xc3\xbc")).read_bytes() == bytes(512)
    assert survey(out).entries == survey(tree).entries


def test_a_survey_tells_every_change(tmp_path: Path) -> None:
    """What gets a content as long as before, and its old times, is told as changed; what is read is not."""
    (tmp_path / "a").mkdir()
    file = tmp_path / "a" / "file"
    file.write_text("one")
    first, facts = survey(tmp_path), file.stat()
    time.sleep(TICK_SECONDS)
    assert file.read_text() == "one"
    assert survey(tmp_path) == first
    file.write_text("two")
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    second = survey(tmp_path)
    assert second != first
    time.sleep(TICK_SECONDS)
    file.rename(tmp_path / "file")
    assert second.digest != survey(tmp_path).digest != first.digest


def test_holes_stay_holes(tmp_path: Path) -> None:
    """An image of 20 GiB with some data takes as little in its archive and on the disk as it did."""
    tree, out = tmp_path / "tree", tmp_path / "out"
    tree.mkdir()
    pieces = {0: b"boot", 5 * 2**30: b"data" * 50_000, 12 * 2**30: b"more"}
    with (tree / "disk.img").open("wb") as file:
        file.truncate(20 * 2**30)
        for at, data in pieces.items():
            file.seek(at)
            file.write(data)
    buffer = io.BytesIO()
    pack(tree, buffer)
    assert buffer.tell() < 1_000_000
    buffer.seek(0)
    out.mkdir()
    unpack(buffer, out)
    facts = (out / "disk.img").stat()
    assert facts.st_size == 20 * 2**30
    assert facts.st_blocks * 512 < 1_000_000
    with (out / "disk.img").open("rb") as file:
        for at, data in pieces.items():
            file.seek(at)
            assert file.read(len(data) + 1) == data + b"\0"
    # Another program reads it too.
    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as archive:
        assert archive.getmember("disk.img").size == 20 * 2**30


def test_what_is_too_deep_is_left_out_and_removed(tmp_path: Path) -> None:
    """Folders deeper than any path reaches are told and not kept, and removed like the rest."""
    tree, out = tmp_path / "tree", tmp_path / "out"
    tree.mkdir()
    here = os.open(tree, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    assert round_trip(tree, out) == 3000 - LONGEST_PATH // 2
    remove_tree(tree)
    assert not tree.exists()
    remove_tree(out)


def _entry(name: str, kind: bytes = tarfile.REGTYPE, *, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


BAD = {
    "up": [_entry("../out.txt")],
    "absolute": [_entry("/tmp/out.txt")],
    "up in the middle": [_entry("a", tarfile.DIRTYPE), _entry("a/../../out.txt")],
    "through a link": [_entry("a", tarfile.SYMTYPE, link=".."), _entry("a/out.txt")],
    "through a link as a folder": [
        _entry("a", tarfile.SYMTYPE, link=".."),
        _entry("a", tarfile.DIRTYPE),
        _entry("a/out.txt"),
    ],
    "over a link": [_entry("a", tarfile.SYMTYPE, link="../out.txt"), _entry("a")],
    "a device": [_entry("null", tarfile.CHRTYPE)],
    "a disk": [_entry("sda", tarfile.BLKTYPE)],
    "a second name of a file outside": [_entry("a", tarfile.LNKTYPE, link="../mine.txt")],
    "a second name through a link": [
        _entry("a", tarfile.SYMTYPE, link=".."),
        _entry("b", tarfile.LNKTYPE, link="a/mine.txt"),
    ],
    "a second name of a link": [
        _entry("a", tarfile.SYMTYPE, link="../mine.txt"),
        _entry("b", tarfile.LNKTYPE, link="a"),
    ],
    "before its folder": [_entry("a/b")],
    "cut off": [_entry("a", size=10_000)],
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_never_packed_is_never_unpacked(tmp_path: Path, kind: str) -> None:
    """An archive that leads out of its folder, or has more than an agent can leave, is refused."""
    (tmp_path / "mine.txt").write_text("mine")
    before = {path.name for path in tmp_path.iterdir()}
    buffer = io.BytesIO()
    for info in BAD[kind]:
        buffer.write(info.tobuf(tarfile.PAX_FORMAT))
    if kind != "cut off":
        buffer.write(bytes(1024))
    buffer.seek(0)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(Problem, match="no disk of a session"):
        unpack(buffer, out)
    assert {path.name for path in tmp_path.iterdir()} == before | {"out"}
    assert (tmp_path / "mine.txt").stat().st_nlink == 1


def test_control_the_library_alone_follows_some_of_them(tmp_path: Path) -> None:
    """Control: unpacked without these checks, an archive does write beside its folder."""
    buffer = io.BytesIO()
    for info in BAD["through a link"]:
        buffer.write(info.tobuf(tarfile.PAX_FORMAT))
    buffer.write(bytes(1024))
    buffer.seek(0)
    out = tmp_path / "out"
    out.mkdir()
    with tarfile.open(fileobj=buffer) as archive:
        archive.extractall(out, filter="fully_trusted")  # noqa: S202
    assert (tmp_path / "out.txt").exists()
