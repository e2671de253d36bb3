"""Folders of killed runs are taken away, and no others."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from bailee.service.scratch import Scratch, sweep_scratch

HOLD = (
    "import sys, tempfile; tempfile.tempdir = sys.argv[1]\n"
    "from bailee.service.scratch import Scratch\n"
    "made = Scratch(); (made.path / 'file').touch(); print(made.path, flush=True); sys.stdin.read()\n"
)


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    """A folder whose process was killed goes; that of one that lives stays (control), and so does a link."""
    killed, living = (
        subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    )
    assert killed.stdout is not None
    assert living.stdout is not None
    left, held = Path(killed.stdout.readline().strip()), Path(living.stdout.readline().strip())
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "bailee-run-link").symlink_to(elsewhere)
    assert left.is_dir()
    assert sweep_scratch(tmp_path) == 1
    assert not left.exists()
    assert (held / "file").exists()
    assert elsewhere.is_dir()
    living.communicate(timeout=30)
    assert sweep_scratch(tmp_path) == 1


def test_one_that_is_being_made_is_no_ones_left(tmp_path: Path) -> None:
    """A folder that is not locked yet stays, as whoever makes it is about to; after an hour nobody is."""
    making = Path(tempfile.mkdtemp(prefix="bailee-run-", dir=tmp_path))
    assert sweep_scratch(tmp_path) == 0
    assert making.is_dir()
    os.utime(making, (0, 0))
    assert sweep_scratch(tmp_path) == 1  # Control
    assert not making.exists()


def test_it_goes_with_its_block() -> None:
    """A folder is readable for everybody while it is there, and gone afterwards."""
    with Scratch() as scratch:
        assert scratch.path.stat().st_mode & 0o777 == 0o755
    assert not scratch.path.exists()
    scratch.cleanup()
