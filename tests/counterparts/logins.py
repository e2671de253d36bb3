"""A machine of a user who logs in, and the home of the service they log in to."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bailee.accounts.directory import open_directory
from bailee.accounts.keys import list_keys
from bailee.accounts.tables import KeyOrigin
from bailee.agent.login import read_login
from bailee.agent.settings import read_settings
from bailee.agent.work import Work
from bailee.policy.plans import Plan
from counterparts.programs import run_program, start_program
from counterparts.projects import make_project
from counterparts.services import Service, clean_environment, serving
from counterparts.waiting import wait_for

Done = subprocess.CompletedProcess[str]
MODEL = ("--model", "claude-rehearsal-1")
CODE = re.compile(r"bailee logins approve ([A-Z]{4}-[A-Z]{4}) --account NAME")


class Place:
    """A user's machine, and the home of a service where ada has an account (pro) and bob (team)."""

    def __init__(self, folder: Path, rules: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.state = folder / "state"
        self.project = folder / "project"
        make_project(self.project)
        self.state.mkdir(mode=0o700)
        shutil.copytree(rules, self.state / "cache")
        (folder / "user").mkdir()
        directory = open_directory(self.home)
        directory.add("ada", Plan.PRO)
        directory.add("bob", Plan.TEAM)
        directory.close()
        self.proofs = {name: self._prove(name) for name in ("ada", "bob")}

    def _prove(self, name: str) -> str:
        return self.operate("keys", "create", "--account", name, "--for-holder").stdout.strip()

    def environment(self, **more: str) -> dict[str, str]:
        return clean_environment(self.folder / "user", BAILEE_STATE=str(self.state), **more)

    def run(self, *words: str, **more: str) -> Done:
        """Run the program as the user of the agent's machine does: nothing of the service's home is known."""
        return run_program(*words, environment=self.environment(**more), folder=self.project)

    def code(self, *words: str, **more: str) -> Done:
        return self.run("code", "-p", "rehearse greet", *MODEL, *words, **more)

    def operate(self, *words: str, proof: str = "") -> Done:
        """Run the program where the service runs."""
        environment = clean_environment(self.folder, BAILEE_HOME=str(self.home), BAILEE_KEY=proof)
        done = run_program(*words, environment=environment, folder=self.folder)
        assert done.returncode == 0, done.stderr
        return done

    @contextmanager
    def serve(self) -> Iterator[Service]:
        place = self.folder / "service"
        place.mkdir(exist_ok=True)
        with serving(self.home, place, "--upstream", "rehearsal") as service:
            yield service

    def begin(self, service: Service, *words: str, **more: str) -> "Attempt":
        return Attempt(self, service, *words, **more)

    def log_in(self, service: Service, name: str = "ada", *words: str) -> Done:
        attempt = self.begin(service, *words)
        self.operate("logins", "approve", attempt.code(), "--account", name, "--yes", proof=self.proofs[name])
        done = attempt.end()
        assert done.returncode == 0, done.stderr
        return done

    def token(self) -> str:
        login = read_login(self.state, self.environment())
        assert login is not None
        return login.token

    def open_work(self, **more: str) -> Work:
        environment = self.environment(**more)
        settings = read_settings(directory=self.project, environment=environment)
        return Work(settings, environment=environment, folder=self.project)

    def keys(self) -> list[tuple[str, bool]]:
        """Return the keys of logins: whose, and whether it is in force; the newest first."""
        directory = open_directory(self.home)
        found = [key for key in list_keys(directory) if key.origin is KeyOrigin.LOGIN]
        directory.close()
        return [(key.account, key.revoked_ms is None) for key in found]


class Attempt:
    """A `bailee login` that goes on."""

    def __init__(self, place: Place, service: Service, *words: str, **more: str) -> None:
        self.out, self.err = (place.folder / f"login.{name}" for name in ("out", "err"))
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.program = start_program(
                *("login", "--service", service.url, *words),
                environment=place.environment(**more),
                folder=place.project,
                stdout=out,
                stderr=err,
            )

    def code(self) -> str:
        return wait_for("a code", lambda: CODE.search(self.err.read_text()))[1]

    def end(self) -> Done:
        code = self.program.wait(60)
        return subprocess.CompletedProcess(["bailee"], code, self.out.read_text(), self.err.read_text())
