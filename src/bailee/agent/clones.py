"""The clone that a person works in, as their own git tells of it and changes it.

No hook of the repository runs: with a relative `core.hooksPath` the branch that is checked out would bring
its own. Submodules are left as they are: their addresses stand in a file of the branch.
"""

import re
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from bailee.characters import make_visible
from bailee.policy.problems import Problem
from bailee.sizes import tell_count

_SAFE = ("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false")
# As scp writes it; git-clone(1), "Git URLs": a colon before the first slash.
_SCP = re.compile(r"(?:[^@/:]+@)?(?P<host>\[[^\]/]+\]|[^:/@\[\]]+):(?P<path>[^:].*)")
_PORTS = {"http": 80, "https": 443}
_ABSENT = 2  # of ls-remote --exit-code


class Clone(msgspec.Struct, frozen=True):
    """A clone of a repository, and the remote that leads there."""

    root: Path
    remote: str


class Move(msgspec.Struct, frozen=True):
    """How a clone gets to a commit of a branch.

    Attributes:
        begun: what is checked out now: a branch, or else the commit.
        ahead: how many commits the branch has that what is checked out has not.
        is_new: whether there is no such branch here yet.
        is_behind: whether the branch that is here is to be moved on.
    """

    branch: str
    commit: str
    begun: str
    ahead: int
    is_new: bool
    is_behind: bool


def normalize_address(url: str) -> str:
    """Return host and path of a repository's address, the same for every way to write it; empty for none.

    Scheme, user and the port that goes without saying are no part of it: over HTTP and SSH it is the same
    repository. Hosts that tell repositories apart by capitals alone are not known.
    """
    if "://" not in url:
        match = _SCP.fullmatch(url)
        return _join(match["host"], match["path"]) if match else ""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https", "ssh", "git") or not host:
        return ""
    # The port of SSH says nothing of the one that HTTP is at.
    is_told = parts.scheme in _PORTS and port is not None and port != _PORTS[parts.scheme]
    return _join(f"{host}:{port}" if is_told else host, parts.path)


def _join(host: str, path: str) -> str:
    return f"{host}/{path.strip('/').removesuffix('.git')}".lower() if path.strip("/") else ""


def find_clone(folder: Path, repository: str) -> Clone:
    """Return the clone of a repository that a folder lies in.

    Raises:
        Problem: the folder is in none, or in one of another repository.
    """
    found = _run(folder, "rev-parse", "--show-toplevel", check=False)
    fix = f"go to your clone of it, or make one: git clone {make_visible(repository)}"
    if found.returncode:
        raise Problem(f"this folder is in no clone: {_said(found)}", where=str(folder), fix=fix)
    root = Path(found.stdout.rstrip("\n"))
    wanted = normalize_address(repository)
    names = _run(root, "remote").stdout.split()
    for name in sorted(names, key=lambda name: name != "origin"):
        written = _run(root, "config", "--get-all", f"remote.{name}.url", check=False).stdout.splitlines()
        meant = _run(root, "remote", "get-url", "--all", name, check=False).stdout.splitlines()
        if wanted and wanted in map(normalize_address, (*written, *meant)):
            return Clone(root, name)
    raise Problem(
        f"this is no clone of {make_visible(repository)}",
        where=str(root),
        fix=f"{fix}; or name it here: git remote add NAME URL",
    )


def require_clean(clone: Clone) -> None:
    """Raise Problem where something is changed and not committed. What git does not track stays as it is."""
    told = _run(clone.root, "status", "--porcelain", "--untracked-files=no").stdout
    if told:
        count = tell_count(len(told.splitlines()), "file")
        raise Problem(
            f"there are changes here that are not committed, in {count}",
            where=str(clone.root),
            fix="commit them, or put them away: git stash",
        )


def fetch_branch(clone: Clone, branch: str) -> str | None:
    """Fetch a branch and return its commit; None where the repository has none of that name.

    Raises:
        Problem: the repository cannot be reached, with git's own word for it.
    """
    ref = f"refs/heads/{branch}"
    asked = _run(clone.root, "ls-remote", "--exit-code", "--heads", clone.remote, ref, check=False)
    if asked.returncode == _ABSENT:
        return None
    _check(asked, "the repository cannot be asked", clone.root)
    kept = f"refs/remotes/{clone.remote}/{branch}"
    fetch = ("fetch", "--quiet", "--no-tags", "--no-recurse-submodules", clone.remote, f"+{ref}:{kept}")
    _check(_run(clone.root, *fetch, check=False), "the branch cannot be fetched", clone.root)
    return _run(clone.root, "rev-parse", "--verify", f"{kept}^{{commit}}").stdout.strip()


def plan_move(clone: Clone, branch: str, commit: str) -> Move:
    """Return how to check a branch out at a commit.

    Raises:
        Problem: a branch of that name is here and went another way.
    """
    root = clone.root
    here = _run(root, "rev-parse", "--verify", "--quiet", f"refs/heads/{branch}", check=False).stdout.strip()
    is_behind = bool(here) and here != commit and _is_before(root, here, commit)
    if here and not is_behind and not _is_before(root, commit, here):
        raise Problem(
            f"the branch {branch} is here already and went another way",
            where=str(root),
            fix=f"rename yours: git branch -m {branch} NAME",
        )
    begun = _run(root, "symbolic-ref", "--short", "--quiet", "HEAD", check=False).stdout.strip()
    head = _run(root, "rev-parse", "--verify", "--quiet", "HEAD", check=False).stdout.strip()
    span = f"{head}..{commit}" if head else commit
    ahead = int(_run(root, "rev-list", "--count", span).stdout)
    return Move(branch, commit, begun or head[:12], ahead, not here, is_behind)


def check_out(clone: Clone, move: Move) -> None:
    """Check a branch out.

    Raises:
        Problem: git refuses, with its own word for it.
    """
    root, branch = clone.root, move.branch
    if move.is_new:
        done = _switch(root, "--no-track", "-c", branch, move.commit)
        _check(done, "the branch cannot be checked out", root)
        # A convenience: a clone of a single branch knows no such remote branch, and git says so.
        _run(root, "branch", "--quiet", f"--set-upstream-to={clone.remote}/{branch}", branch, check=False)
        return
    _check(_switch(root, "--no-guess", branch), "the branch cannot be checked out", root)
    if move.is_behind:
        done = _run(root, "merge", "--quiet", "--ff-only", "--no-verify", move.commit, check=False)
        _check(done, "the branch cannot be moved on", root)


def _switch(root: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return _run(root, "switch", "--quiet", "--no-recurse-submodules", *words, check=False)


def _is_before(root: Path, one: str, other: str) -> bool:
    return _run(root, "merge-base", "--is-ancestor", one, other, check=False).returncode == 0


def _run(root: Path, *words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    try:
        done = subprocess.run(
            ["git", *_SAFE, *words],
            cwd=root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as fault:
        raise Problem(f"git cannot be run: {fault.strerror}", fix="install git") from None
    if check:
        _check(done, f"git {words[0]} failed", root)
    return done


def _check(done: "subprocess.CompletedProcess[str]", what: str, root: Path) -> None:
    if done.returncode:
        raise Problem(f"{what}: {_said(done)}", where=str(root))


def _said(done: "subprocess.CompletedProcess[str]") -> str:
    """Return git's own word for what went wrong."""
    said = make_visible(" ".join(done.stderr.split()))[:500]
    return said or f"git ended with {done.returncode}"
