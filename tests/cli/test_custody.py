"""Consents that reach back, holds, erasures, accesses and sweeping, as a person at a terminal has them."""

import json
import shutil
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from bailee.policy.periods import Period
from bailee.vault.custody import open_custody
from cli.test_holdings import Bailee
from counterparts.holdings import copy_first_home, find_bytes
from counterparts.services import serving
from counterparts.waiting import wait_for

HERON = "the heron of turn 1"


@pytest.fixture
def bailee(tmp_path: Path) -> Bailee:
    """Give the program on a home with ada (pro, training on) and bob (team acme, admin), a session each."""
    copy_first_home(tmp_path / "state")
    return Bailee(tmp_path)


def ledger(bailee: Bailee) -> list[dict[str, Any]]:
    return [entry["entry"] for entry in bailee.json("ledger", "show", "--limit", "1000")]


def kinds(bailee: Bailee) -> list[str]:
    return [entry["kind"] for entry in ledger(bailee)]


# --- Who reads ---


def test_anothers_content_takes_a_reason(bailee: Bailee) -> None:
    """Without one nothing is opened; with one it is shown, ledgered, and seen by the account holder."""
    refused = bailee("sessions", "show", "first-session")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--reason" in refused.stderr
    assert bailee.json("privacy", "show", "--account", "ada")["accesses"] == []
    assert HERON not in bailee("sessions", "show", "first-session", "--facts").stdout
    assert HERON in bailee("sessions", "show", "first-session", "--reason", "ticket 12").stdout
    (access,) = bailee.json("privacy", "show", "--account", "ada")["accesses"]
    assert (access["session"], access["purpose"], access["reason"]) == ("first-session", "show", "ticket 12")
    assert "ticket 12" in bailee("privacy", "show", "--account", "ada").stdout
    assert kinds(bailee).count("access") == 1


def test_the_account_holder_needs_none(bailee: Bailee) -> None:
    """A key that was handed over is enough, and leaves no trace; another holder's key is not."""
    key = {name: bailee.proof(name) for name in ("ada", "bob")}
    assert HERON in bailee("sessions", "show", "first-session", BAILEE_KEY=key["ada"]).stdout
    assert bailee("sessions", "show", "first-session", BAILEE_KEY=key["bob"]).returncode == 2
    assert bailee.json("privacy", "show", "--account", "ada")["accesses"] == []


def test_control_without_the_question(bailee: Bailee) -> None:
    """Control: where everybody is taken for the account holder, the content is shown to anybody, untold."""
    folder = bailee.folder / "changes"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "from bailee.accounts import holders\nholders.is_holder = lambda engine, account, operator: True\n"
    )
    assert HERON in bailee("sessions", "show", "first-session", PYTHONPATH=str(folder)).stdout
    assert bailee.json("privacy", "show", "--account", "ada")["accesses"] == []


# --- Consents ---


def test_training_switched_off_is_seen_at_once(bailee: Bailee) -> None:
    """The session held for five years is held for thirty days, and does not train any more."""

    def held() -> tuple[str, bool]:
        (session,) = bailee.json("sessions", "list", "--account", "ada")
        return session["retention"], session["trainable"]

    assert held() == ("5y", True)
    assert bailee.json("privacy", "training", "off", "--account", "ada")["segments_tightened"] == 1
    assert held() == ("30d", False)
    bailee.json("privacy", "training", "on", "--account", "ada", BAILEE_KEY=bailee.proof("ada"))
    assert held() == ("30d", False)
    assert kinds(bailee) == ["consent", "tightened", "key_created", "consent"]


def test_limits_of_holders_and_organizations(bailee: Bailee) -> None:
    """The shortest wish counts, at once; a member who is no admin may not wish for others."""
    bailee.json("privacy", "retention", "10d", "--account", "bob")
    bailee.json("org", "retention", "7d", "--org", "acme", "--as", "bob", BAILEE_KEY=bailee.proof("bob"))
    (session,) = bailee.json("sessions", "list", "--account", "bob")
    assert session["retention"] == "7d"
    bailee("accounts", "add", "carl", "--plan", "team", "--org", "acme")
    words = ("org", "retention", "1d", "--org", "acme", "--as", "carl")
    assert "no admin" in bailee.refused(*words, BAILEE_KEY=bailee.proof("carl"))
    for wrong in ("", "0", "0d", "-1d", "soon"):
        assert "retention period" in bailee.refused("privacy", "retention", "--account", "bob", "--", wrong)


def test_zero_data_retention_asks_before_it_erases(bailee: Bailee) -> None:
    """What it holds goes before it returns: nobody there to be asked, it is refused; `--yes` answers."""
    words, key = ("org", "zdr", "on", "--org", "acme", "--as", "bob"), bailee.proof("bob")
    assert "1 segment of acme would be erased" in bailee.refused(*words, BAILEE_KEY=key)
    assert bailee.json("org", "show", "acme")["zdr"] is False
    assert bailee.json(*words, "--yes", BAILEE_KEY=key)["segments_tightened"] == 1
    assert bailee.json("sessions", "list", "--account", "bob") == []
    assert bailee.json("retention", "sweep")["keys_destroyed"] == 0


def test_a_members_change_is_refused_and_on_record(bailee: Bailee) -> None:
    """Only an admin decides for an organization; the attempt is in the ledger."""
    bailee("accounts", "add", "carl", "--plan", "team", "--org", "acme")
    key = bailee.proof("carl")
    for kind in ("zdr", "dpp"):
        told = bailee.refused("org", kind, "off", "--org", "acme", "--as", "carl", BAILEE_KEY=key)
        assert "admin" in told
    assert [entry["consent"] for entry in ledger(bailee) if entry["kind"] == "consent_refused"] == [
        "zdr",
        "dpp",
    ]


# --- Holds, erasures ---


def test_a_hold_from_end_to_end(bailee: Bailee) -> None:
    """Placed, listed, in the way of an erasure, released, out of the way."""
    words = ("holds", "place", "--account", "ada", "--session", "first-session", "--reason", "case 7")
    hold = bailee(*words).stdout.strip()
    assert hold in bailee("holds", "list").stdout
    assert "case 7" in bailee.refused("sessions", "erase", "first-session", "--yes")
    assert "case 7" in bailee.refused("accounts", "erase", "ada", "--yes")
    assert bailee("holds", "release", hold, "--reason", "settled").returncode == 0
    assert bailee("holds", "list").stdout == ""
    assert "settled" not in bailee("ledger", "show").stdout
    assert bailee("sessions", "erase", "first-session", "--yes").returncode == 0


def test_a_sweep_by_an_earlier_day_is_no_sweep(bailee: Bailee) -> None:
    """It is not told as the last one; a day that nobody can count by is refused in words."""
    assert bailee.json("retention", "sweep", "--as-of", "2020-01-01")["keys_destroyed"] == 0
    assert bailee.json("retention", "status")["silence_seconds"] is None
    bailee.json("retention", "sweep")
    assert bailee.json("retention", "status")["silence_seconds"] is not None
    for day in ("0001-01-01", "2110-01-01", "9999-12-31"):
        refused = bailee.refused("retention", "sweep", "--dry-run", "--as-of", day)
        assert "--as-of" in refused
        assert day in refused
        assert "Traceback" not in refused


def test_an_account_goes_whole(bailee: Bailee) -> None:
    """Counted, asked, erased with a receipt that verifies with the public key alone; its name is nowhere."""
    receipt = bailee.folder / "receipt.json"
    counted = bailee.json("accounts", "erase", "ada", "--dry-run")
    assert (counted["segments"], counted["exchanges"]) == (1, 2)
    assert "--yes" in bailee.refused("accounts", "erase", "ada")
    assert bailee("accounts", "erase", "ada", "--yes", "--receipt", str(receipt)).returncode == 0
    key = bailee("ledger", "key").stdout.strip()
    assert "Verified" in bailee("ledger", "verify", str(receipt), "--key", key).stdout
    assert "no account" in bailee.refused("accounts", "erase", "ada", "--yes")
    assert [account["name"] for account in bailee.json("accounts", "list")] == ["bob"]
    assert find_bytes(bailee.folder / "state", b"first-session", b"heron") == []


# --- Sweeping ---


def test_a_sweep_by_hand(bailee: Bailee) -> None:
    """What is due some day is counted ahead, and refused before its day."""
    ahead = bailee.json("retention", "sweep", "--dry-run", "--as-of", "2040-01-01")
    assert (ahead["keys_destroyed"], ahead["dry_run"]) == (2, True)
    assert "has not begun" in bailee.refused("retention", "sweep", "--as-of", "2040-01-01")
    assert bailee.json("retention", "sweep", "--as-of", "2026-11-24")["keys_destroyed"] == 0
    status = bailee.json("retention", "status")
    assert (status["lag_seconds"], status["alarms"]) == (0.0, [])
    assert len(status["sweepers"]) == 1


def test_the_service_sweeps(bailee: Bailee) -> None:
    """Erasures that died half-way and keys that are due go by themselves, and its metrics say so."""
    home = bailee.folder / "state"
    custody = open_custody(home)
    custody.directory.limit_account("ada", Period.parse("none"))
    custody.tighten(custody.directory.get("ada"))
    custody.close()
    with serving(home, bailee.folder, "--upstream", "rehearsal") as service:

        def metrics() -> dict[str, float]:
            with urllib.request.urlopen(f"{service.url}/metrics") as answer:
                lines = answer.read().decode().splitlines()
            return {line.split()[0]: float(line.split()[1]) for line in lines if not line.startswith("#")}

        wait_for("a sweep", lambda: metrics().get("bailee_retention_keys_destroyed") == 1.0)
        assert metrics()["bailee_retention_lag_seconds"] == 0.0
        assert metrics()["bailee_retention_last_success_age_seconds"] < 60
    assert bailee.json("sessions", "list", "--account", "ada") == []
    assert [one["id"] for one in bailee.json("sessions", "list")] == ["second-session"]


def test_doctor(bailee: Bailee) -> None:
    """All is well ends with 0; a damaged ledger or a lost key file ends with 1 and is named."""
    assert bailee("doctor").returncode == 0
    home = bailee.folder / "state"
    bailee.json("privacy", "training", "off", "--account", "ada")
    (bundle,) = (home / "ledger").rglob("entries/000.p/*")
    whole = bundle.read_bytes()
    bundle.write_bytes(whole.replace(b"training", b"drainint"))
    done = bailee("doctor", "--json")
    assert done.returncode == 1
    (alarm,) = [one for one in json.loads(done.stdout) if not one["is_well"]]
    assert "ledger" in alarm["told"]
    bundle.write_bytes(whole)
    (home / "keystore" / "kek").rename(home / "kek")
    lost = bailee("doctor")
    assert lost.returncode == 1
    assert "key-encryption key" in lost.stdout
    assert "Traceback" not in lost.stderr


@pytest.mark.parametrize("place", [".", "keystore", "ledger", "keystore/kek", "ledger/key"])
def test_doctor_tells_what_others_can_look_into(bailee: Bailee, place: str) -> None:
    """A folder or a secret of the home that others can read is an alarm, with the command that mends it."""
    assert bailee("doctor").returncode == 0
    path = bailee.folder / "state" / place
    path.chmod(path.stat().st_mode | 0o055)
    done = bailee("doctor")
    assert done.returncode == 1
    assert "chmod" in done.stdout


def test_doctor_tells_of_the_ledgers_key(bailee: Bailee) -> None:
    """A private key that is gone, or not that of the checkpoints, is an alarm."""
    bailee("doctor")
    key = bailee.folder / "state" / "ledger" / "key"
    text = key.read_text()
    key.write_text(text[:-6] + ("A" if text[-6] != "A" else "B") + text[-5:])
    assert bailee("doctor").returncode == 1
    key.unlink()
    assert "key is missing" in bailee("doctor").stdout


def test_a_ledger_that_was_put_back_is_told(bailee: Bailee) -> None:
    """An older copy of the ledger, whole and signed, is not taken for the present one, nor added to."""
    ledger, home = bailee.folder / "state" / "ledger", bailee.folder / "state"
    bailee.json("privacy", "retention", "20d", "--account", "bob")
    shutil.copytree(ledger, bailee.folder / "older")
    bailee.json("privacy", "training", "off", "--account", "ada")
    ledger.rename(bailee.folder / "newer")
    shutil.copytree(bailee.folder / "older", ledger)
    verified = bailee("ledger", "verify")
    assert verified.returncode == 1
    assert "put back to an older state" in verified.stdout
    assert bailee("doctor").returncode == 1
    refused = bailee("privacy", "retention", "19d", "--account", "bob")
    assert refused.returncode == 2
    assert "is not the one that was last added to" in refused.stderr
    (home / "keystore" / "keys.db").rename(bailee.folder / "keys.db")
    verifier = bailee.folder / "key"
    verifier.write_text(bailee("ledger", "key").stdout)
    assert (
        bailee("ledger", "verify", "--key", str(verifier)).returncode == 0
    )  # control: by itself it verifies
    (bailee.folder / "keys.db").rename(home / "keystore" / "keys.db")
    shutil.rmtree(ledger)
    (bailee.folder / "newer").rename(ledger)
    assert bailee("ledger", "verify").returncode == 0
    assert bailee("retention", "sweep").returncode == 0
    assert bailee("ledger", "verify").returncode == 0


LOST = ("vault/vault.db", "keystore/keys.db", "keystore/pseudonyms.db", "accounts.db", "ledger")


@pytest.mark.parametrize("place", LOST)
def test_what_is_lost_is_not_made_anew(bailee: Bailee, place: str) -> None:
    """A store that is gone is told by every command, doctor too, and nothing empty takes its place."""
    assert bailee("doctor").returncode == 0
    path = bailee.folder / "state" / place
    path.rename(bailee.folder / "lost")
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    done = bailee("doctor")
    assert done.returncode == 1
    assert "is gone" in done.stdout
    for words in (("retention", "sweep"), ("sessions", "erase", "first-session", "--yes")):
        assert bailee(*words).returncode == 2
    assert not path.exists()
    (bailee.folder / "lost").rename(path)
    assert bailee("doctor").returncode == 0
    (bailee.folder / "state" / "stores").unlink()  # control: without the note it is made anew
    path.rename(bailee.folder / "lost")
    if place != "keystore/keys.db":  # beside its key-encryption key, and wrapped keys would be missed
        bailee("doctor")
        assert path.exists()


def test_a_shorter_time_asks_before_it_erases(bailee: Bailee) -> None:
    """What is older than the new limit goes before the command returns, and a person is asked first."""
    words = ("privacy", "retention", "none", "--account", "ada")
    assert "nobody is there to be asked" in bailee.refused(*words)
    assert len(bailee.json("sessions", "list", "--account", "ada")) == 1
    assert bailee.json("privacy", "retention", "4000d", "--account", "bob")["segments_tightened"] == 0
    assert bailee.json(*words, "--yes")["segments_tightened"] == 1
    assert bailee.json("sessions", "list", "--account", "ada") == []
