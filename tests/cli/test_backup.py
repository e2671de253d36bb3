"""Backups as a person at a terminal has them: made, verified, restored, refused, told of."""

import json
import shutil
from pathlib import Path

import pytest

from cli.test_holdings import Bailee
from counterparts.holdings import copy_first_home, find_bytes
from counterparts.services import serving

HERON = "the heron of turn 1"


@pytest.fixture
def bailee(tmp_path: Path) -> Bailee:
    """Give the program on a home with ada (pro, training on) and bob (team acme, admin), a session each."""
    copy_first_home(tmp_path / "state")
    return Bailee(tmp_path)


def test_from_a_backup_to_a_new_machine(bailee: Bailee) -> None:
    """Backed up under a running service, erased since, lost, restored: what was erased is unknown there."""
    home, folder = bailee.folder / "state", bailee.folder
    backup, keys, mirror, kek = (str(folder / name) for name in ("backup", "keys", "mirror", "kek"))
    with serving(home, folder, "--upstream", "rehearsal"):
        made = bailee.json("backup", "create", backup, "--keys", keys)
        assert (made["counts"]["segments"], made["keys"]) == (2, 2)
        assert "running" in bailee.refused("backup", "restore", backup, "--yes")
    assert bailee.json("backup", "verify", backup)["verified"] is True
    assert [one["backup"] for one in bailee.json("backup", "list-keys")] == [made["id"]]
    assert bailee("sessions", "erase", "first-session", "--yes").returncode == 0
    assert bailee("ledger", "mirror", mirror).returncode == 0
    shutil.copy(home / "keystore" / "kek", kek)
    shutil.rmtree(home)
    assert bailee("backup", "verify", backup).returncode == 0
    words = ("backup", "restore", backup, "--keys", keys, "--key-encryption-key", kek)
    assert "ledger is lost" in bailee.refused(*words, "--yes")
    words = (*words, "--ledger", mirror)
    assert "--yes" in bailee.refused(*words)
    assert "dropped, erased: 1 segment" in bailee(*words, "--dry-run").stdout
    receipt = str(folder / "receipt.json")
    done = bailee.json(*words, "--yes", "--receipt", receipt)
    assert (done["segments"], done["changes"]["dropped"], done["dry_run"]) == (1, {"erased": 1}, False)
    assert "Verified" in bailee("ledger", "verify", receipt).stdout
    assert "there is no session" in bailee.refused("sessions", "show", "first-session", "--reason", "look")
    assert "the egret" in bailee("sessions", "show", "second-session", "--reason", "look").stdout
    assert find_bytes(home, b"first-session", b"heron") == []
    assert bailee("ledger", "verify").returncode == 0
    assert bailee("doctor").returncode == 0
    assert bailee("backup", "forget", made["id"][:8]).returncode == 0
    assert bailee.json("backup", "list-keys") == []
    assert "no copy" in bailee.refused("backup", "forget", made["id"])


def test_beside_the_keystore(bailee: Bailee) -> None:
    """The vault alone is lost: the backup is enough; a control shows that without the erasure it opens."""
    home, backup = bailee.folder / "state", str(bailee.folder / "backup")
    assert "No keys are in it" in bailee("backup", "create", backup).stderr
    (home / "vault" / "vault.db").unlink()
    assert "Restored" in bailee("backup", "restore", backup, "--yes").stdout
    assert HERON in bailee("sessions", "show", "first-session", "--reason", "look").stdout
    assert bailee("sessions", "erase", "first-session", "--yes").returncode == 0
    assert "dropped, erased: 1 segment" in bailee("backup", "restore", backup, "--yes").stdout
    assert "there is no session" in bailee.refused("sessions", "show", "first-session")


def test_an_unfinished_restore_is_finished(bailee: Bailee) -> None:
    """Killed after it began, no command opens the home; another backup is refused, the same one goes on."""
    home, backup = bailee.folder / "state", str(bailee.folder / "backup")
    bailee.json("backup", "create", backup)
    bailee.json("backup", "create", backup + "-2")
    changes = bailee.folder / "changes"
    changes.mkdir()
    (changes / "sitecustomize.py").write_text(
        "import os, signal\nfrom bailee.vault.backups import installing\n"
        "installing._replace = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert bailee("backup", "restore", backup, "--yes", PYTHONPATH=str(changes)).returncode == -9
    for words in (
        ("sessions", "list"),
        ("accounts", "list"),
        ("up", "--upstream", "rehearsal", "--port", "0"),
    ):
        assert "not finished" in bailee.refused(*words)
    doctor = bailee("doctor")
    assert doctor.returncode == 1
    assert "not finished" in doctor.stdout
    assert "another backup" in bailee.refused("backup", "restore", backup + "-2", "--yes")
    done = bailee("backup", "restore", backup, "--yes")
    assert done.returncode == 0, done.stderr
    assert "Going on" in done.stderr
    assert HERON in bailee("sessions", "show", "first-session", "--reason", "look").stdout
    assert not (home / "restoring").exists()


def test_a_copy_of_keys_that_is_overdue_is_an_alarm(bailee: Bailee) -> None:
    """Past its window and not confirmed deleted, the doctor tells of it, until somebody confirms."""
    changes = bailee.folder / "changes"
    changes.mkdir()
    (changes / "sitecustomize.py").write_text(
        "from bailee.vault.backups import creation\ncreation._DAY_MS = -1000\n"
    )
    words = (
        "backup",
        "create",
        str(bailee.folder / "backup"),
        "--keys",
        str(bailee.folder / "keys"),
        "--json",
    )
    made = json.loads(bailee(*words, PYTHONPATH=str(changes)).stdout)
    doctor = bailee("doctor")
    assert doctor.returncode == 1
    assert f"bailee backup forget {made['id'][:8]}" in doctor.stdout
    assert bailee("backup", "forget", made["id"]).returncode == 0
    assert bailee("doctor").returncode == 0


def test_what_is_no_backup(bailee: Bailee, tmp_path: Path) -> None:
    """A folder that is none, or not there, is told so; nothing is left in the home."""
    for wrong in (tmp_path / "none", tmp_path):
        assert "backup" in bailee.refused("backup", "restore", str(wrong), "--yes")
        assert bailee("backup", "verify", str(wrong)).returncode == 1
    assert not (tmp_path / "state" / "restore").exists()
