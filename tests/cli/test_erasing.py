"""What an erasure takes from the one who asks for it: a whole id, and a file for its receipt."""

from pathlib import Path

import pytest

from bailee.agent.sessions.cache import Cache
from bailee.agent.sessions.journals import Head
from cli.test_holdings import Bailee
from counterparts.holdings import copy_first_home


@pytest.fixture
def bailee(tmp_path: Path) -> Bailee:
    """Give the program on a home with ada (pro) and bob (team acme, admin), a session each."""
    copy_first_home(tmp_path / "state")
    return Bailee(tmp_path)


def held(bailee: Bailee) -> list[str]:
    """Return the ids of the sessions that are held."""
    return sorted(session["id"] for session in bailee.json("sessions", "list"))


# --- The id ---


def test_the_beginning_of_an_id_erases_nothing(bailee: Bailee) -> None:
    """It would be another session's as soon as the one that was meant is gone; what begins so is named."""
    for words in (("--yes",), ("--dry-run",)):
        told = bailee.refused("sessions", "erase", "first", *words)
        assert "no session 'first'" in told
        assert "first-session" in told
    assert "no session 'FIRST-SESSION'" in bailee.refused("sessions", "erase", "FIRST-SESSION", "--yes")
    assert held(bailee) == ["first-session", "second-session"]
    assert bailee("sessions", "show", "first", "--facts").returncode == 0


def test_an_empty_id_names_no_session(bailee: Bailee) -> None:
    """Nor where there is only one: a variable that is not set erases nothing and shows nothing."""
    assert bailee("sessions", "erase", "second-session", "--yes").returncode == 0
    for words in (("erase", "--yes"), ("erase", "--dry-run"), ("show", "--facts")):
        assert "empty" in bailee.refused("sessions", words[0], "", *words[1:])
    assert held(bailee) == ["first-session"]


# --- The local copy ---


def kept_locally(bailee: Bailee, *ids: str) -> Cache:
    """Keep sessions of these ids on the machine, as the agent does."""
    cache = Cache(bailee.folder / "agent", environment={})
    for id in ids:
        cache.begin(Head(str(bailee.folder), "m", "0"), now=1, id=id).close()
    return cache


def on_disk(cache: Cache) -> list[str]:
    return [path.stem for path in cache.paths()]


def test_the_local_copy_goes_if_asked(bailee: Bailee) -> None:
    """An erasure takes what the agent keeps of the session when asked to, names it when not, and no other."""
    cache = kept_locally(bailee, "first-session", "second-session", "elsewhere")
    state = {"BAILEE_STATE": str(bailee.folder / "agent")}
    dry = bailee("sessions", "erase", "first-session", "--dry-run", "--and-local", **state)
    assert "Would delete what the agent keeps on this machine: 1 session" in dry.stderr
    assert on_disk(cache) == ["elsewhere", "first-session", "second-session"]
    done = bailee("sessions", "erase", "first-session", "--yes", "--and-local", **state)
    assert "Deleted what the agent keeps on this machine: 1 session" in done.stderr
    assert on_disk(cache) == ["elsewhere", "second-session"]
    kept = bailee("accounts", "erase", "bob", "--dry-run", **state)
    assert "bailee sessions --local delete second-session" in kept.stderr
    assert bailee("accounts", "erase", "bob", "--yes", "--and-local", **state).returncode == 0
    assert on_disk(cache) == ["elsewhere"]


def test_the_local_copy_stays_if_not_asked(bailee: Bailee) -> None:
    """The command says that it is there and how to delete it."""
    cache = kept_locally(bailee, "first-session")
    state = {"BAILEE_STATE": str(bailee.folder / "agent")}
    done = bailee("sessions", "erase", "first-session", "--yes", **state)
    assert "bailee sessions --local delete first-session" in done.stderr
    assert on_disk(cache) == ["first-session"]


# --- The receipt ---


def test_without_a_file_for_its_receipt_nothing_is_erased(bailee: Bailee) -> None:
    """A receipt is made once: where its file cannot be written, or holds another one, the erasure waits."""
    other = bailee.folder / "other.json"
    other.write_text("the only copy of another receipt")
    for wrong in (bailee.folder / "nowhere" / "receipt.json", other):
        for words in (("sessions", "erase", "first-session"), ("accounts", "erase", "ada")):
            assert "--receipt" in bailee.refused(*words, "--yes", "--receipt", str(wrong))
    assert held(bailee) == ["first-session", "second-session"]
    assert other.read_text() == "the only copy of another receipt"


def test_what_is_not_erased_leaves_no_file(bailee: Bailee) -> None:
    """Neither a count nor a question that nobody answers leaves one; the next try takes the same name."""
    receipt = bailee.folder / "receipt.json"
    words = ("sessions", "erase", "first-session", "--receipt", str(receipt))
    assert bailee(*words, "--dry-run").returncode == 0
    assert "--yes" in bailee.refused(*words)
    assert not receipt.exists()
    assert bailee(*words, "--yes").returncode == 0
    assert "Verified" in bailee("ledger", "verify", str(receipt)).stdout


def test_a_receipt_that_the_disk_does_not_take_is_printed(bailee: Bailee) -> None:
    """The disk fills up after all: the receipt is on standard output, and the exit code tells."""
    done = bailee("sessions", "erase", "first-session", "--yes", "--receipt", "/dev/full")
    assert done.returncode == 1
    assert "Keep it" in done.stderr
    receipt = bailee.folder / "receipt.json"
    receipt.write_text(done.stdout)
    assert "Verified" in bailee("ledger", "verify", str(receipt)).stdout


def test_without_a_file_for_its_receipt_nothing_is_restored(bailee: Bailee) -> None:
    """The same for a restore, whose receipt is made once as well."""
    backup, receipt = str(bailee.folder / "backup"), bailee.folder / "receipt.json"
    bailee.json("backup", "create", backup)
    assert bailee("sessions", "erase", "first-session", "--yes").returncode == 0
    before = bailee.json("ledger", "show")
    wrong = str(bailee.folder / "nowhere" / "receipt.json")
    assert "--receipt" in bailee.refused("backup", "restore", backup, "--yes", "--receipt", wrong)
    assert bailee.json("ledger", "show") == before
    words = ("backup", "restore", backup, "--receipt", str(receipt))
    assert bailee(*words, "--dry-run").returncode == 0
    assert not receipt.exists()
    assert bailee(*words, "--yes").returncode == 0
    assert "Verified" in bailee("ledger", "verify", str(receipt)).stdout
