"""What figures depend on, and how they are told: the machine, and tables in Markdown."""

import os
import platform
import re
import time
from pathlib import Path

from bench.gateway.processes import read_machine_cpu_seconds


def describe_machine() -> dict[str, object]:
    """Return what the figures depend on."""
    try:
        models = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        models, memory = [], 0
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "memory_bytes": memory,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def tell_machine() -> str:
    """Return the machine in one sentence."""
    machine = describe_machine()
    return (
        f"{machine['cpu']}, {machine['cores']} cores, kernel {machine['kernel']}, Python {machine['python']}."
    )


def read_busy_cores(seconds: float = 0.5) -> float:
    """Return how many cores are busy on average, as long as this looks (/proc/stat)."""
    before = read_machine_cpu_seconds()
    time.sleep(seconds)
    return (read_machine_cpu_seconds() - before) / seconds


def write_table(heads: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown: the first column to the left, all others to the right."""
    widths = [max(len(row[at]) for row in [heads, *rows]) for at in range(len(heads))]

    def line(row: list[str]) -> str:
        cells = [
            text.ljust(width) if at == 0 else text.rjust(width)
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "| " + " | ".join(cells) + " |"

    ruler = "|".join(
        ["", "-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:]), ""],
    )
    return "\n".join([line(heads), ruler, *map(line, rows)])
