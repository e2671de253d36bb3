"""The process that sweeps: started by the service whenever there is something to sweep.

A process of its own, because a sweep of a million segments takes minutes of one core, and neither a stream
nor a recorder may wait for it; and one that ends, because a resting one would take 25 MB of memory for
nothing.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import sqlalchemy.exc

from bailee.database.leases import node_name
from bailee.dumps import forbid_dumps
from bailee.policy.problems import Problem
from bailee.vault.custody import Custody, open_custody
from bailee.vault.sweepers import note_fault, note_start, note_success, read_clocks, read_sweeper, tell_jump
from bailee.vault.sweeping import Sweep, sweep

# Keys have a deadline, and go before recording and after relaying; rows have none, and go after all else.
KEYS_NICENESS = 5
NICENESS = 15


def sweep_once(custody: Custody, node: str, *, give_way: Callable[[], object] = lambda: None) -> Sweep | None:
    """Do one sweep and note it; None if it could not be done, which is noted too.

    Args:
        give_way: called once the keys are destroyed; nothing has a deadline from then on.
    """
    clocks = read_clocks()
    fault = tell_jump(read_sweeper(custody.keystore.engine, node), clocks)
    if not fault:
        note_start(custody.keystore.engine, node, clocks)
        try:
            # Every few seconds: what it costs must follow what is due, not what is held.
            done = sweep(custody, is_thorough=False, give_way=give_way)
        except Problem as problem:
            fault = f"paused: {problem}"
        except (sqlalchemy.exc.SQLAlchemyError, OSError) as error:
            cause = getattr(error, "orig", None) or error
            fault = f"{type(cause).__name__}: {cause}"
        else:
            note_success(custody.keystore.engine, node, read_clocks(), done)
            return done
    note_fault(custody.keystore.engine, node, clocks, fault)
    return None


def lower_priority() -> None:
    """Go after all else from now on."""
    os.nice(NICENESS - KEYS_NICENESS)


def main(arguments: list[str] | None = None) -> int:
    """Sweep once; started by the service, never by a person. Ends with 1 if nothing was swept."""
    parser = argparse.ArgumentParser(prog="bailee-sweeper")
    parser.add_argument("--home", type=Path, required=True)
    options = parser.parse_args(arguments)
    forbid_dumps()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(KEYS_NICENESS)
    known, fault = "", ""
    try:
        custody = open_custody(options.home)
        known = before.fault if (before := read_sweeper(custody.keystore.engine, node_name())) else ""
        if sweep_once(custody, node_name(), give_way=lower_priority) is None:
            fault = (
                after.fault if (after := read_sweeper(custody.keystore.engine, node_name())) else "unknown"
            )
        custody.close()
    except (Problem, sqlalchemy.exc.SQLAlchemyError, OSError) as error:
        fault = str(error)
    # Once for each reason: an alarm that repeats every 5 s is switched off by whoever reads it.
    if fault and fault != known:
        sys.stderr.write(f"bailee: nothing was swept: {fault}\n")
    return 1 if fault else 0


if __name__ == "__main__":
    sys.exit(main())
