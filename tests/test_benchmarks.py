"""The benchmarks run: small, and without looking at their figures, which belong to a quiet machine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_retention_is_measured(tmp_path: Path, kind: str) -> None:
    """All that is due goes, of a home and of a peer's table, and nothing is left behind."""
    figures = tmp_path / "figures.json"
    sizes = ["--segments", "1000", "--due", "200", "--database", kind]
    told = run("bench.retention", *sizes, "--directory", str(tmp_path), "--json", str(figures))
    assert "| batched DELETE |" in told.replace("  ", "")
    measured = json.loads(figures.read_text())["measured"]
    assert [(one["what"], one["due"]) for one in measured] == [
        (what, due) for what in ("bailee", "batched DELETE") for due in (2, 2, 2, 200)
    ]
    assert list(tmp_path.iterdir()) == [figures]


def test_what_is_kept_is_measured(tmp_path: Path) -> None:
    """A made-up conversation goes through the recorder, and less is kept of it than was sent."""
    figures = tmp_path / "figures.json"
    command = ["--quick", "--synthetic", "--directory", str(tmp_path), "--json", str(figures)]
    assert "SYNTHETIC" in run("bench.vault", *command)
    measured = json.loads(figures.read_text())["measured"]
    assert [one["turns"] for one in measured] == [4, 12]
    assert all(0 < one["kept_bytes"] < one["whole_bytes"] < one["sent_bytes"] for one in measured)
    assert list(tmp_path.iterdir()) == [figures]


def test_tunnels_are_measured(tmp_path: Path) -> None:
    """Tunnels go through the security proxy, none of them badly, and a boundary is made."""
    figures = tmp_path / "figures.json"
    told = run("bench.egress", "--quick", "--only", "bailee", "--json", str(figures))
    assert "bailee" in told
    measured = json.loads(figures.read_text())["cells"]
    assert {(one["kind"], one["count"]) for one in measured} == {
        ("tunnels", 1),
        ("tunnels", 32),
        ("bytes", 1),
        ("bytes", 16),
    }
    assert all(one["rate"] > 0 and one["bad"] == 0 for one in measured)


def test_pages_are_measured(tmp_path: Path) -> None:
    """Every page begins, for whoever may see it."""
    figures = tmp_path / "figures.json"
    told = run("bench.console", "--quick", "--sessions", "2000", "--json", str(figures))
    assert "/console/data" in told
    assert {one["who"] for one in json.loads(figures.read_text())["visits"]} == {
        "many",
        "few",
        "admin",
        "operator",
    }


def run(*words: str) -> str:
    """Run a benchmark and return what it writes to standard output."""
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
