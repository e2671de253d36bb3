"""What a tool is: what the model is told of it, what rules see of a call, and what it does."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from bailee.agent.permissions import Reach
from bailee.agent.tools.failures import Failed
from bailee.agent.tools.paths import Project

LONGEST_RESULT = 30_000  # characters; some 8,000 tokens


class Workspace:
    """What tools share in a session.

    Attributes:
        project: where they may look and write.
        seen: of each file that was read or written here, its modification time in nanoseconds and its size:
            a file that changed since is not overwritten unread.
        command_seconds: how long a command may run.
        withheld: variables that commands do not get, besides those that none ever does.
    """

    def __init__(
        self,
        project: Project,
        *,
        environment: Mapping[str, str],
        command_seconds: int,
        withheld: Sequence[str] = (),
        show: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.project = project
        self.environment = dict(environment)
        self.command_seconds = command_seconds
        self.withheld = tuple(withheld)
        self.seen: dict[Path, tuple[int, int]] = {}
        self.show = show

    def note(self, path: Path) -> None:
        """Remember a file as it is now."""
        state = path.stat()
        self.seen[path] = (state.st_mtime_ns, state.st_size)

    def is_current(self, path: Path) -> bool:
        """Tell whether a file is as it was when it was last read or written here."""
        state = path.stat()
        return self.seen.get(path) == (state.st_mtime_ns, state.st_size)


class Preview(msgspec.Struct, frozen=True):
    """What a call is about, for rules and for people.

    Attributes:
        subject: a path relative to the project, or a command line.
        detail: what a person should see before it happens, such as a diff; may be empty.
        is_sensitive: see `permissions.Call`.
    """

    subject: str
    detail: str = ""
    is_sensitive: bool = False


class Tool(Protocol):
    """One tool."""

    name: str
    reach: Reach
    description: str
    schema: Mapping[str, Any]

    def preview(self, arguments: Mapping[str, Any], workspace: Workspace) -> Preview:
        """Tell what a call would do; raises Failed if it cannot be done."""
        ...

    def run(self, arguments: Mapping[str, Any], workspace: Workspace) -> str:
        """Do it and return what the model is told; raises Failed."""
        ...


def take(arguments: Mapping[str, Any], name: str, kind: type, default: Any = None) -> Any:
    """Return an argument of a call.

    Raises:
        Failed: it is missing, or of another kind.
    """
    value = arguments.get(name, default)
    if value is None:
        raise Failed(f"the argument {name} is missing")
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise Failed(f"the argument {name} is not of the kind {kind.__name__}")
    return value


def shorten(text: str, limit: int = LONGEST_RESULT) -> str:
    """Keep the beginning and the end of a long text, and say how much is left out."""
    if len(text) <= limit:
        return text
    half = limit // 2
    left_out = len(text) - 2 * half
    return f"{text[:half]}\n[... {left_out:,} characters left out ...]\n{text[-half:]}"
