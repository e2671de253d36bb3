"""`bailee code`: the coding agent, in a terminal or for scripts."""

import os
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bailee.characters import make_visible
from bailee.cli.options import working_folder
from bailee.policy.problems import Problem

if TYPE_CHECKING:
    from bailee.agent.settings import Effective
    from bailee.agent.work import Work
    from bailee.cli.takeovers import TakenOver

LARGEST_INPUT = 1_000_000  # bytes
PRINT = ("-p", "--print")
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as a shell would tell it


class _Code(click.Command):
    """Tells an option that stands where `-p` has its prompt, before it is taken for that."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line; raises Problem."""
        options = {name for parameter in self.get_params(ctx) for name in parameter.opts}
        for word, after in pairwise(args):
            if word == "--":
                break
            # A prompt may begin with dashes; none is an option of this command to the letter.
            if word in PRINT and after.partition("=")[0] in options and not any(map(str.isspace, after)):
                raise Problem(
                    f"{after} is taken for the prompt",
                    where=word,
                    fix=f"give options before it: bailee code {after} ... {word} PROMPT",
                )
        return super().parse_args(ctx, args)


@click.command(
    cls=_Code,
    epilog="Exit codes: 0 done, 1 the model or a limit ended it, 2 a setting is wrong, 130 interrupted.",
)
@click.argument("prompt", required=False)
@click.option(*PRINT, "printed", metavar="PROMPT", help="Answer this prompt, print the answer, and end.")
@click.option(
    "--output",
    type=click.Choice(["text", "json", "stream"]),
    default="text",
    show_default=True,
    help="With -p: the answer, one JSON object, or each event as a line of JSON.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --output json.")
@click.option(
    "-c", "--continue", "is_continued", is_flag=True, help="Go on with the session used last in this folder."
)
@click.option(
    "--resume",
    is_flag=False,
    flag_value="",
    metavar="[ID]",
    help="Go on with a session; without an id, choose one.",
)
@click.option(
    "--from-cloud",
    metavar="ID",
    help="Take a cloud session over: check its branch out here, and go on with its conversation.",
)
@click.option("--yes", is_flag=True, help="With --from-cloud: do not ask.")
@click.option("--model", help="The model that answers; `rehearsal` plays scripts, offline.")
@click.option(
    "--mode",
    type=click.Choice(["plan", "ask", "edits", "all"]),
    help="What is done without asking. [default: ask]",
)
@click.option(
    "--allow", multiple=True, metavar="RULE", help="Do not ask about such calls: 'bash(pytest *)', edit."
)
@click.option("--deny", multiple=True, metavar="RULE", help="Refuse such calls, whatever the mode.")
@click.option(
    "--add-folder",
    "added",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Let tools work in this folder too.",
)
@click.option("--settings", "given", metavar="FILE|JSON", help="More settings, as a file or as JSON.")
@click.option("--incognito", is_flag=True, help="Write nothing of this session on this machine.")
@click.option("--plain", is_flag=True, help="Draw nothing anew: for screen readers and logs.")
def code(
    prompt: str | None,
    printed: str | None,
    output: str,
    as_json: bool,
    is_continued: bool,
    resume: str | None,
    from_cloud: str | None,
    yes: bool,
    model: str | None,
    mode: str | None,
    allow: tuple[str, ...],
    deny: tuple[str, ...],
    added: tuple[Path, ...],
    given: str | None,
    incognito: bool,
    plain: bool,
) -> None:
    """Work on the project in this folder with a coding agent.

    It asks before it changes a file or runs a command. Sessions are kept on this machine for 30 days,
    encrypted, to go on with; `bailee explain` tells what leaves it.

    \b
    Examples:
      bailee code
      bailee code "fix the failing test"
      git diff | bailee code -p "review this change"
      bailee code -p "run the tests" --allow 'bash(pytest *)' --json
      bailee code --continue
      bailee code --from-cloud 3f9c0a1b2c3d
      bailee code --model rehearsal "rehearse greet"
    """
    from bailee.agent.clients import require_libraries
    from bailee.agent.fetches import fetch_managed
    from bailee.agent.settings import Mode, Permissions, Settings, read_settings
    from bailee.dumps import forbid_dumps

    require_libraries()
    # What a command of the model's could read under /proc: the agent's environment, with its credentials.
    forbid_dumps()
    folder = working_folder()
    prompt, printed = (text and read_argument(text) for text in (prompt, printed))
    options = Settings(
        model=model,
        permissions=Permissions(mode=Mode(mode) if mode else None, allow=allow, deny=deny),
    )
    arguments = ("--settings", given) if given else ()
    if prompt and printed is not None:
        raise Problem("two prompts are given", where="-p", fix="give one")
    found = None
    if from_cloud is not None:
        from bailee.cli.takeovers import fetch_session

        if is_continued or resume is not None:
            raise Problem("two sessions are named", where="--from-cloud", fix="name one")
        if printed is None:
            require_terminal()
        # Before the settings are read: those of the branch that is checked out are in force then.
        found = fetch_session(from_cloud, folder, yes=yes)
    settings = read_settings(directory=folder, arguments=arguments, given=options)
    managed, doubt = fetch_managed(
        settings, os.environ, now=time.time_ns() // 1_000_000, is_kept=not incognito
    )
    if managed is not None:
        settings = read_settings(directory=folder, arguments=arguments, given=options, managed=managed)
    if doubt:
        click.echo(f"bailee: {make_visible(doubt)}", err=True)
    if printed is None:
        interact(
            settings, folder, added, prompt, resume, is_continued, found, incognito=incognito, plain=plain
        )
        return
    print_answer(
        settings,
        folder,
        added,
        printed,
        "json" if as_json else output,
        resume,
        is_continued,
        found,
        incognito,
    )


def read_argument(text: str) -> str:
    """Return what was typed; bytes that are no UTF-8, which no request can hold, become marks."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def print_answer(
    settings: "Effective",
    folder: Path,
    added: tuple[Path, ...],
    prompt: str,
    output: str,
    resume: str | None,
    is_continued: bool,
    found: "TakenOver | None",
    incognito: bool,
) -> None:
    """Answer one prompt without a person at the terminal."""
    from bailee.agent.announcements import announce
    from bailee.agent.conversations import say
    from bailee.agent.costs import estimate_cost
    from bailee.agent.errors import reporting_faults
    from bailee.agent.faults import told_as_problem
    from bailee.agent.printing import Outcome, Output, print_turn
    from bailee.agent.work import Work

    def warn(text: str) -> None:
        click.echo(f"bailee: {text}", err=True)

    piped = read_input()
    with Work(
        settings, environment=os.environ, folder=folder, added=added, is_incognito=incognito, warn=warn
    ) as work:
        work.refresh_account()
        announce(work, warn, warn)
        if found is not None:
            warn(found.told)
        take_up(work, resume, is_continued, found)
        outcome = Outcome(session=work.session)
        with reporting_faults(work), told_as_problem():
            print_turn(work.answer(say(prompt, piped)), Output(output), outcome)
        outcome.cost_usd = estimate_cost(outcome.usage, work.model_name, work.context.provider)
        outcome.is_kept = work.recorder is not None and work.recorder.is_kept
        if output == "json":
            import msgspec

            click.echo(msgspec.json.format(msgspec.json.encode(outcome), indent=2))
        if outcome.reason == "interrupted":
            sys.exit(EXIT_INTERRUPTED)
        if outcome.reason != "done":
            warn(f"the turn ended early: {outcome.reason}")
            sys.exit(1)


def read_input() -> str:
    """Return what is piped in; empty for a terminal.

    Raises:
        Problem: it is larger than 1 MB, or no text.
    """
    if sys.stdin is None or sys.stdin.isatty():
        return ""
    data = sys.stdin.buffer.read(LARGEST_INPUT + 1)
    if len(data) > LARGEST_INPUT:
        raise Problem(
            "more than 1 MB is piped in", where="standard input", fix="pipe in less, or name a file"
        )
    if b"\0" in data:
        raise Problem("what is piped in is no text", where="standard input", fix="pipe in text")
    return data.decode("utf-8", "replace").strip()


def interact(
    settings: "Effective",
    folder: Path,
    added: tuple[Path, ...],
    prompt: str | None,
    resume: str | None,
    is_continued: bool,
    found: "TakenOver | None",
    *,
    incognito: bool,
    plain: bool,
) -> None:
    """Talk in the terminal until the user ends it; raises Problem where there is none."""
    require_terminal()
    from bailee.agent.announcements import announce
    from bailee.agent.errors import reporting_faults
    from bailee.agent.terminal.asking import Approver, pick_session
    from bailee.agent.terminal.dialogue import Dialogue
    from bailee.agent.terminal.screen import Screen, make_console
    from bailee.agent.work import Work

    screen = Screen(make_console(), plain=plain)

    def warn(text: str) -> None:
        screen.note(f"note: {text}", "yellow")

    approver = Approver(lambda question: dialogue.ask(question))
    with Work(
        settings,
        environment=os.environ,
        folder=folder,
        added=added,
        is_incognito=incognito,
        surface="terminal",
        ask=approver,
        warn=warn,
        show=screen.output,
    ) as work:
        # Loading beside the first drawing would hold it up: Python's threads take turns.
        dialogue = Dialogue(work, screen, on_ready=lambda: preload(work))
        work.refresh_account()
        announce(work, screen.note, warn)
        if found is not None:
            screen.note(found.told)
        if resume == "":
            sessions, _ = work.cache.list(folder=folder)
            chosen = pick_session(sessions, screen, dialogue.ask)
            if chosen is None:
                return
            dialogue.resume(chosen.id)
        elif (id := find_session(work, resume, is_continued, found)) is not None:
            dialogue.resume(id)
        with reporting_faults(work):
            dialogue.run(prompt or "")


def require_terminal() -> None:
    """Raise Problem where there is no terminal to talk in."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Problem(
            "there is no terminal to talk in", where="bailee code", fix="for scripts: bailee code -p PROMPT"
        )


def preload(work: "Work") -> None:
    """Load what the first prompt needs while the user types it: the SDK takes 0.7 s, the masker 0.6 s."""
    import threading
    from importlib import import_module

    threading.Thread(target=import_module, args=("anthropic",), name="preload", daemon=True).start()
    if work.is_kept:
        _ = work.masker


def find_session(
    work: "Work", resume: str | None, is_continued: bool, found: "TakenOver | None"
) -> str | None:
    """Return the session to go on with, taken over if it is to be; None for one that is not there yet."""
    if found is not None:
        from bailee.agent.takeovers import take_over

        return take_over(work, found.taken)
    if resume:
        return work.cache.find(resume).id
    if not is_continued:
        return None
    sessions, _ = work.cache.list(folder=work.folder)
    if not sessions:
        raise Problem(
            "no session of this folder is kept on this machine", where="--continue", fix="leave it out"
        )
    return sessions[0].id


def take_up(work: "Work", resume: str | None, is_continued: bool, found: "TakenOver | None") -> None:
    """Go on with a session where one is asked for; raises Problem."""
    if resume == "":
        raise Problem("no session is named", where="--resume", fix="name one, or use --continue")
    if (id := find_session(work, resume, is_continued, found)) is not None:
        work.resume_session(id)
