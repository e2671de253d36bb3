"""`bailee ledger`: what it prints, and what it ends with."""

import json
import subprocess
from pathlib import Path

import pytest

from bailee.ledger.log import Log, open_log
from bailee.ledger.receipts import make_receipt
from counterparts.ledgers import flip, make_entries
from counterparts.programs import run_program
from counterparts.services import clean_environment

Done = subprocess.CompletedProcess[str]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    log = open_log(tmp_path / "state" / "ledger", create=True)
    log.append(make_entries(0, 300))
    return log


def bailee(folder: Path, *words: str) -> Done:
    """Run `bailee ledger` on the home below a folder."""
    environment = clean_environment(folder, BAILEE_HOME=str(folder / "state"))
    return run_program("ledger", *words, environment=environment, folder=folder.parent)


def test_entries_are_shown(log: Log, tmp_path: Path) -> None:
    """The last entries, oldest first; what is no JSON by its size; nothing that a terminal obeys."""
    log.append([b"\xff\x00", b'{"say":"\\u001b[31m\xe2\x80\xae"}', b"[" * 60_000])
    shown = bailee(tmp_path, "show", "--limit", "4").stdout.splitlines()
    assert shown == [
        '299  {"n":299}',
        "300  2 bytes, no JSON",
        '301  {"say":"\\u001b[31m\\u202e"}',
        "302  60000 bytes, no JSON",
    ]
    listed = json.loads(bailee(tmp_path, "show", "--limit", "4", "--json").stdout)
    assert listed[0] == {"index": 299, "entry": {"n": 299}}
    assert listed[1] == {"index": 300, "base64": "/wA="}


def test_a_whole_ledger_verifies_and_a_harmed_one_does_not(log: Log, tmp_path: Path) -> None:
    """0 and how many entries; 1 and the file and entry at fault; a bundle put right verifies again."""
    done = bailee(tmp_path, "verify")
    assert (done.returncode, done.stdout) == (0, f"Verified: 300 entries of {log.verifier.name}.\n")
    bundle = tmp_path / "state" / "ledger" / "tile" / "entries" / "000"
    whole = bundle.read_bytes()
    bundle.write_bytes(flip(whole, 1000))
    done = bailee(tmp_path, "verify")
    assert done.returncode == 1
    assert done.stdout.startswith("entry ")
    assert "tile/entries/000: " in done.stdout
    assert done.stdout.endswith("Not verified.\n")
    told = json.loads(bailee(tmp_path, "verify", "--json").stdout)
    assert told["verified"] is False
    assert told["faults"][0]["path"] == "tile/entries/000"
    bundle.write_bytes(whole)
    told = json.loads(bailee(tmp_path, "verify", "--json").stdout)
    assert (told["verified"], told["size"], told["faults"]) == (True, 300, [])


def test_a_checkpoint_kept_elsewhere_finds_a_ledger_made_anew(log: Log, tmp_path: Path) -> None:
    """Checkpoint and key are printed as they are; with them a replaced ledger does not verify."""
    note, key = tmp_path / "note", tmp_path / "key"
    note.write_text(bailee(tmp_path, "checkpoint").stdout)
    key.write_text(bailee(tmp_path, "key").stdout)
    assert note.read_bytes() == log.note()
    assert key.read_text() == f"{log.verifier.text}\n"
    log.append(make_entries(300, 310))
    done = bailee(tmp_path, "verify", "--since", str(note))
    assert (done.returncode, "begins with the 300" in done.stdout) == (0, True)
    (tmp_path / "state" / "ledger").rename(tmp_path / "old")
    open_log(tmp_path / "state" / "ledger", create=True).append(make_entries(0, 310))
    assert bailee(tmp_path, "verify").returncode == 0, "control: alone it looks whole"
    assert bailee(tmp_path, "verify", "--since", str(note)).returncode == 1
    assert bailee(tmp_path, "verify", "--key", str(key)).returncode == 1
    assert bailee(tmp_path, "verify", "--key", log.verifier.text).returncode == 1


def test_a_receipt_verifies_with_the_key_alone(log: Log, tmp_path: Path) -> None:
    """Elsewhere, without a home: 0 and the entries; 1 once a bit of it is flipped."""
    receipt = make_receipt(log, [7, 8])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "receipt.json").write_bytes(receipt)
    words = ("verify", str(elsewhere / "receipt.json"), "--key", log.verifier.text)
    done = bailee(elsewhere, *words)
    assert (done.returncode, done.stdout.splitlines()[1:]) == (0, ['7  {"n":7}', '8  {"n":8}'])
    assert json.loads(bailee(elsewhere, *words, "--json").stdout)["entries"][0]["index"] == 7
    assert bailee(tmp_path, "verify", str(elsewhere / "receipt.json")).returncode == 0
    (elsewhere / "receipt.json").write_bytes(flip(receipt, 900))
    done = bailee(elsewhere, *words)
    assert (done.returncode, done.stdout.startswith("Not verified: ")) == (1, True)
    assert json.loads(bailee(elsewhere, *words, "--json").stdout)["verified"] is False


def test_wrong_calls_end_with_2(log: Log, tmp_path: Path) -> None:
    """No ledger, no key, no such file, a receipt with --since: 2, and nothing on standard output."""
    receipt = tmp_path / "receipt.json"
    receipt.write_bytes(make_receipt(log, [7]))
    nowhere = tmp_path / "nowhere"
    for folder, words in (
        (nowhere, ("verify",)),
        (nowhere, ("show",)),
        (nowhere, ("checkpoint",)),
        (nowhere, ("key",)),
        (nowhere, ("verify", str(receipt))),
        (tmp_path, ("verify", "no such file")),
        (tmp_path, ("verify", "--key", "no such file")),
        (tmp_path, ("verify", "--key", "not+a+key")),
        (tmp_path, ("verify", str(receipt), "--since", str(receipt))),
    ):
        done = bailee(folder, *words)
        assert (done.returncode, done.stdout) == (2, ""), words
        assert "Traceback" not in done.stderr
    assert not (nowhere / "state").exists()


@pytest.mark.parametrize("path", ["verifier", "checkpoint"])
def test_a_harmed_key_or_checkpoint_is_not_verified(log: Log, tmp_path: Path, path: str) -> None:
    """A verifier key or checkpoint that is damaged or lost is a fault of the ledger, not of the call."""
    file = tmp_path / "state" / "ledger" / path
    for harm in (flip(file.read_bytes(), 100), b"", None):
        if harm is None:
            file.unlink()
        else:
            file.write_bytes(harm)
        done = bailee(tmp_path, "verify")
        assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "Not verified.")
