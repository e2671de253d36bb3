"""What a machine of namespaces takes of its host, as the kernel tells it: nothing else bounds it there.

Groups of processes would (cgroups), where their part of the tree is delegated; on most hosts that has to be
set up, and a mistake in it ends other processes.
"""

import contextlib
import math
import os
import stat
from pathlib import Path

import msgspec

_PROC = Path("/proc")
_BLOCK = 512  # bytes, of st_blocks (stat(2))
_LEAST = 4096  # bytes that a name takes, as a disk has an end of those too
_DEEPEST = 256  # folders in one another, each of which is held open
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PLACE = getattr(os, "O_PATH", 0)  # Linux alone has it, and machines


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


def measure_disk(folder: Path, process: int = 0, proc: Path = _PROC) -> float:
    """Return how many bytes a folder takes on its disk; without end where it cannot be looked through.

    Args:
        process: what everything below it holds open there, and has no name any more, is counted as well.
    """
    try:
        top = _open_folder(str(folder))
    except FileNotFoundError:
        return 0
    except OSError:
        return math.inf
    device = os.fstat(top).st_dev
    total, opened = 0.0, [(top, _names(top))]
    try:
        while opened:
            descriptor, names = opened[-1]
            if not names:
                os.close(opened.pop()[0])
                continue
            name = names.pop()
            try:
                facts = os.lstat(name, dir_fd=descriptor)
                total += max(facts.st_blocks * _BLOCK, _LEAST)
                if stat.S_ISDIR(facts.st_mode):
                    below = _open_folder(name, descriptor)
                    opened.append((below, _names(below)))
            except (FileNotFoundError, NotADirectoryError):
                continue  # it went meanwhile
            if len(opened) > _DEEPEST:
                return math.inf
    except OSError:
        return math.inf
    finally:
        for descriptor, _ in opened:
            os.close(descriptor)
    return total + (_unlinked(proc, process, device) if process else 0)


def _names(descriptor: int) -> list[str]:
    return os.listdir(descriptor)


def _open_folder(name: str, above: int | None = None) -> int:
    """Open a folder whatever its mode is, and leave it as it is."""
    try:
        return os.open(name, _FOLDER, dir_fd=above)
    except PermissionError:
        place = os.open(name, _FOLDER | _PLACE, dir_fd=above)
    try:
        mode = stat.S_IMODE(os.fstat(place).st_mode)
        os.chmod(f"/proc/self/fd/{place}", mode | 0o500)  # noqa: PTH101
        try:
            return os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        finally:
            os.chmod(f"/proc/self/fd/{place}", mode)  # noqa: PTH101
    finally:
        os.close(place)


def _unlinked(proc: Path, process: int, device: int) -> int:
    """Return what files take that are open below a process, and have no name."""
    found: dict[int, int] = {}
    waiting = _children(proc, process)
    while waiting:
        one = waiting.pop()
        waiting += _children(proc, one)
        with contextlib.suppress(OSError):
            for link in (proc / str(one) / "fd").iterdir():
                with contextlib.suppress(OSError):
                    facts = link.stat()
                    if facts.st_nlink == 0 and facts.st_dev == device and stat.S_ISREG(facts.st_mode):
                        found[facts.st_ino] = facts.st_blocks * _BLOCK
    return sum(found.values())


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
