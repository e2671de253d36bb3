"""Runs one probe: `python __main__.py GROUP.NAME`."""

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    group, _, name = sys.argv[1].partition(".")
    getattr(importlib.import_module(f"attacks.probes.{group}"), name)()
