"""Snapshots of set-up: what one session set up another begins from, and what must not come of that."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from bailee.accounts.directory import open_directory
from bailee.cloud import snapshots
from bailee.cloud.records import Sessions
from bailee.cloud.snapshots import NotKept, bind, open_snapshot, purpose_of, seal_snapshot
from bailee.service.cloud_disks import receipt_of, sweep_disks
from bailee.service.cloud_snapshots import LONGEST, find_snapshot, terms_of_snapshot
from counterparts.clouds import World, has_ended
from counterparts.git_hosts import git
from counterparts.searching import find_hidden
from counterparts.waiting import wait_for

pytestmark = pytest.mark.usefixtures("served")
CANARY = b"canary-of-the-set-up-0001"
# Installs something into the home and the clone, and says that it ran.
SETUP = """
echo "set-up ran"
mkdir -p "$HOME/.local/lib"
printf 'canary-of-the-%s' 'set-up-0001' > "$HOME/.local/lib/installed"
echo prepared > ignored.txt
echo ignored.txt >> .git/info/exclude
"""
LOOK = """
cat "$HOME/.local/lib/installed"; echo; cat ignored.txt
git status --porcelain; git branch --list | tr -d '\\n'; echo
"""


@pytest.fixture
def setup(world: World) -> Path:
    """Give a set-up script."""
    path = world.folder / "setup.sh"
    path.write_text(SETUP)
    return path


def start(world: World, setup: Path, *words: str, status: int = 0) -> tuple[dict[str, Any], str]:
    """Run a session with a set-up script."""
    more = () if "--agent" in words else ("--agent", LOOK)
    return world.start("x", "--setup", str(setup), *more, *words, status=status)


def commit(world: World, name: str, text: str, branch: str = "main") -> None:
    """Add a file to the repository at its host."""
    work = world.host.folder / "app-work"
    (work / name).write_text(text)
    git("add", "-A", cwd=work)
    git("commit", "-qm", name, cwd=work)
    git("push", "-q", str(world.host.folder / "app.git"), f"HEAD:{branch}", cwd=work)


def snapshot_of(world: World, known: dict[str, Any]) -> Path:
    """Return where the snapshot of a session lies."""
    return world.home / "cloud" / str(known["id"]) / "snapshot.sealed"


# --- One session begins where the set-up of another ended ---


@pytest.mark.parametrize("kind", ["namespace", "vm"])
def test_a_later_session_begins_from_it(world: World, setup: Path, kind: str) -> None:
    """Home and clone are as set-up left them, the base as it is now, the branch its own."""
    world.isolation = kind
    first, said = start(world, setup)
    assert said.count("set-up ran") == 1
    assert first["snapshot_bytes"] == snapshot_of(world, first).stat().st_size
    assert first["begun_from"] == ""
    assert find_hidden([world.home], CANARY) == []
    commit(world, "later.txt", "of a later commit\n")
    asked = len(world.host.asked)
    agent = f"{LOOK} cat later.txt; echo mine > mine.txt"
    second, said = start(world, setup, "--agent", agent)
    assert "set-up ran" not in said
    today = time.strftime("%Y-%m-%d", time.gmtime())
    assert f"bailee: set-up taken from a snapshot of {today}; --fresh makes it anew" in said
    assert CANARY.decode() in said
    assert "prepared" in said
    assert "of a later commit" in said
    assert f"* {second['branch']}" in said
    assert first["branch"] not in said
    assert second["begun_from"] == first["id"]
    assert second["snapshot"] == ""
    (listed,) = [one for one in json.loads(world.bailee("cloud", "list", "--json")) if one["begun_from"]]
    assert (listed["id"], listed["begun_from"]) == (second["id"], first["id"])
    # Fetched by the Git proxy as anything is: with the host's credential and this session's own grant.
    assert any("git-upload-pack" in path for _, path, _ in world.host.asked[asked:])
    bare = world.host.folder / "app.git"
    assert git("diff", "--name-only", "main", second["branch"], cwd=bare).split() == ["mine.txt"]
    # Another turn goes on with the session's own disk.
    world.bailee("cloud", "say", str(second["id"]), "again")
    wait_for("its end", lambda: has_ended(world), 120)
    assert world.show(str(second["id"]))["answered"] == 2


def test_what_it_is_not_taken_for(world: World, setup: Path) -> None:
    """Another script, base, network or account sets up itself; --fresh does, and makes a newer one."""
    first, _ = start(world, setup)
    commit(world, "developed.txt", "x", branch="develop")
    other = world.folder / "other.sh"
    other.write_text(SETUP + "true\n")
    for words in (("--base", "develop"), ("--network", "custom", "--allow", "host.example")):
        known, said = start(world, setup, *words)
        assert ("set-up ran" in said, known["begun_from"]) == (True, ""), words
    known, said = start(world, other)
    assert ("set-up ran" in said, known["begun_from"]) == (True, "")
    fresh, said = start(world, setup, "--fresh")
    assert ("set-up ran" in said, fresh["begun_from"], fresh["is_fresh"]) == (True, "", True)
    assert fresh["snapshot"] not in ("", first["snapshot"])
    again, _ = start(world, setup)
    assert again["begun_from"] == fresh["id"]
    sessions = Sessions(world.home)
    directory = open_directory(world.home)
    directory.close()
    world.bailee("accounts", "add", "eve", "--plan", "pro")
    theirs = sessions.change(str(again["id"]), account="eve")
    assert find_snapshot(world.home, sessions, theirs) is None
    mine = sessions.change(str(again["id"]), account="me")
    assert find_snapshot(world.home, sessions, mine) is not None  # control


def test_what_is_never_kept(world: World, setup: Path) -> None:
    """No snapshot without a set-up script, of one that failed, makes commits or leaves something running."""
    known, _ = world.start("x", "--agent", "true")
    assert known["snapshot"] == ""
    setup.write_text(SETUP + "exit 9\n")
    known, _ = start(world, setup, status=1)
    assert (known["reason"], known["snapshot"]) == ("the set-up script failed", "")
    assert not snapshot_of(world, known).exists()
    hidden = "git update-ref refs/remotes/origin/main $(git commit-tree -p HEAD -m x HEAD^{tree})"
    for made in ("git commit -q --allow-empty -m x", hidden):
        setup.write_text(f"{SETUP}{made}\n")
        known, said = start(world, setup)
        assert (known["state"], known["snapshot"]) == ("done", "")
        assert "no snapshot: the set-up script makes commits" in said
    git("tag", "-am", "x", "v1", "main", cwd=world.host.folder / "app.git")
    setup.write_text(SETUP)
    assert (
        start(world, setup)[0]["snapshot"] != ""
    )  # control: tags and branches of the host's are no commits of it
    for left in ("sleep 60 > /dev/null 2>&1 &", "setsid -f sleep 60 > /dev/null 2>&1"):
        setup.write_text(f"{SETUP}{left}\n")
        known, said = start(world, setup, "--agent", "grep -l sleep /proc/[0-9]*/comm; echo looked")
        assert (known["state"], known["snapshot"]) == ("done", ""), left
        assert "set-up left something running" in said
        assert "/comm" in said  # it is left to run


def test_what_an_agent_left_is_in_none(world: World, setup: Path) -> None:
    """A session whose agent makes it set up anew keeps no snapshot of what the agent had done before."""
    setup.write_text(SETUP + "exit 9\n")
    known, _ = start(world, setup, status=1)
    sessions = Sessions(world.home)
    # The same session, set up by a script that works, on a disk that is not new.
    sessions.change(str(known["id"]), setup=SETUP)
    world.bailee("cloud", "say", str(known["id"]), "again")
    while sessions.is_driven(str(known["id"])):
        time.sleep(0.1)
    shown = world.show(str(known["id"]))
    assert (shown["state"], shown["snapshot"]) == ("done", "")


def test_a_repository_that_went_on_another_way(world: World, setup: Path) -> None:
    """Where what set-up changed is in the way of the base as it is now, set-up runs anew on an empty disk."""
    setup.write_text(SETUP + "echo '# changed by set-up' >> calculator.py; mkdir -m 500 fixed\n")
    start(world, setup)
    commit(world, "calculator.py", "# of a later commit\n")
    known, said = start(world, setup, "--agent", "cat calculator.py; ls -d fixed")
    assert "set-up runs anew" in said
    assert said.count("set-up ran") == 1
    assert "# of a later commit\n# changed by set-up" in said
    assert (known["state"], known["begun_from"]) == ("done", "")


# --- Nothing of the session that made it ---

LEAKS = {
    "its token": 'echo "$ANTHROPIC_AUTH_TOKEN" > "$HOME/.token"',
    "git's credential": 'git config --global http.extraHeader "$GIT_CONFIG_VALUE_1"',
    "an exposed secret": 'printf "x%.0s" $(seq 300000) > "$HOME/.npmrc"; echo "$EXPOSED" >> "$HOME/.npmrc"',
    "a placeholder": 'git config remote.origin.token "$NPM_TOKEN"',
}


@pytest.mark.parametrize("leak", LEAKS)
def test_a_disk_with_a_token_is_not_kept(world: World, setup: Path, leak: str) -> None:
    """A set-up that writes a token or secret of its session to the disk leaves no snapshot, and is told."""
    world.bailee("secrets", "set", "EXPOSED", "--expose", value="canary-that-is-exposed-0001")
    world.bailee(
        "secrets", "set", "NPM_TOKEN", "--host", "registry.example", value="npm_0123456789abcdefghij"
    )
    setup.write_text(f"{SETUP}\n{LEAKS[leak]}\n")
    known, said = start(world, setup)
    assert (known["state"], known["snapshot"]) == ("done", "")
    assert "no snapshot of the set-up is kept: a token or secret of this session is on the disk" in said
    assert not snapshot_of(world, known).exists()


TELL = 'echo "token=$ANTHROPIC_AUTH_TOKEN"; echo "git=${GIT_CONFIG_VALUE_1##* }"'


def test_no_credential_of_the_earlier_session_is_in_it(world: World, setup: Path) -> None:
    """Opened with its key, a snapshot has no token of its session, in git's settings, home or elsewhere."""
    world.bailee("secrets", "set", "EXPOSED", "--expose", value="canary-that-is-exposed-0001")
    first, said = start(world, setup, "--agent", TELL)
    told = dict(line.split("=", 1) for line in said.splitlines() if line.startswith(("token=", "git=")))
    assert all(len(value) > 20 for value in told.values())
    values = (*(value.encode() for value in told.values()), b"canary-that-is-exposed-0001")
    opened = open_whole(world, first)
    assert find_hidden([opened], CANARY) != []  # it is the disk
    assert find_hidden([opened], *values, world.host.accepted.encode()) == []


def test_control_without_the_look_the_token_is_in_it(world: World, setup: Path) -> None:
    """Control: with the look at values off, the same search finds the token in home and git's settings."""
    setup.write_text(
        f"{SETUP}\n{LEAKS['its token']}\n{LEAKS['a placeholder'].replace('NPM', 'ANTHROPIC_AUTH')}\n"
    )
    off = "import bailee.cloud.snapshots as snapshots\nsnapshots.SHORTEST_VALUE = 10**9\n"
    with world.changed(off):
        first, said = start(world, setup, "--agent", TELL)
    (token,) = [line[6:] for line in said.splitlines() if line.startswith("token=")]
    opened = open_whole(world, first)
    found = {str(path.relative_to(opened)) for path in find_hidden([opened], token.encode())}
    assert {"work/home/.token"} <= found


def open_whole(world: World, known: dict[str, Any]) -> Path:
    """Open a snapshot with its key into a folder, and return that."""
    sessions = Sessions(world.home)
    session = sessions.read(str(known["id"]))
    key = sessions.key_of(session.snapshot)
    assert key is not None
    target = world.folder / "opened"
    (target / "work").mkdir(parents=True)
    context = bind(session.id, purpose_of(session))
    open_snapshot(sessions.folder(session.id), target, key, context, session.snapshot_digest)
    return target


# --- Altered ---


def alter_byte(path: Path) -> None:
    """Change one byte in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut_off(path: Path) -> None:
    """Take the end away."""
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    "how",
    [
        *("a byte", "another's", "another purpose"),
        *(pytest.param(how, marks=pytest.mark.soak) for how in ("cut off", "gone")),
    ],
)
def test_an_altered_snapshot_is_never_used(world: World, setup: Path, how: str) -> None:
    """What was altered, or is another, is told; set-up runs anew and makes a snapshot that is used next."""
    first, _ = start(world, setup)
    path = snapshot_of(world, first)
    record = path.with_name("session.json")
    if how == "a byte":
        alter_byte(path)
    elif how == "cut off":
        cut_off(path)
    elif how == "gone":
        path.unlink()
    elif how == "another's":
        newer, _ = start(world, setup, "--fresh")
        shutil.copy(path, snapshot_of(world, newer))
    else:  # that of one repository is written down as that of another
        work = world.host.add("elsewhere", {"calculator.py": "x\n"})
        world.bailee("secrets", "set", "GIT_CREDENTIAL", "--repo", work, value=world.host.accepted)
        record.write_text(json.dumps(json.loads(record.read_text()) | {"repository": work}))
        world.url = work
    known, said = start(world, setup)
    assert "set-up runs anew" in said
    assert said.count("set-up ran") == 1
    assert (known["state"], known["begun_from"]) == ("done", "")
    again, said = start(world, setup)
    assert again["begun_from"] == known["id"]
    assert find_hidden([world.home], CANARY) == []


def test_it_is_bound_to_its_purpose(world: World, setup: Path) -> None:
    """A snapshot opens for what it was made for alone; control: for that it does."""
    first, _ = start(world, setup)
    sessions = Sessions(world.home)
    session = sessions.read(str(first["id"]))
    key = sessions.key_of(session.snapshot)
    assert key is not None
    folder = sessions.folder(session.id)
    target = world.folder / "target"
    (target / "work").mkdir(parents=True)
    wrong = bind(session.id, purpose_of(session)._replace(repository="https://other.example/x"))
    with pytest.raises(NotKept, match="altered"):
        open_snapshot(folder, target, key, wrong, session.snapshot_digest)
    assert list((target / "work").iterdir()) == []
    open_snapshot(folder, target, key, bind(session.id, purpose_of(session)), session.snapshot_digest)
    assert (target / "work" / "repository").is_dir()


def test_a_disk_that_changes_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written while a disk is sealed leaves no snapshot; a quiet disk stays as it is."""
    (tmp_path / "work" / "fixed").mkdir(parents=True)
    (tmp_path / "work" / "fixed" / "file").write_text("x")
    (tmp_path / "work" / "fixed").chmod(0o500)
    more: dict[str, Any] = {"values": (), "is_over": lambda: False, "random": lambda size: bytes(size)}
    sealed = seal_snapshot(tmp_path, bytes(32), b"x", **more)
    assert (tmp_path / "work" / "fixed").stat().st_mode & 0o777 == 0o500
    target = tmp_path / "target"
    (target / "work").mkdir(parents=True)
    open_snapshot(tmp_path, target, bytes(32), b"x", sealed.digest)
    assert (target / "work" / "fixed").stat().st_mode & 0o777 == 0o500
    pack, count = snapshots.pack, 0

    def pack_and_write(folder: Path, sink: Any) -> int:
        nonlocal count
        count += 1
        left_out = pack(folder, sink)
        (folder / f"late{count}").touch()
        return left_out

    monkeypatch.setattr(snapshots, "pack", pack_and_write)
    with pytest.raises(NotKept, match="changing the disk"):
        seal_snapshot(tmp_path, bytes(32), b"x", **more)


def test_two_sessions_at_once(world: World, setup: Path) -> None:
    """Two that set up the same at once keep a snapshot each, both whole, and a third takes the newer one."""
    setup.write_text(SETUP + "until git ls-remote --exit-code -q origin go; do sleep 0.5; done\n")
    words = ["--setup", str(setup), "--agent", LOOK]
    ids = [world.start("x", *words, wait=False)[0]["id"] for _ in range(2)]
    for id in ids:  # both are past the look for a snapshot
        wait_for("its set-up", lambda id=id: world.show(id)["state"] == "cloning" or None)
    git("branch", "go", cwd=world.host.folder / "app.git")
    sessions = Sessions(world.home)
    while any(sessions.is_driven(id) for id in ids):
        time.sleep(0.1)
    made = [world.show(id) for id in ids]
    assert [(one["state"], one["begun_from"]) for one in made] == [("done", "")] * 2
    assert len({one["snapshot"] for one in made} - {""}) == 2
    third, said = start(world, setup)
    assert third["begun_from"] == max(made, key=lambda one: one["snapshot_ms"])["id"]
    assert CANARY.decode() in said


def test_a_kill_while_it_is_kept(world: World, setup: Path) -> None:
    """A driver that is killed as it seals a snapshot leaves none, nothing in clear, no key after `rm`."""
    kill = (
        "import os, signal\nimport bailee.cloud.snapshots as snapshots\n"
        "snapshots.SealedDisk = lambda *told: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with world.changed(kill):
        known = world.start("x", "--setup", str(setup), "--agent", LOOK, wait=False)[0]
        wait_for("its end", lambda: world.show(known["id"])["state"] == "lost" or None)
    folder = world.home / "cloud" / str(known["id"])
    assert world.show(known["id"])["snapshot"] == ""
    assert [path.name for path in folder.iterdir() if "snapshot" in path.name] == []
    assert find_hidden([world.home], CANARY) == []
    other, said = start(world, setup)
    assert ("set-up ran" in said, other["begun_from"]) == (True, "")
    proof = world.bailee("cloud", "rm", "--yes", "--json", str(known["id"]))
    path = world.folder / "receipt.json"
    path.write_text(proof[: proof.rindex("}") + 2])
    assert world.bailee("ledger", "verify", str(path)).count("disk_destroyed") == 2


# --- How long it is held ---


def entries_of(receipt: bytes) -> list[dict[str, Any]]:
    """Return the entries of a receipt."""
    import base64

    return [json.loads(base64.b64decode(one["entry"])) for one in json.loads(receipt)["entries"]]


def test_it_goes_with_the_session_that_made_it(world: World, setup: Path) -> None:
    """`rm` destroys disk, snapshot and both keys, which the receipt proves; the next sets up itself."""
    first, _ = start(world, setup)
    start(world, setup)
    copy = world.folder / "copy"
    shutil.copytree(snapshot_of(world, first).parent, copy)
    proof = world.folder / "receipt.json"
    world.bailee("cloud", "rm", "--yes", "--receipt", str(proof), str(first["id"]))
    told = world.bailee("ledger", "verify", str(proof))
    assert told.count("disk_destroyed") == 2
    destroyed = [one for one in entries_of(proof.read_bytes()) if one["kind"] == "disk_destroyed"]
    assert {one["digest"] for one in destroyed} == {first["disk_digest"], first["snapshot_digest"]}
    assert {one["why"] for one in destroyed} == {"erased"}
    sessions = Sessions(world.home)
    assert sessions.key_of(str(first["snapshot"])) is None
    assert sessions.key_of(str(first["disk"])) is None
    known, said = start(world, setup)
    assert ("set-up ran" in said, known["begun_from"]) == (True, "")
    # Put back with its record, it opens nothing.
    shutil.copytree(copy, snapshot_of(world, first).parent)
    known, _ = start(world, setup)
    assert known["begun_from"] != first["id"]


def age(world: World, known: dict[str, Any], days: int) -> None:
    """Have a snapshot made that many days ago."""
    sessions = Sessions(world.home)
    made = time.time_ns() // 1_000_000 - days * 86_400_000
    sessions.change(str(known["id"]), snapshot_ms=made)


def test_it_is_held_for_a_week(world: World, setup: Path) -> None:
    """After seven days it is not used, and goes with its key and a receipt; the session's disk stays."""
    first, _ = start(world, setup)
    age(world, first, 6)
    world.bailee("retention", "sweep")
    second, _ = start(world, setup)
    assert second["begun_from"] == first["id"]
    age(world, first, 7)
    third, said = start(world, setup)
    assert ("set-up ran" in said, third["begun_from"]) == (True, "")
    for _ in range(2):  # the terms of what is due are set by one, and kept by the next
        world.bailee("retention", "sweep")
    assert not snapshot_of(world, first).exists()
    assert Sessions(world.home).key_of(str(first["snapshot"])) is None
    receipt = world.home / "cloud" / "receipts" / f"{first['id']}-snapshot.json"
    assert '"why":"expired"' in world.bailee("ledger", "verify", str(receipt))
    shown = world.show(str(first["id"]))
    assert (shown["snapshot"], shown["state"]) == ("", "done")
    world.bailee("cloud", "save", str(first["id"]))
    world.bailee("cloud", "rm", "--yes", str(first["id"]))


def test_a_hold_keeps_it_and_the_account_takes_it_along(world: World, setup: Path) -> None:
    """Under a hold it stays beyond its week, unused; erasing the account destroys it with its session."""
    first, _ = start(world, setup)
    hold = json.loads(world.bailee("holds", "place", "--account", "me", "--reason", "case seven", "--json"))
    age(world, first, 8)
    for _ in range(2):
        world.bailee("retention", "sweep")
    assert snapshot_of(world, first).exists()
    assert Sessions(world.home).key_of(str(first["snapshot"])) is not None
    assert "case seven" in world.bailee("cloud", "rm", "--yes", str(first["id"]), status=2)
    known, _ = start(world, setup)
    assert known["begun_from"] == ""
    world.bailee("holds", "release", hold["id"], "--reason", "settled")
    world.bailee("accounts", "erase", "me", "--yes")
    destroyed = [
        one
        for one in entries_of(receipt_of(world.home, str(first["id"])).read_bytes())
        if one["kind"] == "disk_destroyed"
    ]
    assert len(destroyed) == 2
    assert not snapshot_of(world, first).exists()


def test_zero_data_retention_keeps_none(world: World, setup: Path) -> None:
    """Under zero data retention nothing is kept; switched on later, what was kept is not used and goes."""
    world.bailee("accounts", "add", "zoe", "--plan", "team", "--org", "acme", "--role", "admin")
    key = world.bailee("keys", "create", "--account", "zoe", "--for-holder").split()[0]
    world.environment["BAILEE_KEY"] = key
    owner = ("--account", "zoe", "--repo", world.url)
    world.bailee("secrets", "set", "GIT_CREDENTIAL", *owner, value=world.host.accepted)
    directory = open_directory(world.home)
    assert terms_of_snapshot(directory.get("zoe")) == LONGEST
    directory.close()
    first, _ = start(world, setup, "--account", "zoe")
    assert first["snapshot"] != ""
    world.bailee("org", "zdr", "on", "--org", "acme", "--as", "zoe", "--yes")
    known, said = start(world, setup, "--account", "zoe")
    assert ("set-up ran" in said, known["begun_from"], known["snapshot"]) == (True, "", "")
    assert "the account's terms hold nothing" in said
    for _ in range(2):
        world.bailee("retention", "sweep")
        sweep_disks(world.home)
    assert Sessions(world.home).key_of(str(first["snapshot"])) is None
    assert not snapshot_of(world, first).exists()
