"""A user with a clone, a Git of their own that has the host's credential, and our agent."""

import base64
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from counterparts.clouds import World
from counterparts.git_hosts import AUTHOR, USER, git
from counterparts.programs import run_program


@dataclass
class Person:
    """A person at a machine that has a home of its own, or one that is the service's.

    Attributes:
        folder: their home, with `app`, the clone, and `state`, the agent's, in it.
        more: variables besides.
    """

    world: World
    folder: Path
    more: dict[str, str]

    @property
    def clone(self) -> Path:
        """Their clone."""
        return self.folder / "app"

    @property
    def state(self) -> Path:
        """The state of their agent."""
        return self.folder / "state"

    @property
    def environment(self) -> dict[str, str]:
        """Their variables."""
        kept = {name: self.world.environment[name] for name in ("PATH", "LANG", "SSL_CERT_FILE")}
        return {**kept, "HOME": str(self.folder), "BAILEE_STATE": str(self.state), **self.more}

    def code(self, *words: str, status: int = 0) -> "subprocess.CompletedProcess[str]":
        """Run the agent in the clone, with the rehearsal model."""
        done = run_program(
            "code", "--model", "rehearsal", *words, environment=self.environment, folder=self.clone
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done

    def take(self, id: str, prompt: str = "go on", *words: str, status: int = 0) -> str:
        """Take a session over, and return what is said."""
        done = self.code("--from-cloud", id, *words, "-p", prompt, status=status)
        return done.stdout + done.stderr

    def sessions(self) -> list[dict[str, Any]]:
        """Return the sessions that are kept here, with what was said in them."""
        listed = json.loads(self.run("sessions", "--local", "list", "--json"))
        return [json.loads(self.run("sessions", "--local", "show", one["id"], "--json")) for one in listed]

    def run(self, *words: str) -> str:
        """Run another command."""
        done = run_program(*words, environment=self.environment, folder=self.clone)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def git(self, *words: str) -> str:
        """Run their Git in the clone."""
        return git(*words, cwd=self.clone, HOME=str(self.folder), GIT_CONFIG_GLOBAL=str(self.gitconfig))

    @property
    def gitconfig(self) -> Path:
        """Their Git's configuration."""
        return self.folder / ".gitconfig"


def make_person(world: World, name: str = "person", **more: str) -> Person:
    """Make a person with a clone of the world's repository."""
    person = Person(world, world.folder / name, more)
    person.folder.mkdir()
    person.state.mkdir(mode=0o700)
    basic = base64.b64encode(f"{USER}:{world.host.accepted}".encode()).decode()
    person.gitconfig.write_text(
        f"[http]\n\tsslCAInfo = {world.environment['SSL_CERT_FILE']}\n"
        f'[http "{world.host.url}"]\n\textraHeader = Authorization: Basic {basic}\n'
        f"[user]\n\tname = {AUTHOR['GIT_AUTHOR_NAME']}\n\temail = {AUTHOR['GIT_AUTHOR_EMAIL']}\n"
    )
    environment = {"HOME": str(person.folder), "GIT_CONFIG_GLOBAL": str(person.gitconfig)}
    git("clone", "-q", world.url, str(person.clone), **environment)
    return person
