"""Keeps what is in a process's memory out of core files."""

import resource
import sys

# Source: prctl(2).
_PR_SET_DUMPABLE = 4


def forbid_dumps() -> None:
    """Let no core file be made of this process, whatever ends it.

    The limit alone does not do: where core files are piped to a program, as crash reporters have it, the
    kernel does not heed it (core(5)). A process that is not dumpable is not offered to any. Its files under
    /proc belong to root then, and nobody else may attach to it.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
