"""Admins of an organization: one is always left, whoever does what at once."""

import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from bailee.accounts import tables
from bailee.accounts.directory import Directory, open_directory
from bailee.accounts.holders import Operator
from bailee.accounts.roles import change_role
from bailee.accounts.suspensions import suspend_member
from bailee.accounts.tables import Role
from bailee.policy.plans import Plan
from bailee.policy.problems import Problem


def admin(directory: Directory, name: str) -> Operator:
    """Return an admin, signed in."""
    return Operator(name, -1, signed_in=directory.get(name).id)


def list_admins(directory: Directory) -> list[str]:
    """Return who is an admin of acme."""
    return [one.name for one in directory.members("acme") if one.role is Role.ADMIN]


def test_the_last_admin_stays(tmp_path: Path, database: str) -> None:
    """One of two is made a member; the other is not, and nothing is changed."""
    directory = open_directory(tmp_path)
    for name in ("ada", "bob"):
        directory.add(name, Plan.TEAM, organization="acme", role=Role.ADMIN)
    change_role(directory, "acme", "bob", Role.MEMBER, admin(directory, "ada"))
    with pytest.raises(Problem, match="last admin"):
        change_role(directory, "acme", "ada", Role.MEMBER, admin(directory, "ada"))
    assert list_admins(directory) == ["ada"]
    directory.close()


def test_two_who_make_each_other_a_member(tmp_path: Path, database: str) -> None:
    """At once, again and again, as two nodes of a service would: one of them is left each time."""
    directories = [open_directory(tmp_path) for _ in range(2)]
    for name in ("ada", "bob"):
        directories[0].add(name, Plan.TEAM, organization="acme", role=Role.ADMIN)
    people = [admin(directories[0], name) for name in ("ada", "bob")]
    together = threading.Barrier(2)
    refused: list[str] = []

    def demote(place: int) -> None:
        together.wait()
        try:
            other = ("bob", "ada")[place]
            change_role(directories[place], "acme", other, Role.MEMBER, people[place])
        except Problem as problem:
            refused.append(problem.what)

    for _ in range(20):
        threads = [threading.Thread(target=demote, args=(place,)) for place in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (left,) = list_admins(directories[0])
        gone = {"ada": "bob", "bob": "ada"}[left]
        change_role(directories[0], "acme", gone, Role.ADMIN, people[left == "bob"])
    assert len(refused) == 20
    for directory in directories:
        directory.close()


def test_whom_two_admins_suspend_and_appoint_at_once(tmp_path: Path, database: str) -> None:
    """They are a suspended member or an admin who is let in, never both: a state in which neither comes back
    and in which they would count as an admin who is left.
    """
    directories = [open_directory(tmp_path) for _ in range(2)]
    directories[0].add("ada", Plan.TEAM, organization="acme", role=Role.ADMIN)
    directories[0].add("bob", Plan.TEAM, organization="acme", role=Role.MEMBER)
    ada = admin(directories[0], "ada")
    together = threading.Barrier(2)
    refused: list[str] = []

    def act(place: int) -> None:
        together.wait()
        try:
            if place:
                change_role(directories[1], "acme", "bob", Role.ADMIN, ada)
            else:
                suspend_member(directories[0], "acme", "bob", ada, given=True)
        except Problem as problem:
            refused.append(problem.what)

    for _ in range(20):
        threads = [threading.Thread(target=act, args=(place,)) for place in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        bob = directories[0].get("bob")
        assert bob.is_suspended != (bob.role is Role.ADMIN)
        if bob.is_suspended:
            suspend_member(directories[0], "acme", "bob", ada, given=False)
        else:
            change_role(directories[0], "acme", "bob", Role.MEMBER, ada)
    assert len(refused) == 20
    for directory in directories:
        directory.close()


def test_a_suspended_admin_comes_back(tmp_path: Path, database: str) -> None:
    """One whom an earlier program left so is let in again, or made a member, and is not the admin who is
    left.
    """
    directory = open_directory(tmp_path)
    for name in ("ada", "bob", "eve"):
        directory.add(name, Plan.TEAM, organization="acme", role=Role.ADMIN)
    ada = admin(directory, "ada")
    with directory.engine.begin() as connection:
        table = tables.accounts
        connection.execute(sa.update(table).where(table.c.name != "ada").values(suspended_ms=1))
    with pytest.raises(Problem, match="last admin"):
        change_role(directory, "acme", "ada", Role.MEMBER, ada)
    assert not suspend_member(directory, "acme", "bob", ada, given=False).is_suspended
    assert change_role(directory, "acme", "eve", Role.MEMBER, ada).role is Role.MEMBER
    directory.close()
