"""`python -m bench.startup`: how long commands take from a cold start, beside other agents.

Median of new processes, one after the other. Of an agent in a terminal it is the time until its prompt stands
there, in a pseudo-terminal that answers what programs ask of one. Compiled bytecode is made first, as an
installed package has it; no home, no settings, no key.
"""

import fcntl
import os
import platform
import pty
import select
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from bench.machine import read_busy_cores, tell_machine, write_table

ROOT = Path(__file__).resolve().parents[1]
BAILEE = str(ROOT / ".venv" / "bin" / "bailee")
RUNS = 10
SECONDS = 30.0  # longer than anything measured here takes
# What programs ask of a terminal before they draw: where the cursor is (ECMA-48, DSR 6 and its answer CPR).
_WHERE, _HERE = b"\x1b[6n", b"\x1b[1;1R"
_READY = b"mode ask"  # of the line below the agent's prompt


def find_aider() -> str:
    """Return where set-up put aider; else its name."""
    path = ROOT / ".venv-aider" / "bin" / "aider"
    return str(path) if path.is_file() else "aider"


def find_claude() -> str | None:
    """Return the program of the agent that tests use."""
    machine = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), "")
    path = ROOT / "node_modules" / "@anthropic-ai" / f"claude-code-linux-{machine}" / "claude"
    return str(path) if path.is_file() else shutil.which("claude")


def time_command(command: Sequence[str], environment: dict[str, str], folder: Path) -> float:
    """Return how long a command takes to its end, in milliseconds."""
    begun = time.perf_counter()
    subprocess.run(
        command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True
    )
    return (time.perf_counter() - begun) * 1000


def time_prompt(command: Sequence[str], environment: dict[str, str], folder: Path) -> float:
    """Return how long it takes until the agent's prompt stands in a terminal, in milliseconds."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 120, 0, 0))
    begun = time.perf_counter()
    with subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
        cwd=folder,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        seen = b""
        while _READY not in seen:
            if not select.select([ours], [], [], SECONDS)[0]:
                raise TimeoutError(f"no prompt after {SECONDS:.0f} s")
            data = os.read(ours, 65_536)
            seen += data
            if _WHERE in data:
                os.write(ours, _HERE)
        took = (time.perf_counter() - begun) * 1000
        os.write(ours, b"\x04")
        process.wait(SECONDS)
    os.close(ours)
    return took


@click.command()
@click.option("--runs", type=click.IntRange(min=1), default=RUNS, show_default=True)
def main(runs: int) -> None:
    """Measure how long it takes to start."""
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(ROOT / "src")], check=False)
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = {"PATH": os.environ["PATH"], "HOME": name, "TERM": "xterm-256color", "LANG": "C.UTF-8"}

        def measure(
            what: str, how: Callable[..., float], command: Sequence[str | None], aim: str = ""
        ) -> None:
            if command[0] is None or not shutil.which(str(command[0])):
                rows.append([what, "not installed", "", aim])
                return
            times = [how(command, environment, folder) for _ in range(runs + 1)][
                1:
            ]  # the first warms the disk
            rows.append([what, f"{statistics.median(times):.0f}", f"{max(times):.0f}", aim])
            click.echo(f"  {what}: {rows[-1][1]} ms", err=True)

        busy = read_busy_cores()
        measure("bailee --help", time_command, [BAILEE, "--help"], "150")
        measure("bailee explain --as plan=pro", time_command, [BAILEE, "explain", "--as", "plan=pro"], "250")
        measure("bailee code, to its prompt", time_prompt, [BAILEE, "code"], "300")
        measure("claude --version", time_command, [find_claude(), "--version"])
        measure("aider --version", time_command, [find_aider(), "--version"])
    click.echo(f"{tell_machine()} Median of {runs}; others used {busy:.1f} cores.\n")
    click.echo(write_table(["", "median ms", "longest ms", "aim ms"], rows))


if __name__ == "__main__":
    main()
