"""What a session sends and asks through the proxy is counted, slowed down, stopped and told."""

import os
import time
from pathlib import Path

import httpx2
import msgspec
import pytest

from bailee.flows.git.grants import find_grant, grant, list_grants, note_stop, read_stop, withdraw_grant
from bailee.flows.web.abuse import Limit, Limits
from counterparts.git_hosts import git

from .conftest import Hub, World
from .test_receiver import MINE, answer_batch, ask_batch

MB = 1_000_000
FEW = Limits(denials=Limit(slow=3, stop=3, seconds=60), rate="off", scan="off")


def may_send(world: World, size: int) -> None:
    """Let the session send so much to each host."""
    world.access = msgspec.structs.replace(world.access, most_sent=size)


def commit_bytes(world: World, work: Path, size: int) -> None:
    """Clone, and commit so many bytes that cannot be packed smaller."""
    world.clone(work)
    (work / "large.bin").write_bytes(os.urandom(size))
    git("add", "-A", cwd=work)
    git("commit", "-qm", "large", cwd=work)


def test_a_push_that_is_larger_than_may_be_sent(world: World, tmp_path: Path) -> None:
    """It ends where the limit is, Git says why, the host has nothing of it; a smaller one had gone on."""
    may_send(world, 2 * MB)
    work = tmp_path / "work"
    commit_bytes(world, work, MB)
    git("push", "-q", "origin", f"HEAD:{MINE}", cwd=work)  # Control
    before = world.host.refs("app")[MINE]
    (work / "large.bin").write_bytes(os.urandom(3 * MB))
    git("commit", "-qam", "larger", cwd=work)
    said = git("push", "origin", f"HEAD:{MINE}", cwd=work, check=False)
    assert "Bailee: this session may send 2.0 MB to 127.0.0.1" in said
    assert "(--traffic)" in said
    assert world.host.refs("app")[MINE] == before
    last = world.noted[-1]
    assert (last.what, last.outcome, last.is_refused) == ("push", "traffic", True)
    assert last.sent <= 2 * MB
    # Another turn has a key of its own, and begins anew.
    world.access = msgspec.structs.replace(world.access, key="another", most_sent=10 * MB)
    git("push", "-q", "origin", f"HEAD:{MINE}", cwd=work)


def test_large_files_are_counted_with_what_is_pushed(world: World) -> None:
    """An object that is larger than what may still be sent does not come to its host; batches count."""
    store: dict[str, bytes] = {}
    answer_batch(world.host, "upload", store)
    headers = {"authorization": f"Bearer {world.token}"}
    href = ask_batch(world, "upload").json()["objects"][0]["actions"]["upload"]["href"]
    may_send(world, MB)
    refused = httpx2.put(href, headers=headers, content=bytes(2 * MB))
    assert (refused.status_code, "--traffic" in refused.json()["message"]) == (403, True)
    assert store == {}
    assert ask_batch(world, "upload").status_code == 403
    may_send(world, 5 * MB)
    assert httpx2.put(href, headers=headers, content=bytes(2 * MB)).status_code == 200  # Control


def test_requests_of_the_api_are_counted(hub: Hub) -> None:
    """A request that is more than may be sent is refused in GitHub's form, and does not go on."""
    body = {"title": "x" * 1000, "head": "bailee/work", "base": "main"}
    may_send(hub.world, 500)
    asked = len(hub.world.host.asked)
    refused = hub.rest("POST", "/repos/acme/app/pulls", body)
    assert (refused.status_code, "--traffic" in refused.json()["message"]) == (429, True)
    assert len(hub.world.host.asked) == asked
    may_send(hub.world, 5000)
    assert hub.rest("POST", "/repos/acme/app/pulls", body).status_code != 429  # Control


def test_refusals_are_slowed_down_then_stopped_and_told(world: World) -> None:
    """Who asks again and again for what is refused waits, and then is answered nothing, its own included."""
    world.limits = FEW
    other = f"{world.remote('other')}/info/refs?service=git-upload-pack"
    for _ in range(3):
        assert httpx2.get(other).status_code == 403
    assert [one.outcome for one in world.noted if one.what == "abuse"] == ["slowed"]
    begun = time.monotonic()
    assert "not attached" in httpx2.get(other).text
    assert time.monotonic() - begun > 0.9
    assert world.stopped == []
    for _ in range(2):
        httpx2.get(other)
    told = [one for one in world.noted if one.what == "abuse"]
    assert [(one.outcome, one.route) for one in told] == [("slowed", "denials"), ("stopped", "denials")]
    assert world.stopped == [(world.key, told[-1].reason)]
    own = f"{world.remote()}/info/refs?service=git-upload-pack"
    answer = httpx2.get(own)
    assert (answer.status_code, answer.headers["x-bailee-denied"]) == (429, "abuse")
    assert "this session was stopped for repeated denials: 3 refusals within 60 s" in answer.text
    assert len(world.stopped) == 1


@pytest.mark.parametrize("limits", [Limits(denials="off", scan="off"), None], ids=["off", "no watch"])
def test_control_without_a_limit_nobody_is_stopped(world: World, limits: Limits | None) -> None:
    """Control: with the rule off the same requests are answered each time, and nothing is told."""
    world.limits = limits
    for _ in range(8):
        url = f"{world.remote('other')}/info/refs?service=git-upload-pack"
        assert httpx2.get(url).status_code == 403
    assert [one.what for one in world.noted if one.what == "abuse"] == []
    assert world.stopped == []


def test_what_passes_is_no_denial(world: World, tmp_path: Path) -> None:
    """A session that works with its own repository is not slowed down by what counts refusals."""
    world.limits = FEW
    for number in range(3):
        world.clone(tmp_path / str(number))
    assert httpx2.post(f"{world.remote()}/info/lfs/locks/verify", json={}).status_code == 404
    assert {one.outcome for one in world.noted} == {"passed", "no_locks"}


def test_a_flood_of_pushed_bytes_is_stopped_midway(world: World, tmp_path: Path) -> None:
    """Once as much was sent as stops a session, the rest of the same push does not go on."""
    world.limits = Limits(volume=Limit(slow=MB, stop=MB, seconds=60), rate="off")
    work = tmp_path / "work"
    commit_bytes(world, work, 4 * MB)
    said = git("push", "origin", f"HEAD:{MINE}", cwd=work, check=False)
    assert "this session was stopped for its volume" in said
    assert MINE not in world.host.refs("app")
    assert [one.outcome for one in world.noted if one.what == "abuse"] == ["slowed", "stopped"]


def test_why_a_session_was_stopped_goes_with_its_grant(world: World, tmp_path: Path) -> None:
    """It is read by whoever drives the session, is no grant, and is not kept of a session that is over."""
    note_stop(tmp_path, "k", "too early")
    assert read_stop(tmp_path, "k") == ""
    grant(tmp_path, "k", world.access)
    note_stop(tmp_path, "k", "stopped for a scan")
    assert read_stop(tmp_path, "k") == "stopped for a scan"
    assert list_grants(tmp_path) == ["k"]
    assert find_grant(tmp_path, "k") == world.access
    withdraw_grant(tmp_path, "k")
    assert list((tmp_path / "git").iterdir()) == []
