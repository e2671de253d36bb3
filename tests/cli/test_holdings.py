"""Accounts, keys, consents and sessions from the command line."""

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from bailee.cli import COMMANDS, group
from counterparts.agents import exchange
from counterparts.gates import Gate, open_gate
from counterparts.programs import run_program
from counterparts.services import clean_environment

Done = subprocess.CompletedProcess[str]


class Bailee:
    """The program on a home of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *words: str, given: str = "", **environment: str) -> Done:
        home = str(self.folder / "state")
        whole = clean_environment(self.folder, BAILEE_HOME=home, **environment)
        return run_program(*words, environment=whole, folder=self.folder, given=given)

    def json(self, *words: str, **environment: str) -> Any:
        done = self(*words, "--json", **environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def proof(self, name: str) -> str:
        """Make the key that is handed over to an account holder who is no user of this machine."""
        done = self("keys", "create", "--account", name, "--for-holder")
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def refused(self, *words: str, given: str = "", **environment: str) -> str:
        done = self(*words, given=given, **environment)
        assert done.returncode == 2, done
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        return done.stderr


@pytest.fixture
def bailee(tmp_path: Path) -> Bailee:
    """Give the program."""
    return Bailee(tmp_path)


def test_accounts_and_keys(bailee: Bailee) -> None:
    """An account is added, gets a key that is shown once, and the key is revoked."""
    added = bailee("accounts", "add", "ada", "--plan", "team", "--org", "acme", "--retention", "7d")
    assert (added.returncode, added.stdout) == (
        0,
        "Added ada, plan team in acme (admin), records held at most 7d.\n",
    )
    (account,) = bailee.json("accounts", "list")
    assert (account["name"], account["role"], account["retention"]) == ("ada", "admin", "7d")
    made = bailee("keys", "create", "--account", "ada", "--label", "laptop")
    assert made.stdout.startswith("bailee_")
    assert made.stdout.count("\n") == 1
    assert "Shown this once" in made.stderr
    (key,) = bailee.json("keys", "list")
    assert (key["label"], key["revoked_ms"]) == ("laptop", None)
    assert made.stdout.strip() not in bailee("keys", "list").stdout
    assert bailee("keys", "revoke", key["id"]).returncode == 0
    assert "no key" in bailee.refused("keys", "revoke", key["id"])
    assert bailee("keys", "list").stdout == ""
    assert "revoked" in bailee("keys", "list", "--all").stdout


def test_consents_are_asked_of_the_right_person(bailee: Bailee) -> None:
    """Training is the holder's, the organization's choices an admin's; a refusal changes nothing."""
    bailee("accounts", "add", "ada", "--plan", "pro")
    bailee("accounts", "add", "bob", "--plan", "team", "--org", "acme")
    bailee("accounts", "add", "cyd", "--plan", "team", "--org", "acme")
    ada, bob, cyd = (bailee.proof(name) for name in ("ada", "bob", "cyd"))
    assert "was off" in bailee("privacy", "training", "on", "--account", "ada", BAILEE_KEY=ada).stdout
    assert bailee.json("privacy", "show", "--account", "ada")["training"] is True
    assert "no training" in bailee.refused("privacy", "training", "on", "--account", "bob", BAILEE_KEY=bob)
    assert "admin" in bailee.refused("org", "zdr", "on", "--org", "acme", "--as", "cyd", BAILEE_KEY=cyd)
    assert bailee.json("org", "show", "acme")["zdr"] is False
    words = ("org", "zdr", "on", "--org", "acme", "--as", "bob")
    assert bailee(*words, BAILEE_KEY=bob).returncode == 0
    assert bailee.json("org", "show", "acme")["zdr"] is True


def test_what_is_wrong_is_told_with_its_fix(bailee: Bailee) -> None:
    """A message for a person has the place and the fix; with --json it is an object on standard error."""
    told = bailee.refused("keys", "create", "--account", "nobody")
    assert told.splitlines()[0] == "bailee: there is no account 'nobody'"
    assert "fix:" in told
    fault = json.loads(bailee("keys", "create", "--account", "nobody", "--json").stderr)
    assert fault["error"]["fix"].startswith("see: bailee accounts list")
    for blank in ("-3d", "", " ", "0"):
        assert "--retention" in bailee.refused("accounts", "add", "x", "--plan", "pro", "--retention", blank)
    assert bailee.json("accounts", "list") == []


def test_what_no_one_means_is_told_too(bailee: Bailee, tmp_path: Path) -> None:
    """A number beyond the database's, a home of nobody and a home that is a file end with a plain message."""
    told = bailee.refused("sessions", "list", "--limit", "9223372036854775808")
    assert "--limit" in told
    assert "fix:" in bailee.refused("sessions", "list", "--home", "~no-such-user/x")
    assert "~no-such-user" in bailee.refused("up", "--upstream", "rehearsal", "--home", "~no-such-user/x")
    by_variable = subprocess.run(
        [sys.executable, "-m", "bailee", "sessions", "list"],
        env=clean_environment(tmp_path, BAILEE_HOME="~no-such-user/x"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (by_variable.returncode, "Traceback" in by_variable.stderr) == (2, False)
    assert "BAILEE_HOME" in by_variable.stderr
    (tmp_path / "file").touch()
    home = ("--home", str(tmp_path / "file"))
    for words in (("up", *home), ("sessions", "list", *home), ("run", *home, "--", "true")):
        assert home[1] in bailee.refused(*words)


@pytest.fixture
def gate(tmp_path: Path, database: str) -> Iterator[Gate]:
    """Give a service with one recorded session."""
    with open_gate(tmp_path) as opened:
        with opened.connect() as agent:
            exchange(agent, opened.upstream, "kept-one", "what was said")
        yield opened


def test_sessions_are_listed_shown_and_erased(gate: Gate) -> None:
    """What an agent said is listed, shown to who holds the keys, counted before it goes, and gone after."""
    bailee = Bailee(gate.home.parent)
    (session,) = bailee.json("sessions", "list")
    assert (session["id"], session["exchanges"], session["retention"]) == ("kept-one", 1, "30d")
    assert "kept-one" in bailee("sessions", "list").stdout
    assert "what was said" in bailee("sessions", "show", "kept-one").stdout
    shown = bailee.json("sessions", "show", "kept-one")
    assert (
        json.loads(shown["exchanges"][0]["content"]["request"])["messages"][0]["content"] == "what was said"
    )
    facts = bailee("sessions", "show", "kept-one", "--facts").stdout
    assert "what was said" not in facts
    assert "complete" in facts
    counted = bailee.json("sessions", "erase", "kept-one", "--dry-run")
    assert bailee.json("sessions", "list") == [session]
    asked = bailee("sessions", "erase", "kept-one")
    assert asked.returncode != 0, "nobody answered, so nothing may go"
    assert bailee.json("sessions", "list") == [session]
    receipt = gate.home.parent / "receipt.json"
    erased = bailee("sessions", "erase", "kept-one", "--yes", "--json")
    receipt.write_text(erased.stdout)
    assert "Verified" in bailee("ledger", "verify", str(receipt)).stdout
    told = [json.loads(base64.b64decode(entry["entry"])) for entry in json.loads(erased.stdout)["entries"]]
    assert [entry["kind"] for entry in told] == ["erased", "keys_destroyed"]
    assert {name: told[0][name] for name in ("exchanges", "records", "stored_bytes")} == {
        name: counted[name] for name in ("exchanges", "records", "stored_bytes")
    }
    assert bailee.json("sessions", "list") == []
    for words in (("show",), ("erase", "--yes"), ("erase", "--dry-run")):
        assert "no session" in bailee.refused("sessions", words[0], "kept-one", *words[1:])
    with gate.connect() as agent:
        exchange(agent, gate.upstream, "kept-one", "said again")
    assert "said again" in bailee("sessions", "show", "kept-one").stdout


def test_output_is_plain(gate: Gate) -> None:
    """No escape sequence is on any stream, NO_COLOR or not."""
    bailee = Bailee(gate.home.parent)
    for environment in ({}, {"NO_COLOR": "1"}, {"TERM": "xterm-256color", "FORCE_COLOR": "1"}):
        for words in (("sessions", "list"), ("accounts", "list"), ("explain",)):
            done = bailee(*words, **environment)
            assert "\x1b" not in done.stdout + done.stderr


DAMAGE = {
    "vault": ("vault/vault.db", ["sessions", "list"]),
    "accounts": ("accounts.db", ["accounts", "list"]),
    "keystore": ("keystore/keys.db", ["sessions", "show", "kept-one"]),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_told(tmp_path: Path, name: str) -> None:
    """A file that is no database is named, with a fix, and nothing else is said."""
    with open_gate(tmp_path) as opened, opened.connect() as agent:
        exchange(agent, opened.upstream, "kept-one", "x")
    path, words = DAMAGE[name]
    damaged = tmp_path / "state" / path
    for log in damaged.parent.glob(f"{damaged.name}-*"):
        log.unlink()
    damaged.write_bytes(b"\x00garbage" * 2000)
    assert path in Bailee(tmp_path).refused(*words)


@pytest.mark.parametrize("harm", ["missing", "readable", "short"])
def test_a_harmed_key_file_is_told(tmp_path: Path, harm: str) -> None:
    """Without its key-encryption key the vault opens nothing, says so, and makes no new key over it."""
    with open_gate(tmp_path) as opened, opened.connect() as agent:
        exchange(agent, opened.upstream, "kept-one", "x")
    kek = tmp_path / "state" / "keystore" / "kek"
    if harm == "missing":
        kek.unlink()
    elif harm == "readable":
        kek.chmod(0o644)
    else:
        kek.write_bytes(kek.read_bytes()[:16])
    told = Bailee(tmp_path).refused("sessions", "show", "kept-one")
    assert "keystore/kek" in told
    assert kek.exists() is (harm != "missing")


def all_commands(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Find every command and subcommand."""
    yield words
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from all_commands(found, (*words, name))


def test_every_command_explains_itself() -> None:
    """Each command and each of its options has a line that says what it is for."""
    found = list(all_commands(group))
    assert len(found) > len(COMMANDS)
    for words in found:
        command: click.Command = group
        for word in words:
            assert isinstance(command, click.Group)
            inner = command.get_command(click.Context(command), word)
            assert inner is not None
            command = inner
        assert command.help, words
        for parameter in command.params:
            assert not isinstance(parameter, click.Option) or parameter.help, (words, parameter.name)


def test_help_imports_nothing_heavy(bailee: Bailee) -> None:
    """`bailee --help` loads neither the database, nor cryptography, nor the server."""
    script = (
        "import sys; sys.argv = ['bailee', '--help']\n"
        "from bailee.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('sqlalchemy', 'cryptography', 'uvicorn', 'starlette') if m in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=clean_environment(bailee.folder),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_an_unknown_command_is_told(bailee: Bailee) -> None:
    """A word that is no command ends with 2."""
    assert "No such command" in bailee.refused("sesions")
