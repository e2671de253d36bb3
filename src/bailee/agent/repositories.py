"""The repository that the agent was started in."""

from pathlib import Path


def find_root(folder: Path) -> Path:
    """Return the folder of the repository that a folder lies in; the folder itself where there is none."""
    return next((place for place in (folder, *folder.parents) if (place / ".git").exists()), folder)


def list_above(folder: Path) -> tuple[Path, ...]:
    """Return the folders above one that are of the same repository, the nearest first."""
    root = find_root(folder)
    return tuple(place for place in folder.parents if place.is_relative_to(root)) if root != folder else ()
