"""`write`: a whole file; `edit`: a piece of one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bailee.agent.permissions import Reach
from bailee.agent.tools.failures import Failed
from bailee.agent.tools.files import read_text, tell_difference, write_text
from bailee.agent.tools.protocol import Preview, Workspace, take


class WriteTool:
    """Writes a whole file."""

    name = "write"
    reach = Reach.CHANGE
    description = (
        "Write a whole text file of the project, with the folders that lead to it. "
        "A file that exists must have been read first. To change a part, use edit."
    )
    schema: Mapping[str, Any] = {
        "type": "object",
        "properties": {
            "path": {"type": "string", "description": "The file, relative to the project's folder."},
            "content": {"type": "string", "description": "The whole text."},
        },
        "required": ["path", "content"],
    }

    def preview(self, arguments: Mapping[str, Any], workspace: Workspace) -> Preview:
        """Show the difference to what is there."""
        path, before, after = self._plan(arguments, workspace)
        return _preview(path, before, after, workspace)

    def run(self, arguments: Mapping[str, Any], workspace: Workspace) -> str:
        """Write it."""
        path, _, after = self._plan(arguments, workspace)
        _put(path, after, workspace)
        return f"wrote {workspace.project.name(path)}, {len(after.splitlines())} lines"

    def _plan(self, arguments: Mapping[str, Any], workspace: Workspace) -> tuple[Path, str, str]:
        path = workspace.project.locate(take(arguments, "path", str))
        shown = workspace.project.name(path)
        before = ""
        if path.exists():
            before = read_text(workspace.project.root_of(path), path, shown)
            if not workspace.is_current(path):
                why = "changed since it was read" if path in workspace.seen else "exists and was not read yet"
                raise Failed(f"{shown} {why}: read it first")
        return path, before, take(arguments, "content", str)


class EditTool:
    """Replaces a piece of a file."""

    name = "edit"
    reach = Reach.CHANGE
    description = (
        "Replace text in a file of the project. The old text must stand there exactly once, "
        "white space included, unless `all` is true."
    )
    schema: Mapping[str, Any] = {
        "type": "object",
        "properties": {
            "path": {"type": "string", "description": "The file, relative to the project's folder."},
            "old": {"type": "string", "description": "The text that stands there."},
            "new": {"type": "string", "description": "The text in its place."},
            "all": {"type": "boolean", "description": "Replace it wherever it stands."},
        },
        "required": ["path", "old", "new"],
    }

    def preview(self, arguments: Mapping[str, Any], workspace: Workspace) -> Preview:
        """Show the difference."""
        path, before, after = self._plan(arguments, workspace)
        return _preview(path, before, after, workspace)

    def run(self, arguments: Mapping[str, Any], workspace: Workspace) -> str:
        """Make the change and return it as a diff."""
        path, before, after = self._plan(arguments, workspace)
        _put(path, after, workspace)
        shown = workspace.project.name(path)
        return f"edited {shown}\n{tell_difference(before, after, shown)}"

    def _plan(self, arguments: Mapping[str, Any], workspace: Workspace) -> tuple[Path, str, str]:
        path = workspace.project.locate(take(arguments, "path", str))
        shown = workspace.project.name(path)
        old, new = take(arguments, "old", str), take(arguments, "new", str)
        before = read_text(workspace.project.root_of(path), path, shown)
        if not old:
            raise Failed("the old text is empty: use write for a new file")
        if old == new:
            raise Failed("the old and the new text are the same")
        count = before.count(old)
        if count == 0:
            raise Failed(f"the old text does not stand in {shown}: read it, and copy the text exactly")
        if count > 1 and arguments.get("all") is not True:
            raise Failed(f"the old text stands in {shown} {count} times: give more of it, or set all")
        return path, before, before.replace(old, new)


def _preview(path: Path, before: str, after: str, workspace: Workspace) -> Preview:
    shown = workspace.project.name(path)
    return Preview(shown, tell_difference(before, after, shown), workspace.project.is_sensitive(path))


def _put(path: Path, text: str, workspace: Workspace) -> None:
    project = workspace.project
    write_text(project.root_of(path), path, text, project.name(path))
    workspace.note(path)
