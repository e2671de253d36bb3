"""Killed anywhere, a creation leaves no backup, and a restore the old home or one that does not open."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from backups.conftest import modes
from bailee.policy.problems import Problem
from bailee.service.running import lock_home
from bailee.vault.backups.creation import create_backup
from bailee.vault.backups.installing import finish, install, read_unfinished
from bailee.vault.store import open_vault
from bailee.vault.tables import VAULT
from counterparts.services import clean_environment

if TYPE_CHECKING:
    from backups.conftest import Archive

_KILLED = """
import os, signal, sys
from pathlib import Path
from bailee.vault.backups import creation, installing, staging
from bailee.vault.backups.sources import Request
from bailee.vault.custody import open_custody
from bailee.policy.periods import Period
def die_at(module, name, calls, when):
    before, done = getattr(module, name), 0
    def die(*arguments, **more):
        nonlocal done
        done += 1
        if when == "before" and done == calls:
            os.kill(os.getpid(), signal.SIGKILL)
        result = before(*arguments, **more)
        if when == "after" and done == calls:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(module, name, die)
home, backup, now = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
{die}
{work}
"""
_RESTORE = """
staged = staging.stage(home, Request(backup, by="op"), now_ms=int(now * 1000))
installing.begin(home)
installing.install(home, at_ms=int(now * 1000))
installing.finish(home, staged)
"""
_CREATE = """
custody = open_custody(home, clock=lambda: now)
creation.create_backup(custody, backup, keys=Path(sys.argv[4]), window=Period.parse("7d"), by="op")
"""


def run_killed(archive: "Archive", work: str, die: str, *more: str) -> None:
    program = _KILLED.format(work=work, die=die)
    words = [str(archive.home), str(archive.backup), str(archive.keeping.now), *more]
    killed = subprocess.run(
        [sys.executable, "-c", program, *words],
        env=clean_environment(archive.folder),
        check=False,
        capture_output=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()


@pytest.mark.parametrize(
    ("die", "has_begun"),
    [
        ("die_at(staging, 'apply_erasures', 1, 'before')", False),
        ("die_at(staging, 'check_part', 1, 'after')", False),
        ("die_at(staging, 'sync_folder', 1, 'after')", False),
        ("die_at(installing, 'begin', 1, 'after')", True),
        ("die_at(installing, '_replace', 1, 'before')", True),
        ("die_at(installing, '_replace', 1, 'after')", True),
        ("die_at(installing, '_destroy_due', 1, 'before')", True),
        ("die_at(installing, '_destroy_due', 1, 'after')", True),
        ("die_at(installing.shutil, 'rmtree', 1, 'after')", True),
    ],
)
def test_a_killed_restore(archive: "Archive", die: str, has_begun: bool) -> None:
    """Before it begins to replace, the old home is as it was; then nothing opens until it is finished."""
    archive.create(keys=False)
    archive.erase_session("session-2")
    archive.keeping.record("ada", "session-4", b"later")
    archive.keeping.custody.settle()
    archive.keeping.close()
    run_killed(archive, _RESTORE, die if "rmtree" not in die else die.replace("1,", "2,"))
    unfinished = read_unfinished(archive.home)
    assert (unfinished is not None) == has_begun
    now = archive.keeping.now
    if unfinished is None:
        archive.open(now)
        assert archive.said() == {b"the heron of 1", b"the heron of 3", b"later"}
        archive.restore()
    else:
        with pytest.raises(Problem, match="not finished"):
            open_vault(archive.home)
        install(archive.home, at_ms=int(now * 1000))
        assert finish(archive.home, unfinished)
        archive.open(now)
    assert archive.said() == {b"the heron of 1", b"the heron of 3"}
    assert not (archive.home / "restore").exists()
    ids = [entry.id for entry in archive.keeping.entries()]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    "die",
    [
        "die_at(creation, '_copy_vault', 1, 'after')",
        "die_at(creation, 'sign_manifest', 1, 'after')",
        "die_at(creation, 'write_keys', 1, 'after')",
        "die_at(creation, 'put', 1, 'after')",
        "die_at(creation, 'sync_folder', 2, 'after')",
    ],
)
def test_a_killed_creation(archive: "Archive", die: str) -> None:
    """There is no backup of that name; run again it is made, and what was left is gone."""
    run_killed(archive, _CREATE, die, str(archive.keys))
    assert not archive.backup.exists()
    archive.keys.unlink(missing_ok=True)
    archive.create()
    left = [path.name for path in archive.folder.iterdir() if path.name.startswith(".")]
    assert left == []
    archive.erase_session("session-1")
    archive.restore()
    assert archive.said() == {b"the heron of 2", b"the heron of 3"}


def test_everything_is_its_owners_alone(archive: "Archive") -> None:
    """Files are 0600 and folders 0700, in the backup and in the home that comes back."""
    archive.create()
    assert modes(archive.backup) == {(True, 0o700), (False, 0o600)}
    assert modes(archive.keys) == {(False, 0o600)}
    archive.copy_ledger()
    archive.lose_everything()
    archive.restore_anew()
    archive.keeping.custody.settle()
    assert modes(archive.home) == {(True, 0o700), (False, 0o600)}


def test_places_that_are_refused(archive: "Archive") -> None:
    """What is there is not replaced; nothing lies in the home; keys do not lie in the backup."""
    from bailee.policy.periods import UNLIMITED, Period

    custody, week = archive.keeping.custody, Period.parse("7d")

    def refused(folder: Path, keys: Path | None = None, window: Period = week) -> str:
        with pytest.raises(Problem) as problem:
            create_backup(custody, folder, keys=keys, window=window, by="op")
        assert not archive.backup.exists()
        return str(problem.value)

    assert "lost with it" in refused(archive.home / "backup")
    assert "lost with it" in refused(archive.backup, archive.home / "keys")
    assert "copy of the keys in the backup" in refused(archive.backup, archive.backup / "keys")
    assert "not there" in refused(archive.folder / "no" / "backup")
    assert "replace" in refused(archive.home)
    assert "window" in refused(archive.backup, archive.keys, UNLIMITED)
    assert "window" in refused(archive.backup, archive.keys, Period.parse("36d"))


def test_a_service_that_runs_is_in_the_way(archive: "Archive") -> None:
    """The home is held for one: a service, or a restore."""
    with lock_home(archive.home), pytest.raises(Problem, match="running"), lock_home(archive.home):
        pass


def test_the_marker_holds_for_every_database(archive: "Archive") -> None:
    """While a restore is not finished, neither accounts nor keys nor ledger are served."""
    from bailee.vault.custody import open_custody

    archive.lose(VAULT)
    (archive.home / "restoring").write_bytes(b"{}")
    with pytest.raises(Problem, match="not finished"):
        open_custody(archive.home)
    (archive.home / "restoring").unlink()
