"""A service with the `git` flow alone, before a real Git host, and a session at work."""

import contextlib
import os
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette

from bailee.accounts.directory import open_directory
from bailee.accounts.keys import KeyRing, create_key, open_key_ring, revoke_key
from bailee.accounts.tables import KeyOrigin
from bailee.flows.git.access import Access, Attached
from bailee.flows.git.receiver import GitReceiver
from bailee.flows.git.requests import GitRequest
from bailee.flows.git.upstreams import Credential
from bailee.service.serving import listen
from counterparts.git_hosts import GitHost, git, run_git_host
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
        home = tmp_path / "home"
        directory = open_directory(home)
        holder = directory.ensure_default()
        key, token = create_key(directory, holder.name, label="session", origin=KeyOrigin.RUN)
        directory.close()
        access = Access("one", holder.id, (Attached(url, "bailee/work"),))
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
        find_access=lambda key: made.access if key == made.key else None,
        find_credential=lambda access, repository: Credential(made.secret) if made.secret else None,
        note=lambda access, noted: made.noted.append(noted),
    )


def memory() -> int:
    """Return how many bytes of memory this process has, at most so far."""
    for line in Path(f"/proc/{os.getpid()}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")
