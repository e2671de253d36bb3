"""Erasures prove themselves, accesses are events, and the ledger names nobody who is gone."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from bailee.accounts import holders
from bailee.accounts.holders import Operator
from bailee.accounts.keys import create_key, list_keys, open_key_ring
from bailee.accounts.people import Kind
from bailee.accounts.tables import KeyOrigin
from bailee.ledger.entries import (
    ContentRead,
    Erased,
    KeyRevoked,
    KeysDestroyed,
    decode_entry,
    encode_entry,
)
from bailee.ledger.log import FOLDER
from bailee.ledger.receipts import ReceiptRefused, verify_receipt
from bailee.ledger.storage import DirectoryTiles
from bailee.ledger.verification import verify_ledger
from bailee.policy.periods import Period
from bailee.policy.plans import Plan
from bailee.policy.problems import Problem
from bailee.vault import custody, tables, writer
from bailee.vault.erasure import Erasure, erase
from bailee.vault.holds import list_holds
from bailee.vault.sweeping import oldest_due, sweep
from counterparts.holdings import find_bytes
from counterparts.keeping import Keeping


@pytest.fixture
def keeping(tmp_path: Path) -> Iterator[Keeping]:
    """Give a home with a consumer and an organization."""
    opened = Keeping(tmp_path / "home")
    opened.custody.directory.add("ada", Plan.PRO)
    opened.custody.directory.add("boss", Plan.TEAM, organization="acme")
    yield opened
    opened.close()


def erase_session(keeping: Keeping, name: str = "ada", session: str = "session-1") -> bytes:
    account = keeping.custody.directory.get(name).id
    return keeping.custody.erase_session(account, session, by="op")[1]


# --- Receipts ---


def test_an_erasure_proves_itself(keeping: Keeping) -> None:
    """The receipt says what went and which keys were destroyed, and verifies with the public key alone."""
    keeping.record("ada")
    keeping.record("ada")
    receipt = erase_session(keeping)
    verifier = keeping.custody.log.verifier
    erased, destroyed = (decode_entry(one.entry) for one in verify_receipt(receipt, verifier))
    assert isinstance(erased, Erased)
    assert isinstance(destroyed, KeysDestroyed)
    assert (erased.exchanges, erased.segments, erased.records) == (2, 1, 4)
    assert (destroyed.why, len(destroyed.segments)) == ("erased", 1)


def test_a_receipt_of_another_ledger_is_refused(keeping: Keeping, tmp_path: Path) -> None:
    """What another home signed proves nothing here."""
    other = Keeping(tmp_path / "other")
    keeping.record("ada")
    receipt = erase_session(keeping)
    with pytest.raises(ReceiptRefused):
        verify_receipt(receipt, other.custody.log.verifier)
    other.close()


def test_the_receipt_of_a_finished_erasure_is_whole(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the keys went, and asked again: the receipt tells of those keys too."""
    import bailee.vault.erasure as erasure

    class Crash(Exception):
        pass

    def crash(*arguments: object) -> None:
        raise Crash

    keeping.record("ada")
    with monkeypatch.context() as patch:
        patch.setattr(erasure, "reclaim_batch", crash)
        with pytest.raises(Crash):
            erase_session(keeping)
    told = [
        decode_entry(one.entry)
        for one in verify_receipt(erase_session(keeping), keeping.custody.log.verifier)
    ]
    assert sum(len(one.segments) for one in told if isinstance(one, KeysDestroyed)) == 1


def test_erasing_what_nobody_knows_is_an_error(keeping: Keeping) -> None:
    """No receipt is given for nothing, and the ledger is not told of it."""
    keeping.record("ada")
    size = keeping.custody.log.size
    with pytest.raises(Problem, match="no session"):
        erase_session(keeping, session="session-9")
    assert keeping.custody.log.size == size


# --- Accounts ---


def test_an_erased_account_is_nobody(keeping: Keeping) -> None:
    """Its content, facts, keys, consents and name are gone; its receipt verifies; others are untouched."""
    directory = keeping.custody.directory
    directory.consent("ada", given=True)
    key, _ = create_key(directory, "ada")
    keeping.record("ada", body=b"what ada said")
    kept = keeping.record("boss")
    account = directory.get("ada")
    pseudonym = keeping.custody.pseudonyms.name(account.id)
    erased, receipt = keeping.custody.erase_account(account, by="op")
    assert (erased.segments, erased.exchanges) == (1, 1)
    assert verify_receipt(receipt, keeping.custody.log.verifier)
    assert [one.name for one in directory.all()] == ["boss"]
    assert key.id not in [one.id for one in list_keys(directory)]
    assert keeping.read("boss") == {kept}
    # The ledger still speaks of the pseudonym, and nothing there is leads from the person to it any more.
    assert any(pseudonym.encode() in data for data in keeping.custody.log.read())
    assert keeping.custody.pseudonyms.name(account.id) != pseudonym
    for file in ("accounts.db", "accounts.db-wal"):
        path = keeping.home / file
        # Not within the digits of a pseudonym, where it is by chance.
        assert not path.exists() or not re.search(rb"(?<![0-9a-f])ada(?![0-9a-f])", path.read_bytes())


def test_what_was_still_on_its_way_goes_too(keeping: Keeping) -> None:
    """A request admitted before its account was erased, and written after, is erased as it comes."""
    account = keeping.custody.directory.get("ada")
    admitted = keeping.admit(account, "session-1", b"said")
    keeping.now += 1
    keeping.custody.erase_account(account, by="op")
    keeping.write(admitted)
    assert sweep(keeping.custody).keys_destroyed == 1
    with keeping.custody.keystore.engine.connect() as connection:
        assert connection.execute(tables.keys.select()).all() == []


@pytest.fixture
def home(tmp_path: Path, database: str) -> Iterator[Keeping]:
    """Give a home on either database, with ada, who said something and has a key, and bob, who stays."""
    opened = Keeping(tmp_path / "home")
    for name in ("ada", "bob"):
        opened.custody.directory.add(name, Plan.PRO)
        opened.record(name)
    yield opened
    opened.close()


def erasing(
    home: Keeping, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], object]
) -> tuple[Erasure, bytes]:
    """Erase ada, with something happening after the keys are destroyed and before the account goes."""
    account = home.custody.directory.get("ada")
    remove = home.custody.directory.remove

    def remove_late(id: str) -> str | None:
        home.now += 5
        meanwhile()
        return remove(id)

    monkeypatch.setattr(home.custody.directory, "remove", remove_late)
    return home.custody.erase_account(account, by="op")


def count_keys(home: Keeping) -> int:
    with home.custody.keystore.engine.connect() as connection:
        return len(connection.execute(tables.keys.select()).all())


def list_accounts(home: Keeping) -> set[str]:
    """Return whose segments and facts the vault holds."""
    with home.custody.vault.connect() as connection:
        return {
            account
            for table in (tables.segments, tables.exchanges)
            for account in connection.execute(sa.select(table.c.account)).scalars()
        }


def test_what_comes_while_an_account_is_erased_goes_too(
    home: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that is admitted after the keys went and before the account did is erased, and ledgered."""
    before = len(home.entries())
    done, receipt = erasing(home, monkeypatch, lambda: home.record("ada", "session-2"))
    assert list_accounts(home) == {home.custody.directory.get("bob").id}
    assert count_keys(home) == 1
    assert (done.segments, done.exchanges, done.records) == (2, 2, 4)
    proven = [decode_entry(one.entry) for one in verify_receipt(receipt, home.custody.log.verifier)]
    assert sum(len(one.segments) for one in proven if isinstance(one, KeysDestroyed)) == 2
    erased = [entry for entry in home.entries()[before:] if isinstance(entry, Erased)]
    assert sorted((one.segments, one.exchanges, one.records) for one in erased) == [(1, 1, 2), (1, 1, 2)]


def test_its_keys_are_revoked_before_anything_goes(home: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    """A running service knows the account no more when its erasure is marked; others it still knows."""
    secrets = {name: create_key(home.custody.directory, name)[1].encode() for name in ("ada", "bob")}
    ring = open_key_ring(home.home)
    assert ring.authenticate(secrets["ada"]) is not None
    known: list[bool] = []

    def look(*arguments: Any, **more: Any) -> Any:
        known.extend(ring.authenticate(secrets[name]) is not None for name in ("ada", "bob"))
        return erase(*arguments, **more)

    monkeypatch.setattr(custody, "erase", look)
    home.custody.erase_account(home.custody.directory.get("ada"), by="op")
    assert known[:2] == [False, True]
    assert len([entry for entry in home.entries() if isinstance(entry, KeyRevoked)]) == 1
    ring.close()


@pytest.mark.parametrize("hours", [0, 3])
def test_what_is_written_later_is_found_by_the_next_sweep(home: Keeping, hours: int) -> None:
    """Whatever clock it was admitted by, it goes: no ceiling of the moment reaches a node that is ahead."""
    account = home.custody.directory.get("ada")
    home.now += 3600 * hours
    admitted = home.admit(account, "session-2", b"said")
    home.now -= 3600 * hours
    home.custody.erase_account(account, by="op")
    home.write(admitted)
    assert account.id in list_accounts(home)
    assert sweep(home.custody).keys_destroyed == 1
    assert list_accounts(home) == {home.custody.directory.get("bob").id}


def test_what_is_written_later_is_work_by_itself(home: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ceiling stays for ever: what a node that is ahead admitted is due, and has a sweep come for it."""
    custodian, account = home.custody, home.custody.directory.get("ada")
    home.now += 3 * 3600
    admitted = home.admit(account, "session-2", b"said")
    home.now -= 3 * 3600
    custodian.erase_account(account, by="op")
    home.write(admitted)
    # What the service looks for every 5 seconds.
    with custodian.vault.connect() as connection:
        assert oldest_due(connection, home.today) == home.today
    monkeypatch.setattr(custody, "mark_remnants", lambda engine, account, at_ms: 0)
    assert sweep(custodian).keys_destroyed == 1


def test_control_without_a_look_at_what_is_left(home: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: with neither the ceiling that stays nor the sweeps' look, the same request is kept."""
    account = home.custody.directory.get("ada")
    admitted = home.admit(account, "session-2", b"said")
    monkeypatch.setattr(writer, "cover_late", lambda connection, begun: None)
    monkeypatch.setattr(custody, "mark_remnants", lambda engine, account, at_ms: 0)
    home.custody.erase_account(account, by="op")
    home.write(admitted)
    assert sweep(home.custody).keys_destroyed == 0
    assert account.id in list_accounts(home)
    assert count_keys(home) == 2


class Killed(Exception):
    """Stands for kill -9."""


@pytest.mark.parametrize("step", ["remove", "forget"])
def test_a_killed_erasure_of_an_account_is_finished_by_a_sweep(
    home: Keeping, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Killed before the account or its pseudonym goes: the next sweep lets go of both, and of no other."""
    account, bob = (home.custody.directory.get(name).id for name in ("ada", "bob"))
    home.custody.pseudonyms.name(bob)

    def die(*arguments: object) -> None:
        raise Killed

    owner = home.custody.directory if step == "remove" else home.custody.pseudonyms
    with monkeypatch.context() as patch:
        patch.setattr(owner, step, die)
        with pytest.raises(Killed):
            home.custody.erase_account(home.custody.directory.get("ada"), by="op")
    assert account in home.custody.pseudonyms.all()
    sweep(home.custody)
    assert [one.name for one in home.custody.directory.all()] == ["bob"]
    assert account not in home.custody.pseudonyms.all()
    assert bob in home.custody.pseudonyms.all()
    assert list_accounts(home) == {bob}


def limit_organization(home: Keeping, name: str) -> None:
    """Have an organization's name in the ledger, as a pseudonym."""
    home.custody.directory.limit_organization(name, Period.days(90), by=name)


def test_an_organization_goes_with_its_last_member(home: Keeping) -> None:
    """Its name is that of its first account by default: nothing makes its pseudonym any more, or tells it."""
    directory, pseudonyms = home.custody.directory, home.custody.pseudonyms
    directory.add("hopper", Plan.TEAM)
    directory.add("clerk", Plan.TEAM, organization="hopper")
    limit_organization(home, "hopper")
    home.custody.erase_account(directory.get("clerk"), by="op")
    assert "hopper" in pseudonyms.all()
    home.custody.erase_account(directory.get("hopper"), by="op")
    assert "hopper" not in pseudonyms.all()
    assert find_bytes(home.home, b"hopper") == []


def test_an_erasure_killed_before_an_organizations_pseudonym_went(
    home: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next sweep lets go of it, and of no other organization's."""
    directory, pseudonyms = home.custody.directory, home.custody.pseudonyms
    for name in ("hopper", "acme"):
        directory.add(name, Plan.TEAM)
        limit_organization(home, name)

    def die(person: str) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(pseudonyms, "forget", die)
        with pytest.raises(Killed):
            home.custody.erase_account(directory.get("hopper"), by="op")
    assert "hopper" in pseudonyms.all()
    sweep(home.custody)
    assert "hopper" not in pseudonyms.all()
    assert {"acme", "operator op"} <= pseudonyms.all().keys()


def test_released_holds_go_with_the_account(home: Keeping) -> None:
    """Its id, a session's name and the reason would stay in the vault with them; another account's stay."""
    directory = home.custody.directory
    for name in ("ada", "bob"):
        placed = home.custody.hold(directory.get(name), "session-1", reason=f"of {name}", by="counsel")
        home.custody.release(placed.id, reason="settled", by="counsel")
    home.custody.erase_account(directory.get("ada"), by="op")
    with home.custody.vault.connect() as connection:
        assert [one.reason for one in list_holds(connection)] == ["of bob"]


def test_accounts_that_are_only_missing_are_left_alone(home: Keeping) -> None:
    """Without its erasure, an account that is not there may come back from a backup: nothing of it goes."""
    home.custody.directory.add("acme", Plan.TEAM)
    limit_organization(home, "acme")
    home.custody.pseudonyms.name(home.custody.directory.get("ada").id)
    before = home.custody.pseudonyms.all()
    with home.custody.directory.engine.begin() as connection:
        for table in ("accounts", "organizations"):
            connection.execute(sa.text(f"DELETE FROM {table}"))  # noqa: S608
    assert sweep(home.custody).keys_destroyed == 0
    assert count_keys(home) == 2
    assert home.custody.pseudonyms.all() == before


def test_ratings_are_nobodys_and_stay(home: Keeping) -> None:
    """What stands under no account is left as it is, by erasures and by sweeps."""
    nobody = msgspec.structs.replace(home.custody.directory.get("ada"), id="")
    home.write(home.admit(nobody, "survey", b"5"))
    home.custody.erase_account(home.custody.directory.get("ada"), by="op")
    sweep(home.custody)
    assert list_accounts(home) == {home.custody.directory.get("bob").id, ""}


# --- Names ---


def test_the_ledger_names_nobody(keeping: Keeping) -> None:
    """No name, session, reason, label or word that was said is in any of its files."""
    custody, directory = keeping.custody, keeping.custody.directory
    directory.add("lovelace", Plan.PRO)
    keeping.record("lovelace", session="a-telling-session", body=b"what was said")
    directory.decide_for_organization("acme", Kind.DPP, given=True, by="boss")
    hold = custody.hold(directory.get("lovelace"), None, reason="a telling case", by="counsel")
    custody.release(hold.id, reason="a telling end", by="counsel")
    custody.record_access(
        directory.get("lovelace").id,
        "a-telling-session",
        reader="support",
        purpose="show",
        reason="telling why",
    )
    account = directory.get("lovelace").id
    custody.erase_account(directory.get("lovelace"), by="telling operator")
    words = (
        b"lovelace",
        b"boss",
        b"acme",
        b"telling",
        b"counsel",
        b"support",
        b"what was said",
        account.encode(),
    )
    assert find_bytes(keeping.home / FOLDER, *words) == []
    assert len(keeping.entries()) >= 6


# --- Access ---


def test_reading_anothers_content_is_an_event(keeping: Keeping) -> None:
    """Who, when, what and why is shown to the account holder, and ledgered without names."""
    directory = keeping.custody.directory
    account = directory.get("ada").id
    keeping.record("ada")
    keeping.custody.record_access(account, "session-1", reader="support", purpose="show", reason="ticket 12")
    (access,) = directory.list_accesses(account)
    assert (access.session, access.reader, access.purpose, access.reason) == (
        "session-1",
        "support",
        "show",
        "ticket 12",
    )
    (told,) = [one for one in keeping.entries() if isinstance(one, ContentRead)]
    assert told.subject == keeping.custody.pseudonyms.name(account)
    assert directory.list_accesses(directory.get("boss").id) == []


def test_who_the_account_holder_is(keeping: Keeping) -> None:
    """The user of the machine whose account it is, or who presents a proving key in force; nobody else."""
    directory = keeping.custody.directory

    def is_holder(account: str, *, user_id: int, key: str = "") -> bool:
        return holders.is_holder(directory.engine, account, Operator("somebody", user_id, key))

    directory.add("me", Plan.API, user_id=1000)
    mine, hers = directory.get("me").id, directory.get("ada").id
    assert is_holder(mine, user_id=1000)
    assert not is_holder(mine, user_id=0)
    assert not is_holder(hers, user_id=1000)
    for origin in (KeyOrigin.OTHER, KeyOrigin.RUN):
        assert not is_holder(hers, user_id=0, key=create_key(directory, "ada", origin=origin)[1])
    _, handed = create_key(directory, "ada", origin=KeyOrigin.HANDED_OVER)
    assert is_holder(hers, user_id=0, key=handed)
    _, secret = create_key(directory, "ada", origin=KeyOrigin.HOLDER)
    assert is_holder(hers, user_id=0, key=secret)
    assert not is_holder(mine, user_id=0, key=secret)
    for wrong in ("", "bailee", "bailee__", secret[:-1], secret[:-1] + "é", f"{secret}_"):
        assert not is_holder(hers, user_id=0, key=wrong)


# --- The way to the ledger ---


def test_what_was_moved_and_not_taken_out_is_not_told_twice(keeping: Keeping) -> None:
    """Killed between the two, the next mover knows the entries by their ids."""
    keeping.custody.directory.consent("ada", given=True)
    from bailee.accounts.tables import outbox

    with keeping.custody.directory.engine.connect() as connection:
        waiting = [row.entry for row in connection.execute(outbox.select())]
    keeping.custody.log.append(waiting)
    assert keeping.custody.settle() == len(waiting)
    assert list(keeping.custody.log.read()) == waiting


def test_entries_have_one_encoding(keeping: Keeping) -> None:
    """Whatever the ledger holds decodes, and encodes to the same bytes again."""
    keeping.record("ada")
    keeping.custody.directory.consent("ada", given=True)
    erase_session(keeping)
    for data in keeping.custody.log.read():
        assert encode_entry(decode_entry(data)) == data


def test_a_flipped_bit_of_a_receipt_is_told(keeping: Keeping) -> None:
    """Each bit of an erasure's receipt matters."""
    keeping.record("ada")
    receipt = erase_session(keeping)
    assert json.loads(receipt)["entries"]
    for place in range(0, len(receipt), 7):
        for bit in (0, 5):
            flipped = bytearray(receipt)
            flipped[place] ^= 1 << bit
            with pytest.raises((ReceiptRefused, Problem)):
                verify_receipt(bytes(flipped), keeping.custody.log.verifier)
    assert verify_ledger(DirectoryTiles(keeping.home / FOLDER), keeping.custody.log.verifier).verified
