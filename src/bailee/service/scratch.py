"""Folders that live as long as a process: what a killed one left is taken away by the next that makes one."""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

_PREFIX = "bailee-run-"
_MODE = 0o755
_MAKING_SECONDS = 3600.0


class Scratch:
    """A folder below the system's temporary one that everybody may read, as a command in a boundary has to.

    The process holds a lock on it. One without its lock belongs to nobody: process numbers would not tell,
    because containers that share the temporary folder count their own. It can be read by everybody from when
    it is locked on, so that one which is only being made is told from one that is left.
    """

    def __init__(self) -> None:
        sweep_scratch()
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        self.path.chmod(_MODE)

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
                facts = os.fstat(descriptor)
                is_made = facts.st_mode & 0o777 == _MODE or time.time() - facts.st_mtime > _MAKING_SECONDS
                if facts.st_uid == os.geteuid() and is_made:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path, ignore_errors=True)
                    swept += 1
            finally:
                os.close(descriptor)
    return swept
