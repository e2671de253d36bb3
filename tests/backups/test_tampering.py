"""A backup, a ledger or a copy of the keys that is not as it was made is refused, and changes nothing."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bailee.ledger.copies import copy_log
from bailee.ledger.log import FOLDER, open_log
from bailee.policy.problems import Problem
from bailee.vault.backups.keycopies import KeyCopy
from bailee.vault.backups.manifests import ACCOUNTS, MANIFEST, VAULT, read_manifest
from bailee.vault.backups.verification import read_verifier, verify_backup

if TYPE_CHECKING:
    from backups.conftest import Archive

# What is looked at here are files, which are the same whatever the databases are.
pytestmark = pytest.mark.sqlite


def flip(path: Path, place: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(bytes(data))


def verify(folder: Path) -> None:
    verify_backup(folder, read_verifier(folder), lambda done, total: None)


def test_control_a_whole_backup_verifies(archive: "Archive") -> None:
    """Control: as it was made it is taken, by its own key and by the home's; and it holds what it says."""
    made = archive.create()
    verify(archive.backup)
    manifest = read_manifest(archive.backup, archive.keeping.custody.log.verifier)
    assert (manifest.id, manifest.counts["segments"], manifest.counts["people"]) == (made.id, 4, 3)
    with sqlite3.connect(archive.backup / VAULT) as database:
        assert database.execute("SELECT COUNT(*) FROM segments").fetchone() == (4,)
    database.close()


def test_a_flipped_bit_anywhere(archive: "Archive") -> None:
    """In each file of a backup, at places all over it, one bit is enough."""
    archive.create()
    files = [path for path in archive.backup.rglob("*") if path.is_file() and path.name != "lock"]
    assert {path.name for path in files} >= {MANIFEST, VAULT, ACCOUNTS, "checkpoint", "verifier"}
    for path in files:
        size = path.stat().st_size
        for place in {0, size // 3, size // 2, size - 1}:
            flip(path, place)
            with pytest.raises(Problem):
                archive.stage()
            with pytest.raises(Problem):
                verify_backup(archive.backup, archive.keeping.custody.log.verifier, lambda done, total: None)
            flip(path, place)
    verify(archive.backup)
    assert not (archive.home / "restore").exists()


def test_a_flipped_bit_in_the_copy_of_the_keys(archive: "Archive") -> None:
    """Header, each box and the lengths between them; a box taken out, or the end."""
    archive.create()
    archive.copy_ledger()
    whole = archive.keys.read_bytes()
    archive.lose_everything()
    for place in range(0, len(whole), 41):
        flip(archive.keys, place, 3)
        with pytest.raises(Problem):
            archive.stage(keys=archive.keys, kek=archive.kek, ledger=archive.mirror)
        archive.keys.write_bytes(whole)
    for cut in (whole[:-1], whole[: len(whole) // 2], whole + b"\0"):
        archive.keys.write_bytes(cut)
        with pytest.raises(Problem):
            archive.stage(keys=archive.keys, kek=archive.kek, ledger=archive.mirror)
    archive.keys.write_bytes(whole)
    archive.restore_anew()


def test_no_clear_key_and_no_name_in_any_copy(archive: "Archive") -> None:
    """No key, wrapped or not, and no name is in a backup; the copy of the keys has none in clear."""
    from bailee.vault import tables
    from counterparts.holdings import find_bytes

    archive.create()
    with archive.keeping.custody.keystore.engine.connect() as connection:
        wrapped = [row.wrapped for row in connection.execute(tables.keys.select())]
    secrets = [archive.kek.read_bytes(), (archive.home / FOLDER / "key").read_bytes()[-40:-1], *wrapped]
    assert find_bytes(archive.backup, *secrets, b"the heron", b"acme", b"boss") == []
    (archive.folder / "apart").mkdir()
    shutil.copy(archive.keys, archive.folder / "apart")
    assert find_bytes(archive.folder / "apart", *secrets, b"acme") == []
    # Control: what is looked for is where it belongs.
    assert find_bytes(archive.home, b"acme")
    assert len(find_bytes(archive.home, *secrets)) >= 3


def test_the_window_of_the_keys(archive: "Archive") -> None:
    """Until it ends the copy is taken; then it is refused, also by a clock that was set back."""
    archive.create(window="2d")
    archive.keeping.go_to(archive.keeping.today + timedelta(days=3))
    archive.keeping.record("ada", "session-8", b"later")
    archive.erase_session("session-8")
    archive.copy_ledger()
    archive.lose_everything()
    with pytest.raises(Problem, match="window"):
        archive.restore_anew()
    archive.keeping.now -= 3 * 86400
    with pytest.raises(Problem, match="clock"):
        archive.restore_anew()
    assert not (archive.home / "restoring").exists()


def test_another_key_encryption_key(archive: "Archive") -> None:
    """With a key that is not the one, or that others can read, nothing opens."""
    archive.create()
    archive.copy_ledger()
    archive.lose_everything()
    right = archive.kek.read_bytes()
    archive.kek.write_bytes(os.urandom(32))
    with pytest.raises(Problem, match="unwrap"):
        archive.restore_anew()
    archive.kek.write_bytes(right)
    archive.kek.chmod(0o644)
    with pytest.raises(Problem, match="others"):
        archive.restore_anew()
    archive.kek.unlink()
    with pytest.raises(Problem, match="missing"):
        archive.restore_anew()


def test_swapped_strange_and_linked_parts(archive: "Archive", tmp_path: Path) -> None:
    """A part of another backup, one too many, one that leads elsewhere, one that is missing."""
    archive.create()
    archive.keeping.record("ada", "session-4", b"more")
    other = tmp_path / "other"
    archive.create(keys=False, backup=other)

    def refused(change: Callable[[Path], object]) -> None:
        bad = tmp_path / "bad"
        shutil.copytree(archive.backup, bad)
        change(bad)
        with pytest.raises(Problem):
            archive.stage(backup=bad)
        shutil.rmtree(bad)

    for name in (VAULT, ACCOUNTS, MANIFEST, f"{FOLDER}/checkpoint"):
        refused(lambda bad, name=name: shutil.copy(other / name, bad / name))
        refused(lambda bad, name=name: (bad / name).unlink())
    for name in (VAULT, ACCOUNTS, MANIFEST):
        refused(
            lambda bad, name=name: ((bad / name).unlink(), (bad / name).symlink_to(archive.backup / name))
        )
    refused(lambda bad: (bad / "..more").write_bytes(b""))
    refused(lambda bad: (bad / FOLDER / "more").write_bytes(b""))
    refused(lambda bad: (shutil.rmtree(bad / FOLDER), shutil.copytree(other / FOLDER, bad / FOLDER)))


def test_an_older_a_forked_and_a_strange_ledger(
    archive: "Archive", tmp_path: Path, make_archive: "Callable[[str], Archive]"
) -> None:
    """A ledger from before the backup, one that goes on otherwise, and one of another home are refused."""
    older, forked = tmp_path / "older", tmp_path / "forked"
    verifier = archive.keeping.custody.log.verifier
    copy_log(archive.home / FOLDER, older, verifier)
    archive.keeping.custody.settle()
    shutil.copytree(archive.home / FOLDER, forked)
    archive.keeping.custody.directory.consent("ada", given=True)
    archive.create()
    # Whoever holds the key signs another history over the same beginning.
    open_log(forked, create=True).append([b'{"kind":"decision"}'] * 9)
    archive.copy_ledger()
    strange = make_archive("strange")
    strange.keeping.custody.directory.add("eve", archive.ada.plan)
    strange.keeping.custody.directory.consent("eve", given=True)
    strange.copy_ledger()
    archive.lose_everything()
    for ledger in (older, forked, strange.mirror, tmp_path):
        with pytest.raises(Problem):
            archive.restore_anew(ledger=ledger)
    archive.restore_anew()
    strange.keeping.close()


def test_a_backup_of_another_home(archive: "Archive", make_archive: "Callable[[str], Archive]") -> None:
    """It is not signed with this ledger's key."""
    strange = make_archive("strange")
    strange.create(keys=False)
    strange.keeping.close()
    with pytest.raises(Problem, match="not of this home"):
        archive.stage(backup=strange.backup)


def test_keys_beside_a_keystore_that_is_there(archive: "Archive") -> None:
    """An older copy of the keys beside the present ones would bring back what was erased."""
    archive.create()
    with pytest.raises(Problem, match="keystore is here"):
        archive.stage(keys=archive.keys)
    with pytest.raises(Problem, match="ledger is here"):
        archive.stage(ledger=archive.mirror)
    assert KeyCopy(archive.keys, archive.keeping.custody.keystore.wrapper).header.until_ms > 0


def test_a_mirror_is_brought_up_to_date(archive: "Archive") -> None:
    """Over and over, past the width of a tile, what is mirrored verifies; one that is ahead is refused."""
    log = archive.keeping.custody.log
    for count in (1, 3, 250, 30, 600):
        log.append([b'{"n":%d}' % count] * count)
        note = copy_log(archive.home / FOLDER, archive.mirror, log.verifier)
        assert open_log(archive.mirror).size == log.size
        from bailee.ledger.storage import DirectoryTiles
        from bailee.ledger.verification import verify_ledger

        found = verify_ledger(DirectoryTiles(archive.mirror), log.verifier, since=note)
        assert (found.faults, found.leftovers) == ([], [])
    older = archive.folder / "older"
    shutil.copytree(archive.mirror, older)
    log.append([b"{}"])
    copy_log(archive.home / FOLDER, archive.mirror, log.verifier)
    with pytest.raises(Problem, match="more than the ledger"):
        copy_log(older, archive.mirror, log.verifier)
