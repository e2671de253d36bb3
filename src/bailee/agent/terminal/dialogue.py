"""An interactive session: prompts, answers, questions, from the first line to the last."""

import inspect
import threading
from collections.abc import Callable, Generator, Iterator

from bailee.agent.conversations import say
from bailee.agent.costs import estimate_cost
from bailee.agent.events import Event
from bailee.agent.faults import told_as_problem
from bailee.agent.indicator import tell_indicator
from bailee.agent.survey import QUESTION
from bailee.agent.terminal.asking import Reader
from bailee.agent.terminal.commands import ALIASES, COMMANDS
from bailee.agent.terminal.screen import Screen
from bailee.agent.work import Work
from bailee.characters import make_visible
from bailee.policy.problems import Problem


class Dialogue:
    """A terminal and the work that is done in it.

    Args:
        on_ready: called once, when the first prompt has been drawn.
    """

    def __init__(self, work: Work, screen: Screen, on_ready: Callable[[], None] = lambda: None) -> None:
        self.work = work
        self.screen = screen
        self.survey = work.make_survey()
        # Ids of the reports that were sent from here, and the problem that was shown last.
        self.reports: list[str] = []
        self.fault = ""
        self._reader = Reader(
            [(name, command.help) for name, command in COMMANDS.items()],
            lambda: tell_indicator(work),
            on_ready,
        )

    def ask(self, question: str) -> str:
        """Ask a person; see `Reader.ask`."""
        self.screen.settle()
        return self._reader.ask(question)

    def run(self, first: str = "") -> None:
        """Read prompts and answer them until the user ends it.

        Args:
            first: a prompt that was given on the command line.
        """
        interrupts = 0
        while True:
            try:
                text, first = (first, "") if first else (self._reader.read(), "")
                interrupts = 0
            except KeyboardInterrupt:
                # One Ctrl-C empties the line, as in a shell; a second one leaves.
                interrupts += 1
                if interrupts > 1:
                    break
                self.screen.note("Ctrl-C once more, or Ctrl-D, ends.", "dim")
                continue
            except EOFError:
                break
            if not text:
                continue
            try:
                self.handle(text)
            except EOFError:
                break
            except KeyboardInterrupt:
                self.screen.note("interrupted", "yellow")
            except Problem as problem:
                self.fault = str(problem)
                self.screen.note(self.fault, "red")
        self.part()

    def handle(self, text: str) -> None:
        """Do what a line asks for; raises Problem, EOFError to end."""
        if text.startswith("/"):
            name, _, rest = text.partition(" ")
            command = COMMANDS.get(ALIASES.get(name, name))
            if command is None:
                raise Problem(f"there is no command {name}", fix="see: /help")
            command.run(self, rest.strip())
            return
        self.play(self.work.answer(say(text)))
        self.tell_usage()
        # What is consented to may change meanwhile; it shows in the indicator, and nobody waits for it.
        threading.Thread(target=self.refresh_account, name="account", daemon=True).start()
        if self.survey.end_turn():
            self.screen.note(QUESTION, "cyan")

    def refresh_account(self) -> None:
        """Ask what is in force for the account now, and show it."""
        self.work.refresh_account()
        self._reader.redraw()

    def play(self, events: Generator[Event]) -> None:
        """Show events as they come; an interrupt goes to whoever makes them.

        Raises:
            Problem: the model could not be reached, or refused the request.
        """
        try:
            with told_as_problem():
                for _ in interruptible(events, self.screen.show):
                    pass
        finally:
            self.screen.settle()

    def tell_usage(self) -> None:
        """Show what the conversation has taken so far."""
        work = self.work
        cost = estimate_cost(work.conversation.usage, work.model_name, work.context.provider)
        self.screen.tell_usage(
            work.conversation.usage, work.conversation.context_tokens, work.settings["contextTokens"], cost
        )

    def resume(self, id: str) -> None:
        """Go on with a session and show how it ended; raises Problem."""
        kept = self.work.resume_session(id)
        self._reader.remember(kept.said)
        self.screen.note(f"{make_visible(kept.session.title)} ({kept.session.id[:8]})", "bold")
        for message in kept.said[-4:]:
            for block in message["content"] if isinstance(message["content"], list) else ():
                if block.get("type") == "text":
                    text = "\n".join(make_visible(line) for line in block["text"].splitlines())
                    self.screen.note(("> " if message["role"] == "user" else "") + text)
        self.screen.note("Go on.", "dim")

    def part(self) -> None:
        """Say what becomes of the session that ends."""
        recorder = self.work.recorder
        if recorder is None or not recorder.is_kept:
            return
        session = self.work.cache.describe(self.work.cache.path(self.work.session))
        day = self.work.limits.of_session(session)
        until = f"until {day}" if day else "without an end"
        if masked := sum(recorder.masked.values()):
            self.screen.note(f"{masked} secrets were masked in what is kept.", "dim")
        self.screen.note(
            f"Session {session.id[:8]} is kept on this machine {until}, encrypted; "
            f"go on with it: bailee code --resume {session.id[:8]}",
            "dim",
        )


def interruptible(events: Generator[Event], show: Callable[[Event], None]) -> Iterator[Event]:
    """Show events and give them; a Ctrl-C while one is shown reaches the turn as if it had come in between.

    Raises:
        KeyboardInterrupt: what makes the events does not take an interrupt.
    """
    is_interrupted = False
    while True:
        try:
            event = events.throw(KeyboardInterrupt()) if is_interrupted else next(events)
            is_interrupted = False
            show(event)
        except StopIteration:
            return
        except KeyboardInterrupt:
            if inspect.getgeneratorstate(events) == inspect.GEN_CLOSED:
                raise
            is_interrupted = True
            continue
        yield event
