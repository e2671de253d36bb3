"""Where a Bailee installation keeps its state."""

import os
from collections.abc import Mapping
from pathlib import Path


def home_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the state directory: `BAILEE_HOME`, else `bailee` in the XDG data directory.

    Source of the default: XDG Base Directory Specification 0.8, `XDG_DATA_HOME`.

    Raises:
        RuntimeError: a `~user` in it is nobody's.
    """
    if chosen := environment.get("BAILEE_HOME"):
        return Path(chosen).expanduser().absolute()
    data = environment.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(data).expanduser().absolute() / "bailee"
