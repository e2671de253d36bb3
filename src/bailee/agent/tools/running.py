"""`bash`: a command line, in a process group of its own, that ends with its time."""

import contextlib
import os
import secrets
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bailee.agent.permissions import Reach
from bailee.agent.tools.failures import Failed
from bailee.agent.tools.protocol import LONGEST_RESULT, Preview, Workspace, take
from bailee.manifests.loading import is_among
from bailee.policy.plans import Provider

# Credentials of the model and addresses of telemetry are the agent's; nothing that it runs needs them.
WITHHELD = (
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_CUSTOM_HEADERS",
    "AWS_BEARER_TOKEN_BEDROCK",
    "BAILEE_*",
    "OTEL_*",
)
# Where the model is reached with these they are its credentials; else they are those of the user's own tools.
WITHHELD_FOR: Mapping[Provider, tuple[str, ...]] = {
    Provider.BEDROCK: (
        "AWS_ACCESS_KEY_ID",
        "AWS_CONTAINER_*",
        "AWS_PROFILE",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
    ),
    Provider.VERTEX: ("GOOGLE_APPLICATION_CREDENTIALS",),
}
# In the environment of each command, so that what it started is known wherever it went.
MARK = "BAILEE_CALL"
_TICK = 0.1  # seconds between two looks at the clock
_GRACE = 2.0  # seconds from SIGTERM to SIGKILL


class RunTool:
    """Runs a command line with bash, or with sh where there is no bash."""

    name = "bash"
    reach = Reach.RUN
    description = (
        "Run a command line in the project's folder and return what it prints and its exit status. "
        "Every call is a new shell. Input is empty. What is left running when it ends is ended."
    )
    schema: Mapping[str, Any] = {
        "type": "object",
        "properties": {
            "command": {"type": "string", "description": "The command line."},
            "description": {"type": "string", "description": "What it is for, in five words."},
            "seconds": {"type": "integer", "minimum": 1, "description": "After how long it is ended."},
        },
        "required": ["command"],
    }

    def preview(self, arguments: Mapping[str, Any], workspace: Workspace) -> Preview:
        """Show the command line."""
        command = take(arguments, "command", str).strip()
        if not command:
            raise Failed("the command is empty")
        return Preview(command, detail=str(arguments.get("description", "")))

    def run(self, arguments: Mapping[str, Any], workspace: Workspace) -> str:
        """Run it to its end.

        Raises:
            Failed: it ended with another status than 0, was ended, or could not be started.
        """
        command = take(arguments, "command", str)
        if "\0" in command:
            raise Failed("the command holds a NUL character")
        seconds = min(take(arguments, "seconds", int, workspace.command_seconds), workspace.command_seconds)
        shell = shutil.which("bash") or "/bin/sh"
        mark = secrets.token_hex(16)
        withheld = (*WITHHELD, *workspace.withheld)
        environment = {k: v for k, v in workspace.environment.items() if not is_among(k, withheld)}
        try:
            process = subprocess.Popen(
                [shell, "-c", command],
                cwd=workspace.project.folder,
                env={**environment, MARK: mark},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as fault:
            raise Failed(f"the command could not be started: {fault.strerror}") from None
        output = _Output()
        ended = ""
        try:
            ended = _follow(process, output, seconds, workspace)
        finally:
            _end_group(process)
            _end_marked(f"{MARK}={mark}".encode())
        text = output.text()
        if ended:
            raise Failed(f"{text}\n[{ended}]")
        if process.returncode:
            raise Failed(f"{text}\n[exit status {process.returncode}]")
        return text or "(no output)"


class _Output:
    """The beginning and the end of what a command prints; the middle of a long one is let go."""

    def __init__(self, limit: int = LONGEST_RESULT) -> None:
        self._half = limit // 2
        self._begin = bytearray()
        self._end = bytearray()
        self._lost = 0

    def add(self, data: bytes) -> None:
        room = self._half - len(self._begin)
        self._begin += data[:room] if room > 0 else b""
        self._end += data[max(0, room) :]
        if len(self._end) > 2 * self._half:
            cut = len(self._end) - self._half
            del self._end[:cut]
            self._lost += cut

    def text(self) -> str:
        cut = max(0, len(self._end) - self._half)
        lost = self._lost + cut
        middle = f"\n[... {lost:,} bytes left out ...]\n".encode() if lost else b""
        return (bytes(self._begin) + middle + bytes(self._end[cut:])).decode(errors="replace").rstrip()


def _follow(process: "subprocess.Popen[bytes]", output: _Output, seconds: float, workspace: Workspace) -> str:
    """Take the output until the command ends; return why it was ended, or nothing."""
    assert process.stdout is not None
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector, process.stdout as pipe:
        os.set_blocking(pipe.fileno(), False)
        selector.register(pipe, selectors.EVENT_READ)
        is_open = True
        while is_open or process.poll() is None:
            if time.monotonic() > deadline:
                return f"ended after {seconds} s"
            if is_open and selector.select(_TICK):
                data = pipe.read(65_536)
                if data:
                    output.add(data)
                    workspace.show(data.decode(errors="replace"))
                elif data is not None:  # its end; None is nothing yet
                    selector.unregister(pipe)
                    is_open = False
            elif not is_open:
                time.sleep(_TICK / 10)
            elif process.poll() is not None and not selector.select(0):
                # The shell has ended and something it left behind holds the pipe.
                return ""
    return ""


def _end_group(process: "subprocess.Popen[bytes]") -> None:
    """End whatever the command left in its process group, gently first."""
    for number, seconds in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(process.pid, number)
        except (ProcessLookupError, PermissionError):
            break
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and _has_group(process):
            time.sleep(0.01)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1)


def _end_marked(mark: bytes) -> None:
    """End what left the process group, as a daemon does: it has the environment of the command all the same.

    Where there is no /proc the group is all that is ended.
    """
    deadline = time.monotonic() + _GRACE
    while time.monotonic() < deadline:
        found = [process for process in _list_processes() if _is_marked(process, mark)]
        if not found:
            return
        for process in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.01)  # one that was killed and not yet waited for by its parent has no environment


def _list_processes() -> list[int]:
    try:
        return [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]
    except OSError:
        return []


def _is_marked(process: int, mark: bytes) -> bool:
    try:
        return mark in Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _has_group(process: "subprocess.Popen[bytes]") -> bool:
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
