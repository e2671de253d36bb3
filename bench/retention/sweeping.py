"""`python -m bench.retention.sweeping`: one sweep in a process of its own, as the service starts one.

It does what `bailee.vault.sweeper` does, on a day that it is told, and tells how it went.
"""

import argparse
import json
import os
import resource
import sys
import time
from datetime import UTC, date, datetime
from pathlib import Path

import msgspec

from bailee.database.leases import node_name
from bailee.vault.custody import open_custody
from bailee.vault.sweeper import KEYS_NICENESS, lower_priority, sweep_once


def main() -> int:
    """Sweep once and write what came of it; ends with 1 if nothing was swept."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--day", type=date.fromisoformat, required=True)
    options = parser.parse_args()
    os.nice(KEYS_NICENESS)
    noon = datetime(options.day.year, options.day.month, options.day.day, 12, tzinfo=UTC).timestamp()
    custody = open_custody(options.home, clock=lambda: noon)
    began = time.clock_gettime(time.CLOCK_MONOTONIC)
    done = sweep_once(custody, node_name(), give_way=lower_priority)
    custody.close()
    if done is None:
        return 1
    used = resource.getrusage(resource.RUSAGE_SELF)
    # Not `ru_maxrss`: that begins with what the process was that started this one.
    status = Path("/proc/self/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
    facts = {
        **msgspec.to_builtins(done),
        "began": began,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_bytes": peak,
    }
    sys.stdout.write(json.dumps(facts) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
