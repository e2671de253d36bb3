"""A Git host, a home that has the credential of it, and cloud sessions by the command."""

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trustme

from counterparts.git_hosts import GitHost, run_git_host
from counterparts.programs import run_program
from counterparts.projects import CALCULATOR, TEST
from counterparts.services import clean_environment
from counterparts.waiting import wait_for

# What virtual machines start from is made once for all tests, and kept.
CACHE = Path(__file__).parents[2] / ".cache"


@dataclass
class World:
    """A host with two repositories, and a home that has the credential of it."""

    folder: Path
    host: GitHost
    url: str
    environment: dict[str, str]
    isolation: str = "namespace"

    @property
    def home(self) -> Path:
        """The home of the service."""
        return self.folder / "home"

    def bailee(self, *words: str, value: str | None = None, status: int = 0) -> str:
        """Run a command and return what it says."""
        done = run_program(
            *words,
            "--home",
            str(self.home),
            environment=self.environment,
            folder=self.folder,
            given=value or "",
            seconds=500,  # a machine that is emulated takes its time
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def start(
        self, prompt: str, *options: str, status: int = 0, wait: bool = True
    ) -> tuple[dict[str, Any], str]:
        """Start a session, wait for its end, and return what is known of it with what was said."""
        words = [
            "cloud",
            "start",
            "--upstream",
            "rehearsal",
            "--repo",
            self.url,
            *(["--wait"] if wait else []),
            *(() if "--isolation" in options else ("--isolation", self.isolation)),
        ]
        said = self.bailee(*words, *options, prompt, status=status)
        id = said.split()[0]
        return self.show(id), said

    @contextmanager
    def changed(self, code: str) -> Iterator[None]:
        """Run Python first in every process of the world that begins meanwhile."""
        folder = self.folder / "changes"
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(code)
        self.environment["PYTHONPATH"] = str(folder)
        try:
            yield
        finally:
            del self.environment["PYTHONPATH"]

    def show(self, id: str) -> dict[str, Any]:
        """Return what is known of a session."""
        told: dict[str, Any] = json.loads(self.bailee("cloud", "show", "--json", id))
        return told


@contextmanager
def open_world(folder: Path) -> Iterator[World]:
    """Make a world, of which nothing is started yet; afterwards wait for the end of its drivers."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    with contextmanager(run_git_host)(folder / "host", tls) as host:
        url = host.add("app", {"calculator.py": CALCULATOR, "test_calculator.py": TEST})
        host.add("other", {"SECRET": "of another repository\n"})
        environment = clean_environment(
            folder,
            SSL_CERT_FILE=str(folder / "authority.pem"),
            XDG_CACHE_HOME=str(CACHE),
            OPERATORS_SECRET="canary-of-the-operator-0001",
        )
        made = World(folder, host, url, environment)
        yield made
        wait_for("the end of all drivers", partial(has_ended, made))


def has_ended(world: World) -> bool | None:
    """Tell whether nothing drives a session any more."""
    return not drivers(world) or None


def drivers(world: World) -> list[int]:
    """Return the processes that work for a home."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(world.home).encode() in words and b"\0drive\0" in words:
                found.append(int(entry.name))
    return found
