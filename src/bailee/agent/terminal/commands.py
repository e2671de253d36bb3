"""The commands that begin with a slash."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from bailee.agent.permissions import Reach
from bailee.agent.privacy import tell_privacy
from bailee.agent.settings import Mode
from bailee.agent.terminal.asking import pick_session, tell_session
from bailee.agent.tools import TOOLS
from bailee.flows.survey.ratings import Rating
from bailee.policy.flows import FlowId
from bailee.policy.problems import Problem

if TYPE_CHECKING:
    from bailee.agent.terminal.dialogue import Dialogue


class Command(msgspec.Struct, frozen=True):
    """A command: what it is for, and what it does with the rest of its line."""

    help: str
    run: "Callable[[Dialogue, str], None]"


def _help(dialogue: "Dialogue", rest: str) -> None:
    width = max(len(name) for name in COMMANDS) + 2
    for name, command in COMMANDS.items():
        dialogue.screen.note(f"{name:<{width}}{command.help}")
    dialogue.screen.note("")
    dialogue.screen.note(
        "Alt+Enter or a \\ at the end goes on in a new line; Ctrl-C interrupts; Ctrl-D ends."
    )


def _privacy(dialogue: "Dialogue", rest: str) -> None:
    for line in tell_privacy(dialogue.work, rest):
        dialogue.screen.note(line)


def _mode(dialogue: "Dialogue", rest: str) -> None:
    if rest:
        try:
            mode = Mode(rest)
        except ValueError:
            raise Problem(f"there is no mode {rest!r}", fix=f"use one of {', '.join(Mode)}") from None
        dialogue.work.choose_mode(mode)
    dialogue.screen.note(f"mode {dialogue.work.gate.mode}: {_MODES[dialogue.work.gate.mode]}")


_MODES: Mapping[Mode, str] = {
    Mode.PLAN: "nothing is changed or run",
    Mode.ASK: "you are asked before anything is changed or run",
    Mode.EDITS: "files of the project are changed without asking; commands are asked about",
    Mode.ALL: "nothing is asked",
}


def _model(dialogue: "Dialogue", rest: str) -> None:
    if rest:
        dialogue.work.choose_model(rest)
    dialogue.screen.note(f"model {dialogue.work.model_name}")


def _compact(dialogue: "Dialogue", rest: str) -> None:
    if not dialogue.work.conversation.messages:
        raise Problem("there is nothing to summarize yet")
    dialogue.play(dialogue.work.compact())


def _cost(dialogue: "Dialogue", rest: str) -> None:
    dialogue.tell_usage()


def _clear(dialogue: "Dialogue", rest: str) -> None:
    dialogue.part()
    dialogue.work.begin_session()
    dialogue.screen.note("A new session.")


def _sessions(dialogue: "Dialogue", rest: str) -> None:
    sessions, problems = dialogue.work.cache.list(folder=None if rest == "all" else dialogue.work.folder)
    for session in sessions[:50]:
        dialogue.screen.note(tell_session(session))
    for problem in problems:
        dialogue.screen.note(str(problem), "red")
    if not sessions:
        dialogue.screen.note("No session of this project is kept on this machine.")


def _resume(dialogue: "Dialogue", rest: str) -> None:
    cache = dialogue.work.cache
    if rest:
        chosen = cache.find(rest)
    else:
        sessions, _ = cache.list(folder=dialogue.work.folder)
        picked = pick_session(sessions, dialogue.screen, dialogue.ask)
        if picked is None:
            return
        chosen = picked
    dialogue.part()
    dialogue.resume(chosen.id)


def _name(dialogue: "Dialogue", rest: str) -> None:
    recorder = dialogue.work.recorder
    if not rest or recorder is None or not recorder.is_kept:
        raise Problem(
            "the session has no name to change", fix="write /name NEW NAME, in a session that is kept"
        )
    recorder.fact(title=rest[:60])
    dialogue.screen.note(f"This session is called {rest[:60]!r}.")


def _pin(dialogue: "Dialogue", rest: str) -> None:
    recorder = dialogue.work.recorder
    if recorder is None or not recorder.is_kept:
        raise Problem("the session is not kept, so it cannot be pinned")
    recorder.fact(pinned=rest != "off")
    dialogue.screen.note("Pinned: it is not deleted by time." if rest != "off" else "No longer pinned.")


def _rate(dialogue: "Dialogue", rest: str) -> None:
    if rest == "never":
        dialogue.survey.never()
        dialogue.screen.note("You will not be asked again on this machine.")
        return
    try:
        rating = Rating(rest)
    except ValueError:
        raise Problem(f"{rest!r} is no rating", fix=f"use one of {', '.join(Rating)}, never") from None
    if (decision := dialogue.work.decision(FlowId.SURVEY)).allowed:
        was_rated = dialogue.survey.is_rated
        if dialogue.survey.answer(rating):
            told = f"Sent: {rating}, and nothing else."
        elif was_rated:
            told = "Not sent: this session was rated already."
        else:
            told = "Not sent: there is no service that takes it. See: bailee login"
        dialogue.screen.note(told)
    else:
        raise Problem(f"the survey is switched off: {decision.rules[0].text}", where=decision.decided_by)


def _bug(dialogue: "Dialogue", rest: str) -> None:
    from bailee.agent.terminal.reporting import report_bug

    report_bug(dialogue, rest)


def _tools(dialogue: "Dialogue", rest: str) -> None:
    words = {Reach.LOOK: "looks", Reach.CHANGE: "changes files", Reach.RUN: "runs commands"}
    for tool in TOOLS.values():
        dialogue.screen.note(f"{tool.name:<8}{words[tool.reach]}")


def _quit(dialogue: "Dialogue", rest: str) -> None:
    raise EOFError


COMMANDS: Mapping[str, Command] = {
    "/help": Command("these commands", _help),
    "/privacy": Command("what leaves this machine and why; /privacy FLOW tells one in full", _privacy),
    "/mode": Command("plan, ask, edits or all: what is done without asking", _mode),
    "/model": Command("the model that answers; /model NAME changes it", _model),
    "/cost": Command("what this session has taken", _cost),
    "/compact": Command("replace the conversation by a summary of it", _compact),
    "/clear": Command("begin a new session", _clear),
    "/sessions": Command("the sessions kept of this project; /sessions all", _sessions),
    "/resume": Command("go on with another session", _resume),
    "/name": Command("give this session a name", _name),
    "/pin": Command("keep this session past its time; /pin off", _pin),
    "/rate": Command("say how the session goes: 1, 2, 3, dismiss; never: not to be asked", _rate),
    "/bug": Command("report a bug: shows all that would be sent, and asks; /bug undo takes it back", _bug),
    "/feedback": Command("the same as /bug", _bug),
    "/tools": Command("what the model may call", _tools),
    "/quit": Command("end; so does /exit", _quit),
}

# Other agents' words for the same; the help lists each command once.
ALIASES: Mapping[str, str] = {"/exit": "/quit"}
