"""Runs probes in a machine, one after the other, each in a process of its own: `python3 -I runner.py`.

PROBES has them with their canaries, as JSON; what comes of each is a line of JSON. All of them are read
before the first, as Python takes half a second to begin where a machine is emulated.
"""

import contextlib
import importlib
import json
import os
import select
import signal
import sys
import time
import traceback
from pathlib import Path

SECONDS = 30


def run(probe: str, canary: str) -> None:
    """Run a probe in this process."""
    group, _, name = probe.partition(".")
    for module in list(sys.modules.values()):
        if module.__name__.startswith("attacks.probes.") and hasattr(module, "CANARY"):
            module.CANARY = canary
    getattr(sys.modules[f"attacks.probes.{group}"], name)()


def hold(probe: str, canary: str) -> dict[str, object]:
    """Run a probe in a process of its own, and return what came of it."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        status = 0
        try:
            run(probe, canary)
        except BaseException:
            traceback.print_exc()
            status = 1
        finally:
            with contextlib.suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)
    os.close(writing)
    said, deadline = b"", time.monotonic() + SECONDS
    status = None
    os.set_blocking(reading, False)
    while status is None and time.monotonic() < deadline:
        if select.select([reading], [], [], 0.02)[0]:
            said += os.read(reading, 65536)
        done, raw = os.waitpid(child, os.WNOHANG)
        status = os.waitstatus_to_exitcode(raw) if done else None
    with contextlib.suppress(BlockingIOError):
        said += os.read(reading, 65536)
    if status is None:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    os.close(reading)
    return {"probe": probe, "status": status, "said": said.decode(errors="replace")}


def main() -> None:
    """Run them all."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    asked = json.loads(os.environ["PROBES"])
    for group in sorted({probe.partition(".")[0] for probe in asked}):
        importlib.import_module(f"attacks.probes.{group}")
    for probe, canary in asked.items():
        print(json.dumps(hold(probe, canary)), flush=True)


if __name__ == "__main__":
    main()
