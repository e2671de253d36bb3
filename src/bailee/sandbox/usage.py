"""What a machine of namespaces takes of its host, as the kernel tells it: nothing else bounds it there.

Groups of processes would (cgroups), where their part of the tree is delegated; on most hosts that has to be
set up, and a mistake in it ends other processes.
"""

import contextlib
import math
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec

_PROC = Path("/proc")
_MEMORY_FILE = "/memfd:"
_MOST_NAMESPACES = 16
_BLOCK = 512  # bytes, of st_blocks (stat(2))
_LEAST = 4096  # bytes that a name takes, as a disk has an end of those too
_DEEPEST = 256  # folders in one another, each of which is held open
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PLACE = getattr(os, "O_PATH", 0)  # Linux alone has it, and machines


class Usage(msgspec.Struct, frozen=True):
    """What a machine takes now.

    Attributes:
        memory_bytes: what its programs hold, and their part of what several hold (`Pss`, proc_pid_smaps(5)).
            Memory that is shared, or is in no program's address space, counts once: the larger of what is
            mapped and of what files of memory (memfd_create(2)) and segments take.
    """

    processes: int
    memory_bytes: float


def measure_usage(
    process: int, segments: float = 0, *, has_own_kernel: bool = False, proc: Path = _PROC
) -> Usage:
    """Return what everything below a process takes, itself left out.

    Args:
        segments: bytes, see `measure_segments`.
        has_own_kernel: whether files of memory are those of a kernel that runs as a program (gVisor): it has
            all in one such file, mapped as far as it is in use, and pages that may go at any time as well.
    """
    count, own, shared = 0, 0, 0
    files: dict[int, int] = {}
    for one in _below(proc, process):
        with contextlib.suppress(OSError):
            count += 1
            for is_shared, size in _memory(proc, one):
                own, shared = (own, shared + size) if is_shared else (own + size, shared)
            if not has_own_kernel:
                files |= _memory_files(proc, one)
    return Usage(count, own + max(shared, sum(files.values()) + segments))


def measure_segments(process: int, proc: Path = _PROC) -> float:
    """Return the bytes of System V shared memory below a process, attached or not: some 5 ms for a machine.

    The kernel tells a process of its own namespace alone, so that one is sent into each; without end where
    there are more of them than anything needs.
    """
    own = (proc / "self" / "ns" / "ipc").readlink()
    found: dict[Path, int] = {}
    for one in _below(proc, process):
        with contextlib.suppress(OSError):
            found.setdefault((proc / str(one) / "ns" / "ipc").readlink(), one)
    found.pop(own, None)
    if len(found) > _MOST_NAMESPACES:
        return math.inf
    total = 0.0
    for one in found.values():
        words = ["nsenter", "-t", str(one), "-U", "--preserve-credentials", "-i", "cat", "/proc/sysvipc/shm"]
        told = subprocess.run(words, capture_output=True, text=True, check=False).stdout.splitlines()
        # Source: proc(5); the last two columns are what is in memory and what is swapped out.
        total += sum(sum(map(int, line.split()[-2:])) for line in told[1:])
    return total


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
    for one in _below(proc, process):
        for link in _descriptors(proc, one):
            with contextlib.suppress(OSError):
                facts = link.stat()
                if facts.st_nlink == 0 and facts.st_dev == device and stat.S_ISREG(facts.st_mode):
                    found[facts.st_ino] = facts.st_blocks * _BLOCK
    return sum(found.values())


def _memory_files(proc: Path, process: int) -> dict[int, int]:
    """Return what the files of memory take that a process has open, by inode."""
    found: dict[int, int] = {}
    for link in _descriptors(proc, process):
        with contextlib.suppress(OSError):
            if str(link.readlink()).startswith(_MEMORY_FILE):
                facts = link.stat()
                found[facts.st_ino] = facts.st_blocks * _BLOCK
    return found


def _descriptors(proc: Path, process: int) -> list[Path]:
    try:
        return list((proc / str(process) / "fd").iterdir())
    except OSError:
        return []


def _below(proc: Path, process: int) -> Iterator[int]:
    """Give all processes below one."""
    waiting = _children(proc, process)
    while waiting:
        one = waiting.pop()
        waiting += _children(proc, one)
        yield one


def _children(proc: Path, process: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in (proc / str(process) / "task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    return found


def _memory(proc: Path, process: int) -> Iterator[tuple[bool, int]]:
    """Give what a process holds, in bytes, each with whether others may hold it too."""
    try:
        told = (proc / str(process) / "smaps_rollup").read_text()
        counted = ("Pss_Anon:", "Pss_Shmem:", "SwapPss:")
    except PermissionError:  # it changed its user: what several hold is counted for each then
        told = (proc / str(process) / "status").read_text()
        counted = ("RssAnon:", "RssShmem:", "VmSwap:")
    for line in told.splitlines():
        if line.startswith(counted):
            yield "Shmem" in line, int(line.split()[1]) * 1024
