"""Erasures prove themselves, accesses are events, and the ledger names nobody who is gone."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bailee.accounts import holders
from bailee.accounts.directory import Kind
from bailee.accounts.holders import Operator
from bailee.accounts.keys import create_key, list_keys
from bailee.accounts.tables import KeyOrigin
from bailee.ledger.entries import ContentRead, Erased, KeysDestroyed, decode_entry, encode_entry
from bailee.ledger.log import FOLDER
from bailee.ledger.receipts import ReceiptRefused, verify_receipt
from bailee.ledger.storage import DirectoryTiles
from bailee.ledger.verification import verify_ledger
from bailee.policy.plans import Plan
from bailee.policy.problems import Problem
from bailee.vault import tables
from bailee.vault.sweeping import sweep
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
        assert not path.exists() or b"ada" not in path.read_bytes()


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
