"""Pushes that git reads in another way than they look: git behind the service does nothing of them."""

import base64
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx2
import msgspec
import pytest

from bailee.flows.git.pkt_lines import write_line as line
from counterparts.git_hosts import AUTHOR, git

from .conftest import World

MINE, RELEASE = b"refs/heads/bailee/work", b"refs/heads/release/7"
NONE = b"0" * 40
END = b"push-cert-end\n"


def certify(hidden: bytes, new: bytes) -> bytes:
    """Return a push whose certificate is over for git before a hidden command, and later as it looks."""
    begin = line(b"push-cert\0report-status") + line(b"certificate version 0.1\n") + line(END + b"\0x")
    signed = line(b"push-cert") + line(b"\n") + line(NONE + b" " + new + b" " + MINE + b"\n")
    return begin + line(hidden) + signed + line(b"-----BEGIN PGP SIGNATURE-----\n") + line(END) + b"0000"


def create(ref: bytes, new: bytes, told: bytes = b"") -> bytes:
    """Return a command that makes a ref."""
    return line(NONE + b" " + new + b" " + ref + b"\0report-status" + told)


GIVEN = b"0000" + line(b"ci.skip") + b"0000"
# The body before the pack, of the object that main has and the one that is pushed.
DISGUISES: dict[str, Callable[[bytes, bytes], bytes]] = {
    "main": lambda old, new: certify(old + b" " + new + b" refs/heads/main", new),
    "a tag": lambda old, new: certify(NONE + b" " + new + b" refs/tags/v9", new),
    "a deletion": lambda old, new: certify(old + b" " + NONE + b" refs/heads/kept", new),
    "an option by a value": lambda old, new: create(MINE, new, b" push-options=1") + GIVEN,
    "an option by a second line": lambda old, new: (
        create(MINE, new) + create(RELEASE, new, b" push-options") + GIVEN
    ),
}


def make_pack(world: World, folder: Path) -> tuple[bytes, bytes, bytes]:
    """Return the object that main has, a new one upon it, and a pack with that."""
    work = folder / "work"
    world.clone(work)
    (work / "README.md").write_text("changed\n")
    git("commit", "-qam", "second", cwd=work)
    old, new = git("rev-parse", "HEAD~1", "HEAD", cwd=work).split()
    packed = subprocess.run(
        ["git", "pack-objects", "--stdout", "--revs", "-q"],
        input=f"{new}\n^{old}\n".encode(),
        cwd=work,
        env={"PATH": os.environ["PATH"], **AUTHOR},
        capture_output=True,
        check=True,
    )
    return old.encode(), new.encode(), packed.stdout


def watch_host(world: World) -> Callable[[], tuple[dict[str, str], str]]:
    """Return what looks at the host: refs that are not the session's, and options that its hook was given."""
    bare = world.host.folder / "app.git"
    git("branch", "kept", "main", cwd=bare)
    hook = bare / "hooks" / "pre-receive"
    hook.write_text(f'#!/bin/sh\necho "$GIT_PUSH_OPTION_0" >> {bare}/options\n')
    hook.chmod(0o755)
    theirs = {MINE.decode(), RELEASE.decode()}

    def look() -> tuple[dict[str, str], str]:
        seen = bare / "options"
        refs = {ref: name for ref, name in world.host.refs("app").items() if ref not in theirs}
        return refs, seen.read_text().strip() if seen.exists() else ""

    return look


def send(url: str, token: str, body: bytes) -> httpx2.Response:
    """Push as git does, with any body."""
    headers = {
        "authorization": "Basic " + base64.b64encode(f"x-access-token:{token}".encode()).decode(),
        "content-type": "application/x-git-receive-pack-request",
    }
    return httpx2.post(f"{url}/git-receive-pack", content=body, headers=headers)


@pytest.fixture
def releasing(world: World) -> World:
    """Give a session that may also push below `release/`."""
    (repository,) = world.access.repositories
    wider = msgspec.structs.replace(repository, targets=("refs/heads/release/*",))
    world.access = msgspec.structs.replace(world.access, repositories=(wider,))
    return world


@pytest.mark.parametrize("kind", DISGUISES)
def test_a_disguised_push_does_nothing_else(releasing: World, tmp_path: Path, kind: str) -> None:
    """Main, tags and other branches of the host stay what they were, and no option reaches it."""
    old, new, pack = make_pack(releasing, tmp_path)
    look = watch_host(releasing)
    before = look()
    url = releasing.url + "/git/" + releasing.host.url.partition("://")[2] + "/app.git"
    send(url, releasing.token, DISGUISES[kind](old, new) + pack)
    assert look() == before


@pytest.mark.parametrize("kind", DISGUISES)
def test_control_git_does_what_is_disguised(releasing: World, tmp_path: Path, kind: str) -> None:
    """Control: straight to the host, the same bytes move what the session may not move."""
    old, new, pack = make_pack(releasing, tmp_path)
    look = watch_host(releasing)
    before = look()
    send(f"{releasing.host.url}/app.git", releasing.host.accepted, DISGUISES[kind](old, new) + pack)
    assert look() != before


def test_a_plain_push_goes_on(releasing: World, tmp_path: Path) -> None:
    """Control: written anew, a push of the session's branch is done, with what of it was declared."""
    (repository,) = releasing.access.repositories
    declared = msgspec.structs.replace(repository, options=("ci.skip",))
    releasing.access = msgspec.structs.replace(releasing.access, repositories=(declared,))
    _, new, pack = make_pack(releasing, tmp_path)
    look = watch_host(releasing)
    url = releasing.url + "/git/" + releasing.host.url.partition("://")[2] + "/app.git"
    answer = send(url, releasing.token, create(MINE, new, b" push-options") + GIVEN + pack)
    assert b"ok refs/heads/bailee/work" in answer.content
    assert releasing.host.refs("app")[MINE.decode()] == new.decode()
    assert look()[1] == "ci.skip"
