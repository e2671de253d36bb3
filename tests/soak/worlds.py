"""A home under load: its service, its clients, and the commands that people run beside them."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random

import msgspec

from bailee.accounts.directory import open_directory
from bailee.accounts.keys import create_key
from bailee.policy.periods import Period
from bailee.policy.plans import Plan
from bailee.vault.sweepers import Clocks, read_clocks
from counterparts.databases import Server
from counterparts.services import Service, clean_environment
from counterparts.waiting import DEADLINE_SECONDS, wait_for
from soak import clocks
from soak.clients import Client, Holder
from soak.clocks import SharedClock
from soak.journals import Journal

# For how many days each account's content is held: some is due on every day that passes.
PERIODS = {"ada": 1, "bob": 3, "cyd": 30}
CLIENTS_OF_EACH = 2


class World:
    """Everything that a soak of one home needs.

    Args:
        server: the PostgreSQL server of the home's databases; None for SQLite.
        changes: Python that takes a protection out of the service, for a negative control.
    """

    def __init__(self, folder: Path, random: Random, server: Server | None, changes: str) -> None:
        self.home = folder / "state"
        self.folder = folder
        self.server = server
        self.journal = Journal()
        self.clock = SharedClock(folder / "clock")
        self._changes = changes
        self._service: Service | None = None
        self._clients: list[Client] = []
        self._commands = 0
        self.change_commands("")
        for holder in self._make_holders():
            for _ in range(CLIENTS_OF_EACH):
                drawn = Random(random.getrandbits(64))
                self._clients.append(Client(holder, self.journal, self.clock, drawn, self._find_address))

    def _make_holders(self) -> Iterator[Holder]:
        directory = open_directory(self.home, clock=self.clock)
        for name, days in PERIODS.items():
            directory.add(name, Plan.API, retention=Period.days(days))
            yield Holder(name, create_key(directory, name)[1], days)
        directory.close()

    def _find_address(self) -> tuple[str, int] | None:
        service = self._service
        return None if service is None or not service.url else service.address

    # --- The service ---

    @property
    def service(self) -> Service:
        """The service that was started last."""
        assert self._service is not None
        return self._service

    @property
    def errors(self) -> str:
        """What the service said on standard error, and its recorders and sweepers."""
        path = self.folder / "service" / "stderr"
        return path.read_text() if path.exists() else ""

    def serve(self) -> None:
        """Start the service where it does not run, and wait until it answers."""
        if self._service is not None and self._service.process.poll() is None:
            return
        self._service = None
        place = self.folder / "service"
        place.mkdir(exist_ok=True)
        started = Service(
            self.home,
            place,
            "--upstream",
            "rehearsal",
            environment={clocks.VARIABLE: str(self.clock.path)},
            changes=clocks.SHIFTED_IN_SERVICE + self._changes,
        )
        try:
            self._service = started.wait_until_ready()
        except BaseException:
            started.end()
            raise

    def wait_until_recording(self) -> None:
        """Wait until clients are acknowledged again."""
        before = self.journal.acknowledged
        wait_for("answers", lambda: self.journal.acknowledged > before + 2)

    # --- Clients ---

    def resume(self) -> None:
        """Let all clients write."""
        for client in self._clients:
            client.resume()

    def pause(self) -> None:
        """Let all clients come to rest."""
        for client in self._clients:
            client.pause()

    # --- Commands ---

    def change_commands(self, changes: str) -> None:
        """Have Python run first in commands from now on that takes a protection out."""
        place = self.folder / "commands"
        place.mkdir(exist_ok=True)
        (place / "sitecustomize.py").write_text(clocks.SHIFTED + changes)

    def environment(self) -> Mapping[str, str]:
        """Return the environment of a command."""
        more = {"PYTHONPATH": str(self.folder / "commands"), clocks.VARIABLE: str(self.clock.path)}
        return clean_environment(self.folder, **more)

    def start(self, *arguments: str) -> "Command":
        """Start a command of `bailee`."""
        self._commands += 1
        return Command(self, arguments, self.folder / "output")

    def read_clocks(self) -> Clocks:
        """Return the clocks as a sweeper of this world reads them."""
        return msgspec.structs.replace(read_clocks(), wall_ms=int(self.clock() * 1000))

    def start_sweep(self) -> "Command":
        """Start a sweep by the day it is."""
        return self.start("retention", "sweep", "--as-of", self.clock.today().isoformat(), "--json")

    def close(self) -> None:
        """End everything."""
        for client in self._clients:
            client.close()
        if self._service is not None:
            self._service.end()


class Command:
    """A command that runs beside the service, its output in a file."""

    def __init__(self, world: World, arguments: tuple[str, ...], output: Path) -> None:
        self.begun = time.monotonic()
        self._output = output
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bailee", *arguments, "--home", str(world.home)],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=dict(world.environment()),
                cwd=world.folder,
            )
        self.ended = 0.0

    @property
    def told(self) -> str:
        """What it wrote."""
        return self._output.read_text(errors="replace")

    def wait_until_at_work(self) -> None:
        """Wait until it has opened a database, or has ended."""
        folder = Path(f"/proc/{self.process.pid}/fd")

        def is_at_work() -> bool:
            if self.process.poll() is not None:
                return True
            with contextlib.suppress(OSError):
                targets = [str(entry.readlink()) for entry in folder.iterdir()]
                return any(target.endswith(".db") or target.startswith("socket:") for target in targets)
            return False

        wait_for("a command to open its databases", is_at_work)

    def kill(self) -> bool:
        """Kill it (SIGKILL); tell whether it had not ended before."""
        self.process.kill()
        return self.wait() < 0

    def wait(self) -> int:
        """Wait for its end and return its exit code."""
        code = self.process.wait(4 * DEADLINE_SECONDS)
        self.ended = self.ended or time.monotonic()
        return code


@contextlib.contextmanager
def opening(folder: Path, random: Random, server: Server | None, changes: str = "") -> Iterator[World]:
    """Give a world whose service runs and whose clients write."""
    folder.mkdir(parents=True, exist_ok=True)
    world = World(folder, random, server, changes)
    try:
        world.serve()
        world.resume()
        world.wait_until_recording()
        yield world
    finally:
        world.close()


def set_variable(name: str, value: str | None) -> Callable[[], None]:
    """Set a variable of this process, or take it away; return what sets it back."""
    before = os.environ.get(name)

    def put(wanted: str | None) -> None:
        if wanted is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = wanted

    put(value)
    return lambda: put(before)
