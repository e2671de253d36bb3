"""What agents reported of their own faults, grouped, and what is decided of each group."""

from pathlib import Path

from bailee.flows.errors.results import Group, group, read_faults
from bailee.flows.errors.triage import State, decide, find, triage
from bailee.pages import Answer, Installation, Moved, Page, Part, Section, View, Visit, require
from bailee.policy.flows import FlowId
from bailee.policy.problems import Problem

PATH = "/console/flows/errors"
TEMPLATES = Path(__file__).parent / "templates"
_OPERATOR = frozenset({Part.OPERATOR})
_KEPT = "errors"


def make_pages() -> list[Page]:
    """Return the pages."""
    return [
        Page(
            path=PATH,
            title="Errors",
            parts=_OPERATOR,
            templates=TEMPLATES,
            show=_show,
            act=_decide,
            section=Section.SERVICE,
            flow=FlowId.ERRORS,
            carries=Installation.tell_way,
        ),
        Page(path=PATH + "/{id}", title="Error", parts=_OPERATOR, templates=TEMPLATES, show=_show_one),
    ]


def _groups(visit: Visit) -> list[Group]:
    home = visit.custody.home
    return visit.kept.get(_KEPT, lambda: group(read_faults(home)))


def _show(visit: Visit) -> Answer:
    found = triage(visit.custody.vault, _groups(visit))
    is_all = visit.query.get("all", "") == "1"
    shown = [one for one in found if is_all or not one.is_quiet]
    facts = {"groups": shown, "is_all": is_all, "quiet": len(found) - len(shown), "State": State}
    return View("errors.html", facts)


def _show_one(visit: Visit) -> Answer:
    one = find(triage(visit.custody.vault, _groups(visit)), visit.path["id"])
    return View("error.html", {"one": one, "State": State}, heading=one.group.name)


def _decide(visit: Visit) -> Answer:
    state = require(visit.form, "state")
    if state not in (State.OPEN, State.RESOLVED, State.MUTED):
        raise Problem("there is no such state", where="Errors", fix="load the page anew")
    custody = visit.custody
    one = find(triage(custody.vault, _groups(visit)), require(visit.form, "group"))
    decide(custody.vault, one.id, State(state), by=visit.visitor.name, now_ms=custody.now_ms())
    return Moved(PATH, f"{one.group.name}: {state} (it was {one.state}).")
