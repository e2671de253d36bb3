"""Verification: any bit, file or entry that is not as it was written is told, and where."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bailee.ledger import verification
from bailee.ledger.checkpoints import Checkpoint, sign_checkpoint
from bailee.ledger.edges import Edge, grow
from bailee.ledger.log import CHECKPOINT, open_log
from bailee.ledger.notes import Signer, Verifier
from bailee.ledger.storage import DirectoryTiles
from bailee.ledger.tiles import Tile, decode_bundle, encode_bundle
from bailee.ledger.verification import Verification, verify_ledger
from counterparts.ledgers import MemoryTiles, flip, make_entries, read_files

SIGNER = Signer("bailee.local/ledger/test", bytes(range(32)))
Files = dict[str, bytes]


def make_ledger(entries: list[bytes], signer: Signer = SIGNER) -> Files:
    """Return the files of a ledger of these entries."""
    edge, files = grow(Edge(), entries)
    note = sign_checkpoint(Checkpoint(signer.verifier.name, edge.size, edge.root), signer)
    return {**files, CHECKPOINT: note, "verifier": f"{signer.verifier.text}\n".encode()}


def verify(files: Files, since: bytes | None = None, *, interrupted: bool = False) -> Verification:
    return verify_ledger(MemoryTiles(files, interrupted=interrupted), SIGNER.verifier, since=since)


def unnoticed(files: Files, step: int = 1) -> list[tuple[str, int]]:
    """Flip bits one at a time, every `step`th of all, and return those that verification does not tell."""
    found = []
    count = 0
    for path, data in files.items():
        for bit in range(len(data) * 8):
            count += 1
            if count % step == 0:
                result = verify({**files, path: flip(data, bit)})
                told = {fault.path for fault in result.faults}
                if result.verified or (path not in told and CHECKPOINT not in told):
                    found.append((path, bit))
    return found


@pytest.mark.parametrize("size", [0, 1, 2, 5, 255, 256, 257, 513, 700])
def test_what_is_whole_verifies(size: int) -> None:
    """A ledger of any size verifies, and has nothing left over."""
    found = verify(make_ledger(make_entries(0, size)))
    assert (found.verified, found.faults, found.leftovers) == (True, [], [])
    assert found.checkpoint is not None
    assert found.checkpoint.size == size


def test_every_bit_of_a_small_ledger_counts() -> None:
    """With any one bit of tiles, bundles, checkpoint or verifier key flipped it does not verify."""
    assert unnoticed(make_ledger(make_entries(0, 5))) == []


def test_bits_of_a_ledger_of_several_levels_count() -> None:
    """The same where tiles lie on tiles, for every 127th bit."""
    files = make_ledger(make_entries(0, 258))
    assert "tile/1/000.p/1" in files
    assert unnoticed(files, 127) == []
    level_1 = files["tile/1/000.p/1"]
    for bit in range(len(level_1) * 8):
        assert not verify({**files, "tile/1/000.p/1": flip(level_1, bit)}).verified


CHECKS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "signature": lambda patch: patch.setattr(Verifier, "is_signed", lambda *args: True),
    "leaves": lambda patch: patch.setattr(verification._Walk, "_tell_differing", lambda *args: None),
    "inner tiles": lambda patch: patch.setattr(verification._Walk, "_compare_tile", lambda *args: []),
    "lengths": lambda patch: patch.setattr(verification, "decode_bundle", _decode_leniently),
}


def _decode_leniently(data: bytes, width: int) -> list[bytes]:
    try:
        return decode_bundle(data, width)
    except verification.BundleBroken:
        return make_entries(0, width)


@pytest.mark.parametrize("check", CHECKS)
def test_without_a_check_bits_go_unnoticed(monkeypatch: pytest.MonkeyPatch, check: str) -> None:
    """Control: each check finds bits that the others do not."""
    CHECKS[check](monkeypatch)
    size, path = (258, "tile/1/000.p/1") if check == "inner tiles" else (5, "")
    files = make_ledger(make_entries(0, size))
    chosen = {path: files[path]} if path else files
    assert any(
        verify({**files, name: flip(data, bit)}).verified
        for name, data in chosen.items()
        for bit in range(len(data) * 8)
    )


def test_an_altered_entry_is_named() -> None:
    """The fault names the bundle and the entry; an altered hash names the tile and the entry."""
    files = make_ledger(make_entries(0, 600))
    bundle, tile = Tile(None, 1).path, Tile(0, 1).path
    entries = decode_bundle(files[bundle], 256)
    altered = [*entries[:44], b'{"n":301}', *entries[45:]]
    (fault, root) = verify({**files, bundle: encode_bundle(altered)}).faults
    assert (fault.path, fault.entry) == (bundle, 300)
    assert root.path == CHECKPOINT
    (fault,) = verify({**files, tile: flip(files[tile], 44 * 256)}).faults
    assert (fault.path, fault.entry) == (tile, 300)
    (fault,) = verify({**files, "tile/1/000.p/2": flip(files["tile/1/000.p/2"], 256)}).faults
    assert (fault.path, fault.what) == ("tile/1/000.p/2", "hash 1 is not the root of tile/0/001")


def test_dropped_reordered_and_repeated_entries_are_told() -> None:
    """Entries missing, swapped or twice in a bundle are told, the first of them by its index."""
    entries = make_entries(0, 300)
    files = make_ledger(entries)
    for tampered, first in (
        ([*entries[:10], *entries[11:256], entries[256]], 10),
        ([*entries[:10], entries[11], entries[10], *entries[12:256]], 10),
        ([*entries[:11], entries[10], *entries[12:256]], 11),
        (entries[:255], 255),
        ([*entries[:256], entries[256]], 255),
    ):
        found = verify({**files, "tile/entries/000": encode_bundle(tampered)})
        indices = [fault.entry for fault in found.faults if fault.path == "tile/entries/000"]
        assert not found.verified
        assert min(index for index in indices if index is not None) == first
    swapped = {**files, "tile/entries/000": files["tile/entries/001.p/44"]}
    assert not verify(swapped).verified


def test_every_missing_file_is_told() -> None:
    """Without any one of its files a ledger does not verify; the fault names the file."""
    files = make_ledger(make_entries(0, 600))
    for path in files.keys() - {"verifier"}:
        found = verify({name: data for name, data in files.items() if name != path})
        assert not found.verified
        assert path in {fault.path for fault in found.faults}


def test_every_truncation_and_addition_is_told() -> None:
    """Files one byte longer or cut at any length are told."""
    files = make_ledger(make_entries(0, 3))
    for path, data in files.items():
        for harmed in (*(data[:length] for length in range(len(data))), data + b"\0", data + data):
            found = verify({**files, path: harmed})
            assert path in {fault.path for fault in found.faults}, (path, len(harmed))


STRAYS = [
    "tile/0/000",
    "tile/0/000.p/4",
    "tile/0/001",
    "tile/1/000.p/1",
    "tile/entries/000.p/6",
    "tile/2/000",
]


@pytest.mark.parametrize("path", [*STRAYS, "tile/0/0", "tile/notes", "checkpoint.old", "tile/0/000.p/x"])
def test_a_file_too_many_is_told(path: str) -> None:
    """A file that a ledger of this size does not have is told, unless an interrupted append explains it."""
    files = {**make_ledger(make_entries(0, 5)), path: b"x" * 32}
    assert [fault.path for fault in verify(files).faults] == [path]
    found = verify(files, interrupted=True)
    assert found.verified is (path in STRAYS)
    assert found.leftovers == ([path] if path in STRAYS else [])


def test_another_key_verifies_nothing() -> None:
    """A ledger signed anew with another key, even under the same name, is not this one."""
    other = Signer(SIGNER.verifier.name, bytes(32))
    found = verify(make_ledger(make_entries(0, 5), other))
    assert (found.verified, found.checkpoint) == (False, None)


def test_an_earlier_checkpoint_finds_a_rewritten_history() -> None:
    """What was signed before must be there still: altered or rolled back is told, though re-signed."""
    sizes = (0, 1, 5, 255, 256, 257, 300)
    entries = make_entries(0, 300)
    earlier = {size: make_ledger(entries[:size])[CHECKPOINT] for size in sizes}
    for size in sizes:
        found = verify(make_ledger(entries), earlier[size])
        assert (found.verified, found.since) == (True, size)
    for at in (0, 4, 255, 299):
        forged = make_ledger([*entries[:at], b"forged", *entries[at + 1 :], b"more"])
        assert verify(forged).verified, "control: re-signed it looks whole"
        for size in sizes:
            found = verify(forged, earlier[size])
            assert found.verified is (size <= at)
            assert found.verified or "rewritten" in found.faults[0].what
    for size in sizes[:-1]:
        assert verify(make_ledger(entries[:size])).verified, "control: rolled back it looks whole"
        (fault,) = verify(make_ledger(entries[:size]), earlier[300]).faults
        assert "rolled back" in fault.what


def test_an_earlier_checkpoint_has_to_be_signed() -> None:
    """A checkpoint of another key, or with any bit flipped, vouches for nothing."""
    files = make_ledger(make_entries(0, 5))
    other = make_ledger(make_entries(0, 3), Signer(SIGNER.verifier.name, bytes(32)))[CHECKPOINT]
    note = make_ledger(make_entries(0, 3))[CHECKPOINT]
    assert verify(files, note).verified
    for wrong in (other, b"", *(flip(note, bit) for bit in range(0, len(note) * 8, 7))):
        assert not verify(files, wrong).verified


def test_faults_are_bounded() -> None:
    """However much is wrong, the faults told are bounded."""
    files = make_ledger(make_entries(0, 1000))
    found = verify({CHECKPOINT: files[CHECKPOINT]})
    assert 5 < len(found.faults) <= verification.MAX_FAULTS
    altered = encode_bundle([b"x"] * 256)
    found = verify({**files, **{Tile(None, index).path: altered for index in range(3)}})
    assert len(found.faults) == verification.MAX_FAULTS


def test_progress_is_told_to_the_end() -> None:
    """Progress counts entries, bundle by bundle, up to all of them."""
    seen: list[tuple[int, int]] = []
    tiles = MemoryTiles(make_ledger(make_entries(0, 600)))
    verify_ledger(tiles, SIGNER.verifier, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(256, 600), (512, 600), (600, 600)]


def test_a_folder_and_its_copy_verify(tmp_path: Path) -> None:
    """On the disk too, and in a copy without lock and private key; a stray file is told there."""
    log = open_log(tmp_path / "ledger", create=True)
    for step in (3, 400, 300):
        log.append(make_entries(log.size, log.size + step))
    copy = tmp_path / "copy"
    for path, data in read_files(tmp_path / "ledger").items():
        if path != "key":
            (copy / path).parent.mkdir(parents=True, exist_ok=True)
            (copy / path).write_bytes(data)
    for directory in (tmp_path / "ledger", copy):
        assert verify_ledger(DirectoryTiles(directory), log.verifier).verified
        (directory / "tile" / "0" / "notes.txt").write_text("x")
        (fault,) = verify_ledger(DirectoryTiles(directory), log.verifier).faults
        assert fault.path == "tile/0/notes.txt"
