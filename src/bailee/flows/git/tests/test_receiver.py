"""The real git, through the service, to git's own host: what gets through, and what is refused, and how."""

import json
import os
import subprocess
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from bailee.flows.git.access import Access, Attached
from counterparts.git_hosts import GitHost, git, read_pieces

from .conftest import World, memory

MINE = "refs/heads/bailee/work"


def commit(work: Path, text: str = "changed\n") -> None:
    """Change a file and commit it."""
    (work / "README.md").write_text(text)
    git("commit", "-qam", "second", cwd=work)


def test_clone_change_and_push(world: World, tmp_path: Path) -> None:
    """A session clones and pushes its branch; the host saw its own credential, the session never did."""
    work = tmp_path / "work"
    world.clone(work)
    assert (work / "src" / "app.py").read_text() == "print('hello')\n"
    commit(work)
    git("push", "-q", "origin", f"HEAD:{MINE}", cwd=work)
    refs = world.host.refs("app")
    assert refs[MINE] == git("rev-parse", "HEAD", cwd=work).strip()
    assert refs["refs/heads/main"] == git("rev-parse", "HEAD~1", cwd=work).strip()
    assert {one for _, _, one in world.host.asked} == {world.host.asked[0][2]}
    assert all(world.token not in str(one) for one in world.host.asked)
    kept = "".join(path.read_text(errors="replace") for path in (work / ".git").rglob("*") if path.is_file())
    assert world.token in kept  # Control: the session's own token would be found.
    assert world.host.accepted not in kept
    assert {one.outcome for one in world.noted} == {"passed"}
    # The second fetches: the first only lists refs (gitprotocol-v2(5), "ls-refs").
    assert [one.what for one in world.noted] == ["refs", "fetch", "fetch", "refs", "push"]
    assert world.noted[-1].refs == (MINE,)
    assert world.noted[2].received > 200 < world.noted[-1].sent


REFUSED = {
    "main": (["HEAD:refs/heads/main"], "its own branch alone: bailee/work"),
    "another branch": (["HEAD:refs/heads/bailee/other"], "its own branch alone"),
    "a tag": (["HEAD:refs/tags/v1"], "no tag"),
    "a deletion": (["--delete", "main"], "deletes no ref"),
    "its own and main": ([f"HEAD:{MINE}", "HEAD:refs/heads/main"], "its own branch alone"),
    "everything": (["--mirror"], "its own branch alone"),
    "by force": (["--force", "HEAD~1:refs/heads/main"], "its own branch alone"),
    "an option": (["-o", "merge_request.create", f"HEAD:{MINE}"], "push option"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_push_that_is_refused(world: World, tmp_path: Path, kind: str) -> None:
    """Git shows why, nothing is updated, and the pack never reached the host."""
    words, reason = REFUSED[kind]
    work = tmp_path / "work"
    world.clone(work)
    commit(work)
    if kind == "by force":
        commit(work, "more\n")
    before = world.host.refs("app")
    told = git("push", "origin", *words, cwd=work, check=False)
    assert "Bailee:" in told
    assert reason in told
    assert world.host.refs("app") == before
    assert not [path for method, path, _ in world.host.asked if method == "POST" and "receive-pack" in path]
    assert world.noted[-1].outcome == "git_push"


def test_control_the_host_itself_takes_such_pushes(world: World, tmp_path: Path) -> None:
    """Control: straight to the host, with its credential, the same push to main is done."""
    work = tmp_path / "work"
    direct = world.host.url.replace("://", f"://x-access-token:{world.host.accepted}@") + "/app.git"
    git("clone", "-q", direct, str(work))
    commit(work)
    git("push", "-q", "origin", "HEAD:refs/heads/main", cwd=work)
    assert world.host.refs("app")["refs/heads/main"] == git("rev-parse", "HEAD", cwd=work).strip()


def test_a_signed_push_is_refused(world: World) -> None:
    """A push certificate is refused in words that say what to do, and nothing of it goes on."""
    lines = [
        b"push-cert\0report-status side-band-64k\n",
        *(b"certificate version 0.1\n", b"pusher a\n", b"\n"),
        b"0" * 40 + b" " + b"1" * 40 + b" " + MINE.encode() + b"\n",
        b"push-cert-end\n",
    ]
    body = b"".join(b"%04x" % (len(line) + 4) + line for line in lines) + b"0000PACK"
    answer = httpx2.post(f"{world.remote()}/git-receive-pack", content=body)
    assert answer.status_code == 400
    assert "--no-signed" in answer.text
    assert not [path for method, path, _ in world.host.asked if method == "POST"]


def test_what_is_not_attached_is_not_reached(world: World, tmp_path: Path) -> None:
    """Another repository of the same host is refused in words and not asked for; nor is another host."""
    told = git("clone", world.remote("other"), str(tmp_path / "other"), check=False)
    assert "is not attached to this session" in told
    for place in ("evil.example/acme/app.git", "127.0.0.1:1/x.git", "../app.git"):
        answer = httpx2.get(
            f"{world.url}/git/{place}/info/refs?service=git-upload-pack", headers=bearer(world)
        )
        assert answer.status_code in (403, 404)
        assert answer.status_code == 404 or answer.headers["x-bailee-denied"] == "not_attached"
    assert world.host.asked == []


def bearer(world: World) -> dict[str, str]:
    """Return the session's token as other clients send it."""
    return {"authorization": f"Bearer {world.token}"}


def test_submodules_come_under_the_same_rule(world: World, tmp_path: Path) -> None:
    """A submodule that is not attached is refused; attached, it is fetched (control)."""
    url = world.host.add("with-module", {"x": "x"})
    bare, work = world.host.folder / "with-module.git", world.host.folder / "with-module-work"
    module = f"{world.host.url}/other.git"
    (work / ".gitmodules").write_text(f'[submodule "m"]\n\tpath = m\n\turl = {module}\n')
    other = world.host.refs("other")["refs/heads/main"]
    git("update-index", "--add", "--cacheinfo", f"160000,{other},m", cwd=work)
    git("add", ".gitmodules", cwd=work)
    git("commit", "-qm", "module", cwd=work)
    git("push", "-q", str(bare), "main", cwd=work)
    world.access = Access("one", "a", (Attached(url, "bailee/work"),))
    inside = (
        f"{world.url.replace('://', f'://session:{world.token}@')}/git/{world.host.url.partition('://')[2]}/"
    )
    lead = ("-c", f"url.{inside}.insteadOf={world.host.url}/")
    told = git(*lead, "clone", "--recurse-submodules", url, str(tmp_path / "one"), check=False)
    assert "is not attached to this session" in told
    assert not (tmp_path / "one" / "m" / "SECRET").exists()
    world.access = Access("one", "a", (Attached(url, "bailee/work"), Attached(module)))
    git(*lead, "clone", "-q", "--recurse-submodules", url, str(tmp_path / "two"))
    assert (tmp_path / "two" / "m" / "SECRET").read_text() == "not yours\n"


def test_a_session_that_may_only_read(world: World, tmp_path: Path) -> None:
    """Without a branch of its own a session clones and pushes nothing."""
    world.access = Access("one", "a", (Attached(world.access.repositories[0].url),))
    work = tmp_path / "work"
    world.clone(work)
    commit(work)
    told = git("push", "origin", f"HEAD:{MINE}", cwd=work, check=False)
    assert "may read" in told


def test_a_revoked_token_opens_nothing(world: World, tmp_path: Path) -> None:
    """From the moment it is revoked; a token of nobody, too."""
    world.clone(tmp_path / "before")
    world.revoke()
    for token in (world.token, "bailee_0000000000000000_" + "0" * 64, "x"):
        told = git("clone", world.remote(token=token), str(tmp_path / "after"), check=False)
        assert "fatal" in told
        assert not (tmp_path / "after").exists()


def test_a_credential_that_is_not_taken(world: World, tmp_path: Path) -> None:
    """The host's refusal is told with what to do, and no password is asked for."""
    world.secret = "wrong-credential-of-nobody"
    told = git("clone", world.remote(), str(tmp_path / "work"), check=False)
    assert "bailee secrets set GIT_CREDENTIAL" in told
    assert "wrong-credential" not in told


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(world: World, tmp_path: Path, status: int) -> None:
    """A host that leads elsewhere is not followed: its credential would go along."""
    seen: list[str] = []

    def lead(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("location", f"{world.host.url}/elsewhere.git/info/refs?service=git-upload-pack")
        request.send_header("content-length", "0")
        request.end_headers()

    world.host.answers["/app.git/info/refs"] = lead
    world.host.answers["/elsewhere.git/info/refs"] = lambda request: seen.append(request.path)
    told = git("clone", world.remote(), str(tmp_path / "work"), check=False)
    assert "has moved" in told
    assert seen == []


def test_only_the_smart_protocol(world: World) -> None:
    """Files of the repository, other services and other questions are not asked for."""
    for tail in (
        "/HEAD",
        "/objects/info/packs",
        "/info/refs",
        "/info/refs?service=git-upload-archive",
        "/config",
    ):
        answer = httpx2.get(world.remote() + tail)
        assert answer.status_code == 403, tail
    assert world.host.asked == []


def test_repositories_of_sha256(world: World, tmp_path: Path) -> None:
    """A repository whose names have 64 digits is cloned and pushed to like any."""
    url = world.host.add("long", {"README.md": "hello\n"}, object_format="sha256")
    world.access = Access("one", "a", (Attached(url, "bailee/work"),))
    work = tmp_path / "work"
    world.clone(work, "long")
    commit(work)
    told = git("push", "origin", "HEAD:refs/heads/main", cwd=work, check=False)
    assert "its own branch alone" in told
    git("push", "-q", "origin", f"HEAD:{MINE}", cwd=work)
    assert MINE in world.host.refs("long")


def test_shallow_clones_push(world: World, tmp_path: Path) -> None:
    """A clone without history sends lines of `shallow` first, and its push is judged all the same."""
    work = tmp_path / "work"
    world.clone(work, "app", "--depth=1")
    commit(work)
    assert "its own branch alone" in git("push", "origin", "HEAD:refs/heads/main", cwd=work, check=False)
    git("push", "-q", "origin", f"HEAD:{MINE}", cwd=work)
    assert MINE in world.host.refs("app")


def test_compressed_requests(world: World, tmp_path: Path) -> None:
    """Git compresses a long list of what it has; the host gets it plain."""
    work = tmp_path / "work"
    world.clone(work)
    for number in range(60):
        git("commit", "-q", "--allow-empty", "-m", str(number), cwd=work)
    host_work = world.host.folder / "app-work"
    git("commit", "-q", "--allow-empty", "-m", "theirs", cwd=host_work)
    git("push", "-q", str(world.host.folder / "app.git"), "main", cwd=host_work)
    git("-c", "protocol.version=0", "fetch", "-q", "origin", cwd=work)
    assert git("log", "-1", "--format=%s", "origin/main", cwd=work).strip() == "theirs"


def test_a_large_pack_is_not_held(world: World, tmp_path: Path) -> None:
    """Sixty megabytes go through, and the memory of the process grows by less than a third of them."""
    work = tmp_path / "work"
    world.clone(work)
    with (work / "large.bin").open("wb") as file:
        for _ in range(60):
            file.write(os.urandom(1_000_000))
    git("add", "-A", cwd=work)
    git("-c", "core.bigFileThreshold=1m", "commit", "-qm", "large", cwd=work)
    before = memory()
    git("push", "-q", "origin", f"HEAD:{MINE}", cwd=work)
    assert world.host.refs("app")[MINE] == git("rev-parse", "HEAD", cwd=work).strip()
    assert world.noted[-1].sent > 60_000_000
    assert memory() - before < 20_000_000


def test_several_at_once(world: World, tmp_path: Path) -> None:
    """Pushes of one session beside each other each come to their end, and are told apart."""
    url = world.access.repositories[0].url
    world.access = Access("one", "a", (Attached(url, "bailee/work", ("refs/heads/bailee/n-*",)),))
    works = []
    for number in range(4):
        work = tmp_path / f"work-{number}"
        world.clone(work)
        commit(work, f"{number}\n")
        works.append(work)
    environment = {"PATH": os.environ["PATH"], "HOME": "/nowhere", "GIT_TERMINAL_PROMPT": "0"}
    pushing = [
        subprocess.Popen(
            ["git", "push", "-q", "origin", f"HEAD:refs/heads/bailee/n-{number}"], cwd=work, env=environment
        )
        for number, work in enumerate(works)
    ]
    assert [one.wait(60) for one in pushing] == [0] * 4
    assert {f"refs/heads/bailee/n-{number}" for number in range(4)} <= set(world.host.refs("app"))


# --- Large files ---


def answer_batch(host: GitHost, operation: str, store: dict[str, bytes]) -> None:
    """Let the host answer batches, with addresses and credentials of their own for the objects."""

    def batch(request: BaseHTTPRequestHandler) -> None:
        asked = json.loads(b"".join(read_pieces(request)))
        objects = [
            {
                **one,
                "actions": {
                    operation: {
                        "href": f"{host.url}/store/{one['oid']}",
                        "header": {"x-store": "key-of-the-store"},
                    }
                },
            }
            for one in asked["objects"]
        ]
        reply(request, 200, json.dumps({"transfer": "basic", "objects": objects}).encode())

    def move(request: BaseHTTPRequestHandler) -> None:
        assert request.headers["x-store"] == "key-of-the-store"
        oid = request.path.rpartition("/")[2]
        if request.command == "PUT":
            store[oid] = b"".join(read_pieces(request))
            reply(request, 200, b"")
        else:
            reply(request, 200, store[oid])

    host.answers["/app.git/info/lfs/objects/batch"] = batch
    for oid in ("a" * 64, "b" * 64):
        host.answers[f"/store/{oid}"] = move


def reply(request: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
    """Send an answer."""
    request.send_response(status)
    request.send_header("content-length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


def ask_batch(world: World, operation: str, oid: str = "a" * 64) -> httpx2.Response:
    """Ask for an object as git-lfs does (LFS API, "Batch")."""
    body: dict[str, Any] = {
        "operation": operation,
        "transfers": ["basic"],
        "objects": [{"oid": oid, "size": 5}],
    }
    return httpx2.post(f"{world.remote()}/info/lfs/objects/batch", json=body)


def test_large_files_go_by_tickets(world: World) -> None:
    """Objects go through the service both ways; the session sees no address of theirs, and no key."""
    store: dict[str, bytes] = {}
    for operation, method in (("upload", "PUT"), ("download", "GET")):
        answer_batch(world.host, operation, store)
        batch = ask_batch(world, operation)
        assert "key-of-the-store" not in batch.text
        assert "/store/" not in batch.text
        href = batch.json()["objects"][0]["actions"][operation]["href"]
        moved = httpx2.request(
            method, href, headers=bearer(world), content=b"large" if method == "PUT" else None
        )
        assert moved.status_code == 200
    assert store == {"a" * 64: b"large"}
    assert moved.content == b"large"
    # Of another method, of another session, of nobody: nothing.
    assert httpx2.put(href, headers=bearer(world), content=b"x").status_code == 403
    world.access = msgspec.structs.replace(world.access, session="another")
    assert httpx2.get(href, headers=bearer(world)).status_code == 403
    assert httpx2.get(href).status_code == 401


def test_large_files_under_the_same_rule(world: World) -> None:
    """Who only reads uploads nothing; what is not attached has no large files; there are no locks."""
    answer_batch(world.host, "upload", {})
    world.access = Access("one", "a", (Attached(world.access.repositories[0].url),))
    assert ask_batch(world, "upload").status_code == 403
    other = httpx2.post(f"{world.remote('other')}/info/lfs/objects/batch", json={"operation": "download"})
    assert other.status_code == 403
    assert httpx2.post(f"{world.remote()}/info/lfs/locks/verify", json={}).status_code == 404
    assert world.host.asked == []


def test_an_action_that_was_not_asked_for(world: World) -> None:
    """A host that answers a download with an upload is not believed."""
    answer_batch(world.host, "upload", {})
    assert ask_batch(world, "download").status_code == 502


def test_an_object_at_an_inner_address(world: World) -> None:
    """A host that says an object is elsewhere in the service's own network leads nobody there."""
    store: dict[str, bytes] = {"a" * 64: b"inner"}
    answer_batch(world.host, "download", store)
    href = ask_batch(world, "download").json()["objects"][0]["actions"]["download"]["href"]
    assert (
        httpx2.get(href, headers=bearer(world)).content == b"inner"
    )  # Control: on the repository's own host.
    inner = GitHost(world.host.folder, world.host.url.replace("127.0.0.1", "localhost"))
    answer_batch(inner, "download", store)
    world.host.answers |= inner.answers
    href = ask_batch(world, "download").json()["objects"][0]["actions"]["download"]["href"]
    refused = httpx2.get(href, headers=bearer(world))
    assert refused.status_code == 403
    assert "not public" in refused.text


def test_a_batch_that_is_nested_without_end(world: World) -> None:
    """It is refused like any that cannot be read, and goes to no host."""
    body = b'{"operation": "upload", "objects": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    answer = httpx2.post(f"{world.remote()}/info/lfs/objects/batch", content=body)
    assert answer.status_code == 400
    assert world.host.asked == []
