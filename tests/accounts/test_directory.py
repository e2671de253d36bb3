"""Who there is, and who may allow what."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bailee.accounts.directory import Directory, open_directory
from bailee.accounts.holders import user_name
from bailee.accounts.names import check_name
from bailee.accounts.people import Kind
from bailee.accounts.sign_ins import Way, find_sign_in, sign_in
from bailee.accounts.tables import Role
from bailee.policy.periods import Period
from bailee.policy.plans import Plan, Provider, is_consumer
from bailee.policy.problems import Problem

CONSUMERS = [plan for plan in Plan if is_consumer(plan)]
COMMERCIAL = [plan for plan in Plan if not is_consumer(plan)]


@pytest.fixture
def directory(tmp_path: Path, database: str) -> Iterator[Directory]:
    """Give an empty directory."""
    opened = open_directory(tmp_path / "state")
    yield opened
    opened.close()


@pytest.mark.parametrize("plan", CONSUMERS)
def test_a_consumer_stands_alone(directory: Directory, plan: Plan) -> None:
    """A person's own plan has no organization and no role; asking for one is an error."""
    assert directory.add("ada", plan).organization is None
    for more in ({"organization": "acme"}, {"role": Role.ADMIN}):
        with pytest.raises(Problem, match="has no organization"):
            directory.add("bob", plan, **more)  # type: ignore[arg-type]
    assert [account.name for account in directory.all()] == ["ada"]


@pytest.mark.parametrize("plan", COMMERCIAL)
def test_the_first_of_an_organization_is_its_admin(directory: Directory, plan: Plan) -> None:
    """A commercial account has an organization, of its own name if none is given; later ones are members."""
    assert (directory.add("ada", plan).organization, directory.get("ada").role) == ("ada", Role.ADMIN)
    assert directory.add("bob", plan, organization="acme").role is Role.ADMIN
    assert directory.add("cyd", plan, organization="acme").role is Role.MEMBER
    assert [account.name for account in directory.members("acme")] == ["bob", "cyd"]


def test_a_browser_that_was_there_first_is_its_holders(directory: Directory) -> None:
    """Signed in as the user who runs it, it is in the account that they make; control: no other is."""
    mine, others = (
        sign_in(directory, None, user, Way.LINK, address="127.0.0.1", agent="")
        for user in (user_name(), "somebody else")
    )
    directory.add("bob", Plan.API)
    found = find_sign_in(directory, mine)
    assert found is not None
    assert found.account is None
    account = directory.add("me", Plan.API, user_id=os.getuid())
    for token, expected in ((mine, account.id), (others, None)):
        found = find_sign_in(directory, token)
        assert found is not None
        assert found.account == expected


def test_a_name_is_taken_once(directory: Directory) -> None:
    """A second account of a name is an error and changes nothing; it may be the one that is meant."""
    directory.add("ada", Plan.PRO)
    with pytest.raises(Problem, match="already") as told:
        directory.add("ada", Plan.TEAM)
    assert "bailee accounts list" in told.value.fix
    assert directory.get("ada").plan is Plan.PRO


@given(st.text(max_size=80))
def test_names_are_plain(name: str) -> None:
    """A name is letters, digits and four marks, or an error; nothing that could be a path or an option."""
    try:
        check_name(name, where="NAME")
    except Problem:
        return
    assert 1 <= len(name) <= 64
    assert name.isascii()
    assert not set(name) & set("/\\ \n")
    assert name[0].isalnum()


def test_no_name_is_an_accounts_id(directory: Directory) -> None:
    """An organization of such a name would share consents and pseudonym with that account."""
    ada = directory.add("ada", Plan.PRO)
    for options in ({"organization": ada.id}, {"name": ada.id}):
        with pytest.raises(Problem, match="looks like the id"):
            directory.add(**{"name": "eve", "plan": Plan.TEAM, **options})  # type: ignore[arg-type]
    assert check_name(ada.id[:-1], where="NAME")


def test_an_account_takes_no_organizations_choices_with_it(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an earlier program let an organization have the name, its zero data retention stays in force."""
    monkeypatch.setattr("bailee.accounts.directory.check_name", lambda name, where: name)
    ada = directory.add("ada", Plan.PRO)
    directory.consent("ada", given=True)
    directory.add("eve", Plan.TEAM, organization=ada.id)
    directory.decide_for_organization(ada.id, Kind.ZDR, given=True, by="eve")
    directory.remove(ada.id)
    assert directory.get("eve").zdr
    directory.remove(directory.get("eve").id)
    with directory.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT kind FROM consents").all() == []


@pytest.mark.parametrize("plan", CONSUMERS)
def test_training_is_the_holders_own_choice(directory: Directory, plan: Plan) -> None:
    """A consumer switches training on and off; the latest choice is in force and all are kept."""
    directory.add("ada", plan)
    assert directory.get("ada").training is False
    for given_now in (True, False, True):
        change = directory.consent("ada", given=given_now)
        assert change.was is not given_now
        assert directory.get("ada").training is given_now
    with directory.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT given, granted_by FROM consents ORDER BY number").all()
    assert [bool(row.given) for row in rows] == [True, False, True]
    assert {row.granted_by for row in rows} == {directory.get("ada").id}


@pytest.mark.parametrize("plan", COMMERCIAL)
def test_a_commercial_account_has_no_training_switch(directory: Directory, plan: Plan) -> None:
    """Neither on nor off: there is nothing to switch, and the answer says why."""
    directory.add("ada", plan)
    for choice in (True, False):
        with pytest.raises(Problem):
            directory.consent("ada", given=choice)


@pytest.mark.parametrize("plan", COMMERCIAL)
@pytest.mark.parametrize("provider", list(Provider))
def test_the_partner_program_is_for_three_plans_on_the_first_party(
    directory: Directory, plan: Plan, provider: Provider
) -> None:
    """An admin of team, enterprise or api may join on the first-party API; nobody else, nowhere else."""
    directory.add("ada", plan, organization="acme")
    may = plan in (Plan.TEAM, Plan.ENTERPRISE, Plan.API) and provider is Provider.ANTHROPIC
    try:
        directory.decide_for_organization("acme", Kind.DPP, given=True, by="ada", provider=provider)
    except Problem:
        assert not may
    else:
        assert may
    assert directory.get("ada").dpp is may


@pytest.mark.parametrize("kind", [Kind.DPP, Kind.ZDR])
def test_only_an_admin_of_that_organization_decides(directory: Directory, kind: Kind) -> None:
    """A member, an admin of another organization and a stranger change nothing."""
    directory.add("ada", Plan.TEAM, organization="acme")
    directory.add("bob", Plan.TEAM, organization="acme")
    directory.add("eve", Plan.TEAM, organization="other")
    for person in ("bob", "eve", "nobody"):
        with pytest.raises(Problem):
            directory.decide_for_organization("acme", kind, given=True, by=person)
    assert not directory.get("ada").zdr
    assert not directory.get("ada").dpp
    directory.decide_for_organization("acme", kind, given=True, by="ada")
    for name, expected in (("ada", True), ("bob", True), ("eve", False)):
        account = directory.get(name)
        assert (account.zdr if kind is Kind.ZDR else account.dpp) is expected


def test_an_organization_whose_admin_is_gone(directory: Directory) -> None:
    """Refused, a member is told who decides, and how to name somebody where nobody is left."""
    directory.add("ada", Plan.TEAM, organization="acme")
    directory.add("bob", Plan.TEAM, organization="acme")
    with pytest.raises(Problem, match="ask an admin of that organization: ada"):
        directory.limit_organization("acme", Period.days(7), by="bob")
    directory.remove(directory.get("ada").id)
    with pytest.raises(Problem, match="no admin is left; add one: bailee accounts add NAME --org acme"):
        directory.decide_for_organization("acme", Kind.ZDR, given=True, by="bob")


def test_limits_are_kept_as_written(directory: Directory) -> None:
    """An account's own limit comes back as the period it was given as."""
    directory.add("ada", Plan.PRO, retention=Period.days(7))
    assert directory.get("ada").retention == Period.days(7)


def test_the_default_account_is_the_only_one(directory: Directory) -> None:
    """`me` is made where there is nobody; one account is taken; of several one has to be named."""
    assert directory.ensure_default().name == "me"
    assert directory.ensure_default().name == "me"
    directory.add("ada", Plan.PRO)
    assert directory.ensure_default().name == "me"


def test_the_default_account_is_made_once_by_many(tmp_path: Path) -> None:
    """Processes that all find nobody make one account between them, and all get it."""
    program = (
        "import sys; from pathlib import Path; from bailee.accounts.directory import open_directory\n"
        "directory = open_directory(Path(sys.argv[1])); read = directory.all\n"
        # All of them have looked before any of them adds.
        "directory.all = lambda: (read(), sys.stdout.write('.'), sys.stdout.flush(), sys.stdin.read(1))[0]\n"
        "print(directory.ensure_default().id)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "state")]
    makers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    for maker in makers:
        assert maker.stdout is not None
        assert maker.stdout.read(1) == "."
    answers = [maker.communicate("x")[0] for maker in makers]
    assert len(set(answers)) == 1
    assert [maker.returncode for maker in makers] == [0] * 4


def test_of_several_accounts_none_is_guessed(directory: Directory) -> None:
    """Without `me`, and with more than one account, whose session it is has to be said."""
    directory.add("ada", Plan.PRO)
    assert directory.ensure_default().name == "ada"
    directory.add("bob", Plan.PRO)
    with pytest.raises(Problem, match="2 accounts"):
        directory.ensure_default()
