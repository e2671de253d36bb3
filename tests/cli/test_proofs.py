"""Who counts as the account holder, and what only they may decide, from the command line."""

import json
import os
import pwd
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.test_holdings import Bailee
from counterparts.holdings import copy_first_home
from counterparts.services import serving

PASSWORD = "several words that nobody would guess"
HERON = "the heron of turn 1"
SHOW = ("sessions", "show", "first-session")
TRAIN = ("privacy", "training", "on", "--account", "ada")


@pytest.fixture
def bailee(tmp_path: Path) -> Bailee:
    """Give the program on a home with ada (pro, training on) and bob (team acme, admin), a session each."""
    copy_first_home(tmp_path / "state")
    return Bailee(tmp_path)


def ledger(bailee: Bailee, kind: str) -> list[dict[str, Any]]:
    """Return the entries of a kind."""
    entries = [entry["entry"] for entry in bailee.json("ledger", "show", "--limit", "1000")]
    return [entry for entry in entries if entry["kind"] == kind]


def make_key(bailee: Bailee, *words: str, **environment: str) -> str:
    """Make a key of ada's."""
    done = bailee("keys", "create", "--account", "ada", *words, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- Keys ---


def test_a_key_that_anybody_made_opens_nothing(bailee: Bailee, tmp_path: Path) -> None:
    """It is for agents: its maker has to say why they read, and it neither allows nor makes what does."""
    key = make_key(bailee)
    assert "--reason" in bailee.refused(*SHOW, BAILEE_KEY=key)
    assert "--reason" in bailee.refused("accounts", "export", "ada", "--out", "out", BAILEE_KEY=key)
    assert "alone allows training" in bailee.refused(*TRAIN, BAILEE_KEY=key)
    assert "--reason" in bailee.refused(*SHOW, BAILEE_KEY=make_key(bailee, BAILEE_KEY=key))
    assert [entry["origin"] for entry in ledger(bailee, "key_created")] == ["other", "other"]
    shown = bailee.json("privacy", "show", "--account", "ada")["keys"]
    me = pwd.getpwuid(os.getuid()).pw_name
    made = [(one["origin"], one["made_by"], one["is_proof"]) for one in shown if one["origin"]]
    assert made == [("other", me, False)] * 2
    told = bailee("privacy", "show", "--account", "ada").stdout
    assert f"made by {me}, for agents, it proves nobody" in told


def test_control_where_every_key_proves(bailee: Bailee) -> None:
    """Control: where whoever made a key does not matter, its maker reads, and nobody is told."""
    folder = bailee.folder / "changes"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "from bailee.accounts import holders\nholders.PROVING = tuple(holders.KeyOrigin)\n"
    )
    key = make_key(bailee)
    assert HERON in bailee(*SHOW, BAILEE_KEY=key, PYTHONPATH=str(folder)).stdout
    assert ledger(bailee, "access") == []


def test_the_key_of_a_run_opens_nothing(bailee: Bailee) -> None:
    """What an agent gets for a run is for the gateway."""
    asked = f'BAILEE_KEY="$ANTHROPIC_AUTH_TOKEN" {sys.executable} -m bailee {" ".join(SHOW)}'
    words = ("run", "--unenforced", "--upstream", "rehearsal", "--account", "ada", "--", "sh", "-c", asked)
    done = bailee(*words)
    assert HERON not in done.stdout + done.stderr
    assert "--reason" in done.stderr, done
    assert [entry["origin"] for entry in ledger(bailee, "key_created")] == ["run"]


def test_a_key_is_handed_over_once_and_in_sight(bailee: Bailee) -> None:
    """It proves the holder, who sees who made it and makes further ones with it; there is no second one."""
    key = make_key(bailee, "--for-holder")
    assert HERON in bailee(*SHOW, BAILEE_KEY=key).stdout
    own = make_key(bailee, "--label", "own", BAILEE_KEY=key)
    assert HERON in bailee(*SHOW, BAILEE_KEY=own).stdout
    told = bailee.refused("keys", "create", "--account", "ada", "--for-holder")
    assert "revoke it first" in told
    created = ledger(bailee, "key_created")
    assert [entry["origin"] for entry in created] == ["handed_over", "holder"]
    assert created[1]["by"] == created[0]["subject"] != created[0]["by"]
    assert [entry["consent"] for entry in ledger(bailee, "consent_refused")] == ["key"]
    me = pwd.getpwuid(os.getuid()).pw_name
    assert f"made by {me} for the account holder" in bailee("privacy", "show", "--account", "ada").stdout
    for one in bailee.json("keys", "list"):
        if one["is_proof"]:
            assert bailee("keys", "revoke", one["id"]).returncode == 0
    for revoked in (key, own):
        assert "--reason" in bailee.refused(*SHOW, BAILEE_KEY=revoked)
    assert HERON in bailee(*SHOW, BAILEE_KEY=make_key(bailee, "--for-holder")).stdout


def test_who_was_handed_a_key_sets_a_password_with_it(bailee: Bailee) -> None:
    """No password is handed over beside it, and the refusal says the way; a key for agents sets none."""
    key, words = make_key(bailee, "--for-holder"), ("console", "password", "ada")
    told = bailee.refused(*words, "--for-holder", given=PASSWORD)
    assert "has a key or a password already" in told
    assert "without --for-holder, with their key in BAILEE_KEY" in told
    assert "alone sets their password" in bailee.refused(*words, given=PASSWORD, BAILEE_KEY=make_key(bailee))
    assert bailee(*words, given=PASSWORD, BAILEE_KEY=key).returncode == 0


def test_the_user_whose_account_it_is_makes_keys_that_prove(tmp_path: Path) -> None:
    """On a machine of one's own nothing has to be handed over."""
    bailee = Bailee(tmp_path)
    assert bailee("run", "--upstream", "rehearsal", "--", "true").returncode == 0
    assert bailee("keys", "create", "--account", "me").returncode == 0
    origins = sorted(one["origin"] for one in bailee.json("keys", "list", "--all"))
    assert origins == ["holder", "run"]
    shown = bailee("privacy", "show", "--account", "me").stdout
    assert "made by the account holder, it proves the account holder" in shown
    assert "1 key of runs that have ended" in shown


# --- Choices ---


def test_nobody_allows_training_in_anothers_name(bailee: Bailee) -> None:
    """Refused and on record, as the operator's attempt; the holder's own choice is on record as theirs."""
    bailee.json("privacy", "training", "off", "--account", "ada")
    assert "--for-holder" in bailee.refused(*TRAIN)
    (refused,) = ledger(bailee, "consent_refused")
    (ended,) = ledger(bailee, "consent")
    assert (refused["consent"], refused["given"], refused["subject"]) == ("training", True, ended["subject"])
    assert refused["by"] == ended["by"] != ended["subject"]
    assert bailee.json("privacy", "show", "--account", "ada")["training"] is False
    bailee.json(*TRAIN, BAILEE_KEY=bailee.proof("ada"))
    allowed = ledger(bailee, "consent")[-1]
    assert allowed["given"] is True
    assert allowed["by"] == allowed["subject"] == ended["subject"]


def test_nobody_lengthens_anothers_time(bailee: Bailee) -> None:
    """An operator shortens it, on record as theirs; a longer one is the account holder's alone."""
    words = ("privacy", "retention", "--account", "ada")
    bailee.json(*words, "9d")
    for longer in ("10d", "1y", "unlimited"):
        assert "held longer than 9d" in bailee.refused(*words, longer)
    bailee.json(*words, "8d")
    key = bailee.proof("ada")
    bailee.json(*words, "20d", BAILEE_KEY=key)
    bailee.json(*words, "unlimited", BAILEE_KEY=key)
    told = ledger(bailee, "limit")
    assert [entry["retention"] for entry in told] == ["9d", "8d", "20d", "unlimited"]
    assert [entry["by"] == entry["subject"] for entry in told] == [False, False, True, True]
    assert [entry["consent"] for entry in ledger(bailee, "consent_refused")] == ["retention"] * 3


ADMINS = (("zdr", "on"), ("dpp", "on"), ("dpp", "off"), ("retention", "3d"), ("retention", "unlimited"))


def test_nobody_decides_as_an_admin_by_saying_so(bailee: Bailee) -> None:
    """`--as` names who decides, and takes a proof; what was held is neither erased nor asked about."""
    for kind, choice in ADMINS:
        yes = ("--yes",) if kind == "zdr" else ()
        told = bailee.refused("org", kind, choice, "--org", "acme", "--as", "bob", *yes)
        assert "nothing shows that you are 'bob'" in told
    refused = [(entry["consent"], entry["given"]) for entry in ledger(bailee, "consent_refused")]
    assert refused == [
        ("zdr", True),
        ("dpp", True),
        ("dpp", False),
        ("retention", True),
        ("retention", True),
    ]
    assert bailee.json("org", "show", "acme")["zdr"] is False
    assert [one["retention"] for one in bailee.json("sessions", "list", "--account", "bob")] == ["30d"]
    assert "nothing shows" in bailee.refused("org", "zdr", "on", "--org", "acme", "--as", "bob")


def test_nobody_makes_themselves_an_admin(bailee: Bailee) -> None:
    """Whoever adds an account gives it no say over an organization that has an admin; that admin may."""
    words = ("accounts", "add", "eve", "--plan", "team", "--org", "acme", "--role", "admin")
    assert "nothing shows that you are one" in bailee.refused(*words)
    assert "eve" not in [one["name"] for one in bailee.json("accounts", "list")]
    assert [entry["consent"] for entry in ledger(bailee, "consent_refused")] == ["admin"]
    assert bailee.json(*words, BAILEE_KEY=bailee.proof("bob"))["role"] == "admin"
    new = ("accounts", "add", "zoe", "--plan", "team", "--org", "new", "--role", "admin")
    assert bailee.json(*new)["role"] == "admin"


def test_every_refusal_is_on_record(bailee: Bailee) -> None:
    """A foreign admin's, a member's, a plan's and a provider's, by the account that asked."""
    bailee("accounts", "add", "eve", "--plan", "team", "--org", "other")
    bailee("accounts", "add", "carl", "--plan", "team", "--org", "acme")
    keys = {name: bailee.proof(name) for name in ("bob", "eve", "carl")}
    asked = [
        ("eve", "dpp", ("org", "dpp", "on", "--org", "acme", "--as", "eve")),
        ("eve", "zdr", ("org", "zdr", "on", "--org", "acme", "--as", "eve")),
        ("eve", "retention", ("org", "retention", "unlimited", "--org", "acme", "--as", "eve")),
        ("carl", "retention", ("org", "retention", "unlimited", "--org", "acme", "--as", "carl")),
        ("bob", "training", ("privacy", "training", "on", "--account", "bob")),
        ("bob", "training", ("privacy", "training", "off", "--account", "bob")),
        ("bob", "dpp", ("org", "dpp", "on", "--org", "acme", "--as", "bob")),  # no service runs
    ]
    for name, _, words in asked:
        assert bailee.refused(*words, BAILEE_KEY=keys[name])
    refused = ledger(bailee, "consent_refused")
    assert [entry["consent"] for entry in refused] == [what for _, what, _ in asked]
    by = [entry["by"] for entry in refused]
    assert by[0] == by[1] == by[2] != by[3]
    assert by[4] == by[5] == by[6] == refused[4]["subject"]
    assert bailee("ledger", "verify").returncode == 0


def test_the_partner_program_needs_the_first_party_api(bailee: Bailee) -> None:
    """With no service, or one that reaches another place, nobody joins; leaving is always possible."""
    home, key = bailee.folder / "state", bailee.proof("bob")
    on, off = (("org", "dpp", choice, "--org", "acme", "--as", "bob") for choice in ("on", "off"))
    assert "nothing shows that it is reached" in bailee.refused(*on, BAILEE_KEY=key)
    for upstream in ("rehearsal", "compatible=http://127.0.0.1:9"):
        with serving(home, bailee.folder, "--upstream", upstream, "--upstream-credential", "none"):
            assert "nothing shows that it is reached" in bailee.refused(*on, BAILEE_KEY=key)
    assert bailee.json("org", "show", "acme")["dpp"] is False
    with serving(home, bailee.folder, environment={"BAILEE_UPSTREAM_KEY": "made-up"}):
        assert bailee.json(*on, BAILEE_KEY=key)["given"] is True
    assert bailee.json(*off, BAILEE_KEY=key)["given"] is False


# --- Names that are shown ---


def test_a_reader_cannot_name_themselves(bailee: Bailee) -> None:
    """LOGNAME and its like say nothing: the account holder sees whose user id it was."""
    forged = dict.fromkeys(("LOGNAME", "USER", "LNAME", "USERNAME"), "\x1b[2Jsomebody")
    assert HERON in bailee(*SHOW, "--reason", "ticket 12", **forged).stdout
    (access,) = bailee.json("privacy", "show", "--account", "ada")["accesses"]
    assert access["reader"] == pwd.getpwuid(os.getuid()).pw_name


def test_what_a_terminal_would_obey_is_made_visible(bailee: Bailee) -> None:
    """Nothing that is shown can rub out its line, nor another's: rows of earlier programs have such names."""
    forged = "x\x1b[1A\x1b[2K\x9b2J\u202egone"
    assert bailee(*SHOW, "--reason", "ticket 12").returncode == 0
    assert bailee("holds", "place", "--account", "ada", "--reason", "case 7").returncode == 0
    out = bailee.folder / f"out{forged}"
    assert bailee("accounts", "export", "bob", "--out", str(out), "--reason", "asked").returncode == 0
    for file, change in (
        ("accounts.db", "UPDATE accesses SET reader = ?"),
        ("vault/vault.db", "UPDATE holds SET placed_by = ?"),
    ):
        connection = sqlite3.connect(bailee.folder / "state" / file)
        connection.execute(change, (forged,))
        connection.commit()
        connection.close()
    for words in (("privacy", "show", "--account", "ada"), ("holds", "list"), ("copies", "list")):
        shown = bailee(*words).stdout
        assert not set(shown) & set("\x1b\x9b\u202e")
        assert "\\x1b[2K" in shown
    assert json.loads(bailee("holds", "list", "--json").stdout)[0]["placed_by"] == forged
