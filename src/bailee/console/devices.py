"""Where an account holder lets an agent in, by the code that it shows (RFC 8628, 3.3).

Approving takes a sign-in of the account holder; who is not signed in is told both ways. The login is shown
before it is approved: who asks, from where, since when. Wrong codes are counted for each account.
"""

from bailee.accounts.choices import require_holder
from bailee.accounts.logins import Login, TooManyGuesses, approve_login, deny_login, find_waiting
from bailee.console.rendering import TEMPLATES
from bailee.pages import Answer, Moved, Page, Part, TooOften, View, Visit, require
from bailee.policy.problems import Problem

PATH = "/oauth/device"


def make_pages() -> list[Page]:
    """Return the page."""
    return [
        Page(
            path=PATH,
            title="Let an agent in",
            parts=frozenset({Part.ANYBODY}),
            templates=TEMPLATES,
            show=_show,
            act=_decide,
        )
    ]


def _show(visit: Visit) -> Answer:
    return View("device.html", {"login": None, "code": "", "account": visit.visitor.account})


def _decide(visit: Visit) -> Answer:
    directory = visit.custody.directory
    if visit.visitor.account is None:
        raise Problem("nobody is signed in", where="Let an agent in", fix="sign in first")
    holder = require_holder(directory, visit.account.name, visit.visitor.operator)
    code, act = require(visit.form, "code"), visit.form.get("act", "look")
    try:
        login: Login = find_waiting(directory, code, by=holder.id)
    except TooManyGuesses as fault:
        raise TooOften(fault.what, where="Code", seconds=fault.seconds) from None
    if act == "approve":
        approve_login(directory, login, holder, by=visit.visitor.name)
        return Moved(
            PATH, f"Approved: the agent logs in to {holder.name} within seconds. Its key is under Privacy."
        )
    if act == "deny":
        deny_login(directory, login, by=visit.visitor.name)
        return Moved(PATH, "Denied: the agent is told.")
    return View("device.html", {"login": login, "code": code, "account": holder})
