"""What a machine of namespaces takes of its host, as the kernel tells it: nothing else bounds it there.

Groups of processes would (cgroups), where their part of the tree is delegated; on most hosts that has to be
set up, and a mistake in it ends other processes.
"""

import contextlib
import os
from pathlib import Path

import msgspec

_PROC = Path("/proc")
_BLOCK = 512  # bytes, of st_blocks (stat(2))


class Usage(msgspec.Struct, frozen=True):
    """What a machine takes now.

    Attributes:
        memory_bytes: what its programs hold, and their part of what several hold (`Pss`, proc_pid_smaps(5)).
    """

    processes: int
    memory_bytes: int


def measure_usage(process: int, proc: Path = _PROC) -> Usage:
    """Return what everything below a process takes, itself left out."""
    count, memory = 0, 0
    waiting = _children(proc, process)
    while waiting:
        one = waiting.pop()
        waiting += _children(proc, one)
        with contextlib.suppress(OSError):
            count += 1
            memory += _memory(proc, one)
    return Usage(count, memory)


def measure_disk(folder: Path) -> int:
    """Return how many bytes a folder takes on its disk."""
    total, waiting = 0, [str(folder)]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    total += entry.stat(follow_symlinks=False).st_blocks * _BLOCK
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
    return total


def _children(proc: Path, process: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in (proc / str(process) / "task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    return found


def _memory(proc: Path, process: int) -> int:
    kilobytes = 0
    try:
        told = (proc / str(process) / "smaps_rollup").read_text()
        counted = ("Pss_Anon:", "Pss_Shmem:", "SwapPss:")
    except PermissionError:  # it changed its user: what several hold is counted for each then
        told = (proc / str(process) / "status").read_text()
        counted = ("RssAnon:", "RssShmem:", "VmSwap:")
    for line in told.splitlines():
        if line.startswith(counted):
            kilobytes += int(line.split()[1])
    return kilobytes * 1024
