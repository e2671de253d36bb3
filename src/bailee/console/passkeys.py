"""Passkeys on the console: signing in with one, and adding and removing one's own.

The pages say without a script what to do in place of it. With one, its answers are sent as any form is.
"""

import threading
from collections.abc import Callable

from bailee.accounts.passkeys import (
    add_passkey,
    begin_adding,
    begin_signing_in,
    check_passkey,
    remove_passkey,
)
from bailee.accounts.sign_ins import Way, sign_in
from bailee.console.paths import ACCOUNT, PASSKEY
from bailee.console.rendering import TEMPLATES
from bailee.pages import Answer, File, Moved, Page, Part, TooOften, Visit
from bailee.policy.problems import Problem
from bailee.rates import Rates

# Challenges a second and at once, of one address: each is written down.
OF_ADDRESS = (1 / 6, 20)


class Passkeys:
    """The pages; holds how many challenges were asked for lately, in memory.

    Args:
        limit: counts that somebody tries to sign in, and raises if it is too often: their visit, and what
            they try.
        check: raises unless a field of the form has the account's present password, where there is one.
        let_in: answers with a sign-in's token, and where to go.
    """

    def __init__(
        self,
        *,
        limit: Callable[[Visit, str], None],
        check: Callable[[Visit, str], None],
        let_in: Callable[[str, str], Moved],
    ) -> None:
        self._limit, self._check, self._let_in = limit, check, let_in
        self._challenges = Rates(*OF_ADDRESS)
        self._lock = threading.Lock()

    def make_pages(self) -> list[Page]:
        """Return the pages: forms all of them, on the pages of signing in and of the account."""
        anybody, holder = frozenset({Part.ANYBODY}), frozenset({Part.HOLDER})
        forms = (
            (PASSKEY, anybody, self._sign_in),
            (f"{PASSKEY}/challenge", anybody, self._begin_signing_in),
            (f"{ACCOUNT}/passkeys", holder, self._add),
            (f"{ACCOUNT}/passkeys/challenge", holder, self._begin_adding),
            (f"{ACCOUNT}/passkeys/remove", holder, _remove),
        )
        return [
            Page(path=path, title="Passkeys", parts=parts, templates=TEMPLATES, act=act)
            for path, parts, act in forms
        ]

    def _begin(self, visit: Visit) -> tuple[str, str]:
        """Return the service's origin, and what forms are bound to, if the browser may have a challenge."""
        with self._lock:
            wait = self._challenges.take(visit.address)
        if wait:
            raise TooOften("passkeys were asked for too often", where="Passkeys", seconds=int(wait) + 1)
        return read_origin(visit), visit.form["form_token"]

    def _begin_signing_in(self, visit: Visit) -> Answer:
        origin, browser = self._begin(visit)
        asked = begin_signing_in(visit.custody.directory, origin=origin, browser=browser)
        return File(asked, "passkey.json")

    def _sign_in(self, visit: Visit) -> Answer:
        self._limit(visit, "")
        directory, answer = visit.custody.directory, visit.form.get("answer", "")
        account = check_passkey(
            directory, answer, origin=read_origin(visit), browser=visit.form["form_token"]
        )
        if account is None:
            raise Problem(
                "this is not a passkey of an account here",
                where="Sign in",
                fix="use the password, or a link; if it was removed here, remove it from your device too",
            )
        token = sign_in(directory, account.id, None, Way.PASSKEY, address=visit.address, agent=visit.agent)
        return self._let_in(token, visit.form.get("next", ""))

    def _begin_adding(self, visit: Visit) -> Answer:
        origin, browser = self._begin(visit)
        asked = begin_adding(visit.custody.directory, visit.account, origin=origin, browser=browser)
        return File(asked, "passkey.json")

    def _add(self, visit: Visit) -> Answer:
        # A passkey outlasts the sign-in that it is added by, as a password does.
        self._check(visit, "proof")
        add_passkey(
            visit.custody.directory,
            visit.account.name,
            visit.visitor.operator,
            name=visit.form.get("name", ""),
            answer=visit.form.get("answer", ""),
            origin=read_origin(visit),
            browser=visit.form["form_token"],
        )
        return Moved(ACCOUNT, "The passkey is added. It signs you in from now on.")


def read_origin(visit: Visit) -> str:
    """Return the origin that passkeys are for.

    Raises:
        Problem: the service does not know what browsers call it.
    """
    if not visit.origin:
        raise Problem(
            "the service does not know the address that browsers reach it at",
            where="Passkeys",
            fix="whoever runs it sets BAILEE_CONSOLE_URL, such as https://bailee.example.com",
        )
    return visit.origin


def _remove(visit: Visit) -> Answer:
    directory, id = visit.custody.directory, visit.form.get("passkey", "")
    remove_passkey(directory, visit.account, id, but=visit.visitor.sign_in)
    return Moved(ACCOUNT, "The passkey is removed. Other browsers are signed out.")
