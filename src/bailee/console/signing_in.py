"""Signing in and out, and where somebody is signed in."""

import threading

from bailee.accounts.identities import find_provider, has_providers, is_bound
from bailee.accounts.passkeys import list_passkeys
from bailee.accounts.passwords import check_password, has_password, set_password
from bailee.accounts.sign_ins import (
    SIGN_IN_MS,
    Way,
    end_sign_in,
    find_sign_in,
    list_sign_ins,
    redeem_link,
    refuse_sign_in,
    sign_in,
)
from bailee.console.application import FORM, SIGN_IN
from bailee.console.organization_sign_in import OrganizationSignIn
from bailee.console.passkeys import Passkeys
from bailee.console.paths import ACCOUNT as ACCOUNT_PATH
from bailee.console.paths import LINK as LINK_PATH
from bailee.console.paths import SIGN_IN as SIGN_IN_PATH
from bailee.console.rendering import TEMPLATES
from bailee.pages import HOME, Answer, Moved, Page, Part, TooOften, View, Visit
from bailee.policy.problems import Problem
from bailee.rates import Rates

# A second and at once: of one address, and for one name wherever it is tried from.
OF_ADDRESS, OF_NAME = (1 / 6, 10), (1 / 60, 10)
# As long as a link is good for: whoever has no password proves who they are by having signed in just now.
FRESH_MS = 10 * 60_000
# Each takes 64 MiB and both cores for a moment.
_HASHING = threading.BoundedSemaphore(2)
_SECONDS = SIGN_IN_MS // 1000


class SigningIn:
    """The pages of signing in; holds how often it was tried lately, in memory."""

    def __init__(self) -> None:
        self._of_address, self._of_name = Rates(*OF_ADDRESS), Rates(*OF_NAME)
        self._lock = threading.Lock()

    def make_pages(self) -> list[Page]:
        """Return the pages."""
        anybody, signed_in = frozenset({Part.ANYBODY}), frozenset({Part.SIGNED_IN})
        return [
            Page(
                path=SIGN_IN_PATH,
                title="Sign in",
                parts=anybody,
                templates=TEMPLATES,
                show=_show,
                act=self._sign_in,
            ),
            Page(
                path=LINK_PATH,
                title="Sign in with this link",
                parts=anybody,
                templates=TEMPLATES,
                show=_show_link,
                act=self._use_link,
                comes_again=False,  # what it says is of a link that may be used
            ),
            Page(
                path="/console/sign-out",
                title="Sign out",
                parts=signed_in,
                templates=TEMPLATES,
                act=_sign_out,
            ),
            Page(
                path=ACCOUNT_PATH,
                title="Your sign-ins",
                parts=signed_in,
                templates=TEMPLATES,
                show=_show_account,
                act=_end,
            ),
            Page(
                path=f"{ACCOUNT_PATH}/password",
                title="Your password",
                parts=frozenset({Part.HOLDER}),
                templates=TEMPLATES,
                act=self._set_password,
            ),
            *OrganizationSignIn(limit=self._limit_tries, let_in=_let_in).make_pages(),
            *Passkeys(limit=self._limit_tries, check=self._check_present, let_in=_let_in).make_pages(),
            Page(path=HOME, title="Bailee", parts=signed_in, templates=TEMPLATES, show=_go_home),
        ]

    def _limit(self, rates: Rates, who: str) -> None:
        with self._lock:
            wait = rates.take(who)
        if wait:
            raise TooOften("somebody tried to sign in too often", where="Sign in", seconds=int(wait) + 1)

    def _limit_tries(self, visit: Visit, name: str) -> None:
        self._limit(self._of_address, visit.address)
        if name:
            self._limit(self._of_name, name)

    def _sign_in(self, visit: Visit) -> Answer:
        name, password = visit.form.get("name", "").strip()[:64], visit.form.get("password", "")
        self._limit_tries(visit, name)
        directory = visit.custody.directory
        with _HASHING:
            account, is_it = check_password(directory, name, password)
        if account is None or not is_it:
            if account is not None:
                refuse_sign_in(directory, account)
            facts = {"next": _inside(visit.form.get("next", "")), "is_wrong": True, "name": name}
            facts |= _ways(visit)
            return View("sign_in.html", facts, 403)
        token = sign_in(directory, account.id, None, Way.PASSWORD, address=visit.address, agent=visit.agent)
        return _let_in(token, visit.form.get("next", ""))

    def _set_password(self, visit: Visit) -> Answer:
        account, directory = visit.account, visit.custody.directory
        password = visit.form.get("password", "")
        if password != visit.form.get("again", ""):
            raise Problem("the two passwords differ", where="Your password", fix="write the same one twice")
        self._check_present(visit)
        with _HASHING:
            set_password(directory, account.name, visit.visitor.operator, password, but=visit.visitor.sign_in)
        return Moved(ACCOUNT_PATH, "Your password is set. Other browsers are signed out.")

    def _check_present(self, visit: Visit, field: str = "present") -> None:
        """Have whoever adds what outlasts their sign-in prove anew who they are: by password, or lately."""
        directory, account = visit.custody.directory, visit.account
        if has_password(directory, account.id):
            self._limit(self._of_name, account.name)
            with _HASHING:
                _, is_it = check_password(directory, account.name, visit.form.get(field, ""))
            if not is_it:
                raise Problem("this is not your present password", where="Your password", fix="try again")
            return
        known = list_sign_ins(directory, account.id, None)
        since = next((one.created_ms for one in known if one.id == visit.visitor.sign_in), 0)
        if directory.now_ms() - since > FRESH_MS:
            raise Problem(
                "you signed in here more than ten minutes ago, and somebody else may sit here by now",
                where="Your sign-ins",
                fix="sign out, sign in, and do it then",
            )

    def _use_link(self, visit: Visit) -> Answer:
        # Not limited: 256 random bits are not guessed, and who guesses passwords keeps nobody out who has a
        # link.
        token = redeem_link(
            visit.custody.directory, visit.form.get("link", ""), address=visit.address, agent=visit.agent
        )
        if token is None:
            raise Problem(
                "this link was used, or its ten minutes are over",
                where="Sign in",
                fix="make another one on the machine that the service runs on: bailee console link",
            )
        return _let_in(token, HOME)


def _let_in(token: str, place: str) -> Moved:
    return Moved(_inside(place), cookies={SIGN_IN: (token, _SECONDS), FORM: ("", 0)})


def _inside(place: str) -> str:
    """Return where to go once signed in: a page of ours, and never another host's."""
    is_ours = place.startswith("/console") or place.split("?")[0] == "/oauth/device"
    return place if is_ours and "\\" not in place and place.isprintable() else HOME


def _show(visit: Visit) -> Answer:
    if visit.visitor.sign_in:
        return Moved(_inside(visit.query.get("next", "")))
    facts = {
        "next": _inside(visit.query.get("next", "")),
        "is_wrong": False,
        "name": "",
        **_ways(visit),
    }
    return View("sign_in.html", facts)


def _show_link(visit: Visit) -> Answer:
    # A look uses nothing up: programs that look at links before people do would.
    token = visit.query.get("token", "")
    is_good = find_sign_in(visit.custody.directory, token, waiting=True) is not None
    return View("link.html", {"link": token, "is_good": is_good})


def _sign_out(visit: Visit) -> Answer:
    visitor = visit.visitor
    account = visitor.account.id if visitor.account else None
    end_sign_in(visit.custody.directory, visitor.sign_in, account=account, user=visitor.user)
    return Moved(SIGN_IN_PATH, "You are signed out.", {SIGN_IN: ("", 0)})


def _show_account(visit: Visit) -> Answer:
    visitor, directory = visit.visitor, visit.custody.directory
    account = visitor.account.id if visitor.account else None
    found = list_sign_ins(directory, account, visitor.user)
    known = bool(account) and has_password(directory, account or "")
    passkeys = list_passkeys(directory, account) if account else []
    facts = {"sign_ins": found, "has_password": known, "passkeys": passkeys, "elsewhere": _elsewhere(visit)}
    organization = visitor.account.organization if visitor.account else None
    facts["provider"] = find_provider(directory, organization) if organization else None
    facts["is_bound"] = bool(account) and is_bound(directory, account or "")
    return View("account.html", facts)


def _end(visit: Visit) -> Answer:
    visitor, id = visit.visitor, visit.form.get("sign_in", "")
    account = visitor.account.id if visitor.account else None
    end_sign_in(visit.custody.directory, id, account=account, user=visitor.user)
    if id == visitor.sign_in:
        return Moved(SIGN_IN_PATH, "You are signed out.", {SIGN_IN: ("", 0)})
    return Moved(ACCOUNT_PATH, "That browser is signed out.")


def _ways(visit: Visit) -> dict[str, object]:
    """Return what the page tells of the ways besides a password."""
    return {
        "elsewhere": _elsewhere(visit),
        "has_organizations": has_providers(visit.custody.directory),
    }


def _elsewhere(visit: Visit) -> str:
    """Return where passkeys are for, if that is not here; "unknown" where it does not know itself."""
    return "" if visit.base == visit.origin else visit.origin or "unknown"


def _go_home(visit: Visit) -> Answer:
    parts = visit.visitor.parts
    if Part.OPERATOR in parts:
        return Moved("/console/flows")
    return Moved("/console/data")
