"""The key of sessions in the keyring of a real desktop, and what becomes of it when that is locked."""

import json
import shutil
from base64 import b64decode, b64encode
from pathlib import Path

import pytest

from bailee.agent.sessions.keys import FILE, NAME, SERVICE
from counterparts.keyrings import run_with_keyring
from counterparts.searching import find_hidden

GET = f"import keyring; print(keyring.get_password({SERVICE!r}, {NAME!r}))"


@pytest.fixture
def desk(tmp_path: Path, scanner_rules: Path) -> Path:
    """Give a user's folder, without what takes seconds to make."""
    (tmp_path / "state").mkdir(mode=0o700)
    shutil.copytree(scanner_rules, tmp_path / "state" / "cache")
    return tmp_path


def keep(desk: Path, *, is_locked: bool = False) -> None:
    done = run_with_keyring(desk, "code", "--model", "rehearsal", "-p", "rehearse greet", is_locked=is_locked)
    assert done.returncode == 0, done.stderr


def test_the_key_is_in_the_keyring_and_nowhere_else(desk: Path) -> None:
    """What one process kept another opens, after the keyring was closed; no file holds the key in clear."""
    keep(desk)
    listed = run_with_keyring(desk, "sessions", "--local", "list", "--json")
    assert [one["title"] for one in json.loads(listed.stdout)] == ["rehearse greet"]
    assert not (desk / "state" / FILE).exists()
    key = run_with_keyring(desk, code=[GET]).stdout.strip()
    assert len(key) == len(b64encode(bytes(32)))
    shutil.rmtree(desk / "state" / "cache")  # the scanner's rules, megabytes that cost seconds to search
    assert find_hidden([desk], key.encode(), b64decode(key)) == []


def test_a_locked_keyring_is_told_and_nothing_is_made_anew(desk: Path) -> None:
    """Sessions whose key is locked away are neither opened nor said to be none; unlocked, they are there."""
    keep(desk)
    locked = run_with_keyring(desk, "sessions", "--local", "list", is_locked=True)
    assert locked.returncode == 1
    assert "unlock the keyring" in locked.stderr
    assert "No session is kept" not in locked.stdout
    asked = run_with_keyring(desk, "code", "--model", "rehearsal", "-p", "rehearse greet", is_locked=True)
    assert "unlock the keyring" in asked.stderr
    assert not (desk / "state" / FILE).exists()
    assert "rehearse greet" in run_with_keyring(desk, "sessions", "--local", "list").stdout


def test_without_a_keyring_that_opens_a_file_holds_it(desk: Path) -> None:
    """Where the first session is kept with the keyring locked: a file of its owner, as documented."""
    keep(desk, is_locked=True)
    assert (desk / "state" / FILE).stat().st_mode & 0o777 == 0o600
    assert "rehearse greet" in run_with_keyring(desk, "sessions", "--local", "list", is_locked=True).stdout
