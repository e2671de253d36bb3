"""The process that sweeps for as long as the service runs: started by it, ended by the end of its input.

A process of its own, because a sweep of a million segments takes minutes of one core, and neither a stream nor a
recorder may wait for it.
"""

import argparse
import os
import resource
import select
import signal
import socket
import sys
from pathlib import Path

import sqlalchemy.exc

from bailee.policy.problems import Problem
from bailee.vault.custody import Custody, open_custody
from bailee.vault.sweepers import note_fault, note_start, note_success, read_clocks, read_sweeper, tell_jump
from bailee.vault.sweeping import Sweep, sweep

# A key is destroyed within 60 s of its deadline: a third of that to begin, the rest for a million keys.
INTERVAL_SECONDS = 20.0
NICENESS = 15


def sweep_once(custody: Custody, node: str) -> Sweep | None:
    """Do one sweep and note it; None if it could not be done, which is noted too and said on standard error."""
    clocks = read_clocks()
    fault = tell_jump(read_sweeper(custody.vault, node), clocks)
    if not fault:
        note_start(custody.vault, node, clocks)
        try:
            done = sweep(custody)
        except Problem as problem:
            fault = f"paused: {problem}"
        except (sqlalchemy.exc.SQLAlchemyError, OSError) as error:
            cause = getattr(error, "orig", None) or error
            fault = f"{type(cause).__name__}: {cause}"
        else:
            note_success(custody.vault, node, read_clocks(), done)
            return done
    note_fault(custody.vault, node, clocks, fault)
    return None


def node_name() -> str:
    """Return what this machine is called among those that share a vault."""
    return socket.gethostname()


def main(arguments: list[str] | None = None) -> int:
    """Sweep until standard input ends; started by the service, never by a person."""
    parser = argparse.ArgumentParser(prog="bailee-sweeper")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--interval", type=float, default=INTERVAL_SECONDS)
    options = parser.parse_args(arguments)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(NICENESS)
    told = ""
    custody: Custody | None = None
    while True:
        fault = ""
        try:
            custody = custody or open_custody(options.home)
            if sweep_once(custody, node_name()) is None:
                state = read_sweeper(custody.vault, node_name())
                fault = state.fault if state else ""
        except (Problem, sqlalchemy.exc.SQLAlchemyError, OSError) as error:
            fault = str(error)
        if fault and fault != told:
            # Once for each reason: an alarm that repeats every 20 s is switched off by whoever reads it.
            print(f"bailee: nothing was swept: {fault}", file=sys.stderr, flush=True)
        told = fault
        if select.select([sys.stdin], [], [], options.interval)[0]:
            return 0


if __name__ == "__main__":
    sys.exit(main())
