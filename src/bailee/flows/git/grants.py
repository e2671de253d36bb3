"""What sessions may do with Git, where their service finds it: a file for each key.

The file goes with the session. A key without one opens no repository. Beside it lies, where the service
stopped the session, why it did.
"""

from pathlib import Path

import msgspec

from bailee.files import replace_file
from bailee.flows.git.access import Access

FOLDER = "git"


def grant(home: Path, key: str, access: Access) -> None:
    """Let the holder of a key reach repositories, in place of what it could before."""
    folder = home / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    replace_file(folder / f"{key}.json", msgspec.json.encode(access))


def find_grant(home: Path, key: str) -> Access | None:
    """Return what the holder of a key may do; None for nothing, also where that cannot be read."""
    try:
        return msgspec.json.decode((home / FOLDER / f"{key}.json").read_bytes(), type=Access)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def list_grants(home: Path) -> list[str]:
    """Return the keys that something was granted to."""
    return sorted(path.stem for path in (home / FOLDER).glob("*.json"))


def withdraw_grant(home: Path, key: str) -> None:
    """Take away what a key could reach."""
    for path in (home / FOLDER / f"{key}.json", _stop_of(home, key)):
        path.unlink(missing_ok=True)


def note_stop(home: Path, key: str, reason: str) -> None:
    """Tell whoever drives the session of a key that it was stopped, and why."""
    if find_grant(home, key) is not None:  # else nobody drives it any more
        replace_file(_stop_of(home, key), reason.encode())


def read_stop(home: Path, key: str) -> str:
    """Return why the session of a key was stopped; empty where it was not."""
    try:
        return _stop_of(home, key).read_text()
    except OSError:
        return ""


def _stop_of(home: Path, key: str) -> Path:
    return home / FOLDER / f"{key}.stopped"
