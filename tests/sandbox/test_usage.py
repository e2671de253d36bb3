"""What a machine takes is measured as it is."""

import os
import subprocess
import sys
from pathlib import Path

from bailee.sandbox.usage import measure_disk, measure_usage
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
