"""A person's clone: which repository it is of, and how it gets to a session's branch."""

from pathlib import Path

import pytest

from bailee.agent import clones
from bailee.agent.clones import (
    check_out,
    fetch_branch,
    find_clone,
    normalize_address,
    plan_move,
    require_clean,
)
from bailee.policy.problems import Problem
from counterparts.git_hosts import git

SAME = [
    "https://github.com/acme/app",
    "https://github.com/acme/app.git",
    "https://github.com/acme/app.git/",
    "https://GitHub.com:443/Acme/app",
    "https://user:secret@github.com/acme/app.git",
    "http://github.com:80/acme/app",
    "git@github.com:acme/app.git",
    "github.com:acme/app",
    "git@github.com:/acme/app",
    "ssh://git@github.com/acme/app.git",
    "ssh://git@github.com:2222/acme/app.git",
    "git://github.com/acme/app",
]
OTHERS = [
    "https://github.com/acme/app2",
    "https://github.com/acme",
    "https://github.com.evil.example/acme/app",
    "https://evil.example/github.com/acme/app",
    "https://github.com:8443/acme/app",
    "https://github.com@evil.example/acme/app",
    "git@evil.example:acme/app.git",
    "file:///github.com/acme/app",
    "/github.com/acme/app",
    "../app",
    "ext::sh -c x github.com:acme/app",
    "https://github.com:x/acme/app",
    "https://[/acme/app",
    "https://github.com/",
    "",
]


def test_addresses_of_one_repository() -> None:
    """Over HTTP or SSH, with user, port, `.git` and slashes or without, it is the same repository."""
    assert {normalize_address(url) for url in SAME} == {"github.com/acme/app"}


@pytest.mark.parametrize("url", OTHERS)
def test_addresses_of_others(url: str) -> None:
    """Another host, port or path is another repository, and what is no address is none."""
    assert normalize_address(url) != "github.com/acme/app"


URL = "https://git.example/acme/app"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Give a clone of a repository in which a session pushed two commits; its address leads to a folder."""
    work, bare, clone = tmp_path / "work", tmp_path / "app.git", tmp_path / "clone"
    git("init", "-q", "-b", "main", str(work))
    commit(work, "a.txt", "1")
    git("clone", "-q", "--bare", str(work), str(bare))
    git("clone", "-q", str(bare), str(clone))
    git("remote", "set-url", "origin", URL, cwd=clone)
    git("config", f"url.{bare}.insteadOf", URL, cwd=clone)
    git("remote", "add", "bare", str(bare), cwd=work)
    git("checkout", "-q", "-b", "bailee/one", cwd=work)
    commit(work, "b.txt", "2")
    commit(work, "b.txt", "3")
    git("push", "-q", "bare", "bailee/one", cwd=work)
    return clone


def commit(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    git("add", "-A", cwd=folder)
    git("commit", "-qm", text, cwd=folder)


def push(clone: Path, name: str, text: str) -> None:
    """Let the session push another commit."""
    work = clone.parent / "work"
    commit(work, name, text)
    git("push", "-q", "bare", "bailee/one", cwd=work)


def move(clone: Path, branch: str = "bailee/one") -> clones.Move:
    """Check the branch out."""
    found = find_clone(clone, URL)
    got = fetch_branch(found, branch)
    assert got is not None
    planned = plan_move(found, branch, got)
    check_out(found, planned)
    return planned


def test_a_branch_is_fetched_and_checked_out(clone: Path) -> None:
    """It is a branch of that name here, at the commit that was pushed; how far it is ahead is told."""
    planned = move(clone)
    assert (planned.begun, planned.ahead, planned.is_new) == ("main", 2, True)
    assert git("status", "--short", "--branch", cwd=clone).startswith("## bailee/one...origin/bailee/one")
    assert (clone / "b.txt").read_text() == "3"
    again = move(clone)
    assert (again.begun, again.ahead, again.is_behind) == ("bailee/one", 0, False)


@pytest.mark.parametrize("is_current", [True, False])
def test_a_branch_that_is_here_is_moved_on(clone: Path, is_current: bool) -> None:
    """What the session pushed since comes too, whether the branch is checked out or not; own work stays."""
    move(clone)
    if not is_current:
        git("checkout", "-q", "main", cwd=clone)
    push(clone, "b.txt", "4")
    assert move(clone).is_behind
    assert (clone / "b.txt").read_text() == "4"
    commit(clone, "mine.txt", "mine")
    assert not move(clone).is_behind
    assert (clone / "mine.txt").exists()


def test_a_branch_that_went_another_way(clone: Path) -> None:
    """Where the branch here has commits of its own beside the session's, nothing is changed."""
    move(clone)
    commit(clone, "mine.txt", "mine")
    push(clone, "b.txt", "4")
    before = git("rev-parse", "HEAD", cwd=clone)
    with pytest.raises(Problem, match="another way") as refused:
        move(clone)
    assert "git branch -m" in str(refused.value)
    assert git("rev-parse", "HEAD", cwd=clone) == before


def test_a_branch_that_was_not_pushed(clone: Path) -> None:
    """It is none; a host that does not answer is something else."""
    found = find_clone(clone, URL)
    assert fetch_branch(found, "bailee/other") is None
    (clone.parent / "app.git").rename(clone.parent / "gone")
    with pytest.raises(Problem, match="cannot be asked"):
        fetch_branch(found, "bailee/one")


def test_other_folders(clone: Path, tmp_path: Path) -> None:
    """A folder in no clone, or in one of another repository, is refused with the way to the right one."""
    (tmp_path / "none").mkdir()
    with pytest.raises(Problem, match="in no clone") as refused:
        find_clone(tmp_path / "none", URL)
    assert "git clone" in str(refused.value)
    with pytest.raises(Problem, match="no clone of"):
        find_clone(clone, "https://git.example/acme/other")
    git("remote", "add", "second", "git@git.example:acme/other.git", cwd=clone)
    assert find_clone(clone, "https://git.example/acme/other").remote == "second"
    (clone / "inner").mkdir()
    assert find_clone(clone / "inner", URL).root == clone


def test_what_is_not_committed(clone: Path) -> None:
    """A change stops it, staged or not; a file that git does not track stays, and is not written over."""
    found = find_clone(clone, URL)
    (clone / "new.txt").write_text("untracked")
    require_clean(found)
    (clone / "a.txt").write_text("changed")
    with pytest.raises(Problem, match="in 1 file"):
        require_clean(found)
    git("checkout", "-q", "a.txt", cwd=clone)
    (clone / "b.txt").write_text("mine, untracked")
    with pytest.raises(Problem, match="cannot be checked out"):
        move(clone)
    assert (clone / "b.txt").read_text() == "mine, untracked"


HOOK = "#!/bin/sh\ntouch ran\n"


@pytest.fixture
def hooked(clone: Path) -> Path:
    """Give a clone whose hooks lie in the repository, and a session that wrote one."""
    git("config", "core.hooksPath", "hooks", cwd=clone)
    work = clone.parent / "work"
    (work / "hooks").mkdir()
    (work / "hooks" / "post-checkout").write_text(HOOK)
    (work / "hooks" / "post-checkout").chmod(0o755)
    push(clone, "c.txt", "5")
    return clone


def test_no_hook_of_the_branch_runs(hooked: Path) -> None:
    """A hook that a session put where the clone looks for hooks is checked out and not run."""
    move(hooked)
    assert (hooked / "hooks" / "post-checkout").exists()
    assert not (hooked / "ran").exists()


def test_control_git_alone_runs_it(hooked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: without what keeps hooks out the same check-out runs it."""
    monkeypatch.setattr(clones, "_SAFE", ())
    move(hooked)
    assert (hooked / "ran").exists()
