"""Paths of tools: below the project's folder or one that was added, wherever links lead."""

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bailee.agent.tools.failures import Failed

SENSITIVE = (".git", ".bailee", ".claude", ".vscode", ".idea", ".husky", ".github")
SENSITIVE_FILES = (".gitmodules", ".envrc", ".pre-commit-config.yaml", "AGENTS.md", "CLAUDE.md")


class Project(msgspec.Struct, frozen=True):
    """Where an agent works.

    Attributes:
        folder: the project's folder, links resolved.
        added: other folders that it may work in, links resolved.
    """

    folder: Path
    added: tuple[Path, ...] = ()

    @classmethod
    def at(cls, folder: Path, added: Sequence[Path] = ()) -> "Project":
        """Return the project at a folder, links resolved."""
        return cls(folder.resolve(), tuple(other.resolve() for other in added))

    def locate(self, name: str) -> Path:
        """Return where a path really leads.

        Raises:
            Failed: it leads out of the project; a link counts for what it leads to.
        """
        try:
            path = Path(name).expanduser()
            real = Path(os.path.realpath(path if path.is_absolute() else self.folder / path))
        except (
            ValueError,
            RuntimeError,
            OSError,
        ) as fault:  # a NUL; nobody's home; a ring of links
            raise Failed(f"there is no such path: {fault}") from None
        if not any(real == root or real.is_relative_to(root) for root in (self.folder, *self.added)):
            raise Failed(
                f"{name} is outside the project {self.folder}; "
                "the user can add a folder with --add-folder, nobody else can"
            )
        return real

    def root_of(self, path: Path) -> Path:
        """Return the folder, the project's or an added one, that a located path is below."""
        return next(root for root in (self.folder, *self.added) if path.is_relative_to(root))

    def name(self, path: Path) -> str:
        """Return a path as people and rules write it: relative to the project where it is below it."""
        return str(path.relative_to(self.folder)) if path.is_relative_to(self.folder) else str(path)

    def is_sensitive(self, path: Path) -> bool:
        """Tell whether a change there would later run by itself, or govern the agent."""
        name = self.name(path)
        parts = Path(name).parts
        return bool(set(parts) & set(SENSITIVE)) or path.name in SENSITIVE_FILES
