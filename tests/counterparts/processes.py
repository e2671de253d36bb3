"""Processes as the kernel shows them."""

import contextlib
import os
import subprocess
from pathlib import Path


def children(process: int) -> list[int]:
    """Return the process ids of a process's children."""
    found: list[int] = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in task.read_text().split()]
    return found


def process_state(process: int) -> str:
    """Return the state letter of a process, empty if there is no such process."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def processor_seconds(process: int) -> float:
    """Return how long a process has been at work; source: proc_pid_stat(5), fields 14 and 15."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def list_older(moment: float) -> list[int]:
    """Return the ids of processes that began before a moment, in seconds of CLOCK_BOOTTIME.

    Source: proc_pid_stat(5), field 22.
    """
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            ticks = int(entry.read_text().rpartition(")")[2].split()[19])
            if ticks / os.sysconf("SC_CLK_TCK") < moment:
                found.append(int(entry.parent.name))
    return found


def list_descriptors(process: int) -> list[str]:
    """Return what a process's open file descriptors point at."""
    # A process of which no core file is made shows them to root alone.
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    command = [*as_root, "find", f"/proc/{process}/fd", "-type", "l", "-printf", "%l\\n"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
