"""How long `bailee explain` takes from a cold start: median of ten runs, each a new interpreter.

Run it as `python bench/explain.py`. Compiled bytecode is made first, as an installed package has it.
"""

import compileall
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 10
LIMIT_MS = 250.0
SOURCE = Path(__file__).parents[1] / "src"


def measure(*words: str) -> float:
    """Return the median wall time of a command in milliseconds."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    times = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        subprocess.run([sys.executable, *words], env=environment, check=True, stdout=subprocess.DEVNULL)
        times.append((time.perf_counter() - begun) * 1000)
    return statistics.median(times)


def main() -> int:
    """Print the medians; end with 1 if explaining takes longer than promised."""
    compileall.compile_dir(SOURCE, quiet=2)
    floor = measure("-c", "import click, msgspec")
    explain = measure("-m", "bailee", "explain", "--as", "plan=pro", "--json")
    print(f"interpreter, click and msgspec  {floor:6.1f} ms")
    print(f"bailee explain                  {explain:6.1f} ms  (promised: under {LIMIT_MS:.0f} ms)")
    return int(explain > LIMIT_MS)


if __name__ == "__main__":
    sys.exit(main())
