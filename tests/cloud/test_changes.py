"""Records of sessions: several change one at once, one is broken, what a machine wrote decides nothing."""

import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bailee.cloud.records import Sessions, State
from bailee.files import replace_file
from bailee.service.cloud_rest import settle
from counterparts.clouds import World, has_ended
from counterparts.git_hosts import git
from counterparts.waiting import wait_for

APPEND = """
import fcntl, sys
from pathlib import Path
from bailee.cloud.records import Sessions, State
if sys.argv[3] == "without":
    fcntl.flock = lambda descriptor, operation: None
sessions = Sessions(Path(sys.argv[1]))
for number in range(30):
    sessions.change_by(sys.argv[2], lambda one: {"turns": (*one.turns, f"{sys.argv[4]}-{number}")})
"""


def append_at_once(home: Path, id: str, how: str) -> bool:
    """Let four processes add prompts at the same time; tell whether all are there and nothing failed."""
    run = [sys.executable, "-c", APPEND, str(home), id, how]
    before = len(Sessions(home).read(id).turns)
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda name: subprocess.run([*run, name], capture_output=True), "abcd"))
    try:
        added = len(Sessions(home).read(id).turns) - before
    except Exception:
        return False
    return added == 120 and all(one.returncode == 0 for one in done)


def test_several_change_a_record_at_once(world: World) -> None:
    """No change is lost and none fails; without the lock, as a control, some do."""
    known, _ = world.start("x", "--agent", "true")
    assert append_at_once(world.home, known["id"], "with")
    assert not append_at_once(world.home, known["id"], "without")


def test_who_looks_is_not_taken_for_a_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two that ask at once whether a session is driven none is told that the other drives it."""
    sessions = Sessions(tmp_path)
    id = sessions.make()
    answers, done, lock = [], threading.Event(), fcntl.flock

    def lock_slowly(descriptor: int, how: int) -> None:
        lock(descriptor, how)
        time.sleep(0.001)

    def look() -> None:
        while not done.is_set():
            sessions.is_driven(id)

    with sessions.driving(id):
        assert sessions.is_driven(id)  # Control
    monkeypatch.setattr(fcntl, "flock", lock_slowly)
    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        answers = [sessions.is_driven(id) for _ in range(200)]
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not any(answers)


def watch_a_beginning(world: World) -> tuple[set[State], list[str]]:
    """Begin a session while others look and settle; return the states they saw, and what they settled."""
    sessions, states, settled = Sessions(world.home), set(), []
    with ThreadPoolExecutor(1) as pool:
        beginning = pool.submit(world.start, "x", "--agent", "true", wait=False)
        while not beginning.done():
            settled += settle(world.home, sessions)
            states |= {sessions.look(id).state for id in sessions.ids()}
        beginning.result()
    return states, settled


# Whoever begins a session holds it no longer than it takes to begin the one who drives it.
LETS_GO = """
import contextlib, fcntl
from bailee.cloud.records import Sessions, State
holding = Sessions.holding
@contextlib.contextmanager
def let_go(sessions, id):
    with holding(sessions, id) as lock:
        fcntl.flock(lock, fcntl.LOCK_UN)
        yield lock
Sessions.holding = let_go
"""


def test_one_that_begins_is_never_lost(world: World) -> None:
    """Whoever looks before its driver is there sees that it starts; control: not where nobody holds it."""
    states, settled = watch_a_beginning(world)
    assert State.STARTING in states
    assert State.LOST not in states
    assert settled == []
    with world.changed(LETS_GO):
        states, _ = watch_a_beginning(world)
    assert State.LOST in states


def test_prompts_said_at_once_are_all_worked_off(world: World) -> None:
    """Of several who say something to a session at rest, or at its end, none is left without an answer."""
    known, _ = world.start("first", "--agent", 'echo "$BAILEE_PROMPT" >> said.txt')
    words = [f"word-{number}" for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda word: world.bailee("cloud", "say", known["id"], word), words))
    wait_for("the end", lambda: has_ended(world))
    known = world.show(known["id"])
    assert (known["state"], known["answered"]) == ("done", 5)


def test_several_replace_a_file_at_once(tmp_path: Path) -> None:
    """It is always one writer's whole, and no writer fails."""
    path, wrong, done = tmp_path / "file", [], threading.Event()
    replace_file(path, b"0" * 100_000)

    def look() -> None:
        while not done.is_set():
            data = path.read_bytes()
            if len(data) != 100_000 or len(set(data)) != 1:
                wrong.append(len(data))

    looking = threading.Thread(target=look)
    looking.start()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: replace_file(path, b"%d" % (number % 10) * 100_000), range(200)))
    done.set()
    looking.join()
    assert wrong == []


def test_a_broken_record(world: World) -> None:
    """It is named, others are listed, and it can be removed with a receipt for what the vault held."""
    broken, _ = world.start("x", "--agent", "true")
    whole, _ = world.start("x", "--agent", "true")
    record = world.home / "cloud" / broken["id"] / "session.json"
    record.write_bytes(record.read_bytes()[:100])
    said = world.bailee("cloud", "list")
    assert whole["id"] in said
    assert f"bailee cloud rm {broken['id']}" in said
    receipt = world.folder / "receipt.json"
    world.bailee("cloud", "rm", "--yes", "--receipt", str(receipt), broken["id"])
    assert '"kind":"disk_destroyed"' in world.bailee("ledger", "verify", str(receipt))
    assert not record.parent.exists()
    other = world.home / "cloud" / whole["id"] / "session.json"
    last, _ = world.start("x", "--agent", "true")
    other.write_bytes(other.read_bytes()[:100])
    world.bailee("accounts", "erase", "me", "--yes")
    assert not (world.home / "cloud" / last["id"]).exists()


COMMITS = {
    "on another branch": "git checkout -q -b other; git commit -q --allow-empty -m x; git checkout -q -",
    "under a forged name of the host's": (
        "git checkout -q -b other; git commit -q --allow-empty -m x; "
        "git update-ref refs/remotes/origin/other HEAD; git checkout -q -"
    ),
}


@pytest.mark.parametrize("kind", COMMITS)
def test_commits_that_are_not_pushed_are_told(world: World, kind: str) -> None:
    """What is not at the host is unsaved, whatever the clone says of it; a session without is not."""
    known, said = world.start("x", "--agent", COMMITS[kind])
    assert (known["state"], known["has_unsaved"]) == ("done", True)
    assert "are not pushed" in said
    if kind == "on another branch":
        known, said = world.start("x", "--agent", "git commit -q --allow-empty -m x")
        assert (known["state"], known["has_unsaved"]) == ("done", False)
        assert known["branch"] in git("branch", "--list", "bailee/*", cwd=world.host.folder / "app.git")


def test_a_commit_under_a_forged_name_is_pushed(world: World) -> None:
    """What is on the session's branch goes to the host, also where the clone has it as the host's."""
    agent = "git commit -q --allow-empty -m x; git update-ref refs/remotes/origin/zz HEAD"
    known, _ = world.start("x", "--agent", agent)
    assert (known["state"], known["has_unsaved"]) == ("done", False)
    assert known["branch"] in git("branch", "--list", "bailee/*", cwd=world.host.folder / "app.git")


# A repository of the machine's own, which has all that the session did.
ELSEWHERE = "git commit -q --allow-empty -m x; git clone -q --bare . ../other.git; "


def test_work_goes_to_the_repository_wherever_the_clone_leads(world: World) -> None:
    """Another `origin` changes nothing; where its address is led elsewhere that is told as not pushed."""
    known, _ = world.start("x", "--agent", f"{ELSEWHERE} git config remote.origin.url $PWD/../other.git")
    assert (known["state"], known["has_unsaved"]) == ("done", False)
    assert known["branch"] in git("branch", "--list", "bailee/*", cwd=world.host.folder / "app.git")
    led = f"{ELSEWHERE} git config url.$PWD/../other.git.insteadOf $BAILEE_REPOSITORY"
    known, said = world.start("x", "--agent", led, status=1)
    assert (known["state"], known["has_unsaved"]) == ("failed", True)
    assert f"the work is not at {world.url}" in said


def test_a_stop_that_was_meant_for_another_driver(world: World) -> None:
    """What a killed driver did not come to heed does not stop the next turn."""
    known, _ = world.start("x", "--seconds", "10", "--agent", "echo half > half.txt; sleep 300", status=1)
    (world.home / "cloud" / known["id"] / "stop").touch()
    world.bailee("cloud", "save", known["id"])
    assert world.show(known["id"])["reason"] == "its work was saved"


def test_what_save_does_not_do(world: World) -> None:
    """A session that runs is refused at once; one with nothing to save stays as it is."""
    known, _ = world.start("x", "--agent", "touch begun; sleep 303", wait=False)
    assert "the session is running" in world.bailee("cloud", "save", known["id"], status=2)
    world.bailee("cloud", "stop", known["id"])
    assert "Traceback" not in world.bailee("cloud", "logs", known["id"])
    known, _ = world.start("x", "--agent", "true")
    assert "there is nothing to save" in world.bailee("cloud", "save", known["id"])
    assert world.show(known["id"])["state"] == "done"


def test_a_variable_that_is_no_text(world: World) -> None:
    """A session begins as ever from a shell that has one."""
    environment = {os.fsencode(name): os.fsencode(value) for name, value in world.environment.items()}
    environment[b"FOO"] = b"caf\xe9"
    words = ["cloud", "start", "--upstream", "rehearsal", "--repo", world.url, "--isolation", "namespace"]
    done = subprocess.run(
        [sys.executable, "-m", "bailee", *words, "--agent", "true", "--wait", "x", "--home", str(world.home)],
        env=environment,
        cwd=world.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (only,) = json.loads(world.bailee("cloud", "list", "--json"))
    assert only["state"] == "done"
