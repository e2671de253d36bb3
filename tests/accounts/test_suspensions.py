"""Members whom an admin keeps out: nothing of theirs opens anything, and all of it does again."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from bailee.accounts import sign_ins, tables
from bailee.accounts.directory import Directory, open_directory
from bailee.accounts.holders import Operator, has_proof
from bailee.accounts.keys import create_key, find_key, open_key_ring
from bailee.accounts.passwords import set_password
from bailee.accounts.roles import change_role
from bailee.accounts.sign_ins import Way, find_sign_in, make_link, redeem_link, sign_in
from bailee.accounts.suspensions import suspend_member
from bailee.accounts.tables import KeyOrigin, Role
from bailee.policy.plans import Plan
from bailee.policy.problems import Problem

RUNNER = Operator("runner", -1)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Directory]:
    """Give an organization of an admin and a member."""
    found = open_directory(tmp_path)
    found.add("ada", Plan.TEAM, organization="acme")
    found.add("bob", Plan.TEAM, organization="acme", role=Role.MEMBER)
    found.add("charlie", Plan.PRO)
    set_password(found, "bob", RUNNER, "a password of bob's", for_holder=True)
    yield found
    found.close()


def ada_of(directory: Directory) -> Operator:
    """Return the admin, signed in."""
    return Operator("ada", -1, signed_in=directory.get("ada").id)


def suspend(directory: Directory, *, given: bool = True) -> None:
    """Have the admin suspend Bob."""
    suspend_member(directory, "acme", "bob", ada_of(directory), given=given)


def test_keys_open_nothing_until_it_is_over(directory: Directory, tmp_path: Path) -> None:
    """A running service hears of it at the next request, of both; another member's key opens as before."""
    _, secret = create_key(directory, "bob", origin=KeyOrigin.OTHER, made_by="runner")
    _, other = create_key(directory, "ada", origin=KeyOrigin.OTHER, made_by="runner")
    ring = open_key_ring(tmp_path)
    assert ring.authenticate(secret.encode()) is not None
    suspend(directory)
    assert ring.authenticate(secret.encode()) is None
    assert find_key(directory, secret.encode()) is None
    assert ring.authenticate(other.encode()) is not None
    suspend(directory, given=False)
    assert ring.authenticate(secret.encode()) is not None
    assert find_key(directory, secret.encode()) is not None
    ring.close()


def test_sign_ins_end_and_none_begins(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """By no way; what proves the holder stays, so that nobody else is handed the next proof. Control: without
    the check a browser is let in.
    """
    bob = directory.get("bob").id
    token = sign_in(directory, bob, None, Way.PASSWORD, address="", agent="")
    link = make_link(directory, account=bob, user=None)
    suspend(directory)
    assert find_sign_in(directory, token) is None
    assert redeem_link(directory, link, address="", agent="") is None
    for way in (Way.PASSWORD, Way.PASSKEY, Way.ORGANIZATION):
        with pytest.raises(Problem, match="suspended"):
            sign_in(directory, bob, None, way, address="", agent="")
    with directory.engine.connect() as connection:
        told = [row.entry for row in connection.execute(sa.select(tables.outbox))]
    assert sum(b'"sign_in_refused"' in entry for entry in told) == 3
    assert has_proof(directory.engine, bob)
    with pytest.raises(Problem):
        set_password(directory, "bob", RUNNER, "a password of another's", for_holder=True)
    with monkeypatch.context() as unguarded:
        unguarded.setattr(sign_ins, "_is_suspended", lambda directory, account: False)
        assert sign_in(directory, bob, None, Way.PASSWORD, address="", agent="")
    suspend(directory, given=False)
    assert sign_in(directory, bob, None, Way.PASSWORD, address="", agent="")


def test_whoever_runs_the_service_goes_on_doing_so(directory: Directory) -> None:
    """Their link signs them in as operator, and to the suspended account no more."""
    suspend(directory)
    link = make_link(directory, account=directory.get("bob").id, user="runner")
    token = redeem_link(directory, link, address="", agent="")
    assert token is not None
    found = find_sign_in(directory, token)
    assert found is not None
    assert (found.account, found.user) == (None, "runner")


def test_an_admin_alone_and_members_alone(directory: Directory) -> None:
    """A member suspends nobody, an admin no stranger and no admin, themselves included; twice is told."""
    bob = Operator("bob", -1, signed_in=directory.get("bob").id)
    for member, operator in (
        ("ada", bob),
        ("bob", bob),
        ("charlie", ada_of(directory)),
        ("ada", ada_of(directory)),
    ):
        with pytest.raises(Problem):
            suspend_member(directory, "acme", member, operator, given=True)
    assert not any(one.is_suspended for one in directory.all())
    suspend(directory)
    with pytest.raises(Problem, match="already"):
        suspend(directory)
    with pytest.raises(Problem, match="suspended"):
        change_role(directory, "acme", "bob", Role.ADMIN, ada_of(directory))
