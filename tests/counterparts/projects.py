"""A small repository with a bug and a test that finds it: what the scenario `mend-the-test` mends."""

import subprocess
from pathlib import Path

from counterparts import claude

CALCULATOR = '"""A very small calculator."""\n\n\ndef add(a, b):\n    return a - b\n'
TEST = """import unittest

from calculator import add


class AddTest(unittest.TestCase):
    def test_adds(self):
        self.assertEqual(add(2, 3), 5)
"""


def make_project(folder: Path) -> None:
    """Make the repository."""
    claude.make_project(folder, {"calculator.py": CALCULATOR, "test_calculator.py": TEST})


def git(folder: Path, *arguments: str) -> str:
    """Run Git there and return what it prints."""
    done = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout
