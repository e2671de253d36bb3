"""A real terminal to type into: tmux, with a server of its own that ends with the test."""

import contextlib
import secrets
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from counterparts.waiting import wait_for

# Each look at a terminal starts a program.
PAUSE = 0.1


class Terminal:
    """A program in a terminal of 110 by 50.

    Args:
        folder: where the socket of tmux lies.
    """

    def __init__(self, folder: Path) -> None:
        # A name of its own: the server of a terminal before it may still be ending.
        self._tmux = ["tmux", "-S", str(folder / f"tmux-{secrets.token_hex(4)}"), "-f", "/dev/null"]

    def start(self, command: Sequence[str], *, environment: Mapping[str, str], directory: Path) -> None:
        """Start a program; nothing of the environment around the tests reaches it."""
        variables = [f"{name}={value}" for name, value in environment.items()]
        run = ["env", "-i", "TERM=screen-256color", *variables, *command]
        options = ["-d", "-x", "110", "-y", "50", "-c", str(directory), "-s", "one"]
        settings = ["set", "-g", "remain-on-exit", "on", ";", "set", "-g", "history-limit", "5000"]
        self._call("start-server", ";", *settings, ";", "new-session", *options, *run)

    def type(self, text: str) -> None:
        """Type a text and Enter."""
        self._call("send-keys", "-t", "one", "-l", "--", text)
        self._call("send-keys", "-t", "one", "Enter")

    def press(self, *keys: str) -> None:
        """Press keys by their names, such as `C-c`."""
        self._call("send-keys", "-t", "one", *keys)

    @property
    def screen(self) -> str:
        """What is shown, and what was scrolled out of sight; lines that were folded are whole."""
        return self._call("capture-pane", "-p", "-J", "-S", "-5000", "-t", "one")

    @property
    def has_ended(self) -> bool:
        """Tell whether the program has ended."""
        return self._call("list-panes", "-t", "one", "-F", "#{pane_dead}").strip() == "1"

    def wait(self, text: str, *, times: int = 1) -> str:
        """Wait until a text is shown so many times, and return the screen."""
        wait_for(f"{text!r} on the screen", lambda: self.screen.count(text) >= times or None, pause=PAUSE)
        return self.screen

    def wait_until_ended(self) -> str:
        """Wait until the program has ended, and return the screen."""
        wait_for("the end of the program", lambda: self.has_ended or None, pause=PAUSE)
        return self.screen

    def leave(self) -> str:
        """Press `C-d` until the program has ended, and return the screen.

        Between an answer and the next prompt the terminal takes the key: the program never sees it.
        """

        def press() -> bool | None:
            if not self.has_ended:
                self.press("C-d")
            return self.has_ended or None

        wait_for("the end of the program", press, pause=2 * PAUSE)
        return self.screen

    def _call(self, *arguments: str) -> str:
        done = subprocess.run([*self._tmux, *arguments], capture_output=True, text=True, check=True)
        return done.stdout


@contextlib.contextmanager
def opening(folder: Path) -> Iterator[Terminal]:
    """Give a terminal and end all that runs in it."""
    terminal = Terminal(folder)
    try:
        yield terminal
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            terminal._call("kill-server")
