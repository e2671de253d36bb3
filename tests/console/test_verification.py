"""What the console verifies at a click: receipts by the key that is given, and the ledger as the newest that
there was.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bailee.accounts.directory import open_directory
from bailee.ledger.log import FOLDER, open_log
from bailee.ledger.notes import Signer, Verifier
from bailee.ledger.receipts import join_receipts
from bailee.policy.plans import Plan
from console.cast import Cast, make_people
from counterparts.keeping import Keeping
from counterparts.services import serving

RECEIPTS, VERIFY = "/console/receipts", "/console/ledger/verify"


def erase_elsewhere(folder: Path) -> tuple[str, Verifier]:
    """Erase a session of a home of its own; return the receipt, and that ledger's public key."""
    keeping = Keeping(folder / "elsewhere")
    account = keeping.custody.directory.add("zoe", Plan.PRO)
    keeping.record("zoe", "zoes-session")
    _, receipt = keeping.custody.erase_session(account.id, "zoes-session", by="zoe")
    verifier = keeping.custody.log.verifier
    keeping.close()
    return receipt.decode(), verifier


def test_a_receipt_of_another_ledger_is_verified_by_that_ones_key(cast: Cast, tmp_path: Path) -> None:
    """It holds by the key that is given, and not by this ledger's, whether that is given or left out; a key
    of another that has the same name refuses it too.
    """
    receipt, theirs = erase_elsewhere(tmp_path)
    own = open_log(cast.home / FOLDER).verifier
    forged = Signer(theirs.name, bytes(32)).verifier
    for key, holds in ((theirs.text, 1), (own.text, 0), ("", 0), (forged.text, 0), (f" {theirs.text}\n", 1)):
        status, told = cast.send_form(RECEIPTS, "charlie", receipt=receipt, key=key)
        assert (status, f"<strong>{holds} of 1</strong>" in told) == (200, True), key
        assert ("Not verified:" in told) == (not holds)
        assert (f"of {theirs.name}." in told) == bool(holds)


def test_a_receipt_of_this_ledger_is_refused_by_another_key(cast: Cast, tmp_path: Path) -> None:
    """Kept ones too, which are verified by this ledger's key where none is given (control)."""
    _, theirs = erase_elsewhere(tmp_path)
    report = cast.send_report("charlie", "charlie-first", "to be withdrawn")
    assert cast.send_form(f"/console/feedback/{report}/withdraw", "charlie")[0] == 200
    receipt = cast.ask("GET", "/console/data/receipts", "charlie")[1]
    for given in ({"receipt": receipt}, {"kept": "1"}):
        told = cast.send_form(RECEIPTS, "charlie", **given)[1]
        refused = cast.send_form(RECEIPTS, "charlie", **given, key=theirs.text)[1]
        total = int(told.partition("<strong>")[2].partition(" of ")[2].partition("<")[0])
        assert total >= 1
        assert f"<strong>{total} of {total}</strong>" in told
        assert f"<strong>0 of {total}</strong>" in refused


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, "receipt.json"),
        ({"name": "receipts"}, "receipts.json"),
        ({"name": "../x"}, "receipt.json"),
        ({"session": "alice-first"}, "receipt-alice-first.json"),
        ({"session": "../a b\r\n<c>"}, "receipt-a-b-c.json"),
    ],
)
def test_a_receipt_is_downloaded_as_it_was_made(cast: Cast, fields: dict[str, str], name: str) -> None:
    """To the byte, though a form sends it with carriage returns; its file is named after the session, by what
    may stand in a name.
    """
    sent = "{\r\n}\r\n"
    status, told, headers = cast.press(f"{RECEIPTS}/download", "charlie", receipt=sent, **fields)
    assert (status, told) == (200, "{\n}\n")
    assert f'filename="{name}"' in headers["content-disposition"]


def test_of_many_receipts_each_is_verified(cast: Cast, tmp_path: Path) -> None:
    """What the first fifty prove is shown, and that the rest was verified; one that was altered is named,
    wherever it stands.
    """
    keeping = Keeping(tmp_path / "elsewhere")
    account = keeping.custody.directory.add("zoe", Plan.PRO)
    receipts = []
    for number in range(52):
        keeping.record("zoe", f"session-{number}")
        receipts.append(keeping.custody.erase_session(account.id, f"session-{number}", by="zoe")[1])
    key = keeping.custody.log.verifier.text
    keeping.close()

    def verify(given: list[bytes]) -> str:
        whole = b"".join(join_receipts(given)).decode()
        return cast.send_form(RECEIPTS, "charlie", receipt=whole, key=key)[1]

    told = verify(receipts)
    assert "<strong>52 of 52</strong>" in told
    assert "All 52 were verified; what the first ones prove is shown." in told
    assert told.count('aria-label="What receipt') == 50
    altered = receipts[-1].replace(b'"index": ', b'"index": 1', 1)
    told = verify([*receipts[:-1], altered])
    assert "<strong>51 of 52</strong>" in told
    assert "Receipt 52: Not verified: " in told


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cast]:
    """Give a service of its own, whose ledger nobody else adds to."""
    folder = tmp_path_factory.mktemp("alone")
    home = folder / "state"
    make_people(home)
    with serving(home, folder, "--upstream", "rehearsal") as service:
        found = Cast(home, service)
        directory = open_directory(home)
        found.ids = {
            person: directory.get(name).id for person, name in (("admin", "ada"), ("operator", "olga"))
        }
        directory.close()
        for person in found.ids:
            found.tokens[person] = found.sign_in(person)
        yield found


def put_in_place(ledger: Path, other: Path) -> None:
    """Have a copy stand where the ledger was."""
    shutil.rmtree(ledger)
    shutil.copytree(other, ledger)


@pytest.mark.parametrize("person", ["admin", "operator"])
def test_a_ledger_that_was_put_back_is_not_verified(alone: Cast, tmp_path: Path, person: str) -> None:
    """An older copy, whole and signed, is told; with the newest put back all of it holds again (control)."""
    ledger, older, newer = alone.home / FOLDER, tmp_path / "older", tmp_path / "newer"
    words = "it was put back to an older state"
    assert "every one of them" in alone.send_form(VERIFY, person)[1]
    shutil.copytree(ledger, older)
    size = open_log(ledger).size
    assert alone.send_form("/console/privacy/flows", person, flow="metrics", to="refused")[0] == 303
    assert alone.send_form("/console/privacy/flows", person, flow="metrics", to="taken")[0] == 303
    assert "every one of them" in alone.send_form(VERIFY, person)[1]
    assert open_log(ledger).size > size
    shutil.copytree(ledger, newer)
    put_in_place(ledger, older)
    try:
        told = alone.send_form(VERIFY, person)[1]
        assert (words in told, "not verified" in told, "every one of them" in told) == (True, True, False)
    finally:
        put_in_place(ledger, newer)
    told = alone.send_form(VERIFY, person)[1]
    assert (words in told, "every one of them" in told) == (False, True)


def test_a_ledger_that_was_put_back_and_added_to_is_not_verified(alone: Cast, tmp_path: Path) -> None:
    """Another history of the same length, signed with the same key, is told by the one that was noted."""
    ledger, older, newer = alone.home / FOLDER, tmp_path / "older", tmp_path / "newer"
    shutil.copytree(ledger, older)
    assert alone.send_form("/console/privacy/flows", "admin", flow="metrics", to="refused")[0] == 303
    assert "every one of them" in alone.send_form(VERIFY, "admin")[1]
    size = open_log(ledger).size
    shutil.copytree(ledger, newer)
    put_in_place(ledger, older)
    other = open_log(ledger)
    other.append([b'{"kind":"another history"}'] * (size - other.size + 1))
    try:
        told = alone.send_form(VERIFY, "admin")[1]
        assert ("it was put back and added to" in told, "not verified" in told) == (True, True)
    finally:
        put_in_place(ledger, newer)
    assert "every one of them" in alone.send_form(VERIFY, "admin")[1]
