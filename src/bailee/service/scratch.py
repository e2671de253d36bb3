"""Folders that live as long as a process: what a killed one left is taken away by the next that makes one."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

_PREFIX = "bailee-run-"


class Scratch:
    """A folder below the system's temporary one that everybody may read, as a command in a boundary has to.

    The process holds a lock on it. One without its lock belongs to nobody: process numbers would not tell,
    because containers that share the temporary folder count their own.
    """

    def __init__(self) -> None:
        sweep_scratch()
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        self.path.chmod(0o755)

    def cleanup(self) -> None:
        """Take it away with all that is in it; again does nothing."""
        if self._descriptor >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cleanup()


def sweep_scratch(below: Path | None = None) -> int:
    """Take away what killed processes of this user left, and return how many folders that was."""
    swept = 0
    for path in (below or Path(tempfile.gettempdir())).glob(f"{_PREFIX}*"):
        # Another user's, and a link that somebody put there, cannot be opened so, or are not ours.
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(descriptor).st_uid == os.geteuid():
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path, ignore_errors=True)
                    swept += 1
            finally:
                os.close(descriptor)
    return swept
