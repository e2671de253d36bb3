"""The keyring of a desktop: GNOME's, on a message bus of its own, both gone when what runs in it ends."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PASSWORD = "throw-away"
_UNLOCKED = f"printf {PASSWORD} | gnome-keyring-daemon --unlock --components=secrets >/dev/null"
# Nobody is there to type the password: what asks for it fails at once.
_LOCKED = "gnome-keyring-daemon --start --components=secrets >/dev/null"


def run_with_keyring(
    folder: Path, *words: str, is_locked: bool = False, code: Sequence[str] = ()
) -> "subprocess.CompletedProcess[str]":
    """Run the program with a user's keyring, which lies in `folder`, unlocked or not.

    Args:
        code: Python to run instead, and its arguments.
    """
    home, state, run = folder / "user", folder / "state", folder / "run"
    for place in (home, run, folder / "project"):
        place.mkdir(mode=0o700, exist_ok=True)
    command = [sys.executable, "-c", *code] if code else [sys.executable, "-m", "bailee", *words]
    script = f'{_LOCKED if is_locked else _UNLOCKED}; exec "$@"'
    return subprocess.run(
        ["dbus-run-session", "--", "sh", "-c", script, "sh", *command],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(run),
            "BAILEE_STATE": str(state),
            "LANG": "C.UTF-8",
        },
        cwd=folder / "project",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
