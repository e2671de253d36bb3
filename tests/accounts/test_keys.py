"""Keys: shown once, stored as digests, looked up from memory, revoked at once by anybody."""

import hmac
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bailee.accounts.directory import Directory, open_directory
from bailee.accounts.keys import LOGIN_DAYS, KeyRing, create_key, list_keys, open_key_ring, revoke_key
from bailee.accounts.tables import KeyOrigin
from bailee.policy.plans import Plan
from bailee.policy.problems import Problem
from counterparts.holdings import find_bytes
from counterparts.services import clean_environment


@pytest.fixture
def directory(tmp_path: Path, database: str) -> Iterator[Directory]:
    """Give a directory with one consumer."""
    opened = open_directory(tmp_path / "state")
    opened.add("ada", Plan.PRO)
    yield opened
    opened.close()


@pytest.fixture
def ring(directory: Directory, tmp_path: Path) -> Iterator[KeyRing]:
    """Give the keys as a service has them."""
    opened = open_key_ring(tmp_path / "state")
    yield opened
    opened.close()


def test_a_key_finds_its_account(directory: Directory, ring: KeyRing) -> None:
    """A key made after the service started is known to it at the next request."""
    assert ring.authenticate(b"bailee_0_0") is None
    key, secret = create_key(directory, "ada")
    principal = ring.authenticate(secret.encode())
    assert principal is not None
    assert (principal.key_id, principal.account_name) == (key.id, "ada")
    assert principal.training is False
    directory.consent("ada", given=True)
    seen = ring.authenticate(secret.encode())
    assert seen is not None
    assert seen.training is True


@pytest.mark.sqlite
def test_a_secret_is_on_disk_as_a_digest_only(directory: Directory, tmp_path: Path) -> None:
    """The secret's text and its bytes are in no file; its id, which is no secret, is."""
    key, secret = create_key(directory, "ada")
    hidden = secret.rpartition("_")[2]
    assert find_bytes(tmp_path, hidden.encode(), bytes.fromhex(hidden)) == []
    assert find_bytes(tmp_path, key.id.encode())


def test_revoking_holds_from_the_next_request(directory: Directory, ring: KeyRing) -> None:
    """One key is revoked, the other goes on; revoking again is an error, as is an unknown id."""
    key, secret = create_key(directory, "ada")
    _, other = create_key(directory, "ada")
    assert ring.authenticate(secret.encode()) is not None
    revoke_key(directory, key.id)
    assert ring.authenticate(secret.encode()) is None
    assert ring.authenticate(other.encode()) is not None
    for id in (key.id, "0" * 16):
        with pytest.raises(Problem, match="no key"):
            revoke_key(directory, id)
    assert sorted(one.revoked_ms is None for one in list_keys(directory)) == [False, True]


def test_another_process_revokes_as_well(directory: Directory, ring: KeyRing, tmp_path: Path) -> None:
    """What `bailee keys revoke` does in a shell holds in a service that runs."""
    key, secret = create_key(directory, "ada")
    assert ring.authenticate(secret.encode()) is not None
    command = [sys.executable, "-m", "bailee", "keys", "revoke", key.id, "--home", str(tmp_path / "state")]
    subprocess.run(command, env=clean_environment(tmp_path), check=True, capture_output=True)
    assert ring.authenticate(secret.encode()) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.binary(max_size=120) | st.from_regex(rb"bailee_[0-9a-f]{16}_[0-9a-f]{64}", fullmatch=True))
def test_other_bytes_are_nobodys(ring: KeyRing, token: bytes) -> None:
    """No other bytes authenticate anybody, and none make it fail."""
    assert ring.authenticate(token) is None


def test_one_changed_letter_is_another_key(directory: Directory, ring: KeyRing) -> None:
    """Whichever letter of a key is changed, it opens nothing."""
    _, secret = create_key(directory, "ada")
    for at, letter in enumerate(secret):
        changed = secret[:at] + ("0" if letter != "0" else "1") + secret[at + 1 :]
        assert ring.authenticate(changed.encode()) is None
    assert ring.authenticate(secret.encode()) is not None


def test_an_unknown_id_costs_the_same_comparison(
    directory: Directory, ring: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known or not, a key of the right form is compared once, and in constant time."""
    _, secret = create_key(directory, "ada")
    compared = []
    compare = hmac.compare_digest

    def count(one: bytes, other: bytes) -> bool:
        compared.append(len(one) == len(other) == 32)
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", count)
    ring.authenticate(secret.encode())
    ring.authenticate(b"bailee_" + b"0" * 16 + secret[-65:].encode())
    assert compared == [True, True]


@pytest.mark.parametrize("label", ["two\nlines", "x" * 101, "bell\a"])
def test_a_label_is_one_line(directory: Directory, label: str) -> None:
    """A label that would break a listing is refused."""
    with pytest.raises(Problem, match="label"):
        create_key(directory, "ada", label=label)


def test_a_login_expires_and_a_key_does_not(directory: Directory) -> None:
    """The token of a login opens nothing after ninety days; a key that was made by hand goes on (control)."""
    moments = [0.0]
    ring = KeyRing(directory, lambda: 1, clock=lambda: moments[0])
    login, token = create_key(directory, "ada", origin=KeyOrigin.LOGIN, clock=lambda: 1000.0)
    _, by_hand = create_key(directory, "ada", clock=lambda: 1000.0)
    last = 1000.0 + LOGIN_DAYS * 86_400
    assert login.expires_ms == int(last * 1000)
    for moment, is_in_force in ((1000.0, True), (last - 1, True), (last, False), (last * 10, False)):
        moments[0] = moment
        assert (ring.authenticate(token.encode()) is not None) is is_in_force
        assert login.is_in_force(int(moment * 1000)) is is_in_force
        assert ring.authenticate(by_hand.encode()) is not None
