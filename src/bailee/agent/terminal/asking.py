"""What the terminal asks a person: the next prompt, whether a call may go ahead, which session.

Every answer is a line that ends with Enter: no single key sends, allows or rates anything.
"""

import sys
import termios
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from bailee.agent.conversations import texts
from bailee.agent.permissions import Call, Reach, Verdict, propose_rule
from bailee.agent.sessions.cache import Session
from bailee.agent.terminal.screen import Screen
from bailee.agent.tools import Preview
from bailee.agent.turns import Approval
from bailee.characters import make_visible
from bailee.moments import tell_minute
from bailee.sizes import tell_count

if TYPE_CHECKING:
    pass

PROMPT = "> "
MOST_SHOWN = 20


class Reader:
    """Reads lines from the terminal, with history, completion of commands, and a line of what is in force.

    Args:
        commands: what can be completed after a slash, with a line of help each.
        toolbar: the line at the bottom, asked for anew each time.
        on_ready: called once, when the first prompt has been drawn.
    """

    def __init__(
        self, commands: Iterable[tuple[str, str]], toolbar: Callable[[], str], on_ready: Callable[[], None]
    ) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter
        from prompt_toolkit.history import InMemoryHistory
        from prompt_toolkit.key_binding import KeyBindings

        keys = KeyBindings()

        @keys.add("escape", "enter")
        def _(event: object) -> None:
            event.current_buffer.insert_text("\n")  # type: ignore[attr-defined]

        self._history = InMemoryHistory()
        names = dict(commands)
        self._session: PromptSession[str] = PromptSession(
            history=self._history,
            key_bindings=keys,
            bottom_toolbar=toolbar,
            completer=WordCompleter(list(names), meta_dict=names, sentence=True),
            complete_while_typing=False,
            enable_open_in_editor=False,  # it would write the prompt to a temporary file, in clear
        )
        drawn = self._session.app.after_render

        def be_ready(_: object) -> None:
            drawn.remove_handler(be_ready)
            on_ready()

        drawn.add_handler(be_ready)

    def remember(self, messages: Iterable[dict[str, object]]) -> None:
        """Put what was said in a resumed session into the history of this terminal; no file is written."""
        for message in messages:
            if message["role"] == "user":
                for text in texts(message):
                    self._history.append_string(text)

    def redraw(self) -> None:
        """Draw the line of what is in force anew; any thread may ask for it."""
        self._session.app.invalidate()

    def read(self, *, default: str = "") -> str:
        """Return the next prompt.

        Raises:
            EOFError, KeyboardInterrupt: Ctrl-D; Ctrl-C.
        """
        text = self._session.prompt(PROMPT, default=default)
        while text.endswith("\\"):
            text = text[:-1] + "\n" + self._session.prompt(". ")
        return text.strip()

    def ask(self, question: str) -> str:
        """Return the answer to a question, without a trace in the history.

        Raises:
            EOFError, KeyboardInterrupt: Ctrl-D; Ctrl-C.
        """
        from prompt_toolkit import prompt

        forget_typed_ahead()
        return prompt(question).strip()


def forget_typed_ahead() -> None:
    """Drop what was typed before a question stood there: it cannot be the answer."""
    from prompt_toolkit.application.current import get_app_session
    from prompt_toolkit.input.typeahead import clear_typeahead

    clear_typeahead(get_app_session().input)
    if sys.stdin.isatty():
        termios.tcflush(sys.stdin, termios.TCIFLUSH)


class Approver:
    """Asks whether a call may go ahead. Whatever is neither yes nor always is no, and told to the model."""

    def __init__(self, ask: Callable[[str], str]) -> None:
        self._ask = ask

    def __call__(self, call: Call, preview: Preview, verdict: Verdict) -> Approval:
        rule = propose_rule(call)
        what = {Reach.RUN: "Run this command?", Reach.CHANGE: "Make this change?"}.get(
            call.reach, "Allow it?"
        )
        if call.is_sensitive:
            what = f"{make_visible(call.subject)} may run by itself later, or governs the agent. {what}"
        always = "" if call.is_sensitive else f", always ({make_visible(str(rule))})"
        try:
            answer = self._ask(f"{what} yes, no{always}, or what to do instead: ")
        except EOFError:
            return Approval(False)
        match answer.lower():
            case "y" | "yes":
                return Approval(True)
            case "a" | "always" if not call.is_sensitive:
                return Approval(True, rule)
            case "" | "n" | "no":
                return Approval(False)
            case _:
                return Approval(False, note=answer)


def pick_session(sessions: Sequence[Session], screen: Screen, ask: Callable[[str], str]) -> Session | None:
    """Let a person choose a session by its number, or search by words; None if none is chosen."""
    shown = list(sessions)
    while True:
        if not shown:
            screen.note("No session fits.")
            shown = list(sessions)
        for number, session in enumerate(shown[:MOST_SHOWN], 1):
            screen.note(f"{number:>3}  {tell_session(session)}")
        if len(shown) > MOST_SHOWN:
            screen.note(f"     {len(shown) - MOST_SHOWN} more: search")
        try:
            answer = ask("Number, words to search for, or nothing to leave: ")
        except (EOFError, KeyboardInterrupt):
            return None
        if not answer:
            return None
        if answer.isdecimal() and 1 <= int(answer) <= min(len(shown), MOST_SHOWN):
            return shown[int(answer) - 1]
        shown = search(sessions, answer)


def search(sessions: Sequence[Session], words: str) -> list[Session]:
    """Return the sessions in whose name, folder or id every word stands."""
    wanted = words.lower().split()
    return [
        session
        for session in sessions
        if all(word in f"{session.title} {session.folder} {session.id}".lower() for word in wanted)
    ]


def tell_session(session: Session) -> str:
    """Return a line about a session."""
    facts = [tell_count(session.messages, "message"), session.id[:8], make_visible(session.folder)]
    facts += ["pinned"] if session.is_pinned else []
    return f"{tell_minute(session.used)}  {make_visible(session.title)}  ({', '.join(facts)})"
