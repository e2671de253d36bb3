"""Processes of a gateway: started on one core, read from /proc, ended as a whole."""

import os
import re
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
GATEWAY_CORE = 0
LOAD_CORE = 1
_STOP_SECONDS = 10.0
_MEMORY = re.compile(r"^(Rss|Pss):\s+(\d+) kB", re.MULTILINE)


class StartFailed(Exception):
    """A gateway cannot be had here; the text says why."""


@dataclass(frozen=True)
class Memory:
    """Resident memory of a process tree in bytes: of a page shared by n, `pss` counts 1, `rss` n."""

    pss: int
    rss: int
    processes: int


def start(
    command: list[str],
    *,
    core: int,
    environment: dict[str, str],
    log: Path,
    stdin: int | None = subprocess.DEVNULL,
    descriptors: tuple[int, ...] = (),
    directory: Path | None = None,
) -> "subprocess.Popen[bytes]":
    """Start a process in a session of its own, it and all its children bound to one core.

    Raises:
        StartFailed: it is not there.
    """
    cores = {core} & os.sched_getaffinity(1) or os.sched_getaffinity(1)
    with log.open("ab") as output:
        try:
            return subprocess.Popen(
                command,
                stdin=stdin,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=descriptors,
                cwd=directory,
                start_new_session=True,
                preexec_fn=lambda: os.sched_setaffinity(0, cores),
            )
        except OSError as error:
            raise StartFailed(f"{command[0]}: {error.strerror}") from error


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End a process and what it started, politely at first."""
    stdin: IO[bytes] | None = process.stdin
    if stdin is not None and not stdin.closed:
        stdin.close()
    tree = list_tree(process.pid)
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for pid in tree:
        # Still the same process only if it is in the session that we opened.
        try:
            if os.getsid(pid) == process.pid:
                os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def list_tree(root: int) -> list[int]:
    """Return a process and all below it."""
    found, queue = [], [root]
    while queue:
        pid = queue.pop()
        found.append(pid)
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                queue.extend(map(int, task.read_text().split()))
            except OSError:
                continue
    return found


def read_cpu_seconds(root: int) -> float:
    """Return the CPU time of a process tree, its ended and reaped children included (proc_pid_stat(5))."""
    ticks = 0
    for pid in list_tree(root):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[11:15]))
    return ticks / TICKS_PER_SECOND


def read_memory(root: int) -> Memory:
    """Return the resident memory of a process tree (smaps_rollup, proc_pid_smaps(5))."""
    pss = rss = processes = 0
    for pid in list_tree(root):
        try:
            sizes = dict(_MEMORY.findall(Path(f"/proc/{pid}/smaps_rollup").read_text()))
        except OSError:
            continue
        if not sizes:
            continue
        processes += 1
        pss += int(sizes["Pss"]) * 1024
        rss += int(sizes["Rss"]) * 1024
    return Memory(pss, rss, processes)


def read_machine_cpu_seconds() -> float:
    """Return the CPU time spent on this machine, stolen time included (/proc/stat), in seconds."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_SECOND


def find_port() -> int:
    """Return a port of the loopback interface that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def wait_for_port(port: int, process: "subprocess.Popen[bytes]", log: Path, seconds: float) -> None:
    """Wait until a server accepts connections.

    Raises:
        StartFailed: it ended or took too long; the text ends with the last of its log.
    """
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if process.poll() is not None:
            raise StartFailed(f"ended with {process.returncode}: {read_end(log)}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise StartFailed(f"not ready within {seconds:g} s: {read_end(log)}")


def read_end(log: Path) -> str:
    """Return the last line of a log that says something."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


def wait_for_quiet(most_seconds: float, *, share: float = 0.1) -> float:
    """Wait until less than `share` of one core is busy; return the share that was busy last."""
    limit = time.monotonic() + most_seconds
    while True:
        before, began = read_machine_cpu_seconds(), time.monotonic()
        time.sleep(0.25)
        busy = (read_machine_cpu_seconds() - before) / (time.monotonic() - began)
        if busy < share or time.monotonic() >= limit:
            return busy
