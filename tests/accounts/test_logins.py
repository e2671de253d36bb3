"""Logins: two codes, kept as digests, approved by whom they are for, redeemed once, gone in time."""

import hmac
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from bailee.accounts import holders, logins, tables
from bailee.accounts.choices import require_holder
from bailee.accounts.directory import Directory, open_directory
from bailee.accounts.holders import Operator, is_holder
from bailee.accounts.keys import Key, create_key, find_key, list_keys, open_key_ring, revoke_key, revoke_keys
from bailee.accounts.logins import (
    LETTERS,
    LIFETIME_MS,
    MOST_GUESSES,
    MOST_OF_ADDRESS,
    REMEMBERED_MS,
    Codes,
    Login,
    LoginState,
    TooManyLogins,
    approve_login,
    begin_login,
    deny_login,
    find_login,
    find_waiting,
    forget_logins,
    list_logins,
    normalize_code,
    redeem_login,
)
from bailee.accounts.people import Account
from bailee.accounts.tables import KeyOrigin
from bailee.ledger.entries import AnyEntry, ConsentRefused, KeyCreated, decode_entry
from bailee.policy.plans import Plan
from bailee.policy.problems import Problem
from counterparts.holdings import find_bytes

NOBODY = Operator("somebody", -1)


class Office:
    """A directory with two consumers, and a clock that a test sets."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.now = 1_800_000_000.0
        self.directory: Directory = open_directory(home, clock=lambda: self.now)
        self.ada: Account = self.directory.add("ada", Plan.PRO)
        self.bob: Account = self.directory.add("bob", Plan.PRO)

    def begin(self, address: str = "192.0.2.1", label: str = "laptop") -> Codes:
        return begin_login(self.directory, client="bailee-agent", label=label, address=address)

    def find(self, codes: Codes) -> Login:
        found = find_login(self.directory, codes.device_code)
        assert found is not None
        return found

    def approve(self, codes: Codes) -> Login:
        waiting = find_waiting(self.directory, codes.user_code, by=self.ada.id)
        approve_login(self.directory, waiting, self.ada, by="root")
        return self.find(codes)

    def entries(self) -> list[AnyEntry]:
        with self.directory.engine.connect() as connection:
            rows = connection.execute(sa.select(tables.outbox).order_by(tables.outbox.c.number))
            return [decode_entry(row.entry) for row in rows]


@pytest.fixture
def office(tmp_path: Path, database: str) -> Iterator[Office]:
    """Give an office."""
    opened = Office(tmp_path / "state")
    yield opened
    opened.directory.close()


# --- Codes ---


def test_a_code_is_easy_to_type(office: Office) -> None:
    """Eight letters of RFC 8628's twenty, in two groups; small letters, blanks and dashes do not matter."""
    codes = office.begin()
    first, second = codes.user_code.split("-")
    assert (len(first), len(second)) == (4, 4)
    assert set(first + second) <= set(LETTERS)
    assert not set(LETTERS) & set("AEIOUY0123456789")
    for typed in (codes.user_code, codes.user_code.lower(), f" {first} {second} ", first + second):
        assert find_waiting(office.directory, typed).id == office.find(codes).id
    assert normalize_code("wdjb-mjht") == "WDJBMJHT"


@pytest.mark.sqlite
def test_codes_are_on_disk_as_digests_only(office: Office, tmp_path: Path) -> None:
    """Neither what an agent polls with nor what a person types is in any file; the id, no secret, is."""
    codes = office.begin()
    id, secret = codes.device_code.split("_")
    plain = codes.user_code.replace("-", "")
    hidden = [text.encode() for text in (secret, codes.user_code, plain)]
    assert find_bytes(tmp_path, *hidden, bytes.fromhex(secret)) == []
    assert find_bytes(tmp_path, id.encode())
    assert secret not in repr(codes)
    assert codes.user_code not in repr(codes)


def test_one_changed_letter_is_another_code(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever letter of a device code is changed, it polls for nothing.

    The secret's digest is compared in constant time, for an unknown id as well.
    """
    code = office.begin().device_code
    for at, letter in enumerate(code):
        assert (
            find_login(office.directory, code[:at] + ("0" if letter != "0" else "1") + code[at + 1 :]) is None
        )
    compared = []
    compare = hmac.compare_digest

    def count(one: bytes, other: bytes) -> bool:
        compared.append(len(one) == len(other) == 32)
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", count)
    assert find_login(office.directory, code) is not None
    assert find_login(office.directory, "0" * 16 + code[16:]) is None
    assert compared == [True, True]


# --- From the code to the key ---


def test_an_approved_login_makes_one_key(office: Office) -> None:
    """It is redeemed once; the key opens the account for agents, and the ledger tells of it as a login's.

    Control: with the mark that it was redeemed taken away, it makes another.
    """
    codes = office.begin()
    assert office.find(codes).state is LoginState.WAITING
    assert redeem_login(office.directory, office.find(codes)) is None
    login = office.approve(codes)
    assert (login.state, login.account) == (LoginState.APPROVED, office.ada.id)
    made = redeem_login(office.directory, login)
    assert made is not None
    key, secret = made
    assert (key.account, key.origin, key.made_by, key.label) == (
        "ada",
        KeyOrigin.LOGIN,
        "root",
        "login laptop",
    )
    assert office.find(codes).state is LoginState.REDEEMED
    assert redeem_login(office.directory, login) is None
    ring = open_key_ring(office.home)
    principal = ring.authenticate(secret.encode())
    ring.close()
    assert principal is not None
    assert principal.account_name == "ada"
    (entry,) = [one for one in office.entries() if isinstance(one, KeyCreated)]
    assert (entry.origin, entry.by, entry.subject) == (
        "login",
        office.directory.name(office.ada.id),
        entry.by,
    )
    with office.directory.engine.begin() as connection:
        connection.execute(sa.update(tables.logins).values(redeemed_ms=None))
    assert redeem_login(office.directory, login) is not None


def test_of_two_that_redeem_at_once_one_gets_a_key(office: Office) -> None:
    """Twenty threads with the same code: one key."""
    login = office.approve(office.begin())
    made: list[tuple[Key, str] | None] = []
    start = threading.Barrier(20)

    def redeem() -> None:
        start.wait()
        made.append(redeem_login(office.directory, login))

    office.directory.name(office.ada.id)  # opened before they race
    threads = [threading.Thread(target=redeem) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(one is not None for one in made) == 1
    assert len(made) == 20
    assert len(list_keys(office.directory)) == 1


def test_the_key_of_a_login_proves_nobody(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that has it is not the account holder, and approves no further login.

    Control: where every key proves, it is.
    """
    made = redeem_login(office.directory, office.approve(office.begin()))
    assert made is not None
    agent = Operator("somebody", -1, made[1])
    assert not is_holder(office.directory.engine, office.ada.id, agent)
    with pytest.raises(Problem, match="alone approves a login"):
        require_holder(office.directory, "ada", agent)
    monkeypatch.setattr(holders, "PROVING", tuple(KeyOrigin))
    assert is_holder(office.directory.engine, office.ada.id, agent)


def test_who_is_not_the_holder_approves_nothing(office: Office) -> None:
    """It is refused and ledgered; with a key that proves the holder it is done."""
    with pytest.raises(Problem, match="alone approves a login"):
        require_holder(office.directory, "ada", NOBODY)
    (refused,) = [one for one in office.entries() if isinstance(one, ConsentRefused)]
    assert (refused.consent, refused.given) == ("login", True)
    assert refused.subject == office.directory.name(office.ada.id) != refused.by
    _, proof = create_key(office.directory, "ada", origin=KeyOrigin.HANDED_OVER, made_by="root")
    assert require_holder(office.directory, "ada", Operator("somebody", -1, proof)).id == office.ada.id


def test_a_denied_login_stays_denied(office: Office) -> None:
    """Nobody approves it any more, and it makes no key."""
    codes = office.begin()
    waiting = find_waiting(office.directory, codes.user_code)
    deny_login(office.directory, waiting, by="root")
    assert office.find(codes).state is LoginState.DENIED
    with pytest.raises(Problem, match="no login waits"):
        office.approve(codes)
    with pytest.raises(Problem, match="decided meanwhile"):
        approve_login(office.directory, waiting, office.ada, by="root")
    assert redeem_login(office.directory, office.find(codes)) is None


def test_after_ten_minutes_nothing_comes_of_it(office: Office) -> None:
    """Not approved any more, nor redeemed where it was approved in time; a moment before, it was."""
    late, approved, in_time = office.begin(), office.begin(), office.begin()
    login, before = office.approve(approved), office.approve(in_time)
    office.now += LIFETIME_MS / 1000 - 1
    assert redeem_login(office.directory, before) is not None
    office.now += 1
    assert redeem_login(office.directory, login) is None
    with pytest.raises(Problem, match="no login waits"):
        office.approve(late)
    assert list_logins(office.directory) == []
    assert office.find(late).expires_ms <= office.now * 1000


# --- Limits ---


def test_wrong_codes_are_counted(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """After five, even the right one is refused for ten minutes; another holder's are another's.

    Control: where the limit is high, the sixth is looked at.
    """
    codes = office.begin()

    def guess(by: Account) -> str:
        with pytest.raises(Problem) as refused:
            find_waiting(office.directory, "BBBB-BBBB", by=by.id)
        return refused.value.what

    for _ in range(MOST_GUESSES):
        assert "no login waits" in guess(office.ada)
    assert "too many wrong codes" in guess(office.ada)
    with pytest.raises(Problem, match="too many wrong codes"):
        office.approve(codes)
    assert "no login waits" in guess(office.bob)
    with monkeypatch.context() as patched:
        patched.setattr(logins, "MOST_GUESSES", 1000)
        assert "no login waits" in guess(office.ada)
    office.now += LIFETIME_MS / 1000 + 1
    assert "no login waits" in guess(office.ada)
    office.approve(office.begin())


def test_only_so_many_wait(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one address, and of all; what is decided or expires makes room."""
    codes = [office.begin() for _ in range(MOST_OF_ADDRESS)]
    with pytest.raises(TooManyLogins):
        office.begin()
    office.begin(address="192.0.2.2")
    monkeypatch.setattr(logins, "MOST", MOST_OF_ADDRESS + 1)
    with pytest.raises(TooManyLogins):
        office.begin(address="192.0.2.3")
    office.approve(codes[0])
    office.begin(address="192.0.2.3")
    office.now += LIFETIME_MS / 1000
    office.begin()


@pytest.mark.parametrize("label", ["two\nlines", "x" * 101, "bell\a"])
def test_a_machines_name_is_one_line(office: Office, label: str) -> None:
    """Whatever an agent calls its machine, it breaks no listing."""
    with pytest.raises(Problem, match="label"):
        office.begin(label=label)


# --- What becomes of it ---


def test_logins_are_forgotten(office: Office) -> None:
    """Ten minutes after it expired, neither address nor machine is held any more; the key goes on."""
    codes = office.begin()
    made = redeem_login(office.directory, office.approve(codes))
    with pytest.raises(Problem):
        find_waiting(office.directory, "BBBB-BBBB", by=office.ada.id)
    office.now += (LIFETIME_MS + REMEMBERED_MS) / 1000 - 1
    assert forget_logins(office.directory) == 1  # the wrong code
    assert find_login(office.directory, codes.device_code) is not None
    office.now += 1
    assert forget_logins(office.directory) == 1
    assert find_login(office.directory, codes.device_code) is None
    assert forget_logins(office.directory) == 0
    assert made is not None
    assert find_key(office.directory, made[1].encode()) == made[0]


def test_an_account_takes_its_logins_with_it(office: Office) -> None:
    """Once its keys are revoked, an approved login makes none; with the account its rows go, others' stay."""
    approved, other = office.begin(), office.begin()
    login = office.approve(approved)
    revoke_keys(office.directory, office.ada.id)
    assert redeem_login(office.directory, login) is None
    office.approve(office.begin())
    with pytest.raises(Problem):
        find_waiting(office.directory, "BBBB-BBBB", by=office.ada.id)
    office.directory.remove(office.ada.id)
    assert [one.id for one in list_logins(office.directory)] == [office.find(other).id]
    with office.directory.engine.connect() as connection:
        assert connection.execute(sa.select(tables.login_guesses)).all() == []


def test_a_key_is_found_by_what_is_presented(office: Office) -> None:
    """One in force, by its facts; revoked, changed or another's form, none."""
    key, secret = create_key(office.directory, "ada")
    assert find_key(office.directory, secret.encode()) == key
    for other in (secret[:-1] + ("0" if secret[-1] != "0" else "1"), "bailee_0_0", "", "sk-other"):
        assert find_key(office.directory, other.encode()) is None
    revoke_key(office.directory, key.id)
    assert find_key(office.directory, secret.encode()) is None
