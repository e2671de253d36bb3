"""What the terminal shows of a turn: Markdown as it comes, calls, differences, and a line of what it took."""

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text as Styled

from bailee.agent.costs import tell_tokens
from bailee.agent.events import Answered, Called, Compacted, Ended, Event, Result, Text, Thinking, Usage
from bailee.characters import make_visible

if TYPE_CHECKING:
    from rich.live import Live

SHOWN_LINES = 6  # of a result; the model has all of it
SHOWN_DIFFERENCE = 60  # lines
_REASONS = {
    "interrupted": "interrupted; say how to go on",
    "limit": "stopped at the limit; say `go on` to continue",
    "refused": "the model declined to answer this",
}


def make_console(environment: Mapping[str, str] = os.environ) -> Console:
    """Return the console, without colour where NO_COLOR or a dumb terminal asks for none."""
    is_plain = bool(environment.get("NO_COLOR")) or environment.get("TERM") == "dumb"
    return Console(no_color=is_plain, highlight=False, soft_wrap=False, file=sys.stdout)


class Screen:
    """Draws events.

    A paragraph is drawn as Markdown when it is whole, and stays; only the one that is being said is redrawn.

    Args:
        plain: no redrawing at all, for screen readers and logs.
    """

    def __init__(self, console: Console, *, plain: bool = False) -> None:
        self.console = console
        self._plain = plain or not console.is_terminal
        self._pending = ""
        self._live: Live | None = None
        self._is_thinking = False

    def show(self, event: Event) -> None:
        """Draw one event."""
        match event:
            case Text(text=text):
                self._say(text)
            case Thinking():
                if not self._is_thinking:
                    self._is_thinking = True
                    self._line("thinking", "dim italic")
            case Called(tool=tool, subject=subject, detail=detail):
                self.settle()
                self._call(tool, subject, detail)
            case Result(tool="edit" | "write", is_error=False):
                pass  # the difference was shown when it was called
            case Result(text=text, is_error=is_error):
                self._result(text, is_error)
            case Answered():
                self.settle()
                self._is_thinking = False
            case Compacted(before_tokens=before):
                self._line(f"The conversation was summarized: it had {tell_tokens(before)} tokens.", "yellow")
            case Ended(reason=reason):
                self.settle()
                if reason in _REASONS:
                    self._line(_REASONS[reason], "yellow")

    def settle(self) -> None:
        """Draw what is still being said as it is."""
        self._stop_live()
        if self._pending.strip():
            self._draw(self._pending)
        self._pending = ""

    def output(self, text: str) -> None:
        """Show what a command prints while it runs."""
        if self._plain:
            return
        lines = [line for line in text.splitlines() if line.strip()]
        if lines:
            from rich.live import Live

            self._stop_live()
            self._live = Live(
                Styled("  " + make_visible(lines[-1])[: self.console.width - 4], style="dim"),
                console=self.console,
                transient=True,
                refresh_per_second=8,
            )
            self._live.start()

    def difference(self, text: str) -> None:
        """Show a unified diff."""
        from rich.padding import Padding
        from rich.syntax import Syntax

        lines = text.splitlines()
        shown = "\n".join(make_visible(line.replace("\t", "    ")) for line in lines[:SHOWN_DIFFERENCE])
        if self.console.no_color or self._plain:
            self.console.print(Padding(Styled(shown), (0, 0, 0, 2)))
        else:
            self.console.print(
                Padding(Syntax(shown, "diff", theme="ansi_dark", background_color="default"), (0, 0, 0, 2))
            )
        if len(lines) > SHOWN_DIFFERENCE:
            self._line(f"  ... {len(lines) - SHOWN_DIFFERENCE} lines more", "dim")

    def note(self, text: str, style: str = "") -> None:
        """Show a line of the agent itself."""
        self.settle()
        self._line(text, style)

    def tell_usage(self, usage: Usage, context_tokens: int, limit: int, cost: float | None) -> None:
        """Show what a conversation has taken so far."""
        read = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
        parts = [f"{tell_tokens(read)} tokens in", f"{tell_tokens(usage.output_tokens)} out"]
        if cost is not None:
            parts.append(f"${cost:.2f}" if cost >= 0.01 else f"${cost:.4f}")
        parts.append(f"context {100 * context_tokens // limit}%")
        self._line(" · ".join(parts), "dim")

    def _line(self, text: str, style: str = "") -> None:
        self._stop_live()
        self.console.print(Styled(text, style=style))

    def _say(self, text: str) -> None:
        self._pending += text
        whole, rest = split_whole(self._pending)
        if whole:
            self._stop_live()
            self._draw(whole)
            self._pending = rest
        if self._plain or not self._pending.strip():
            return
        shown = Styled("\n".join(make_visible(line) for line in self._pending.splitlines()[-12:]))
        if self._live is None:
            from rich.live import Live

            self._live = Live(shown, console=self.console, transient=True, refresh_per_second=12)
            self._live.start()
        else:
            self._live.update(shown)

    def _draw(self, text: str) -> None:
        # Loaded when there is something to draw: 60 ms that would stand between start and prompt.
        from rich.markdown import Markdown

        # What a terminal would obey is no part of Markdown.
        safe = "\n".join(make_visible(line.replace("\t", "    ")) for line in text.splitlines())
        if self._plain and not self.console.is_terminal:
            self.console.print(Styled(safe))
        else:
            self.console.print(Markdown(safe, code_theme="ansi_dark", hyperlinks=False))

    def _call(self, tool: str, subject: str, detail: str) -> None:
        head = Styled.assemble((f"{tool} ", "bold"), make_visible(subject))
        self.console.print(head)
        if tool in ("edit", "write") and detail:
            self.difference(detail)

    def _result(self, text: str, is_error: bool) -> None:
        self._stop_live()
        lines = [line for line in text.splitlines() if line.strip()]
        shown = lines[-SHOWN_LINES:] if is_error else lines[:SHOWN_LINES]
        style = "red" if is_error else "dim"
        if is_error:
            self.console.print(Styled("  failed", style="red"))
        for line in shown:
            told = Styled("  " + make_visible(line.expandtabs(4)), style=style)
            self.console.print(told, overflow="ellipsis", no_wrap=True)
        if len(lines) > len(shown):
            self._line(f"  ... {len(lines) - len(shown)} lines more", "dim")

    def _stop_live(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def split_whole(text: str) -> tuple[str, str]:
    """Split Markdown after its last whole block: a paragraph that has ended, a fence that is closed."""
    cut = 0
    at = 0
    is_fenced = False
    for line in text.splitlines(keepends=True):
        at += len(line)
        if line.lstrip().startswith(("```", "~~~")):
            is_fenced = not is_fenced
            if not is_fenced and line.endswith("\n"):
                cut = at
        elif not is_fenced and not line.strip() and line.endswith("\n"):
            cut = at
    return text[:cut], text[cut:]
