"""How long a boundary takes to be made: from the call to the moment in which its command is started."""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

AS_USER = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
RUNS = 30


def measure(as_user: bool) -> dict[str, float]:
    """Return medians in ms, measured in a process of its own."""
    prefix = AS_USER if as_user else []
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "bench.egress.starts"], capture_output=True, text=True, check=True
    )
    ready, whole = map(float, done.stdout.split())
    return {"ready": ready, "whole": whole}


def main() -> None:
    """Make boundaries for `true`, and tell the medians: until it starts, and until all of it has ended."""
    from bailee.boundary.enclosure import Enclosure, make_layout
    from bailee.boundary.means import find_means

    means = find_means()
    layout = make_layout(means, service_port=8787, ports=(3128, 15001, 15053))
    ready, whole = [], []
    for _ in range(RUNS):
        began = time.perf_counter()
        enclosure = Enclosure(means, layout)
        listeners = enclosure.prepare(["true"], {"PATH": os.environ["PATH"]}, Path("/"))
        ready.append(time.perf_counter() - began)
        enclosure.go()
        enclosure.wait()
        whole.append(time.perf_counter() - began)
        for listener in listeners.values():
            listener.close()
    print(statistics.median(ready) * 1e3, statistics.median(whole) * 1e3)


if __name__ == "__main__":
    main()
