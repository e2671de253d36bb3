"""Which of a home's stores were made once: what is missing then was lost, and is not made anew in silence.

An empty store in place of a lost one would say that nothing is held, that no hold is in force and that an
erasure was done. So each is noted in the home when it is first opened, and refused when it is gone later.
A restore makes what is lost, and goes by a way of its own.
"""

import contextlib
import secrets
from pathlib import Path

from bailee.files import sync_folder, write_private
from bailee.policy.problems import Problem

FILE = "stores"


def read_made(home: Path) -> frozenset[str]:
    """Return the names of the stores that were made in a home once.

    Raises:
        Problem: the note is there and cannot be read: nobody can tell what was lost.
    """
    try:
        return frozenset((home / FILE).read_text(encoding="ascii").split())
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    except (OSError, UnicodeDecodeError) as fault:
        raise Problem(
            f"it cannot be told which stores this home has: {fault}",
            where=str(home / FILE),
            fix="check the file and its owner",
        ) from None


def note_made(home: Path, name: str) -> None:
    """Note that a store was made, or was found."""
    if name in (known := read_made(home)):
        return
    # Whole or not at all, and under a drawn name: two processes may open a new home at once. A name that one
    # takes from the other's note comes back when that store is opened next.
    staged = home / f".{FILE}.{secrets.token_hex(8)}"
    write_private(staged, "".join(f"{one}\n" for one in sorted(known | {name})).encode())
    staged.rename(home / FILE)
    with contextlib.suppress(OSError):
        sync_folder(home)


def tell_lost(name: str, where: str) -> Problem:
    """Return what to say of a store that was made once and is gone."""
    return Problem(
        f"the {name} of this home is gone",
        where=where,
        fix="put it back, or restore it: bailee backup restore. Nothing is made anew in its place",
    )
