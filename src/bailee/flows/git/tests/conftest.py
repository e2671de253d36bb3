"""A service with the `git` flow alone, before a real Git host, and a session at work."""

import contextlib
import os
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trustme
import uvicorn
from starlette.applications import Starlette

from bailee.accounts.directory import open_directory
from bailee.accounts.keys import KeyRing, create_key, open_key_ring, revoke_key
from bailee.accounts.tables import KeyOrigin
from bailee.flows.git.access import Access, Attached
from bailee.flows.git.github.apps import App
from bailee.flows.git.receiver import GitReceiver
from bailee.flows.git.requests import GitRequest
from bailee.flows.git.upstreams import Credential
from bailee.flows.web.abuse import Limits, Watch
from bailee.service.serving import listen
from counterparts.git_hosts import GitHost, git, run_git_host
from counterparts.github_api import GitHubApi
from counterparts.waiting import wait_for

FILES = {"README.md": "hello\n", "src/app.py": "print('hello')\n"}


@dataclass
class World:
    """What a test has."""

    host: GitHost
    home: Path
    url: str
    token: str
    key: str
    access: Access
    noted: list[GitRequest] = field(default_factory=list)
    secret: str | None = None
    app: App | None = None
    is_open: bool = True
    limits: Limits | None = None
    stopped: list[tuple[str, str]] = field(default_factory=list)

    @property
    def api(self) -> str:
        """Return where a session finds the API of its repository's host."""
        return f"{self.url}/git/-/api/{self.host.url.partition('://')[2]}/api"

    def remote(self, name: str = "app", token: str | None = None) -> str:
        """Return the address that a session knows a repository by."""
        place = f"{self.host.url.partition('://')[2]}/{name}.git"
        return f"{self.url.replace('://', f'://session:{token or self.token}@')}/git/{place}"

    def clone(self, folder: Path, name: str = "app", *words: str) -> str:
        """Clone as the session does."""
        return git("clone", "-q", *words, self.remote(name), str(folder))

    def revoke(self) -> None:
        """Revoke the session's token."""
        directory = open_directory(self.home)
        revoke_key(directory, self.key)
        directory.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Give a service, a host with two repositories, and a session that has the first."""
    for host in run_git_host(tmp_path / "host"):
        url = host.add("app", FILES)
        host.add("other", {"SECRET": "not yours\n"})
        with _serving_session(tmp_path, host, url) as made:
            yield made


@dataclass
class Hub:
    """A GitHub with two repositories, and a session that has the first."""

    world: World
    api: GitHubApi

    def rest(self, method: str, path: str, json: Any = None, **more: Any) -> httpx2.Response:
        """Ask REST as the session does."""
        return self._ask(self.world.api, self.world.token, method, f"/v3{path}", json, **more)

    def graphql(self, query: str, variables: Any = None, **more: Any) -> httpx2.Response:
        """Ask GraphQL as the session does."""
        body = {"query": query, "variables": variables or {}, **more}
        return self._ask(self.world.api, self.world.token, "POST", "/graphql", body)

    def straight(self, method: str, path: str, json: Any = None, **more: Any) -> httpx2.Response:
        """Ask the host itself, with its credential."""
        return self._ask(f"{self.world.host.url}/api", self.world.host.accepted, method, path, json, **more)

    def _ask(self, base: str, token: str, method: str, path: str, json: Any, **more: Any) -> httpx2.Response:
        headers = {"authorization": f"Bearer {token}", **more.pop("headers", {})}
        trusted = ssl.create_default_context()
        # Of a large schema a question may take long to validate on a busy machine.
        with httpx2.Client(verify=trusted, timeout=60) as client:
            # What a client library would write plainly goes out as it stands here.
            request = client.build_request(method, base, json=json, headers=headers, **more)
            raw = request.url.copy_with(raw_path=request.url.raw_path + path.encode())
            request.url = raw
            return client.send(request)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Give a service, a GitHub that speaks TLS, and a session."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    for host in run_git_host(tmp_path / "host", tls):
        url = host.add("acme/app", FILES)
        host.add("acme/other", {"SECRET": "not yours\n"})
        api = GitHubApi(host)
        with _serving_session(tmp_path, host, url) as made:
            yield Hub(made, api)


@contextlib.contextmanager
def _serving_session(folder: Path, host: GitHost, url: str) -> Iterator[World]:
    home = folder / "home"
    directory = open_directory(home)
    holder = directory.ensure_default()
    key, token = create_key(directory, holder.name, label="session", origin=KeyOrigin.RUN)
    directory.close()
    access = Access("one", holder.id, (Attached(url, "bailee/work"),), key.id)
    listener = listen("127.0.0.1", 0)
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    made = World(host, home, address, token, key.id, access, secret=host.accepted)
    with serving(made, listener):
        yield made


@contextlib.contextmanager
def serving(made: World, listener: socket.socket) -> Iterator[None]:
    """Serve in a thread, with keys that are read there."""
    servers: list[uvicorn.Server] = []

    def serve() -> None:
        ring = open_key_ring(made.home)
        receiver = make_receiver(made, ring)

        @contextlib.asynccontextmanager
        async def closing(application: Starlette) -> AsyncIterator[None]:
            yield
            await receiver.close()

        application = Starlette(routes=receiver.make_routes(), lifespan=closing)
        configuration = uvicorn.Config(application, log_config=None)
        servers.append(uvicorn.Server(configuration))
        servers[0].run(sockets=[listener])
        ring.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    wait_for("the service", lambda: (servers and servers[0].started) or None)
    yield
    servers[0].should_exit = True
    thread.join(10)


def make_receiver(made: World, ring: KeyRing) -> GitReceiver:
    """Return the receiver under test."""
    return GitReceiver(
        keys=ring,
        find_access=lambda key: made.access if key == made.key and made.is_open else None,
        find_credential=lambda access, repository: (
            made.app or (Credential(made.secret) if made.secret else None)
        ),
        note=lambda access, noted: made.noted.append(noted),
        make_watch=lambda: Watch(made.limits, stops=True, clock=time.monotonic) if made.limits else None,
        stop=lambda key, reason: made.stopped.append((key, reason)),
    )


def memory() -> int:
    """Return how many bytes of memory this process has, at most so far."""
    for line in Path(f"/proc/{os.getpid()}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")
