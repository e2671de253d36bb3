"""The real git-lfs, through the service, to a server of large files whose objects lie elsewhere."""

import base64
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from bailee.flows.git.upstreams import Upstreams
from counterparts.git_hosts import git
from counterparts.large_files import LargeFileServer, run_large_files

from .conftest import World

MINE = "refs/heads/bailee/work"


@pytest.fixture
def large(world: World) -> Iterator[LargeFileServer]:
    """Give a server of large files, attached to both repositories of the host."""
    for server in run_large_files():
        for name in ("app", "other"):
            server.attach(world.host, name)
        yield server


def lead(world: World) -> dict[str, str]:
    """Return what leads a session's git to the service, as a machine has it in its environment."""
    scheme, _, host = world.host.url.partition("://")
    basic = base64.b64encode(f"session:{world.token}".encode()).decode()
    settings = {
        f"url.{world.url}/git/{host}/.insteadOf": f"{scheme}://{host}/",
        f"http.{world.url}/git/.extraHeader": f"Authorization: Basic {basic}",
        "lfs.transfer.maxretries": "1",
    }
    led = {"GIT_CONFIG_COUNT": str(len(settings))}
    for number, (name, value) in enumerate(settings.items()):
        led |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    return led


def led(world: World, *words: str, cwd: Path | None = None, check: bool = True) -> str:
    """Run git as it is in a session's machine."""
    return git(*words, cwd=cwd, check=check, **lead(world))


def begin(world: World, folder: Path, name: str = "app") -> Path:
    """Clone a repository, and have a large file in a commit."""
    led(world, "clone", "-q", f"{world.host.url}/app.git", str(folder))
    git("remote", "set-url", "origin", f"{world.host.url}/{name}.git", cwd=folder)
    git("lfs", "install", "--local", cwd=folder)
    git("lfs", "track", "*.bin", cwd=folder)
    (folder / "large.bin").write_bytes(os.urandom(3_000_000))
    git("add", "-A", cwd=folder)
    git("commit", "-qm", "large", cwd=folder)
    return folder


def credentials(world: World) -> tuple[str, ...]:
    """Return what must not be seen where objects lie: the host's credential and the session's token."""
    coded = (base64.b64encode(f"session:{world.token}".encode()).decode(), world.host.to_header())
    return (world.token, world.host.accepted, *coded, "authorization")


def find_in(server: LargeFileServer, values: tuple[str, ...]) -> list[str]:
    """Return which of some values came to where objects lie."""
    return [value for value in values if value in repr(server.seen)]


def test_a_push_and_a_pull(world: World, large: LargeFileServer, tmp_path: Path) -> None:
    """Objects of the attached repository go both ways; neither credential follows them to where they lie."""
    work = begin(world, tmp_path / "work")
    led(world, "push", "origin", f"HEAD:{MINE}", cwd=work)
    assert list(large.objects.values()) == [(work / "large.bin").read_bytes()]
    other = tmp_path / "other"
    led(world, "clone", "-q", "-b", "bailee/work", f"{world.host.url}/app.git", str(other))
    assert (other / "large.bin").read_text().startswith("version https://git-lfs")
    git("lfs", "install", "--local", cwd=other)
    led(world, "lfs", "pull", cwd=other)
    assert (other / "large.bin").read_bytes() == (work / "large.bin").read_bytes()
    assert {method for method, _, _ in large.seen} == {"PUT", "POST", "GET"}
    assert find_in(large, credentials(world)) == []
    assert {told for _, told in large.batches} == {world.host.to_header()}
    assert [one.outcome for one in world.noted if one.what == "large files"].count("passed") >= 2
    moved = [one for one in world.noted if one.what == "large file"]
    assert {one.repository for one in moved} == {large.url.partition("://")[2]}
    assert {one.outcome for one in moved} == {"passed"}, moved
    assert max(one.sent for one in moved) == max(one.received for one in moved) == 3_000_000
    assert len(moved) == len(large.seen)


def test_control_a_credential_that_follows_is_seen(
    world: World, large: LargeFileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: where the service sends the host's credential along, the same look finds it."""
    ask = Upstreams.ask

    async def ask_with(
        self: Upstreams, method: str, url: str, headers: dict[str, str], body: object
    ) -> object:
        return await ask(self, method, url, {**headers, "authorization": world.host.to_header()}, body)  # type: ignore[arg-type]

    monkeypatch.setattr(Upstreams, "ask", ask_with)
    work = begin(world, tmp_path / "work")
    led(world, "push", "-q", "origin", f"HEAD:{MINE}", cwd=work)
    assert world.host.to_header() in find_in(large, credentials(world))


def test_another_repository_is_refused_in_words(world: World, large: LargeFileServer, tmp_path: Path) -> None:
    """A batch to what is not attached goes to no host, and git-lfs shows its user why, both ways."""
    work = begin(world, tmp_path / "work", "other")
    told = led(world, "lfs", "push", "--all", "origin", cwd=work, check=False)
    assert "/other.git is not attached to this session" in told, told
    shutil.rmtree(work / ".git" / "lfs" / "objects")
    told = led(world, "lfs", "fetch", "origin", "HEAD", cwd=work, check=False)
    assert "/other.git is not attached to this session" in told, told
    assert large.batches == []
    assert large.objects == {}


def test_control_the_host_itself_takes_it(world: World, large: LargeFileServer, tmp_path: Path) -> None:
    """Control: straight to the host, with its credential, the same push to the other repository is done."""
    work = begin(world, tmp_path / "work", "other")
    direct = world.host.url.replace("://", f"://x-access-token:{world.host.accepted}@") + "/other.git"
    git("lfs", "push", "--all", direct, cwd=work)
    assert len(large.objects) == 1


def test_who_only_reads_uploads_nothing(world: World, large: LargeFileServer, tmp_path: Path) -> None:
    """A session without a branch is refused in words, and no batch reaches the host."""
    work = begin(world, tmp_path / "work")
    (repository,) = world.access.repositories
    reading = (msgspec.structs.replace(repository, branch=""),)
    world.access = msgspec.structs.replace(world.access, repositories=reading)
    told = led(world, "lfs", "push", "--all", "origin", cwd=work, check=False)
    assert "this session may read" in told
    assert large.batches == []


def test_a_redirect_of_an_object_is_not_followed(
    world: World, large: LargeFileServer, tmp_path: Path
) -> None:
    """Where the store leads an object elsewhere, nothing goes there, and the push fails."""
    work = begin(world, tmp_path / "work")
    for elsewhere in run_large_files():
        large.moved_to = elsewhere.url
        told = led(world, "push", "origin", f"HEAD:{MINE}", cwd=work, check=False)
        assert elsewhere.seen == []
    assert large.seen != []
    assert "502" in told or "answers 307" in told, told
    assert MINE not in world.host.refs("app")
