"""A Git host, a home that has the credential of it, and cloud sessions by the command."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from counterparts.git_hosts import GitHost
from counterparts.programs import run_program

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
