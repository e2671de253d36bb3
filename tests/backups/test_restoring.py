"""A restore brings back what is still held, and nothing of what was erased, expired or was taken back."""

import shutil
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bailee.accounts.people import Kind
from bailee.database.locations import VARIABLE
from bailee.flows.messages.conversations import read_text
from bailee.ledger.entries import Restored
from bailee.ledger.log import FOLDER
from bailee.ledger.storage import DirectoryTiles
from bailee.ledger.verification import verify_ledger
from bailee.policy.periods import Period
from bailee.policy.plans import Plan
from bailee.vault.copies import registry
from bailee.vault.copies.registry import Maker, list_pending
from bailee.vault.exports import export_account
from bailee.vault.tables import KEYSTORE, VAULT
from counterparts.holdings import find_bytes

if TYPE_CHECKING:
    from backups.conftest import Archive
    from counterparts.databases import Server

HERONS = {b"the heron of 1", b"the heron of 2", b"the heron of 3"}


def verifies(archive: "Archive") -> bool:
    archive.keeping.custody.settle()
    log = archive.keeping.custody.log
    return verify_ledger(DirectoryTiles(archive.home / FOLDER), log.verifier).verified


def test_a_lost_vault_comes_back(archive: "Archive") -> None:
    """Beside the keystore and the ledger that are there, everything held opens again, and goes on."""
    archive.create(keys=False)
    archive.lose(VAULT)
    done = archive.restore()
    assert (done.keystore, done.accounts, done.ledger, done.segments) == ("home", "home", "home", 4)
    assert archive.said() == HERONS
    assert archive.said("boss") == {b"the egret"}
    archive.keeping.record("ada", "session-1", b"and on")
    assert archive.said() == HERONS | {b"and on"}
    (told,) = [one for one in archive.keeping.entries() if isinstance(one, Restored)]
    assert (told.segments, told.dropped, told.unknown) == (4, {}, None)
    assert verifies(archive)


def test_a_lost_machine_comes_back(archive: "Archive") -> None:
    """From the backup, the copies of keys, key-encryption key and ledger: accounts, consents, content."""
    archive.keeping.custody.directory.consent("ada", given=True)
    archive.create()
    archive.copy_ledger()
    archive.lose_everything()
    done = archive.restore_anew()
    assert (done.keystore, done.accounts, done.ledger) == ("copy", "backup", "copy")
    assert (done.people, done.keys) == (2, 4)
    assert archive.said() == HERONS
    assert archive.said("boss") == {b"the egret"}
    assert archive.ada.training
    archive.keeping.record("ada", "session-4", b"and on")
    archive.erase_session("session-4")
    assert verifies(archive)


def test_what_was_erased_stays_away_beside_the_keystore(archive: "Archive") -> None:
    """A backup from before an erasure opens nothing of it; its rows and its facts are gone too."""
    archive.create(keys=False)
    archive.erase_session("session-2")
    done = archive.restore()
    assert done.changes.dropped == {"erased": 1}
    assert archive.said() == HERONS - {b"the heron of 2"}
    from bailee.vault.reader import list_sessions

    assert {one.id for one in list_sessions(archive.keeping.custody.vault)} == {
        "session-1",
        "session-3",
        "session-b",
    }


def test_what_was_erased_stays_away_on_a_new_machine(archive: "Archive") -> None:
    """With the keys of then, what the newer ledger tells was erased does not come back, nor does its key."""
    archive.create()
    archive.erase_session("session-2")
    archive.copy_ledger()
    archive.lose_everything()
    done = archive.restore_anew()
    assert done.changes.dropped == {"erased": 1}
    assert done.keys == 3
    assert archive.said() == HERONS - {b"the heron of 2"}


def erase_out_of_reach(archive: "Archive") -> Path:
    """Have an operator's export that is away while a session is erased, and back once all is restored."""
    out, away = archive.folder / "export", archive.folder / "away"
    export_account(archive.keeping.custody, archive.ada, out, read_text=read_text, maker=Maker("operator"))
    archive.create(keys=False)
    out.rename(away)
    archive.erase_session("session-2")
    archive.restore()
    away.rename(out)
    archive.keeping.custody.follow_copies()
    return out


def test_what_was_still_to_go_from_an_export_goes(archive: "Archive") -> None:
    """An erasure that had not reached an export when the vault was lost reaches it after the restore."""
    out = erase_out_of_reach(archive)
    assert find_bytes(out, b"the heron of 1")
    assert not find_bytes(out, b"the heron of 2")
    assert not list_pending(archive.keeping.custody.vault)


def test_control_without_the_call(archive: "Archive", monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: where a restore does not mark what copies hold, the export keeps what was erased, untold."""
    from bailee.vault.backups import staging

    monkeypatch.setattr(staging.Replay, "call_in_dropped", lambda self, at_ms: None)
    monkeypatch.setattr(registry, "call_in_sessions", lambda *arguments, **more: None)
    out = erase_out_of_reach(archive)
    assert find_bytes(out, b"the heron of 2")
    assert not list_pending(archive.keeping.custody.vault)


def test_an_export_that_was_changed_since_is_still_followed(archive: "Archive") -> None:
    """A copy that an erasure reached after the backup is known as it is, and the next erasure reaches it."""
    out = archive.folder / "export"
    export_account(archive.keeping.custody, archive.ada, out, read_text=read_text, maker=Maker("operator"))
    archive.create(keys=False)
    archive.erase_session("session-2")
    archive.restore()
    archive.erase_session("session-1")
    assert not find_bytes(out, b"the heron of 1")
    assert find_bytes(out, b"the heron of 3")
    assert not list_pending(archive.keeping.custody.vault)


def test_copies_made_since_are_told_of(archive: "Archive") -> None:
    """Of an export that the backup does not know nothing is taken out any more: the restore says so."""
    archive.create(keys=False)
    custody = archive.keeping.custody
    custody.record_access(archive.ada.id, None, reader="op", purpose="export", reason="audit")
    export_account(custody, archive.ada, archive.folder / "out", read_text=read_text, maker=Maker("op"))
    (note,) = [note for note in archive.restore().changes.notes if "followed no more" in note]
    assert "1 export, 0 datasets" in note


def test_copies_the_backup_knows_are_not(archive: "Archive") -> None:
    """What was made before is followed as ever, and no such thing is said."""
    custody = archive.keeping.custody
    custody.record_access(archive.ada.id, None, reader="op", purpose="export", reason="audit")
    export_account(custody, archive.ada, archive.folder / "out", read_text=read_text, maker=Maker("op"))
    archive.create(keys=False)
    assert not [note for note in archive.restore().changes.notes if "followed no more" in note]


def test_control_without_the_ledgers_erasures(archive: "Archive", monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: where they are not applied, the same backup with the same keys opens what was erased."""
    from bailee.vault.backups import staging
    from bailee.vault.backups.replaying import Replay

    monkeypatch.setattr(staging, "apply_erasures", lambda replay, later: None)
    monkeypatch.setattr(Replay, "forget_destroyed", lambda self, entry: None)
    archive.create()
    archive.erase_session("session-2")
    archive.copy_ledger()
    archive.lose_everything()
    archive.restore_anew()
    assert archive.said() == HERONS


def test_what_expired_stays_away(archive: "Archive") -> None:
    """Expired since, swept or not: dropped, on the machine that is there and on a new one."""
    archive.create()
    archive.copy_ledger()
    archive.keeping.go_to(date(2026, 6, 3))
    done = archive.restore()
    assert done.changes.dropped == {"expired": 4}
    assert done.keys_destroyed == 4
    assert archive.said() == set()


def test_what_expired_stays_away_on_a_new_machine(archive: "Archive") -> None:
    """By the clock alone: no sweep ran, and no key of it comes back."""
    archive.keeping.go_to(date(2026, 5, 30))
    archive.keeping.record("ada", "session-9", b"late")
    archive.create()
    archive.copy_ledger()
    archive.keeping.go_to(date(2026, 6, 3))
    archive.lose_everything()
    done = archive.restore_anew()
    assert done.changes.dropped == {"expired": 4}
    assert done.keys == 1
    assert archive.said() == {b"late"}


@pytest.mark.parametrize("is_lost", [False, True], ids=["beside the keystore", "on a new machine"])
def test_an_erased_account_stays_away(archive: "Archive", is_lost: bool) -> None:
    """Its name, keys, consents and facts do not come back, nor does its organization."""
    archive.create()
    custody = archive.keeping.custody
    custody.erase_account(custody.directory.get("boss"), by="op")
    archive.copy_ledger()
    if is_lost:
        archive.lose_everything()
        archive.restore_anew()
    else:
        from bailee.accounts.tables import ACCOUNTS

        archive.lose(ACCOUNTS)
        archive.restore()
    directory = archive.keeping.custody.directory
    assert [one.name for one in directory.all()] == ["ada"]
    assert archive.said() == HERONS


def test_what_was_said_after_the_backup_opens_nowhere(archive: "Archive") -> None:
    """Its key goes, as nobody could say any more when it is due."""
    archive.create(keys=False)
    archive.keeping.record("ada", "session-4", b"later")
    done = archive.restore()
    assert done.keys_destroyed == 1
    assert archive.said() == HERONS


def test_a_hold_placed_since_is_in_force_and_keeps(archive: "Archive") -> None:
    """What is held neither expires with the restore nor after it; strange keys stay while a hold is on."""
    archive.create(keys=False)
    custody = archive.keeping.custody
    hold = custody.hold(archive.ada, "session-1", reason="case 7", by="counsel")
    archive.keeping.record("boss", "session-z", b"later")
    custody.settle()
    archive.keeping.go_to(date(2026, 6, 3))
    done = archive.restore()
    assert (done.changes.holds_placed, done.keys_kept) == (1, 1)
    assert done.changes.dropped == {"expired": 3}
    assert archive.said() == {b"the heron of 1"}
    archive.keeping.custody.release(hold.id, reason="over", by="counsel")


def test_stricter_terms_reach_what_comes_back(archive: "Archive") -> None:
    """Training switched off after the backup: what trained and was held for years does so no more."""
    custody = archive.keeping.custody
    custody.directory.consent("ada", given=True)
    archive.keeping.record("ada", "session-5", b"trains")
    archive.create()
    custody.directory.consent("ada", given=False)
    archive.keeping.tighten("ada")
    assert ("30d", date(2026, 6, 3), False) == archive.keeping.terms("ada")[-1]
    archive.copy_ledger()
    archive.lose_everything()
    done = archive.restore_anew()
    assert (done.changes.consents, done.changes.tightened) == (1, 1)
    assert not archive.ada.training
    assert set(archive.keeping.terms("ada")) == {("30d", date(2026, 6, 3), False)}


def test_each_flow_comes_back_under_its_own_terms(archive: "Archive") -> None:
    """Training switched off since leaves a report its years; a limit set since reaches it."""
    custody = archive.keeping.custody
    custody.directory.consent("ada", given=True)
    archive.keeping.record("ada", "report-1", b"reported", flow="feedback")
    archive.keeping.record("boss", "report-2", b"reported", flow="feedback")
    archive.create()
    custody.directory.consent("ada", given=False)
    archive.keeping.tighten("ada")
    custody.directory.limit_account("boss", Period.parse("7d"))
    archive.keeping.tighten("boss")
    archive.copy_ledger()
    archive.lose_everything()
    archive.restore_anew()
    assert ("5y", date(2031, 5, 4), False) in archive.keeping.terms("ada")
    assert {term[0] for term in archive.keeping.terms("boss")} == {"7d"}


def test_zero_data_retention_switched_on_since(archive: "Archive") -> None:
    """What the organization held is gone, and nothing is kept of it from now on."""
    archive.create()
    custody = archive.keeping.custody
    custody.directory.decide_for_organization("acme", Kind.ZDR, given=True, by="boss")
    archive.keeping.tighten("boss")
    archive.copy_ledger()
    archive.lose_everything()
    archive.restore_anew()
    assert archive.keeping.custody.directory.get("boss").zdr
    assert archive.said("boss") == set()


def test_limits_and_keys_of_agents(archive: "Archive") -> None:
    """A limit set and a key revoked after the backup hold; the keys of runs end with the lost machine."""
    from bailee.accounts.keys import create_key, list_keys, revoke_key

    directory = archive.keeping.custody.directory
    revoked, _ = create_key(directory, "ada", label="laptop")
    kept, _ = create_key(directory, "ada", label="desk")
    create_key(directory, "ada", label="run claude")
    archive.create()
    revoke_key(directory, revoked.id, clock=lambda: archive.keeping.now)
    directory.limit_account("ada", Period.parse("7d"))
    directory.limit_organization("acme", Period.parse("9d"), by="boss")
    archive.copy_ledger()
    archive.lose_everything()
    done = archive.restore_anew()
    directory = archive.keeping.custody.directory
    assert [key.id for key in list_keys(directory) if key.revoked_ms is None] == [kept.id]
    assert (str(archive.ada.retention), str(directory.get("boss").organization_retention)) == ("7d", "9d")
    assert (done.changes.keys_revoked, done.changes.limits) == (2, 2)
    assert {terms[0] for terms in archive.keeping.terms("ada")} == {"7d"}


def test_who_read_after_the_backup_is_still_seen(archive: "Archive") -> None:
    """An access that the backup does not have is shown to the account holder all the same."""
    archive.create()
    archive.keeping.custody.record_access(
        archive.ada.id, "session-1", reader="support", purpose="show", reason="ticket"
    )
    archive.copy_ledger()
    archive.lose_everything()
    archive.restore_anew()
    (access,) = archive.keeping.custody.directory.list_accesses(archive.ada.id)
    assert (access.session, access.purpose) == ("session-1", "show")


def test_accepted_that_nothing_is_known(archive: "Archive") -> None:
    """Without a newer ledger: refused, unless a reason is given; then nothing trains, no key is in force."""
    from bailee.accounts.keys import create_key, list_keys
    from bailee.policy.problems import Problem

    directory = archive.keeping.custody.directory
    directory.consent("ada", given=True)
    archive.keeping.record("ada", "session-5", b"trains")
    create_key(directory, "ada", label="laptop")
    archive.create()
    archive.lose_everything()
    with pytest.raises(Problem, match="ledger is lost"):
        archive.restore_anew(ledger=None)
    with pytest.raises(Problem, match="nothing after the backup"):
        archive.restore_anew(ledger=archive.backup / FOLDER)
    done = archive.restore_anew(ledger=None, unknown="the mirror burned too")
    assert done.unknown == "the mirror burned too"
    (told,) = [one for one in archive.keeping.entries() if isinstance(one, Restored)]
    assert told.unknown is not None
    assert "burned" not in told.unknown
    assert not archive.ada.training
    assert [key for key in list_keys(archive.keeping.custody.directory) if key.revoked_ms is None] == []
    assert not any(trainable for _, _, trainable in archive.keeping.terms("ada"))
    assert verifies(archive)


def test_the_keystore_lost_and_the_ledger_there(archive: "Archive") -> None:
    """The keys come from their copy, all else from what is there; what was erased stays away."""
    from bailee.ledger.pseudonyms import PSEUDONYMS

    archive.create()
    archive.erase_session("session-3")
    archive.lose(KEYSTORE, PSEUDONYMS)
    done = archive.restore(keys=archive.keys)
    assert (done.keystore, done.ledger, done.accounts, done.keys) == ("copy", "home", "home", 3)
    assert archive.said() == HERONS - {b"the heron of 3"}


def test_a_session_that_went_on_after_its_erasure(archive: "Archive") -> None:
    """Erased, gone on, backed up, restored: what it said later is not taken for what was erased."""
    archive.erase_session("session-1")
    archive.keeping.record("ada", "session-1", b"anew")
    archive.create()
    archive.copy_ledger()
    archive.lose_everything()
    archive.restore_anew()
    assert archive.said() == HERONS - {b"the heron of 1"} | {b"anew"}


def test_a_dry_run_changes_nothing(archive: "Archive", tmp_path: Path) -> None:
    """It tells the same, and what is there stays as it is."""
    from bailee.vault.backups.installing import discard

    archive.create(keys=False)
    archive.erase_session("session-2")
    archive.keeping.record("ada", "session-4", b"later")
    staged = archive.stage()
    discard(archive.home)
    assert (staged.changes.dropped, staged.keys_destroyed) == ({"erased": 1}, 1)
    assert archive.said() == HERONS - {b"the heron of 2"} | {b"later"}
    assert not (archive.home / "restore").exists()


@pytest.mark.parametrize("start", ["sqlite", "postgresql"])
def test_from_one_database_to_the_other(
    tmp_path: Path, postgresql: "Server", home_name: str, monkeypatch: pytest.MonkeyPatch, start: str
) -> None:
    """A backup of SQLite files restores on PostgreSQL, one of PostgreSQL as SQLite files; both go on."""
    from backups.conftest import Archive

    def use(kind: str) -> None:
        if kind == "sqlite":
            monkeypatch.delenv(VARIABLE, raising=False)
        else:
            monkeypatch.setenv(VARIABLE, postgresql.url(home_name))

    use(start)
    archive = Archive(tmp_path)
    directory = archive.keeping.custody.directory
    directory.add("ada", Plan.PRO)
    directory.consent("ada", given=True)
    for number in (1, 2, 3):
        archive.keeping.record("ada", f"session-{number}", b"the heron of %d" % number)
    archive.create()
    archive.erase_session("session-2")
    archive.copy_ledger()
    archive.keeping.close()
    shutil.rmtree(archive.home)
    archive.home.mkdir(mode=0o700)
    use("postgresql" if start == "sqlite" else "sqlite")
    archive.restore_anew()
    assert archive.said() == HERONS - {b"the heron of 2"}
    # Rows that the database numbers by itself go on after those that came back.
    archive.keeping.custody.directory.consent("ada", given=False)
    archive.keeping.record("ada", "session-4", b"and on")
    assert archive.said() == HERONS - {b"the heron of 2"} | {b"and on"}
    assert not archive.ada.training
    assert verifies(archive)
    archive.keeping.close()
    postgresql.empty(home_name)
