"""`/bug`: everything that would be sent is shown, and the word `send` sends it. Nothing else does."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.cells import chop_cells

from bailee.agent.bugs import BugReporter, Masked
from bailee.characters import make_visible
from bailee.flows.feedback.issues import tell_issue
from bailee.flows.feedback.reports import Offer, tell_masked, tell_report, tell_text
from bailee.moments import tell_minute
from bailee.policy.periods import Period
from bailee.policy.problems import Problem
from bailee.sizes import tell_count, tell_size

if TYPE_CHECKING:
    from bailee.agent.terminal.dialogue import Dialogue

NOTHING = "Nothing was sent."
WORD = "send"
_UNITS = {"d": "day", "y": "year"}


def report_bug(dialogue: "Dialogue", rest: str) -> None:
    """Do what `/bug` asks for: make a report, show it, and send it; or take one back.

    Raises:
        Problem: reports are off, and by what; there is no service; or it does not take this one.
    """
    first, _, more = rest.partition(" ")
    if first == "undo":
        _undo(dialogue, more.strip())
        return
    try:
        _report(dialogue, rest)
    except EOFError:
        dialogue.screen.note("Nothing more is sent.", "yellow")


def _report(dialogue: "Dialogue", description: str) -> None:
    screen = dialogue.screen
    reporter = BugReporter(dialogue.work, dialogue.fault)
    offer = reporter.ask_offer()
    for line in introduce(offer, reporter.place):
        screen.note(line)
    description = description or dialogue.ask("What is wrong? ")
    if not description:
        screen.note(NOTHING, "yellow")
        return
    chosen = [one for one in reporter.list_attachments() if _is_wanted(dialogue, one)]
    prepared = reporter.prepare(description, chosen)
    screen.note("")
    screen.note("This is all that will be sent:", "bold")
    if not show_pages(dialogue, list(tell_report(prepared.report))):
        screen.note(NOTHING, "yellow")
        return
    screen.note("")
    # What is last on the screen says again what the question is about.
    messages = tell_count(len(prepared.report.conversation), "message")
    attachments = tell_count(len(prepared.report.attachments), "attachment")
    screen.note(
        f"{messages}, {attachments}, {tell_size(len(prepared.body))} to {make_visible(reporter.place)}; "
        f"{tell_masked(prepared.report.masked)}; kept {_tell_period(offer)}."
    )
    answer = dialogue.ask(f"Type {WORD} to send it; anything else sends nothing: ")
    if answer != WORD:
        screen.note(NOTHING, "yellow")
        return
    taken = reporter.send(prepared)
    dialogue.reports.append(taken.id)
    until = f" until {make_visible(taken.expires_on)}" if taken.expires_on else ""
    minutes = offer.undo_seconds // 60
    screen.note(f"Sent: report {make_visible(taken.id)}, kept{until}.", "bold")
    screen.note(
        f"For {minutes} minutes /bug undo takes it back; in another terminal, with a key of yours in "
        f"BAILEE_KEY: bailee feedback undo {make_visible(taken.id)} --service {make_visible(reporter.place)}"
    )
    screen.note(
        "At any time it can be withdrawn: in the console, under Feedback, or where the service runs: "
        f"bailee feedback withdraw {make_visible(taken.id)}"
    )
    if offer.issues:
        _ask_for_issue(dialogue, reporter, offer, taken.id)


def _ask_for_issue(dialogue: "Dialogue", reporter: BugReporter, offer: Offer, report: str) -> None:
    """Offer to have an issue opened: a title and a text that are typed here, and nothing of the report."""
    screen, repository = dialogue.screen, make_visible(offer.issues)
    screen.note("")
    screen.note(
        f"An issue can be opened in {repository} as well, for everybody to read. It holds a title and a text "
        "that you type now, and nothing of the conversation."
    )
    if dialogue.ask("Open an issue too? yes or no: ").lower() != "yes":
        return
    title = dialogue.ask("Title: ")
    if not title:
        screen.note("No issue will be opened.", "yellow")
        return
    lines = []
    while line := dialogue.ask("Text, a line at a time; an empty one ends it: "):
        lines.append(line)
    issue, masked = reporter.prepare_issue(title, "\n".join(lines))
    screen.note("")
    screen.note("This is all that everybody will read:", "bold")
    for line in tell_issue(issue, report):
        screen.note(line)
    answer = dialogue.ask(f"{tell_masked(masked)}. Type {WORD} to have it opened; anything else does not: ")
    if answer != WORD:
        screen.note("No issue will be opened.", "yellow")
        return
    queued = reporter.ask_for_issue(issue, report)
    screen.note(
        f"It will be opened in {make_visible(queued.repository)} at {tell_minute(queued.opens_ms)} UTC, "
        "unless you take the report back before.",
        "bold",
    )


def introduce(offer: Offer, place: str) -> list[str]:
    """Return what is said before anything is asked: what a report holds, for how long, and what for."""
    return [
        "A report sends a copy of this whole conversation, with the code and the results of tools in it, to "
        f"{make_visible(place)}.",
        f"It is kept {_tell_period(offer)}, encrypted, and may be used to {make_visible(offer.purpose)}; it "
        "trains no model.",
        "Secrets that are recognized are masked. You see all of it before anything is sent, and can take it "
        f"back for {offer.undo_seconds // 60} minutes.",
    ]


def _is_wanted(dialogue: "Dialogue", one: Masked) -> bool:
    dialogue.screen.note("")
    dialogue.screen.note(f"attachment: {one.attachment.name}", "bold")
    if not show_pages(dialogue, list(tell_text(one.attachment.text)), stop="leaves it out"):
        return False
    return dialogue.ask("Send this too? yes or no: ").lower() == "yes"


def show_pages(dialogue: "Dialogue", lines: Sequence[str], *, stop: str = "sends nothing") -> bool:
    """Show lines, all of them, a screenful at a time; tell whether whoever reads wants to go on.

    Args:
        stop: what the word `stop` does, in words.
    """
    console = dialogue.screen.console
    rows = [row for line in lines for row in _fold(line, max(20, console.width))]
    size = max(5, console.height - 4)
    for start in range(0, len(rows), size):
        for row in rows[start : start + size]:
            dialogue.screen.note(row)
        left = len(rows) - start - size
        if left > 0:
            answer = dialogue.ask(f"{tell_count(left, 'line')} more: Enter goes on, stop {stop}: ")
            if answer.lower() == "stop":
                return False
    return True


def _fold(line: str, width: int) -> Iterator[str]:
    """Fold a line where the terminal would, so that a page is one; nothing is left out."""
    yield from chop_cells(line, width) or [""]


def _undo(dialogue: "Dialogue", id: str) -> None:
    if not id and not dialogue.reports:
        raise Problem(
            "no report was sent here", where="/bug undo", fix="name one: /bug undo REPORT, as it was told"
        )
    wanted = id or dialogue.reports[-1]
    done = BugReporter(dialogue.work).undo(wanted)
    dialogue.reports[:] = [one for one in dialogue.reports if one != wanted]
    dialogue.screen.note(
        f"Report {make_visible(done.id)} is erased: its keys are destroyed, so that no copy of it opens.",
        "bold",
    )


def _tell_period(offer: Offer) -> str:
    """Write how long a report is kept: `for 5 years`."""
    period = Period.parse(offer.retention, where="the service")
    if not period.count:
        return "without an end"
    return f"for {tell_count(period.count, _UNITS[period.unit])}"
