"""The scanner of secrets in sessions of our agent: its rules are compiled once, and not in each machine.

That takes 4.5 s, of each session's time before the first request. What is compiled says nothing of anybody,
and a scanner that cannot use it compiles its own, as on an emulated processor.
"""

import contextlib
from pathlib import Path

from bailee.policy.problems import Problem
from bailee.sandbox.machines import WORK, Kind, Machine, NotAnswered

PLACE = f"{WORK}/home/.local/state/bailee/cache"
_RULES = "*.vscdb"


def give_rules(home: Path, machine: Machine, kind: Kind) -> None:
    """Put the compiled rules where the agent of a machine looks for them; without, it compiles its own."""
    folder = home / "cache"
    # A virtual machine's processor may be emulated: it would not be worth the wait.
    if kind is not Kind.VM and not any(folder.glob(_RULES)):
        _compile(folder)
    for path in folder.glob(_RULES):
        with contextlib.suppress(OSError, NotAnswered):
            machine.put(f"{PLACE}/{path.name}", path.read_bytes())


def _compile(folder: Path) -> None:
    from bailee.sealing.masking import open_masker

    with contextlib.suppress(Problem, OSError):  # the agent tells it
        open_masker(folder)
