"""Passkeys: what signs a holder in, and everything that does not; each is taken with nothing wrong."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import webauthn

from bailee.accounts import passkeys, tables
from bailee.accounts.directory import Directory, open_directory
from bailee.accounts.holders import Operator, has_proof
from bailee.accounts.passkeys import (
    CHALLENGE_MS,
    add_passkey,
    begin_adding,
    begin_signing_in,
    check_passkey,
    list_passkeys,
    remove_passkey,
    take_passkeys,
)
from bailee.accounts.passwords import set_password
from bailee.accounts.people import Account
from bailee.accounts.sign_ins import Way, list_sign_ins, sign_in
from bailee.policy.plans import Plan
from bailee.policy.problems import Problem
from counterparts.authenticators import PRESENT, Authenticator

ORIGIN, BROWSER = "https://bailee.example.com", "a browser"
RUNNER = Operator("runner", os.getuid())


@dataclass
class Scene:
    """Alice, who has a passkey, and Bob."""

    directory: Directory
    alice: Account
    bob: Account
    device: Authenticator

    def ask(self) -> bytes:
        return begin_signing_in(self.directory, origin=ORIGIN, browser=BROWSER)

    def check(self, answer: str, *, browser: str = BROWSER) -> str | None:
        """Return whom an answer signs in."""
        found = check_passkey(self.directory, answer, origin=ORIGIN, browser=browser)
        return found.name if found else None

    def use(self, device: Authenticator | None = None) -> str | None:
        """Sign in as one does."""
        return self.check((device or self.device).get(self.ask(), ORIGIN, self.alice.id))

    def refusals(self) -> int:
        """Return how many refused sign-ins wait for the ledger."""
        with self.directory.engine.connect() as connection:
            rows = connection.execute(tables.outbox.select()).all()
        return sum("sign_in_refused" in str(row) for row in rows)


def add(directory: Directory, holder: Account, device: Authenticator, **more: int) -> None:
    """Add a passkey as its holder does."""
    asked = begin_adding(directory, holder, origin=ORIGIN, browser=BROWSER)
    answer = device.create(asked, ORIGIN, **more)
    add_passkey(
        directory,
        holder.name,
        Operator(holder.name, -1, signed_in=holder.id),
        name="phone",
        answer=answer,
        origin=ORIGIN,
        browser=BROWSER,
    )


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Give Alice with a passkey that counts, and Bob without one."""
    directory = open_directory(tmp_path / "state")
    directory.add("alice", Plan.PRO)
    directory.add("bob", Plan.PRO)
    made = Scene(directory, directory.get("alice"), directory.get("bob"), Authenticator())
    made.device.signatures = 1
    add(directory, made.alice, made.device)
    made.device.signatures = 2
    yield made
    directory.close()


def test_a_passkey_signs_its_holder_in(scene: Scene) -> None:
    """Once for each challenge; what the authenticator counts, and when it was used, is kept."""
    assert scene.use() == "alice"
    (kept,) = list_passkeys(scene.directory, scene.alice.id)
    assert (kept.name, kept.host, kept.signatures) == ("phone", "bailee.example.com", 2)
    assert kept.used_ms is not None
    assert scene.refusals() == 0


def spoil(scene: Scene, how: str) -> str:
    """Return an answer with one thing wrong."""
    asked, device, alice = scene.ask(), scene.device, scene.alice.id
    if how == "another origin":
        return device.get(asked, "https://evil.example", alice)
    if how == "another port":
        return device.get(asked, f"{ORIGIN}:8443", alice)
    if how == "another host":
        return device.get(asked, ORIGIN, alice, host="evil.example")
    if how == "nobody verified":
        return device.get(asked, ORIGIN, alice, flags=PRESENT)
    if how == "another holder":
        return device.get(asked, ORIGIN, scene.bob.id)
    if how == "a count that stands":
        device.signatures = 1
        return device.get(asked, ORIGIN, alice)
    answer = json.loads(device.get(asked, ORIGIN, alice))
    if how == "another key":
        other = Authenticator()
        other.id, other.signatures = device.id, 2
        return other.get(asked, ORIGIN, alice)
    signature = answer["response"]["signature"]
    answer["response"]["signature"] = signature[:-4] + ("AAAA" if signature[-4:] != "AAAA" else "BBBB")
    return json.dumps(answer)


WRONGS = (
    "another origin",
    "another port",
    "another host",
    "nobody verified",
    "another holder",
    "a count that stands",
    "another key",
    "a signature that was altered",
)


@pytest.mark.parametrize("how", WRONGS)
def test_what_is_wrong_is_refused(scene: Scene, how: str) -> None:
    """One thing is wrong, and nobody is signed in; it is ledgered; with nothing wrong the same key does."""
    assert scene.check(spoil(scene, how)) is None
    assert scene.refusals() == 1
    scene.device.signatures = 2
    assert scene.use() == "alice"


@pytest.mark.parametrize("how", WRONGS)
def test_control_without_the_check(scene: Scene, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: with the library's check, and that of the holder, out each of them is let in."""

    class Verified:
        new_sign_count = 3

    monkeypatch.setattr(webauthn, "verify_authentication_response", lambda **given: Verified)
    monkeypatch.setattr(passkeys.hmac, "compare_digest", lambda one, other: True)
    assert scene.check(spoil(scene, how)) == "alice"


def test_a_challenge_is_good_once_for_one_browser_and_for_minutes(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replayed answer, another browser's, a late one, one made up and one of adding sign nobody in."""
    answer = scene.device.get(scene.ask(), ORIGIN, scene.alice.id)
    assert scene.check(answer) == "alice"
    scene.device.signatures = 0
    with pytest.raises(Problem, match="used already"):
        scene.check(answer)
    scene.device.signatures = 3
    theirs = scene.device.get(scene.ask(), ORIGIN, scene.alice.id)
    with pytest.raises(Problem, match="not for this browser"):
        scene.check(theirs, browser="another browser")
    assert scene.check(theirs) == "alice"
    asked = begin_adding(scene.directory, scene.alice, origin=ORIGIN, browser=BROWSER)
    options = {**json.loads(asked), "rpId": "bailee.example.com"}
    for wrong in (options, {**options, "challenge": "AAAA"}):
        with pytest.raises(Problem, match="not for this browser"):
            scene.check(scene.device.get(json.dumps(wrong).encode(), ORIGIN, scene.alice.id))
    late = scene.device.get(scene.ask(), ORIGIN, scene.alice.id)
    now = scene.directory.now_ms() + CHALLENGE_MS
    monkeypatch.setattr(scene.directory, "now_ms", lambda: now)
    with pytest.raises(Problem, match="too old"):
        scene.check(late)


def test_control_a_challenge_that_is_not_used_up(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: where a challenge stays good, and nothing counts, an answer signs in twice."""
    device = Authenticator()
    add(scene.directory, scene.alice, device)
    answer = device.get(scene.ask(), ORIGIN, scene.alice.id)
    assert scene.check(answer) == "alice"
    with pytest.raises(Problem, match="used already"):
        scene.check(answer)
    challenge = webauthn.base64url_to_bytes(
        json.loads(webauthn.base64url_to_bytes(json.loads(answer)["response"]["clientDataJSON"]))["challenge"]
    )
    monkeypatch.setattr(passkeys, "_use_challenge", lambda *given: challenge)
    assert scene.check(answer) == "alice"


@pytest.mark.parametrize("answer", ["", "[]", "{}", '{"response": 1}', '{"response": {}}', "[" * 19_000])
def test_what_is_no_answer_is_told_so(scene: Scene, answer: str) -> None:
    """In words, and without a fault."""
    with pytest.raises(Problem, match=r"no answer|not for this browser"):
        scene.check(answer)


def test_the_holder_alone_adds_one(scene: Scene) -> None:
    """Not another, not for another; not one that verifies nobody, for another origin, or twice."""
    device = Authenticator()

    def try_to(by: Account, answer: str) -> None:
        asker = Operator(by.name, -1, signed_in=by.id)
        add_passkey(scene.directory, "bob", asker, name="x", answer=answer, origin=ORIGIN, browser=BROWSER)

    def ask() -> bytes:
        return begin_adding(scene.directory, scene.bob, origin=ORIGIN, browser=BROWSER)

    with pytest.raises(Problem, match="holder alone"):
        try_to(scene.alice, device.create(ask(), ORIGIN))
    for answer in (device.create(ask(), "https://evil.example"), device.create(ask(), ORIGIN, PRESENT)):
        with pytest.raises(Problem, match="not the passkey"):
            try_to(scene.bob, answer)
    of_alice = begin_adding(scene.directory, scene.alice, origin=ORIGIN, browser=BROWSER)
    with pytest.raises(Problem, match="not for this browser"):
        try_to(scene.bob, device.create(of_alice, ORIGIN))
    assert not has_proof(scene.directory.engine, scene.bob.id)
    try_to(scene.bob, device.create(ask(), ORIGIN))
    with pytest.raises(Problem, match="known already"):
        try_to(scene.bob, device.create(ask(), ORIGIN))


def test_a_passkey_is_a_proof(scene: Scene) -> None:
    """With one, no password is handed over behind its holder's back; once it is taken away, one may be."""

    def hand_over() -> None:
        set_password(scene.directory, "alice", RUNNER, "correct horse battery", for_holder=True)

    with pytest.raises(Problem, match="proves who they are"):
        hand_over()
    assert take_passkeys(scene.directory, "alice", RUNNER) == 1
    hand_over()


def test_a_removed_passkey_signs_nobody_in(scene: Scene) -> None:
    """Its holder alone removes it; sign-ins elsewhere end; and erasing the account removes what is left."""
    (kept,) = list_passkeys(scene.directory, scene.alice.id)
    with pytest.raises(Problem, match="no such passkey"):
        remove_passkey(scene.directory, scene.bob, kept.id)
    sign_in(scene.directory, scene.alice.id, None, Way.PASSKEY, address="", agent="")
    remove_passkey(scene.directory, scene.alice, kept.id)
    assert list_sign_ins(scene.directory, scene.alice.id, None) == []
    assert scene.use() is None
    add(scene.directory, scene.alice, Authenticator())
    begin_adding(scene.directory, scene.alice, origin=ORIGIN, browser=BROWSER)
    scene.directory.remove(scene.alice.id)
    with scene.directory.engine.connect() as connection:
        assert connection.execute(tables.passkeys.select()).all() == []
        left = connection.execute(tables.passkey_challenges.select()).all()
    assert [row for row in left if row.account] == []
