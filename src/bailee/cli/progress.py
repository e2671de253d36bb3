"""A bar on the terminal for what takes long."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

AFTER_SECONDS = 0.5  # what takes less needs no bar, and Rich takes 60 ms to load


@contextmanager
def draw_progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function that draws a bar on the terminal once the work has taken a while.

    It takes how much is done, and of how much. Nothing is drawn where standard error is no terminal.

    Args:
        what: what is being done, such as `Verifying`.
    """
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    begun = time.monotonic()
    bars: list[Callable[[int, int], None]] = []
    ends: list[Callable[[], None]] = []

    def report(done: int, total: int) -> None:
        if not bars and time.monotonic() - begun > AFTER_SECONDS:
            from rich.console import Console
            from rich.progress import Progress

            bar = Progress(console=Console(stderr=True), transient=True)
            task = bar.add_task(what, total=total)
            bar.start()
            bars.append(lambda done, total: bar.update(task, completed=done, total=total))
            ends.append(bar.stop)
        for draw in bars:
            draw(done, total)

    try:
        yield report
    finally:
        for end in ends:
            end()
