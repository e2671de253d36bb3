"""Where the agent keeps what it keeps on this machine: apart from a service's home."""

import os
from collections.abc import Mapping
from pathlib import Path

from bailee.policy.problems import Problem


def state_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of the agent's state: `BAILEE_STATE`, else `bailee` in the XDG state directory.

    Source of the default: XDG Base Directory Specification 0.8, `XDG_STATE_HOME`.

    Raises:
        Problem: it is in the folder of a user who is not there.
    """
    chosen = environment.get("BAILEE_STATE")
    base = environment.get("XDG_STATE_HOME") or "~/.local/state"
    try:
        if chosen:
            return Path(chosen).expanduser().absolute()
        return Path(base).expanduser().absolute() / "bailee"
    except RuntimeError:
        raise Problem(
            "the state is in the folder of a user who is not there",
            where="BAILEE_STATE" if chosen else "XDG_STATE_HOME",
            fix="write the path in full",
        ) from None


def make_private(folder: Path) -> Path:
    """Make a folder, and what leads to it, that only its owner can look into; return it.

    Raises:
        Problem: it cannot be made, or others can look into it and that cannot be changed.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_mode & 0o077:
            folder.chmod(0o700)
    except OSError as fault:
        raise Problem(
            f"the agent's state cannot be kept: {fault.strerror}",
            where=str(folder),
            fix="let this user write there, or name another folder in BAILEE_STATE",
        ) from None
    return folder
