"""Where a Bailee installation keeps its state."""

import os
from collections.abc import Mapping
from pathlib import Path

from bailee.policy.problems import Problem


def home_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the state directory: `BAILEE_HOME`, else `bailee` in the XDG data directory.

    Source of the default: XDG Base Directory Specification 0.8, `XDG_DATA_HOME`.

    Raises:
        Problem: see `resolve`.
    """
    if chosen := environment.get("BAILEE_HOME"):
        return resolve(Path(chosen), where="BAILEE_HOME")
    data = environment.get("XDG_DATA_HOME") or "~/.local/share"
    return (
        resolve(Path(data), where="XDG_DATA_HOME" if environment.get("XDG_DATA_HOME") else "HOME") / "bailee"
    )


def resolve(path: Path, *, where: str) -> Path:
    """Return a path as an absolute one, `~` and `~user` replaced.

    Raises:
        Problem: there is no such user, or the working folder that a relative path begins at is gone.
    """
    try:
        return path.expanduser().absolute()
    except RuntimeError:
        raise Problem(
            f"there is no home folder for {path.parts[0]!r}",
            where=f"{where} {path}",
            fix="write the path in full",
        ) from None
    except FileNotFoundError:
        raise Problem(
            "the working folder is gone", where=f"{where} {path}", fix="change to one that is there"
        ) from None
