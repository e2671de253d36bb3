"""Waiting for what happens in another process."""

import time
from collections.abc import Callable
from typing import TypeVar

# Generous on purpose: a deadline only ends a test that would hang, it measures nothing.
DEADLINE_SECONDS = 30.0
_T = TypeVar("_T")


def wait_for(
    what: str, probe: Callable[[], _T | None], seconds: float = DEADLINE_SECONDS, *, pause: float = 0.01
) -> _T:
    """Return the first answer of a probe that is anything; fail after a while.

    Args:
        pause: seconds between two probes: more for one that starts a program.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = probe()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain for {what}"
        time.sleep(pause)
