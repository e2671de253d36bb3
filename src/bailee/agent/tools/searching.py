"""`search`: a regular expression in the project's files; `list`: what lies in a folder."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from bailee.agent.permissions import Reach
from bailee.agent.tools.failures import Failed
from bailee.agent.tools.paths import Project
from bailee.agent.tools.protocol import Preview, Workspace, shorten, take

SECONDS = 30
MOST_MATCHES = 500
MOST_ENTRIES = 1000
LONGEST_LINE = 300  # characters
LARGEST_FILE = 2_000_000  # bytes
SKIPPED = frozenset({".git", ".hg", ".svn", "node_modules", "__pycache__", ".venv", ".tox", ".mypy_cache"})


class SearchTool:
    """Finds lines by a regular expression: with ripgrep where it is installed, else with Python."""

    name = "search"
    reach = Reach.LOOK
    description = (
        "Find lines in the project's files by a regular expression. Answers path:line:text. "
        "What Git ignores is left out where ripgrep is installed."
    )
    schema: Mapping[str, Any] = {
        "type": "object",
        "properties": {
            "pattern": {"type": "string", "description": "A regular expression."},
            "path": {"type": "string", "description": "A file or folder to search in; default: the project."},
            "glob": {"type": "string", "description": "Only files whose name fits, such as *.py."},
            "ignore_case": {"type": "boolean"},
        },
        "required": ["pattern"],
    }

    def preview(self, arguments: Mapping[str, Any], workspace: Workspace) -> Preview:
        """Tell where would be searched."""
        path = workspace.project.locate(take(arguments, "path", str, "."))
        return Preview(workspace.project.name(path), detail=take(arguments, "pattern", str))

    def run(self, arguments: Mapping[str, Any], workspace: Workspace) -> str:
        """Return the lines found."""
        path = workspace.project.locate(take(arguments, "path", str, "."))
        pattern = take(arguments, "pattern", str)
        glob = take(arguments, "glob", str, "*")
        ignore_case = arguments.get("ignore_case") is True
        if not path.exists():
            raise Failed(f"{workspace.project.name(path)} does not exist")
        program = shutil.which("rg", path=workspace.environment.get("PATH"))
        found = (
            _search_with_ripgrep(program, pattern, path, glob, ignore_case, workspace)
            if program
            else _search(pattern, path, glob, ignore_case, workspace)
        )
        return found or "(nothing found)"


def _search_with_ripgrep(
    program: str, pattern: str, path: Path, glob: str, ignore_case: bool, workspace: Workspace
) -> str:
    # No configuration file: one of the user's could preprocess files with a program.
    command = [program, "--no-config", "--line-number", "--no-heading", "--color=never", "--no-follow"]
    command += ["--max-columns", str(LONGEST_LINE), "--max-columns-preview", "--hidden", "--glob", "!.git"]
    command += ["--sort=path", "--max-count", str(MOST_MATCHES)]
    command += [*(["--ignore-case"] if ignore_case else []), *(["--glob", glob] if glob != "*" else [])]
    folder = path if path.is_dir() else path.parent
    target = "." if path.is_dir() else path.name
    try:
        done = subprocess.run(
            [*command, "--regexp", pattern, "--", target],
            cwd=folder,
            env=workspace.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"the search took longer than {SECONDS} s: search in a smaller folder") from None
    if done.returncode > 1 and not done.stdout:
        raise Failed(done.stderr.decode(errors="replace").strip()[:2000])
    lines = done.stdout.decode(errors="replace").splitlines()
    prefix = workspace.project.name(folder)
    shown = [
        line.removeprefix("./") if prefix == "." else f"{prefix}/{line.removeprefix('./')}" for line in lines
    ]
    return _tell(shown)


def _search(pattern: str, path: Path, glob: str, ignore_case: bool, workspace: Workspace) -> str:
    try:
        re.compile(pattern)
    except re.error as fault:
        raise Failed(f"the pattern is no regular expression: {fault}") from None
    asked = [pattern, str(path), str(workspace.project.folder), glob, ignore_case]
    try:
        # A process of its own: nothing ends an expression that goes back and forth over a line for ever.
        done = subprocess.run(
            [sys.executable, "-P", "-m", __name__],
            input=json.dumps(asked).encode(),
            cwd="/",
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"the search took longer than {SECONDS} s: use a simpler expression") from None
    if done.returncode:
        raise Failed("the search did not end well: use a simpler expression")
    found: list[str] = json.loads(done.stdout)
    return _tell(found)


def find_lines(pattern: str, path: Path, project: Project, glob: str, ignore_case: bool) -> list[str]:
    """Return the lines that fit, as path:line:text; one more than are told, where there are more."""
    expression = re.compile(pattern, re.IGNORECASE if ignore_case else 0)
    found: list[str] = []
    for file in [path] if path.is_file() else _files(path):
        if len(found) > MOST_MATCHES:
            break
        shown = project.name(file)
        if not (fnmatchcase(file.name, glob) or fnmatchcase(shown, glob)):
            continue
        for number, line in enumerate(_lines(file), 1):
            if expression.search(line):
                found.append(f"{shown}:{number}:{line[:LONGEST_LINE]}")
    return found


def _tell(lines: list[str]) -> str:
    more = len(lines) - MOST_MATCHES
    text = "\n".join(lines[:MOST_MATCHES])
    return shorten(text) + (f"\n[{more} more lines: search more narrowly]" if more > 0 else "")


def _files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in SKIPPED)
        yield from (Path(place) / name for name in sorted(names))


def _lines(path: Path) -> list[str]:
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > LARGEST_FILE:
            return []
        data = path.read_bytes()
    except OSError:
        return []
    return [] if b"\0" in data[:8000] else data.decode(errors="replace").splitlines()


class ListTool:
    """Lists a folder."""

    name = "list"
    reach = Reach.LOOK
    description = "List what lies in a folder of the project, folders with a slash at the end."
    schema: Mapping[str, Any] = {
        "type": "object",
        "properties": {
            "path": {"type": "string", "description": "The folder; default: the project."},
            "depth": {"type": "integer", "minimum": 1, "maximum": 5, "description": "How deep; default 1."},
        },
    }

    def preview(self, arguments: Mapping[str, Any], workspace: Workspace) -> Preview:
        """Tell which folder would be listed."""
        return Preview(workspace.project.name(workspace.project.locate(take(arguments, "path", str, "."))))

    def run(self, arguments: Mapping[str, Any], workspace: Workspace) -> str:
        """Return the names, sorted."""
        path = workspace.project.locate(take(arguments, "path", str, "."))
        if not path.is_dir():
            raise Failed(f"{workspace.project.name(path)} is no folder")
        depth = min(5, max(1, take(arguments, "depth", int, 1)))
        names: list[str] = []
        for entry in _entries(path, depth):
            if len(names) == MOST_ENTRIES:
                names.append("[more: list a folder further down]")
                break
            names.append(entry)
        return "\n".join(names) or "(the folder is empty)"


def _entries(folder: Path, depth: int, prefix: str = "") -> Iterator[str]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as fault:
        yield f"{prefix}[cannot be read: {fault.strerror}]"
        return
    for entry in entries:
        is_folder = entry.is_dir(follow_symlinks=False)
        yield f"{prefix}{entry.name}{'/' if is_folder else ''}"
        if is_folder and depth > 1 and entry.name not in SKIPPED:
            yield from _entries(Path(entry.path), depth - 1, f"{prefix}{entry.name}/")


if __name__ == "__main__":
    words, place, folder, wanted, is_blind = json.load(sys.stdin)
    json.dump(find_lines(words, Path(place), Project(Path(folder)), wanted, is_blind), sys.stdout)
