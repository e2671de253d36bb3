"""What a machine takes is measured as it is."""

import ctypes
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bailee.sandbox.usage import measure_disk, measure_segments, measure_usage
from counterparts.waiting import wait_for

HOLD = "held = bytearray(os.urandom(1)) * 80_000_000; print('ready', flush=True); sys.stdin.read()"


def test_memory_and_processes_below_a_process() -> None:
    """A child that holds 80 MB, and its own child, are counted; the process itself is not."""
    script = f"import os, subprocess, sys; p = subprocess.Popen(['sleep', '100']); {HOLD}; p.kill()"
    before = measure_usage(os.getpid())
    child = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    now = measure_usage(os.getpid())
    assert now.processes - before.processes == 2
    assert 80_000_000 <= now.memory_bytes - before.memory_bytes < 120_000_000
    child.communicate("")
    wait_for("its end", lambda: measure_usage(os.getpid()).processes == before.processes or None)


MAPPED = "file.truncate(60_000_000); held = mmap.mmap(file.fileno(), 60_000_000); held[:] = bytes(60_000_000)"
WRITTEN = "file.write(bytes(60_000_000))"


@pytest.mark.parametrize("how", [WRITTEN, f"{WRITTEN}; {MAPPED}"], ids=["written", "mapped"])
def test_a_file_of_memory_counts_once(how: str) -> None:
    """What is in a file of memory is counted, whether it is in an address space, in two, or in none."""
    script = (
        f"import mmap, os, sys; file = open(os.memfd_create('x'), 'wb+', buffering=0); {how}; "
        "os.fork(); os.write(1, b'ready\\n'); sys.stdin.read()"
    )
    before = measure_usage(os.getpid()).memory_bytes
    child = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert [child.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
    assert 60_000_000 <= measure_usage(os.getpid()).memory_bytes - before < 100_000_000
    child.communicate("")


SEGMENT = """
import ctypes, sys
system = ctypes.CDLL(None)
system.shmat.restype, system.shmdt.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
place = system.shmat(system.shmget(0, 50_000_000, 0o1600), None, 0)
ctypes.memset(place, 1, 50_000_000)
system.shmdt(place)
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_segment_that_nobody_is_attached_to() -> None:
    """System V memory of a machine's namespace is counted, and is no more once the machine has ended."""
    words = ["unshare", "--user", "--map-root-user", "--ipc", sys.executable, "-c", SEGMENT]
    child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    segments = measure_segments(os.getpid())
    assert 50_000_000 <= segments < 51_000_000
    assert measure_usage(os.getpid(), segments).memory_bytes >= segments
    child.communicate("")
    assert measure_segments(os.getpid()) == 0


def test_a_process_that_is_gone() -> None:
    """Nothing is below it."""
    child = subprocess.Popen(["true"])
    child.wait()
    assert measure_usage(child.pid).processes == 0


def test_a_disk_is_what_it_takes(tmp_path: Path) -> None:
    """Holes take nothing, links are not followed, and a folder that cannot be there is empty."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(b"x" * 1_000_000)
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(10_000_000_000)
    (tmp_path / "out").symlink_to("/usr")
    assert 1_000_000 <= measure_disk(tmp_path) < 1_200_000
    assert measure_disk(tmp_path / "none") == 0


def test_what_has_a_path_that_is_too_long(tmp_path: Path) -> None:
    """A file below a path that no program can name is counted; folders nested without end are too much."""
    here = os.open(tmp_path, os.O_RDONLY)
    for depth in range(260):
        os.mkdir("d" * 200, dir_fd=here)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
        if depth == 29:
            with os.fdopen(os.open("large", os.O_WRONLY | os.O_CREAT, dir_fd=here), "wb") as file:
                file.write(b"x" * 1_000_000)
            assert measure_disk(tmp_path) >= 1_000_000
    os.close(here)
    assert measure_disk(tmp_path) == math.inf


def test_empty_files_take_something(tmp_path: Path) -> None:
    """Each name counts as 4,096 bytes at least."""
    for number in range(100):
        (tmp_path / str(number)).touch()
    assert measure_disk(tmp_path) >= 409_600


def test_what_has_no_name(tmp_path: Path) -> None:
    """A file that was removed is counted while a process below has it open, and not without the process."""
    script = "exec 3>x; rm x; head -c 1000000 /dev/zero >&3; echo ready; read end"
    child = subprocess.Popen(
        ["sh", "-c", script], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    assert measure_disk(tmp_path, os.getpid()) >= 1_000_000
    assert measure_disk(tmp_path) == 0
    child.communicate(b"\n")
    assert measure_disk(tmp_path, os.getpid()) == 0


def test_a_folder_that_cannot_be_listed(tmp_path: Path) -> None:
    """What is in it is counted for an ordinary user too, and its mode stays."""
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "file").write_bytes(b"x" * 1_000_000)
    (tmp_path / "hidden").chmod(0o300)
    top = os.open(tmp_path, os.O_RDONLY)
    if (child := os.fork()) == 0:
        if os.geteuid() == 0:
            os.fchown(top, 65534, 65534)
            os.chown("hidden", 65534, 65534, dir_fd=top)
            os.fchdir(top)
            os.setuid(65534)
            ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # dumpable, so that its own /proc is its own again
        os.fchdir(top)
        os._exit(0 if 1_000_000 <= measure_disk(Path()) < 2_000_000 else 1)
    assert os.waitpid(child, 0)[1] == 0
    os.close(top)
    assert (tmp_path / "hidden").stat().st_mode & 0o777 == 0o300
