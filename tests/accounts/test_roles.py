"""Admins of an organization: one is always left, whoever does what at once."""

import threading
from pathlib import Path

import pytest

from bailee.accounts.directory import Directory, open_directory
from bailee.accounts.holders import Operator
from bailee.accounts.roles import change_role
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
