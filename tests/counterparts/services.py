"""`bailee up` as a process of its own."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from bailee.database.locations import VARIABLE
from counterparts.processes import children, list_descriptors, process_state
from counterparts.programs import Program, start_program
from counterparts.waiting import DEADLINE_SECONDS, wait_for


def clean_environment(home: Path, **more: str) -> dict[str, str]:
    """Return an environment that holds nothing of the one around the tests but the path.

    And where the test's databases are, if it has some on a server.
    """
    kept = {name: os.environ[name] for name in ("PATH", VARIABLE) if name in os.environ}
    return {**kept, "HOME": str(home), "LANG": "C.UTF-8", **more}


class Service:
    """`bailee up` as a process of its own, its output in files.

    Args:
        folder: where the output goes, and TMPDIR is.
        changes: Python that runs first in the service and in its recorder: a constant made small, or, for a
            negative control, a protection taken out. All else is `bailee up` itself.
    """

    def __init__(
        self,
        home: Path,
        folder: Path,
        *options: str,
        environment: Mapping[str, str] | None = None,
        changes: str = "",
        before: Callable[[], None] | None = None,
    ) -> None:
        self.home = home
        self.temporary = folder / "tmp"
        self.temporary.mkdir(parents=True, exist_ok=True)
        self.stdout = folder / "stdout"
        self.stderr = folder / "stderr"
        command = [sys.executable, "-m", "bailee", "up", "--home", str(home), *options]
        if "--port" not in options:
            command += ["--port", "0"]
        whole = clean_environment(folder, TMPDIR=str(self.temporary)) | dict(environment or {})
        if changes:
            # Python runs a module of this name at every start; a fault in it would only be printed.
            place = folder / "changes"
            place.mkdir(exist_ok=True)
            (place / "sitecustomize.py").write_text(changes)
            whole["PYTHONPATH"] = str(place)
        # Appended, so that what an earlier service wrote is still there to be searched.
        with self.stdout.open("ab") as out, self.stderr.open("ab") as errors:
            self._from = self.stdout.stat().st_size
            self._errors_from = self.stderr.stat().st_size
            if changes or before or "PYTHONPATH" in whole:
                self.process: subprocess.Popen[bytes] | Program = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=errors,
                    env=whole,
                    cwd=folder,
                    start_new_session=True,
                    preexec_fn=before,
                )
            else:
                self.process = start_program(
                    *command[3:], environment=whole, folder=folder, stdout=out, stderr=errors, is_session=True
                )
        self.url = ""
        self._stopped: set[int] = set()

    def wait_until_ready(self) -> Self:
        """Wait for the line that says requests are answered."""

        def line() -> str | None:
            text = self.output
            if text.endswith("\n"):
                return text.strip()
            assert self.process.poll() is None, f"the service ended: {self.errors}"
            return None

        self.url = wait_for("the service's URL", line)
        return self

    @property
    def output(self) -> str:
        """Its standard output so far."""
        return self.stdout.read_bytes()[self._from :].decode()

    @property
    def errors(self) -> str:
        """Its standard error so far, the recorder's included."""
        return self.stderr.read_bytes()[self._errors_from :].decode()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port it listens on."""
        host, _, port = self.url.partition("://")[2].rpartition(":")
        return host.strip("[]"), int(port)

    def find_recorder(self) -> int | None:
        """Return the process id of the recorder, or None while there is none."""
        for child in children(self.process.pid):
            with contextlib.suppress(OSError):
                if b"bailee.vault.recorder" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return child
        return None

    @property
    def recorder(self) -> int:
        """The process id of the recorder."""
        return wait_for("a recorder", self.find_recorder)

    def stop_recorder(self) -> int:
        """Stop the recorder where it is (SIGSTOP), until `continue_recorder`."""
        recorder = self.recorder
        os.kill(recorder, signal.SIGSTOP)
        self._stopped.add(recorder)
        wait_for("the recorder to stand still", lambda: process_state(recorder) == "T")
        return recorder

    def continue_recorder(self) -> None:
        """Let stopped recorders go on (SIGCONT)."""
        for recorder in self._stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(recorder, signal.SIGCONT)
        self._stopped = set()

    def kill_recorder(self) -> int:
        """Kill the recorder (SIGKILL) and return its process id."""
        recorder = self.recorder
        os.kill(recorder, signal.SIGKILL)
        return recorder

    def kill(self) -> None:
        """Kill the service (SIGKILL), and wait until its recorder, left alone, has ended too."""
        recorder = self.find_recorder()
        self.process.kill()
        self.process.wait()
        if recorder is not None and recorder not in self._stopped:
            wait_for("the recorder's end", lambda: process_state(recorder) in ("", "Z"))

    def end(self) -> int:
        """End the service as an operator does (SIGTERM) and return its exit code."""
        self.continue_recorder()
        recorder = self.find_recorder()
        if self.process.poll() is None:
            self.process.terminate()
        try:
            code = self.process.wait(DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        if recorder is not None:
            wait_for("the recorder's end", lambda: process_state(recorder) in ("", "Z"))
        return code

    def descriptors(self) -> list[str]:
        """Return what the service's open file descriptors point at, sockets as `socket`."""
        targets = list_descriptors(self.process.pid)
        return sorted(target if target.startswith("/") else target.partition(":")[0] for target in targets)


def settle(service: Service) -> list[str]:
    """Return the service's open file descriptors once they have not changed for a moment."""
    found = service.descriptors()
    while True:
        time.sleep(0.2)
        before, found = found, service.descriptors()
        if before == found:
            return found


@contextlib.contextmanager
def serving(home: Path, folder: Path, *options: str, **more: Any) -> Iterator[Service]:
    """Start a service, wait until it answers, and end it afterwards."""
    service = Service(home, folder, *options, **more)
    try:
        yield service.wait_until_ready()
    finally:
        service.end()
