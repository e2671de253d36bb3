"""`make demo` does what the README says."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_demonstration_ends_well_and_leaves_nothing(tmp_path: Path) -> None:
    """A real agent's session, its receipt and its decisions are shown; no file and no process stays."""
    done = subprocess.run(
        [sys.executable, "scripts/demo.py"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "LANG": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    shown = done.stdout + done.stderr
    assert "1. Claude Code works" in shown
    assert "Receipt: claude-code for me" in shown
    assert "erase: bailee sessions erase" in shown
    assert "specification/required" in shown
    assert "In clear on disk: nothing." in shown
    assert list(tmp_path.glob("bailee-demo-*")) == []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes()
        except OSError:
            continue
        assert str(tmp_path).encode() not in line, line
