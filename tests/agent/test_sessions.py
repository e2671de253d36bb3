"""Sessions kept on the machine: sealed, masked, whole after a kill, gone on their day and not before."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import keyring
import pytest
from keyring.backend import KeyringBackend

from bailee.agent.conversations import say
from bailee.agent.sessions.cache import Cache
from bailee.agent.sessions.journals import Head, Kind, read_journal
from bailee.agent.sessions.keys import open_key
from bailee.agent.sessions.periods import Limits, plan, sweep
from bailee.agent.sessions.recording import SecretMasker, SessionRecorder
from bailee.agent.settings import read_settings
from bailee.manifests import load_manifest
from bailee.moments import begin_of
from bailee.policy.problems import Problem

HEAD = Head("/project", "m", "0")
TODAY = date(2026, 11, 25)
SECRET = "AKIAIR6AZ24XZQRNB3SG"
FLOW = load_manifest("bailee").flow("local_cache")


def moment(day: date) -> int:
    return begin_of(day) + 1000


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "state", environment={})


def keep(cache: Cache, text: str, *, used: date = TODAY, folder: str = "/project", **facts: Any) -> str:
    """Keep a session that was used last on a day."""
    journal = cache.begin(Head(folder, "m", "0"), now=moment(used))
    journal.append(Kind.MESSAGE, say(text), now=moment(used))
    if facts:
        journal.append(Kind.FACT, facts, now=moment(used))
    journal.close()
    return journal.id


def files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def test_what_is_kept_comes_back(cache: Cache) -> None:
    """A session is read as it was written, with its name, times and number of messages."""
    id = keep(cache, "Mend the  test", used=TODAY)
    kept = cache.read(id)
    assert kept.messages == (say("Mend the  test"),)
    assert kept.session.title == "Mend the test"
    assert kept.session.used == moment(TODAY)
    assert kept.session.messages == 1
    assert cache.find(id[:8]).id == id


def test_nothing_is_in_clear(cache: Cache, tmp_path: Path) -> None:
    """Neither what was said, nor the name, nor the folder is in any file; folders 0700, files 0600."""
    keep(cache, "CANARY-TEXT", folder="/CANARY-FOLDER", title="CANARY-NAME")
    assert len(list(files(tmp_path))) == 2
    for path in files(tmp_path):
        assert b"CANARY" not in path.read_bytes()
        assert path.stat().st_mode & 0o777 == 0o600
    for path in (tmp_path / "state", tmp_path / "state" / "sessions"):
        assert path.stat().st_mode & 0o777 == 0o700


def test_the_search_in_clear_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: with the sealing taken out the same search finds what was said."""
    import bailee.agent.sessions.journals as journals

    monkeypatch.setattr(journals, "seal_box", lambda key, plain, context, random: plain)
    monkeypatch.setattr(
        journals.zstandard, "ZstdCompressor", lambda level: type("No", (), {"compress": lambda _, b: b})()
    )
    keep(Cache(tmp_path, environment={}), "CANARY-TEXT")
    assert any(b"CANARY" in path.read_bytes() for path in files(tmp_path))


def test_secrets_are_masked_before_they_are_kept(cache: Cache, masker: SecretMasker) -> None:
    """A secret in a prompt or a result is not in the file, nor as the id of a call, which stays tied."""
    recorder = SessionRecorder(lambda: cache.begin(HEAD, now=1), lambda: masker, warn=pytest.fail)
    recorder.message(say(f"my key is {SECRET}"))
    call = {"type": "tool_use", "id": SECRET, "name": "bash", "input": {"command": f"echo {SECRET}"}}
    recorder.message({"role": "assistant", "content": [call]})
    result = {"type": "tool_result", "tool_use_id": SECRET, "content": "done"}
    recorder.message({"role": "user", "content": [result]})
    recorder.close()
    (session,), _ = cache.list()
    said = cache.read(session.id).said
    told = json.dumps(said)
    assert SECRET not in told
    (kept_call,), (kept_result,) = said[1]["content"], said[2]["content"]
    assert (kept_call["name"], kept_call["id"]) == ("bash", kept_result["tool_use_id"])
    assert recorder.masked == {"aws-access-key-id": 2}


@pytest.fixture(scope="module")
def masker(scanner_rules: Path) -> SecretMasker:
    return SecretMasker(scanner_rules)


def test_without_a_masker_nothing_is_kept(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where secrets cannot be masked nothing is written, and that is said once."""
    monkeypatch.setitem(sys.modules, "kingfisher_sdk", None)
    warned: list[Problem] = []
    recorder = SessionRecorder(
        lambda: cache.begin(HEAD, now=1), lambda: SecretMasker(tmp_path / "m"), warn=warned.append
    )
    recorder.message(say("one"))
    recorder.message(say("two"))
    assert len(warned) == 1
    assert not cache.paths()


def test_every_bit_of_a_session_matters(cache: Cache) -> None:
    """A flipped bit anywhere is found when the session is read, and never gives other content."""
    id = keep(cache, "one")
    path = cache.path(id)
    whole = path.read_bytes()
    told = cache.read(id).said
    for place in range(0, len(whole), 7):
        broken = bytearray(whole)
        broken[place] ^= 1 << (place % 8)
        path.write_bytes(broken)
        try:
            read = cache.read(id).said
        except Problem:
            continue
        # A length that grew makes the last entry one that is not whole: it counts for nothing.
        assert read == told[: len(read)]
        assert len(read) < len(told)


def test_entries_cannot_be_moved(cache: Cache) -> None:
    """An entry in another session's file, or sealed under another machine's key, does not open."""
    one, other = keep(cache, "one"), keep(cache, "two")
    cache.path(one).write_bytes(cache.path(other).read_bytes())
    with pytest.raises(Problem, match="altered"):
        cache.read(one)


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_what_a_killed_writer_left_counts_for_nothing(cache: Cache, cut: int) -> None:
    """A last entry that is not whole is left out, and the next writer goes on in its place."""
    id = keep(cache, "one")
    path = cache.path(id)
    journal = cache.resume(id)
    journal.append(Kind.MESSAGE, say("two"), now=moment(TODAY))
    journal.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert cache.read(id).said == (say("one"),)
    journal = cache.resume(id)
    journal.append(Kind.MESSAGE, say("three"), now=moment(TODAY))
    journal.close()
    assert cache.read(id).said == (say("one"), say("three"))


def test_a_session_is_open_once(cache: Cache) -> None:
    """A session that is open in one terminal is neither opened nor deleted in another."""
    id = keep(cache, "one")
    journal = cache.resume(id)
    with pytest.raises(Problem, match="another terminal"):
        cache.resume(id)
    with pytest.raises(Problem, match="another terminal"):
        cache.delete(id)
    journal.close()
    cache.delete(id)
    assert not cache.paths()


def test_a_deleted_session_opens_in_no_copy_of_its_last_bytes(cache: Cache, tmp_path: Path) -> None:
    """The key is overwritten before the file goes: what another link to it holds does not open."""
    id = keep(cache, "one")
    link = tmp_path / f"{id}.session"
    os.link(cache.path(id), link)
    cache.delete(id)
    with pytest.raises(Problem):
        list(read_journal(link, cache.key()))


def test_a_key_that_is_missing_is_not_made_anew(cache: Cache, tmp_path: Path) -> None:
    """Beside sessions no new key is made: it would open none of them."""
    keep(cache, "one")
    (tmp_path / "state" / "key").unlink()
    with pytest.raises(Problem, match="missing"):
        open_key(tmp_path / "state", environment={})


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_key_that_others_can_read_is_refused(cache: Cache, tmp_path: Path, mode: int) -> None:
    """A key file with loose permissions is refused, with the command that mends it."""
    keep(cache, "one")
    (tmp_path / "state" / "key").chmod(mode)
    with pytest.raises(Problem, match="chmod 600"):
        open_key(tmp_path / "state", environment={})


class Memory(KeyringBackend):
    """A keyring that keeps what it is given in memory."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.kept[service, username]


def test_the_key_is_in_the_keyring_where_there_is_one(tmp_path: Path) -> None:
    """With a keyring no key is in a file; locked, nothing is made anew; switched off, a file holds it."""
    before, memory = keyring.get_keyring(), Memory()
    desktop = {"DBUS_SESSION_BUS_ADDRESS": "unix:path=/nowhere"}
    keyring.set_keyring(memory)
    try:
        cache = Cache(tmp_path, environment=desktop)
        keep(cache, "one")
        assert not (tmp_path / "key").exists()
        assert Cache(tmp_path, environment=desktop).list()[0][0].title == "one"
        memory.kept.clear()
        with pytest.raises(Problem, match="missing"):
            open_key(tmp_path, environment=desktop)
        assert open_key(tmp_path / "other", environment={**desktop, "BAILEE_KEYRING": "off"})
        assert (tmp_path / "other" / "key").exists()
    finally:
        keyring.set_keyring(before)


# --- time ------------------------------------------------------------------------------------------------


def limits(tmp_path: Path, folder: str = "/project", **files: Any) -> Limits:
    """Return the limits under settings files."""
    places = {"managed": "etc/bailee/settings.json", "user": "user/.config/bailee/settings.json"}
    project = tmp_path / "project"
    project.mkdir(exist_ok=True)
    environment = {"HOME": str(tmp_path / "user"), **files.pop("environment", {})}
    for name, settings in files.items():
        path = tmp_path / places[name] if name in places else project / ".bailee" / "settings.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings))
    settings = read_settings(directory=project, environment=environment, root=tmp_path)
    return Limits.of(FLOW, settings.context(), folder)


@pytest.mark.parametrize("days", [1, 7, 30])
def test_a_session_goes_on_its_day_and_not_before(cache: Cache, tmp_path: Path, days: int) -> None:
    """Used last on day D with N days it is there on D+N-1, gone on D+N, and announced a week before."""
    id = keep(cache, "one")
    asked = limits(tmp_path, user={"cleanupPeriodDays": days})
    last = TODAY + timedelta(days=days - 1)
    swept = sweep(cache, asked, last)
    assert not swept.deleted
    assert [(session.id, day) for session, day in swept.soon] == [(id, last + timedelta(days=1))]
    if days > 8:
        assert not plan(cache.list()[0], asked, TODAY).soon
    assert [session.id for session in sweep(cache, asked, last + timedelta(days=1)).deleted] == [id]
    assert not cache.paths()


def test_going_on_with_a_session_renews_it(cache: Cache, tmp_path: Path) -> None:
    """The period counts from the last use; a pin or a name is no use."""
    id = keep(cache, "one", used=TODAY - timedelta(days=29))
    cache.note(id, {"title": "x"})
    asked = limits(tmp_path)
    assert asked.of_session(cache.find(id)) == TODAY + timedelta(days=1)
    journal = cache.resume(id)
    journal.append(Kind.MESSAGE, say("two"), now=moment(TODAY))
    journal.close()
    assert asked.of_session(cache.find(id)) == TODAY + timedelta(days=30)


def test_a_pin_stands_above_the_users_period_only(cache: Cache, tmp_path: Path) -> None:
    """A pinned session stays past the default and the user's own period, not past a managed one."""
    keep(cache, "one", pinned=True)
    later = TODAY + timedelta(days=4000)
    assert not sweep(cache, limits(tmp_path), later).deleted
    assert not sweep(cache, limits(tmp_path, user={"cleanupPeriodDays": 7}), later).deleted
    managed = limits(tmp_path, managed={"cleanupPeriodDays": 60})
    assert not sweep(cache, managed, TODAY + timedelta(days=59)).deleted
    assert sweep(cache, managed, TODAY + timedelta(days=60)).deleted


@pytest.mark.parametrize("word", ["none", 1])
def test_a_repository_reaches_its_own_sessions_only(cache: Cache, tmp_path: Path, word: object) -> None:
    """A file in one project that shortens the period leaves others alone, and gives its own a week."""
    keep(cache, "mine", folder="/elsewhere", used=TODAY - timedelta(days=2))
    keep(cache, "its", folder="/project", used=TODAY - timedelta(days=2))
    asked = limits(tmp_path, project={"cleanupPeriodDays": word})
    swept = sweep(cache, asked, TODAY)
    assert not swept.deleted
    assert [(session.title, day) for session, day in swept.soon] == [("its", TODAY + timedelta(days=7))]
    assert not sweep(cache, asked, TODAY + timedelta(days=6)).deleted
    swept = sweep(cache, asked, TODAY + timedelta(days=7))
    assert [session.title for session in swept.deleted] == ["its"]


def test_the_week_counts_from_when_it_was_told(cache: Cache, tmp_path: Path) -> None:
    """Whoever was away for a month is told first; the period of the user itself is not put off (control)."""
    keep(cache, "its", folder="/project", used=TODAY)
    asked = limits(tmp_path, project={"cleanupPeriodDays": 1}, user={"cleanupPeriodDays": "unlimited"})
    later = TODAY + timedelta(days=20)
    assert not sweep(cache, asked, later).deleted
    assert sweep(cache, asked, later + timedelta(days=7)).deleted
    keep(cache, "mine", folder="/project", used=TODAY)
    assert sweep(cache, limits(tmp_path, user={"cleanupPeriodDays": 1}), later).deleted


def test_a_repository_ends_no_pinned_session(cache: Cache, tmp_path: Path) -> None:
    """What its user pinned stays, whatever a repository asks; not past a managed period (control)."""
    keep(cache, "its", folder="/project", pinned=True)
    asked = limits(tmp_path, project={"cleanupPeriodDays": 1})
    for days in (2, 9, 4000):
        swept = sweep(cache, asked, TODAY + timedelta(days=days))
        assert not swept.deleted
        assert not swept.soon
    managed = limits(tmp_path, project={"cleanupPeriodDays": 1}, managed={"cleanupPeriodDays": 5})
    assert sweep(cache, managed, TODAY + timedelta(days=5)).deleted


@pytest.mark.parametrize("step", ["making", "going"])
def test_what_a_kill_left_half_done_is_finished(cache: Cache, tmp_path: Path, step: str) -> None:
    """A session that was being made or destroyed at a kill is in no list, and the next clean-up ends it."""
    whole = keep(cache, "whole")
    half = keep(cache, "half")
    path = cache.path(half)
    path.rename(path.with_name(f"{half}.session.{'new' if step == 'making' else 'gone'}"))
    found, problems = cache.list()
    assert [session.id for session in found] == [whole]
    assert not problems
    sweep(cache, limits(tmp_path), TODAY)
    assert [one.name for one in path.parent.iterdir()] == [f"{whole}.session"]


def test_a_session_that_is_being_made_is_left_alone(cache: Cache, tmp_path: Path) -> None:
    """One whose writer lives is not taken for a leftover (control of the above)."""
    keep(cache, "whole")
    making = cache.path("half").with_name("half.session.new")
    with making.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        sweep(cache, limits(tmp_path), TODAY)
        assert making.exists()
    sweep(cache, limits(tmp_path), TODAY)
    assert not making.exists()


@pytest.mark.parametrize("content", [b"", b"BAILEE1\n", b"x" * 500])
def test_a_broken_session_can_be_deleted_by_its_id(cache: Cache, content: bytes) -> None:
    """What cannot be read any more is named in the list, and goes when its id is given."""
    id = keep(cache, "broken")
    cache.path(id).write_bytes(content)
    assert len(cache.list()[1]) == 1
    cache.delete(cache.locate(id[:8]))
    assert cache.list() == ([], [])


def test_not_writing_is_not_deleting(cache: Cache, tmp_path: Path) -> None:
    """CLAUDE_CODE_SKIP_PROMPT_HISTORY keeps a session from being written and deletes none that is there."""
    keep(cache, "one")
    asked = limits(tmp_path, environment={"CLAUDE_CODE_SKIP_PROMPT_HISTORY": "1"})
    assert not sweep(cache, asked, TODAY).deleted


def test_unlimited_is_a_word(cache: Cache, tmp_path: Path) -> None:
    """With `unlimited` nothing goes; with `none` what is there goes at once."""
    keep(cache, "one", used=TODAY - timedelta(days=3000))
    assert not sweep(cache, limits(tmp_path, user={"cleanupPeriodDays": "unlimited"}), TODAY).deleted
    assert sweep(cache, limits(tmp_path, user={"cleanupPeriodDays": "none"}), TODAY).deleted


def test_unreadable_settings_delete_nothing(cache: Cache, tmp_path: Path) -> None:
    """Settings that cannot be understood stop everything before a session is looked at."""
    for broken in ({"cleanupPeriodDays": 0}, {"cleanupPeriodDays": ""}, {"cleanupPeriodDays": None}):
        with pytest.raises(Problem):
            limits(tmp_path, user=broken)


def test_a_session_that_cannot_be_read_is_left_alone(cache: Cache, tmp_path: Path) -> None:
    """A file that does not open is told of and stays; the others go."""
    broken = keep(cache, "broken", used=TODAY - timedelta(days=40))
    keep(cache, "whole", used=TODAY - timedelta(days=40))
    data = bytearray(cache.path(broken).read_bytes())
    data[40] ^= 1
    cache.path(broken).write_bytes(data)
    swept = sweep(cache, limits(tmp_path), TODAY)
    assert [session.title for session in swept.deleted] == ["whole"]
    assert len(swept.problems) == 1
    assert cache.path(broken).exists()


WRITER = """
import sys
from pathlib import Path
from bailee.agent.sessions.cache import Cache
from bailee.agent.sessions.journals import Head, Kind
from bailee.agent.conversations import say
journal = Cache(Path(sys.argv[1]), environment={}).begin(Head("/", "m", "0"), now=1)
for number in range(100_000):
    journal.append(Kind.MESSAGE, say(f"message {number} " + "x" * 3000), now=number + 1)
    print(number, flush=True)
"""


def test_nothing_said_is_lost_by_a_kill(tmp_path: Path) -> None:
    """After kill -9 every message that was reported as kept is there, in order, and at most one more."""
    cache = Cache(tmp_path, environment={})
    cache.key()
    for count in (1, 7, 23):
        command = [sys.executable, "-c", WRITER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if int(line) >= count:
                    process.send_signal(signal.SIGKILL)
                    break
            told = [int(line) for line in process.stdout.read().split()] or [count]
        (session,) = [one for one in cache.list()[0] if one.messages > count]
        said = cache.read(session.id).said
        assert [message["content"][0]["text"].split()[1] for message in said] == [
            str(number) for number in range(len(said))
        ]
        assert told[-1] + 1 <= len(said) <= told[-1] + 2
        cache.delete(session.id)


def test_the_agents_own_credentials_are_masked(scanner_rules: Path) -> None:
    """A token that looks like nothing is masked where the agent works with it, else not (control)."""
    opaque = "opaque-token-of-somebody"
    said = {"role": "user", "content": f"the token is {opaque}, twice {opaque}"}
    masked, kinds = SecretMasker(scanner_rules, [opaque, "", "short"]).mask(said)
    assert opaque not in str(masked)
    assert kinds == {"own_credential": 2}
    assert SecretMasker(scanner_rules).mask(said) == (said, {})
