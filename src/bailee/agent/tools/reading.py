"""`read`: a file, its lines numbered."""

from collections.abc import Mapping
from typing import Any

from bailee.agent.permissions import Reach
from bailee.agent.tools.failures import Failed
from bailee.agent.tools.files import read_text
from bailee.agent.tools.protocol import Preview, Workspace, shorten, take

MOST_LINES = 2000
LONGEST_LINE = 2000  # characters


class ReadTool:
    """Reads a text file of the project."""

    name = "read"
    reach = Reach.LOOK
    description = (
        "Read a text file of the project. Lines come with their number and a tab. "
        f"At most {MOST_LINES} lines at a time: give `first` for the next ones."
    )
    schema: Mapping[str, Any] = {
        "type": "object",
        "properties": {
            "path": {"type": "string", "description": "The file, relative to the project's folder."},
            "first": {"type": "integer", "minimum": 1, "description": "The first line to show; default 1."},
            "lines": {"type": "integer", "minimum": 1, "description": "How many lines to show."},
        },
        "required": ["path"],
    }

    def preview(self, arguments: Mapping[str, Any], workspace: Workspace) -> Preview:
        """Tell which file would be read."""
        path = workspace.project.locate(take(arguments, "path", str))
        return Preview(workspace.project.name(path))

    def run(self, arguments: Mapping[str, Any], workspace: Workspace) -> str:
        """Return the lines asked for."""
        path = workspace.project.locate(take(arguments, "path", str))
        shown = workspace.project.name(path)
        first = max(1, take(arguments, "first", int, 1))
        count = min(MOST_LINES, max(1, take(arguments, "lines", int, MOST_LINES)))
        lines = read_text(workspace.project.root_of(path), path, shown).splitlines()
        workspace.note(path)
        if not lines:
            return "(the file is empty)"
        if first > len(lines):
            raise Failed(f"{shown} has {len(lines)} lines only")
        chosen = lines[first - 1 : first - 1 + count]
        text = "\n".join(f"{number}\t{_cut(line)}" for number, line in enumerate(chosen, first))
        rest = len(lines) - (first - 1 + len(chosen))
        return shorten(text) + (f"\n[{rest} more lines: first={first + len(chosen)}]" if rest else "")


def _cut(line: str) -> str:
    if len(line) <= LONGEST_LINE:
        return line
    return f"{line[:LONGEST_LINE]} [... {len(line) - LONGEST_LINE:,} characters more]"
