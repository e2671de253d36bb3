"""Cloud sessions: the real command and agents, git's own host over TLS, and a machine to look around in."""

import json
import sqlite3
import subprocess
import time

import pytest

from bailee.flows.git.access import place_of
from counterparts import claude
from counterparts.clouds import World
from counterparts.git_hosts import git
from counterparts.waiting import wait_for

pytestmark = pytest.mark.usefixtures("served")
KINDS = ("namespace", "vm")


# Edits, tests and commits as an agent does, and asks the model by the service. Our own takes minutes
# where a machine is emulated, and is at work in the others.
SCRIPTED = """
set -e
sed -i 's/ - / + /' calculator.py
python3 -B -m unittest -q 2>&1 | tail -1
curl -sSf "$ANTHROPIC_BASE_URL/v1/messages" -H "Authorization: Bearer $ANTHROPIC_AUTH_TOKEN" \\
  -H 'anthropic-version: 2023-06-01' -H 'content-type: application/json' -o answer.json \\
  -d '{"model": "rehearsal", "max_tokens": 100, "messages": [{"role": "user", "content": "rehearse greet"}]}'
grep -q '"type": *"message"' answer.json
rm answer.json
git commit -qam "Mend the sum"
"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_session(world: World, kind: str) -> None:
    """Clone, edit, test, commit, push its branch: with a receipt, and the host's credential outside."""
    world.isolation = kind
    known, said = world.start("x", "--agent", SCRIPTED)
    assert known["state"] == "done", said
    assert "Power down" not in said
    assert "\\r" not in said
    bare = world.host.folder / "app.git"
    assert set(world.host.refs("app")) == {"refs/heads/main", f"refs/heads/{known['branch']}"}
    changed = git("diff", "--name-only", "main", known["branch"], cwd=bare)
    assert changed.split() == ["calculator.py"]
    assert "OK" in said
    receipt = known["receipt"]
    assert receipt["boundary"]["isolation"] == known["isolation"] == kind
    assert receipt["enforced"] is True
    assert receipt["boundary"]["counts"]["verdict"] == "agreed"
    flows = {flow["flow"]: flow for flow in receipt["flows"]}
    assert flows["messages"]["exchanges"] == 1
    assert flows["git"]["exchanges"] >= 4


@pytest.mark.parametrize("kind", ["namespace", pytest.param("vm", marks=pytest.mark.soak)])
def test_a_turn_after_the_other(world: World, kind: str) -> None:
    """The second finds the disk as the first left it, which was sealed in between."""
    world.isolation = kind
    known, _ = world.start("one", "--agent", 'cat said.txt; echo "$BAILEE_PROMPT" >> said.txt')
    world.bailee("cloud", "say", known["id"], "two")
    wait_for("its end", lambda: world.show(known["id"])["answered"] == 2 or None, 120)
    wait_for("its end", lambda: world.show(known["id"])["state"] == "done" or None, 120)
    bare = world.host.folder / "app.git"
    assert git("show", f"{known['branch']}:said.txt", cwd=bare) == "one\ntwo\n"


def test_a_machine_that_ends_itself(world: World) -> None:
    """It is told, what it did until then is on the receipt, and its work can be saved."""
    known, _ = world.start("x", "--agent", "echo half > half.txt; sync; kill -9 -1; sleep 60", status=1)
    assert known["state"] == "failed"
    assert "the machine ended" in known["reason"]
    assert known["receipt"]["boundary"]["counts"]["verdict"] == "agreed"
    world.bailee("cloud", "save", known["id"])
    changed = git("diff", "--name-only", "main", known["branch"], cwd=world.host.folder / "app.git")
    assert changed.split() == ["half.txt"]


def test_our_agent_works(world: World) -> None:
    """Our own agent looks, edits, tests and says so; the host was asked with its credential alone."""
    known, said = world.start("rehearse mend-the-test")
    assert known["state"] == "done"
    bare = world.host.folder / "app.git"
    changed = git("diff", "--name-only", "main", known["branch"], cwd=bare)
    assert changed.split() == ["calculator.py"]
    assert "The test passes now" in said
    flows = {flow["flow"]: flow for flow in known["receipt"]["flows"]}
    assert flows["messages"]["exchanges"] >= 3
    asked = {told for _, _, told in world.host.asked}
    assert len(asked) == 1
    assert not list((world.home / "git").iterdir())
    keys = json.loads(world.bailee("keys", "list", "--json"))
    assert keys == []


def test_the_real_claude_code(world: World) -> None:
    """Claude Code itself works in a session, and what it did is on the branch."""
    world.environment["PATH"] = f"{claude.BINARY.parent}:{world.environment['PATH']}"
    known, said = world.start("rehearse mend-the-test", "--agent", "claude-code")
    assert known["state"] == "done", said
    changed = git("diff", "--name-only", "main", known["branch"], cwd=world.host.folder / "app.git")
    assert changed.split() == ["calculator.py"]


PUSH_TO_MAIN = "git commit -q --allow-empty -m x; git push origin HEAD:main; echo pushed: $?"


@pytest.mark.parametrize("kind", KINDS)
def test_a_push_to_main_is_refused_in_words(world: World, kind: str) -> None:
    """From inside a session git shows why, and main is what it was."""
    world.isolation = kind
    before = world.host.refs("app")["refs/heads/main"]
    _, said = world.start("x", "--agent", PUSH_TO_MAIN)
    assert "remote: Bailee: a session pushes its own branch alone" in said
    assert "pushed: 1" in said
    assert world.host.refs("app")["refs/heads/main"] == before


# Looks everywhere a machine can look, and tells where it found something. It has each text in two halves, and
# is told since when there are any: what was changed last before that, as all programs were, has none.
SEARCH = """
import os, pathlib, subprocess, sys, urllib.request
since, *halves = sys.argv[1:]
needles, found = [(a + b).encode() for a, b in zip(halves[::2], halves[1::2])], set()
def is_older(path):
    known = os.lstat(path)
    return max(known.st_mtime, known.st_ctime) < float(since)
def has(data):
    return any(needle in data for needle in needles)
if has(repr(dict(os.environ)).encode()):
    found.add("environment")
for process in pathlib.Path("/proc").iterdir():
    if not process.name.isdigit() or int(process.name) == os.getpid():
        continue
    try:
        if has((process / "environ").read_bytes() + (process / "cmdline").read_bytes()):
            found.add("processes")
        maps = (process / "maps").read_text().splitlines()
        memory = open(process / "mem", "rb", 0)
    except OSError:
        continue
    for line in maps:
        where, mode = line.split()[:2]
        first, last = (int(one, 16) for one in where.split("-"))
        if mode[0] == "r" and "[v" not in line and last - first < 50_000_000:
            try:
                memory.seek(first)
                if has(memory.read(last - first)):
                    found.add("memory")
            except (OSError, ValueError):
                pass
if has(subprocess.run(["git", "config", "--list"], capture_output=True).stdout):
    found.add("settings")
for top in ("/session", "/etc", "/tmp", "/run", "/var", "/home", "/root"):
    for folder, _, names in os.walk(top):
        for name in names:
            try:
                path = pathlib.Path(folder) / name
                if not is_older(path) and has(path.read_bytes()):
                    found.add("files")
            except OSError:
                pass
try:
    urllib.request.urlopen(os.environ["ANTHROPIC_BASE_URL"] + "/git/x")
except urllib.error.HTTPError as error:
    if has(error.read() + str(error.headers).encode()):
        found.add("answers")
print("searched:", *sorted(found), ";")
"""


def search(world: World, *canaries: str) -> str:
    """Return an agent's command that searches for texts, which the world has since it was made."""
    quoted = SEARCH.replace("'", "'\"'\"'")
    since = (world.folder / "authority.pem").stat().st_mtime - 1
    return f"python3 -c '{quoted}' {since} {' '.join(f'{one[:9]} {one[9:]}' for one in canaries)}"


@pytest.mark.parametrize("kind", KINDS)
def test_no_credential_is_in_the_machine(world: World, kind: str) -> None:
    """The host's credential and the operator's environment are in no file, process or answer there."""
    world.isolation = kind
    _, said = world.start("x", "--agent", search(world, world.host.accepted, "canary-of-the-operator-0001"))
    assert "searched: ;" in said


def test_control_the_search_finds_what_is_there(world: World) -> None:
    """Control: the same search finds a secret that its owner exposed, and where a session wrote it."""
    world.bailee("secrets", "set", "EXPOSED", "--expose", value="canary-that-is-exposed-0001")
    look = search(world, "canary-of-the-operator-0001", "canary-that-is-exposed-0001")
    _, said = world.start("x", "--agent", f'echo "$EXPOSED" > "$HOME/kept"; {look}')
    (line,) = [line for line in said.splitlines() if line.startswith("searched:")]
    assert "environment" in line
    assert "processes" in line
    assert "files" in line


def test_what_a_machine_sees(world: World) -> None:
    """No home, no other session or repository, no network; its own folder it may write to."""
    (world.folder / "mine.txt").write_text("of the operator")
    looks = {
        f"cat {world.folder}/mine.txt": "No such file",
        f"ls {world.home}": "No such file",
        "ls /root/.ssh /home/* 2>&1; echo": "No such file",
        "cat /etc/shadow": "No such file",
        f"git clone {world.host.url}/other.git /tmp/other": "is not attached to this session",
        "curl -sS -m 5 https://example.com": "403",
        "echo x > /usr/x": "Read-only",
        "hostname": "session",
    }
    script = "; ".join(f"( {command} ) 2>&1" for command in looks)
    _, said = world.start("x", "--agent", script)
    for expected in looks.values():
        assert expected in said, said


def test_a_trusted_network(world: World) -> None:
    """The index that is configured here and those of the languages may be asked; others are refused."""
    for name in ("pip", "npm"):
        program = world.folder / name
        program.write_text(f"#!/bin/sh\necho https://{name}.index.example/simple\n")
        program.chmod(0o755)
    world.environment["PATH"] = f"{world.folder}:{world.environment['PATH']}"
    ask = "curl -s -o /dev/null -m 20 -w '%{url}: %{http_connect}\\n' https://pip.index.example"
    ask += "; ".join(["", *(ask.replace("pip.index", other) for other in ("npm.index", "elsewhere")), "true"])
    _, said = world.start("x", "--network", "trusted", "--agent", ask)
    assert "https://elsewhere.example: 403" in said
    for host in ("pip", "npm"):
        # Asked for, and found to be no name: what ends so may never exist (RFC 2606).
        assert f"https://{host}.index.example: 502" in said
    _, said = world.start("x", "--agent", ask)
    assert said.count(": 403") == 3


def test_a_secret_is_a_placeholder(world: World) -> None:
    """A secret that is bound to a host is in the machine as something else."""
    world.bailee(
        "secrets", "set", "NPM_TOKEN", "--host", "registry.example", value="npm_0123456789abcdefghij"
    )
    _, said = world.start("x", "--agent", "echo token: $NPM_TOKEN")
    (line,) = [line for line in said.splitlines() if line.startswith("token: ")]
    assert len(line) > 20
    assert "npm_0123456789" not in line


def test_work_that_is_left_is_given_back(world: World) -> None:
    """What an agent leaves uncommitted is committed and pushed, also when it ends badly."""
    known, _ = world.start("x", "--agent", "echo new > new.txt; exit 3", status=1)
    assert (known["state"], known["reason"]) == ("failed", "the agent ended with 3")
    changed = git("diff", "--name-only", "main", known["branch"], cwd=world.host.folder / "app.git")
    assert changed.split() == ["new.txt"]


def test_set_up_and_where_it_begins(world: World) -> None:
    """A set-up script runs first, from the branch that is named; one that fails ends the session."""
    work = world.host.folder / "app-work"
    git("checkout", "-q", "-b", "develop", cwd=work)
    (work / "developed.txt").write_text("x")
    git("add", "-A", cwd=work)
    git("commit", "-qm", "develop", cwd=work)
    git("push", "-q", str(world.host.folder / "app.git"), "develop", cwd=work)
    script = world.folder / "setup.sh"
    script.write_text("cp developed.txt prepared.txt\n")
    _, said = world.start(
        "x", "--base", "develop", "--setup", str(script), "--agent", "cat prepared.txt; echo ok"
    )
    assert "ok" in said
    script.write_text("exit 9\n")
    known, _ = world.start("x", "--setup", str(script), "--agent", "echo begun > begun.txt", status=1)
    assert known["reason"] == "the set-up script failed"


def test_its_time_is_kept(world: World) -> None:
    """A turn that takes longer than it may is ended, told, and can be saved."""
    known, _ = world.start("x", "--seconds", "10", "--agent", "echo half > half.txt; sleep 300", status=1)
    assert (known["state"], known["reason"]) == ("stopped", "its 10 s were over")
    world.bailee("cloud", "save", known["id"])
    changed = git("diff", "--name-only", "main", known["branch"], cwd=world.host.folder / "app.git")
    assert changed.split() == ["half.txt"]


def test_stop_and_remove(world: World) -> None:
    """A session that is stopped ends with all of its machine; removed, its disk is gone."""
    known, _ = world.start("x", "--agent", "touch begun; sleep 301", wait=False)
    folder = world.home / "cloud" / known["id"]
    wait_for("its work", lambda: (folder / "work" / "repository" / "begun").exists() or None)
    assert world.show(known["id"])["state"] == "working"
    world.bailee("cloud", "rm", "--yes", known["id"], status=2)
    world.bailee("cloud", "stop", known["id"])
    assert world.show(known["id"])["reason"] == "it was stopped"
    assert not subprocess.run(["pgrep", "-f", "sleep 301"], capture_output=True, check=False).stdout
    assert "still held" not in world.bailee("cloud", "rm", "--yes", known["id"])  # it said nothing
    assert not folder.exists()
    assert json.loads(world.bailee("cloud", "list", "--json")) == []


def test_what_is_still_held_of_a_removed_session_is_told(world: World) -> None:
    """The conversation of a removed session is there until it is erased, with the command that is told."""
    known, _ = world.start("rehearse greet")
    told = world.bailee("cloud", "rm", "--yes", known["id"]).splitlines()
    (held,) = json.loads(world.bailee("sessions", "list", "--json"))
    command = f"  bailee sessions erase {held['id']}"
    assert told[-2:] == ["Its conversation is still held, until its day. To erase it:", command]
    world.bailee(*command.split()[1:], "--yes")
    assert json.loads(world.bailee("sessions", "list", "--json")) == []  # Control


def test_a_repository_that_is_not_started_is_not_touched(world: World) -> None:
    """With its credential kept, nothing is asked of a repository until a session of it starts."""
    world.bailee("run", "--upstream", "rehearsal", "--", "true")
    world.bailee("secrets", "list")
    world.bailee("cloud", "list")
    assert world.host.asked == []
    world.start("x", "--agent", "true")
    assert world.host.asked != []


BAD = {
    "an address of SSH": ["--repo", "git@host:a/b", "x"],
    "a credential in it": ["--repo", "https://a:b@host/x", "x"],
    "a branch of others": ["--repo", "https://host/x", "--branch", "main", "x"],
    "a host without a network": ["--repo", "https://host/x", "--allow", "pypi.org", "x"],
    "an agent that is not here": ["--repo", "https://host/x", "--agent", "claude-code", "x"],
    "a base of dashes": ["--repo", "https://host/x", "--base", "-", "x"],
    "a base that is none": ["--repo", "https://host/x", "--base", "--upload-pack=x", "x"],
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_meant(world: World, kind: str) -> None:
    """Refused with the place and the fix, before anything is made."""
    said = world.bailee("cloud", "start", *BAD[kind], status=2)
    assert "fix:" in said
    assert not (world.home / "cloud").exists()


def put_back(world: World, id: str, days: int) -> None:
    """Let a session have been at work last some days ago."""
    path = world.home / "cloud" / id / "session.json"
    known = json.loads(path.read_text())
    path.write_text(json.dumps(known | {"changed_ms": time.time_ns() // 1_000_000 - days * 86_400_000}))


def test_disks_go_on_their_day(world: World) -> None:
    """A session that has ended goes with its disk on the day of a conversation; a hold keeps it."""
    known, _ = world.start("x", "--agent", "true")
    folder = world.home / "cloud" / known["id"]
    put_back(world, known["id"], 29)
    world.bailee("retention", "sweep")
    assert folder.exists()
    put_back(world, known["id"], 30)
    hold = json.loads(world.bailee("holds", "place", "--account", "me", "--reason", "case", "--json"))
    world.bailee("retention", "sweep")
    assert folder.exists()
    world.bailee("holds", "release", hold["id"], "--reason", "settled")
    world.bailee("retention", "sweep")
    assert not folder.exists()


def test_disks_go_with_their_account(world: World) -> None:
    """An account that is erased leaves no disk and no secret behind."""
    known, _ = world.start("x", "--agent", "true")
    world.bailee("accounts", "erase", "me", "--yes")
    world.bailee("accounts", "add", "other", "--plan", "api")
    world.bailee("retention", "sweep")
    assert not (world.home / "cloud" / known["id"]).exists()
    assert json.loads(world.bailee("secrets", "list", "--json")) == []


def test_secrets_that_cannot_be_meant(world: World) -> None:
    """Too short for a placeholder, of a name that is none, for nobody, empty: refused, and not kept."""
    for value, words in (
        ("short", ("TOKEN", "--host", "a.example")),
        ("long-enough-for-a-placeholder", ("lower", "--expose")),
        ("long-enough-for-a-placeholder", ("TOKEN",)),
        ("long-enough-for-a-placeholder", ("TOKEN", "--host", "*.example")),
        ("long-enough-for-a-placeholder", ("GIT_CREDENTIAL", "--repo", world.url, "--expose")),
        ("a-token-for-every-host", ("GIT_CREDENTIAL",)),
        ("", ("TOKEN", "--expose")),
    ):
        assert "fix:" in world.bailee("secrets", "set", *words, value=value, status=2)
    assert len(json.loads(world.bailee("secrets", "list", "--json"))) == 1


def test_a_secret_is_sealed(world: World) -> None:
    """No file of the home has the value in clear; changed, the session fails closed with a reason."""
    world.bailee("secrets", "set", "TOKEN", "--expose", value="canary-of-a-secret-0001")
    for path in world.home.rglob("*"):
        if path.is_file():
            assert b"canary-of-a-secret" not in path.read_bytes()
    with sqlite3.connect(world.home / "accounts.db") as connection:
        connection.execute("UPDATE secrets SET repository = ? WHERE name = 'TOKEN'", (place_of(world.url),))
    connection.close()
    known, _ = world.start("x", "--agent", "true", status=1)
    assert "does not open" in known["reason"]
