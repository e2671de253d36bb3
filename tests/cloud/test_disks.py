"""Disks of cloud sessions at rest: sealed whatever is killed when, and gone with a receipt."""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bailee.accounts.directory import open_directory
from bailee.cloud import disks
from bailee.cloud.records import CloudSession, Sessions, State
from bailee.policy.problems import Problem
from bailee.service.cloud import Driver
from bailee.service.cloud_disks import receipt_of, remove_session, sweep_disks
from bailee.service.cloud_logs import read_log
from bailee.service.cloud_rest import at_work, make_disk, settle
from counterparts.clouds import World, has_ended
from counterparts.git_hosts import git
from counterparts.searching import find_hidden, list_files
from counterparts.waiting import wait_for

CANARY = b"canary-of-the-clone-0001"
PROMPT = "canary-of-the-prompt-0002"
SECRETS = (CANARY, PROMPT.encode())


class Resting:
    """A session of a home that is worked on without a machine: what lies between rest and work is real."""

    def __init__(self, home: Path, name: str = "me") -> None:
        self.home = home
        home.mkdir(mode=0o700, exist_ok=True)
        directory = open_directory(home)
        account = directory.ensure_default()
        directory.close()
        self.sessions = Sessions(home)
        self.id = self.sessions.make()
        now = time.time_ns() // 1_000_000
        self.sessions.write(
            CloudSession(
                id=self.id,
                account=account.name,
                repository="https://127.0.0.1/app",
                base="",
                branch="bailee/x",
                agent="true",
                isolation="namespace",
                network="none",
                upstream="",
                allow=(),
                setup="",
                seconds=60,
                traffic_bytes=1,
                turns=(PROMPT,),
                answered=1,
                state=State.DONE,
                reason="",
                created_ms=now,
                changed_ms=now,
                disk=make_disk(home, account.name, self.id),
            )
        )

    @property
    def folder(self) -> Path:
        """The session's folder."""
        return self.sessions.folder(self.id)

    def work(self, name: str) -> None:
        """Write a file of a name, and a line into the log, as a machine would."""
        with self.sessions.driving(self.id), at_work(self.home, self.sessions, self.id):
            self.write(name)

    def write(self, name: str) -> None:
        """Write what `work` does."""
        repository = self.folder / "work" / "repository"
        repository.mkdir(exist_ok=True)
        (repository / name).write_bytes(CANARY + os.urandom(700_000))
        with (self.folder / "log").open("ab") as log:
            log.write(b"%s said %s\n" % (CANARY, name.encode()))

    def look(self) -> list[str]:
        """Return the names of the files on the disk, as the next turn would find them."""
        with self.sessions.driving(self.id), at_work(self.home, self.sessions, self.id):
            repository = self.folder / "work" / "repository"
            found = sorted(path.name for path in repository.iterdir()) if repository.is_dir() else []
            assert all((repository / name).read_bytes().startswith(CANARY) for name in found)
            assert all((repository / name).stat().st_size == 700_000 + len(CANARY) for name in found)
            return found

    def said(self) -> str:
        """Return the whole log."""
        data = b""
        while piece := read_log(self.sessions, self.id, len(data)):
            data += piece
        return data.decode()

    def put_back(self, copy: Path) -> None:
        """Have the home as it was copied."""
        shutil.rmtree(self.home)
        copy.rename(self.home)
        self.sessions = Sessions(self.home)

    def key_rows(self) -> int:
        """Return how many keys of the session's disk the keystore's database has."""
        segment = bytes.fromhex(self.sessions.read_facts(self.id).disk)
        with contextlib.closing(sqlite3.connect(self.home / "keystore" / "keys.db")) as connection:
            query = "SELECT COUNT(*) FROM keys WHERE segment = ?"
            return int(connection.execute(query, (segment,)).fetchone()[0])


@pytest.fixture
def resting(tmp_path: Path) -> Resting:
    """Give a session at rest, with one file on its disk."""
    made = Resting(tmp_path / "home")
    made.work("one")
    return made


# --- At rest ---


def begin(world: World) -> tuple[dict[str, object], Path]:
    """Run a whole session on a repository with a canary, and return what is known of it with its folder."""
    work = world.host.folder / "app-work"
    (work / "canary.txt").write_bytes(CANARY + b"\n")
    git("add", "-A", cwd=work)
    git("commit", "-qm", "canary", cwd=work)
    git("push", "-q", str(world.host.folder / "app.git"), "main", cwd=work)
    known, said = world.start(PROMPT, "--agent", "cat canary.txt; cp canary.txt second.txt")
    assert CANARY.decode() in said
    return known, world.home / "cloud" / str(known["id"])


def test_at_rest_nothing_lies_in_clear(world: World) -> None:
    """What was in the clone, the prompt and the log is in no file of the home; the next turn finds it all."""
    known, folder = begin(world)
    assert find_hidden([world.home], *SECRETS) == []
    names = {path.name for path in folder.iterdir()}
    assert names == {"session.json", "lock", "disk.sealed", "log.1.sealed"}
    assert CANARY.decode() in world.bailee("cloud", "logs", str(known["id"]))
    assert known["turns"] == [PROMPT]
    assert known["disk_bytes"] == (folder / "disk.sealed").stat().st_size
    assert known["disk_until"] is not None
    world.bailee("cloud", "say", str(known["id"]), PROMPT)
    wait_for("its driver's end", lambda: has_ended(world))
    assert find_hidden([world.home], *SECRETS) == []
    assert world.show(str(known["id"]))["answered"] == 2


def test_control_without_sealing_it_lies_there(world: World) -> None:
    """Control: with sealing off the same search finds the clone and the log."""
    changes = world.folder / "changes"
    changes.mkdir()
    off = "import bailee.cloud.disks as disks\ndisks.seal = lambda *words, **more: None\n"
    (changes / "sitecustomize.py").write_text(off)
    world.environment["PYTHONPATH"] = str(changes)
    _, folder = begin(world)
    found = {str(path.relative_to(folder)) for path in find_hidden([world.home], *SECRETS)}
    assert {"log", "work/repository/canary.txt", "work/repository/second.txt"} <= found


def test_control_a_record_of_an_earlier_program_is_sealed_by_the_next_look(resting: Resting) -> None:
    """Control: a prompt in clear is found; a session that has no key yet gets one, and lies sealed then."""
    path = resting.folder / "session.json"
    clear = {**json.loads(path.read_text()), "turns": [PROMPT], "sealed": "", "disk": "", "disk_digest": ""}
    path.write_text(json.dumps(clear))
    (resting.folder / "disk.sealed").unlink()
    (resting.folder / "log.1.sealed").unlink()
    (resting.folder / "work").mkdir()
    resting.write("one")
    assert path in find_hidden([resting.home], *SECRETS)
    settle(resting.home, resting.sessions)
    assert find_hidden([resting.home], *SECRETS) == []
    assert resting.sessions.read(resting.id).turns == (PROMPT,)
    assert resting.look() == ["one"]


def test_a_log_is_one_however_often_it_was_sealed(resting: Resting) -> None:
    """What several turns said is read in its order, from any place, whether it is sealed or not yet."""
    resting.work("two")
    with resting.sessions.driving(resting.id), at_work(resting.home, resting.sessions, resting.id):
        resting.write("three")
        said = resting.said()
    assert said == "".join(f"{CANARY.decode()} said {name}\n" for name in ("one", "two", "three"))
    assert resting.said() == said
    assert read_log(resting.sessions, resting.id, 30).decode() == said[30 : said.index("\n") + 1]


# --- Altered ---


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _cut(path: Path) -> None:
    # A header, and whole chunks with their tags.
    os.truncate(path, 33 + 2 * (256 * 1024 + 16))


def _add(path: Path) -> None:
    with path.open("ab") as file:
        file.write(bytes(100))


ALTERED: dict[str, Callable[[Path], None]] = {"a byte": _flip, "cut off": _cut, "added to": _add}


@pytest.mark.parametrize("how", [*ALTERED, "gone", "older", "another's"])
def test_an_altered_disk_fails_closed(resting: Resting, how: str) -> None:
    """A turn on a disk that is not the one sealed last ends before its machine is made, and says why."""
    path = resting.folder / "disk.sealed"
    before = path.read_bytes()
    if how in ALTERED:
        ALTERED[how](path)
    elif how == "gone":
        path.unlink()
    elif how == "older":
        resting.work("two")
        path.write_bytes(before)
    else:
        other = Resting(resting.home)
        other.work("one")
        shutil.copy(other.folder / "disk.sealed", path)
    resting.sessions.change(resting.id, answered=0)
    ended = Driver(resting.home, resting.id).run()
    assert ended.state is State.FAILED
    assert "does not open" in ended.reason
    assert not (resting.folder / "work").exists()
    assert not disks.has_clear(resting.folder)
    assert find_hidden([resting.home], *SECRETS) == []


def test_an_altered_log_or_record_fails_closed(resting: Resting) -> None:
    """A changed byte of the log, or of what is sealed of the record, is told and never shown."""
    _flip(resting.folder / "log.1.sealed")
    with pytest.raises(Problem, match="does not open"):
        resting.said()
    path = resting.folder / "session.json"
    known = json.loads(path.read_text())
    path.write_text(json.dumps(known | {"disk_digest": "0" * 64}))
    with pytest.raises(Problem, match="cannot be read"):
        resting.sessions.look(resting.id)
    # It can be removed all the same.
    assert b"disk_destroyed" in _decode(remove_session(resting.home, resting.id, by="tester"))
    assert not resting.folder.exists()


# --- Killed ---


def fork(step: Callable[[], None], *, kill_at: int) -> int:
    """Run something in a process that kills itself before its nth call about files.

    Returns:
        How often it did, if it came to its end; else 0.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        count = 0
        names = {
            "open",
            "os.rename",
            "os.remove",
            "os.rmdir",
            "os.mkdir",
            "os.utime",
            "os.listdir",
            "os.scandir",
        }

        def watch(event: str, words: tuple[object, ...]) -> None:
            nonlocal count
            if event in names:
                count += 1
                if count == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(watch)
            step()
            os.write(writing, count.to_bytes(8))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        told = file.read()
    os.waitpid(child, 0)
    return int.from_bytes(told)


POINTS = 24


@pytest.mark.parametrize("point", range(POINTS))
def test_a_kill_loses_nothing_and_leaves_nothing_in_clear(
    resting: Resting, tmp_path: Path, point: int
) -> None:
    """Killed at any step from rest to work and back, the next look seals a session, with all it had."""
    worked = tmp_path / "worked"

    def step() -> None:
        sessions = Sessions(resting.home)
        with sessions.driving(resting.id), at_work(resting.home, sessions, resting.id):
            resting.write("two")
            worked.touch()

    shutil.copytree(resting.home, tmp_path / "before")
    done = steps = fork(step, kill_at=0)
    assert steps > 2 * POINTS
    # How many steps it takes differs a little: one that ends before it is killed is killed at its last.
    while done:
        resting.put_back(tmp_path / "before")
        worked.unlink()
        steps = min(steps, done)
        done = fork(step, kill_at=1 + point * (steps - 1) // (POINTS - 1))
    settle(resting.home, resting.sessions)
    assert not disks.has_clear(resting.folder)
    assert find_hidden([resting.home], *SECRETS) == []
    found = resting.look()
    assert found == ["one", "two"] if worked.exists() else found in (["one"], ["one", "two"])
    said = resting.said()
    assert said.count("said one") == 1
    # One may be killed between the two that it writes.
    assert said.count("said two") in ({1} if worked.exists() else {0, int("two" in found)})
    assert resting.sessions.read(resting.id).turns == (PROMPT,)


def test_control_a_kill_leaves_something_in_clear(resting: Resting) -> None:
    """Control: before anybody looks, a killed driver's disk does lie there in clear."""

    def step() -> None:
        sessions = Sessions(resting.home)
        with sessions.driving(resting.id), at_work(resting.home, sessions, resting.id):
            resting.write("two")
            os.kill(os.getpid(), signal.SIGKILL)

    assert fork(step, kill_at=0) == 0
    assert find_hidden([resting.home], *SECRETS) != []
    sweep_disks(resting.home)
    assert find_hidden([resting.home], *SECRETS) == []
    assert resting.look() == ["one", "two"]


def test_a_disk_that_somebody_still_changes_is_not_lost(
    resting: Resting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written while a disk is sealed is sealed too: until it rests, what is in clear stays."""
    pack, late = disks.pack, resting.folder / "work" / "repository" / "late"

    def pack_and_write(folder: Path, sink: object) -> int:
        left_out = pack(folder, sink)  # type: ignore[arg-type]
        if not late.exists():
            late.write_bytes(CANARY + bytes(700_000))
        return left_out

    monkeypatch.setattr(disks, "pack", pack_and_write)
    resting.work("two")
    assert resting.look() == ["late", "one", "two"]


@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_a_clock_that_is_set_meanwhile_keeps_no_disk_in_clear(
    resting: Resting, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    """A disk is sealed, wherever the machine's clock stands by then."""
    now_ns = time.time_ns
    with resting.sessions.driving(resting.id), at_work(resting.home, resting.sessions, resting.id):
        resting.write("two")
        monkeypatch.setattr(time, "time_ns", lambda: now_ns() + seconds * 1_000_000_000)
    assert not disks.has_clear(resting.folder)
    assert resting.look() == ["one", "two"]


def test_a_record_that_is_written_meanwhile_is_left_alone(resting: Resting) -> None:
    """Whoever seals a disk takes away what steps of the disk left, and not what others are just writing."""
    resting.work("a")
    written, step = resting.folder / "session.json.new", resting.folder / "work.new"
    written.write_bytes(b"")
    assert not disks.has_clear(resting.folder)
    step.mkdir()
    assert disks.has_clear(resting.folder)
    disks.sweep(resting.folder)
    assert (written.exists(), step.exists()) == (True, False)


def test_a_read_only_folder_stays_one(resting: Resting) -> None:
    """A folder that nothing may be written to has its modes when the disk comes back, twice over."""
    for _ in range(2):
        with resting.sessions.driving(resting.id), at_work(resting.home, resting.sessions, resting.id):
            folder = resting.folder / "work" / "fixed"
            if not folder.exists():
                folder.mkdir()
                (folder / "file").touch()
                folder.chmod(0o500)
            assert folder.stat().st_mode & 0o777 == 0o500


# --- Removed ---


def _decode(receipt: bytes) -> bytes:
    """Return the entries of a receipt as they were written."""
    import base64

    return b"\n".join(base64.b64decode(one["entry"]) for one in json.loads(receipt)["entries"])


def test_a_removal_destroys_the_key_and_proves_it(world: World) -> None:
    """The receipt verifies with the public key alone; a copy of all files of the session opens no more."""
    known, folder = begin(world)
    id = str(known["id"])
    copy = world.folder / "copy"
    shutil.copytree(folder, copy)
    sessions = Sessions(world.home)
    key = sessions.key(sessions.read_facts(id))
    assert key is not None
    assert CANARY in disks.read_log(copy, key, id, 0, 10**6)  # control: with the key it opens
    disks.open_disk(copy, key, id, str(known["disk_digest"]))
    assert (copy / "work" / "repository" / "canary.txt").exists()
    shutil.rmtree(copy / "work")
    proof = world.folder / "receipt.json"
    public = world.bailee("ledger", "key").strip()
    world.bailee("cloud", "rm", "--yes", "--receipt", str(proof), id)
    assert not folder.exists()
    with contextlib.closing(sqlite3.connect(world.home / "keystore" / "keys.db")) as connection:
        held = [segment for (segment,) in connection.execute("SELECT segment FROM keys")]
    assert bytes.fromhex(str(known["disk"])) not in held
    assert find_hidden([world.home], key) == []
    told = world.bailee("ledger", "verify", str(proof), "--key", public)
    (entry,) = [json.loads(line.split("  ", 1)[1]) for line in told.splitlines() if "disk_destroyed" in line]
    assert entry["digest"] == known["disk_digest"]
    assert (entry["why"], entry["retention"]) == ("erased", "30d")
    assert entry["sealed_bytes"] == known["disk_bytes"]
    assert "keys_destroyed" in told
    world.bailee("ledger", "verify")
    # The copy is put back: its key is gone, and nothing of it comes out.
    shutil.copytree(copy, folder)
    back = Sessions(world.home)
    assert back.key(back.read_facts(id)) is None
    assert back.read(id).turns == ()
    ended = Driver(world.home, id).run()
    assert "its key is destroyed" in ended.reason
    assert CANARY.decode() not in world.bailee("cloud", "logs", id)


def test_a_receipt_without_the_key_is_none(resting: Resting) -> None:
    """A receipt that tells of a removed disk, and not that its key is destroyed, does not verify."""
    from bailee.ledger.log import FOLDER, open_log
    from bailee.ledger.receipts import ReceiptRefused, make_receipt, verify_receipt

    whole = remove_session(resting.home, resting.id, by="tester")
    log = open_log(resting.home / FOLDER)
    verify_receipt(whole, log.verifier)
    last = json.loads(whole)["entries"][-1]["index"]
    with pytest.raises(ReceiptRefused, match="not that its key was"):
        verify_receipt(make_receipt(log, [last]), log.verifier)


@pytest.mark.parametrize("point", range(10))
def test_a_removal_that_is_killed_is_finished(resting: Resting, tmp_path: Path, point: int) -> None:
    """Killed at any step, a removal is done by the next one or never began; with a receipt either way."""
    shutil.copytree(resting.home, tmp_path / "before")

    def step() -> None:
        remove_session(resting.home, resting.id, by="tester")

    steps = fork(step, kill_at=0)
    assert steps > 20
    resting.put_back(tmp_path / "before")
    fork(step, kill_at=1 + point * (steps - 1) // 9)
    if resting.folder.exists() and (resting.folder / "session.json").exists():
        if resting.key_rows():
            assert resting.look() == ["one"]
            remove_session(resting.home, resting.id, by="tester")
        else:
            assert sweep_disks(resting.home) == [resting.id]
    entries = _decode(receipt_of(resting.home, resting.id).read_bytes())
    assert b"disk_destroyed" in entries
    assert b"keys_destroyed" in entries
    assert Sessions(resting.home).ids() == []
    assert [path for path in list_files([resting.home / "cloud"]) if path.name.endswith("sealed")] == []


def test_a_legal_hold_keeps_a_disk_from_being_removed(world: World) -> None:
    """`rm` is refused with the hold's reason; once it is released, the session goes."""
    known, _ = world.start("x", "--agent", "true")
    hold = json.loads(world.bailee("holds", "place", "--account", "me", "--reason", "case seven", "--json"))
    said = world.bailee("cloud", "rm", "--yes", str(known["id"]), status=2)
    assert "case seven" in said
    assert world.show(str(known["id"]))["state"] == "done"
    world.bailee("holds", "release", hold["id"], "--reason", "settled")
    proof = world.bailee("cloud", "rm", "--yes", "--json", str(known["id"]))
    assert b"disk_destroyed" in _decode(proof.encode())


def test_expiry_and_the_end_of_an_account_give_receipts(world: World) -> None:
    """A disk that goes on its day, or with its account, leaves a receipt that says why and verifies."""
    known, folder = world.start("x", "--agent", "true")[0], world.home / "cloud"
    id = str(known["id"])
    path = folder / id / "session.json"
    late = time.time_ns() // 1_000_000 - 31 * 86_400_000
    path.write_text(json.dumps(json.loads(path.read_text()) | {"changed_ms": late}))
    world.bailee("retention", "sweep")
    expired = receipt_of(world.home, id)
    assert '"why":"expired"' in world.bailee("ledger", "verify", str(expired))
    assert not path.exists()
    other = str(world.start("x", "--agent", "true")[0]["id"])
    said = world.bailee("accounts", "erase", "me", "--yes")
    assert other in said
    assert '"why":"erased"' in world.bailee("ledger", "verify", str(receipt_of(world.home, other)))
    assert not (folder / other).exists()


# A sweep falls between the key of a disk and the first moment at work.
SWEEPS = """
import contextlib
from bailee.service import cloud_orders
from bailee.vault.custody import open_custody
from bailee.vault.sweeping import sweep
make_disk = cloud_orders.make_disk
def make_and_sweep(home, account, id):
    disk = make_disk(home, account, id)
    with contextlib.closing(open_custody(home)) as custody:
        sweep(custody)
    return disk
cloud_orders.make_disk = make_and_sweep
"""
IN_NO_TIME = "import datetime, bailee.vault.disks as disks\ndisks._LEAST = datetime.timedelta()\n"


def test_zero_data_retention_leaves_no_disk(world: World) -> None:
    """Under zero data retention a disk is sealed as any, and its key goes with the next sweep.

    One that falls into its beginning leaves it; control: without its first days it does not.
    """
    world.bailee("accounts", "add", "zoe", "--plan", "team", "--org", "acme", "--role", "admin")
    key = world.bailee("keys", "create", "--account", "zoe", "--for-holder").split()[0]
    world.environment["BAILEE_KEY"] = key
    owner = ("--account", "zoe", "--repo", world.url)
    world.bailee("secrets", "set", "GIT_CREDENTIAL", *owner, value=world.host.accepted)
    world.bailee("org", "zdr", "on", "--org", "acme", "--as", "zoe", "--yes")
    known, _ = world.start("x", "--account", "zoe", "--agent", "true")
    world.bailee("retention", "sweep")
    assert not (world.home / "cloud" / str(known["id"])).exists()
    assert receipt_of(world.home, str(known["id"])).exists()
    with world.changed(SWEEPS):
        assert world.start("x", "--account", "zoe", "--agent", "true")[0]["state"] == "done"
    with world.changed(SWEEPS + IN_NO_TIME):
        assert "its key is destroyed" in world.start("x", "--account", "zoe", "--agent", "true", status=1)[1]
