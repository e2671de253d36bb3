"""Signing in by an organization's identity provider: sent there, come back, bound, and named by an admin."""

import threading
from collections.abc import Callable
from urllib.parse import urlsplit

from bailee.accounts.choices import require_admin
from bailee.accounts.identities import (
    LONGEST,
    Claim,
    IdentityProvider,
    admit,
    find_provider,
    forget_provider,
    name_provider,
    open_client_secret,
    send,
    take_back,
)
from bailee.accounts.sign_ins import Way, sign_in
from bailee.console.openid import Providers
from bailee.console.organizations import PATH as OF_ORGANIZATION
from bailee.console.organizations import organization_of
from bailee.console.passkeys import read_origin
from bailee.console.paths import ACCOUNT, BACK, ORGANIZATION
from bailee.console.rendering import TEMPLATES
from bailee.pages import Answer, Moved, Page, Part, Section, View, Visit, require
from bailee.policy.problems import Problem

ADMIN_PATH = f"{OF_ORGANIZATION}/sign-in"
BIND = f"{ACCOUNT}/organization"


class OrganizationSignIn:
    """The pages.

    Args:
        limit: counts that somebody tries to sign in, and raises if it is too often: their visit, and what
            they try.
        let_in: answers with a sign-in's token, and where to go.
    """

    def __init__(self, *, limit: Callable[[Visit, str], None], let_in: Callable[[str, str], Moved]) -> None:
        self._limit, self._let_in = limit, let_in
        self._providers = Providers()
        # A provider that does not answer keeps threads waiting that others need.
        self._asking = threading.BoundedSemaphore(4)

    def make_pages(self) -> list[Page]:
        """Return the pages."""
        anybody, holder = frozenset({Part.ANYBODY}), frozenset({Part.HOLDER})
        title = "Your organization"
        return [
            Page(path=ORGANIZATION, title=title, parts=anybody, templates=TEMPLATES, act=self._send),
            Page(
                path=BACK,
                title="Back from your organization",
                parts=anybody,
                templates=TEMPLATES,
                show=_come_back,
                act=self._take_back,
                comes_again=False,  # its form sends itself
            ),
            Page(path=BIND, title=title, parts=holder, templates=TEMPLATES, act=self._send_holder),
            Page(
                path=ADMIN_PATH,
                title="Sign-in",
                parts=frozenset({Part.ADMIN}),
                templates=TEMPLATES,
                show=_show_provider,
                act=self._name_provider,
                section=Section.ORGANIZATION,
            ),
            Page(
                path=f"{ADMIN_PATH}/remove",
                title="Sign-in",
                parts=frozenset({Part.ADMIN}),
                templates=TEMPLATES,
                act=_forget_provider,
            ),
        ]

    def _send(self, visit: Visit) -> Answer:
        self._limit(visit, "")
        return self._go(visit, require(visit.form, "organization"), None)

    def _send_holder(self, visit: Visit) -> Answer:
        return self._go(visit, visit.account.organization or "", visit.account.id)

    def _go(self, visit: Visit, organization: str, account: str | None) -> Answer:
        """Show where a browser goes on to: a form may not lead elsewhere by itself; a person sees where."""
        directory, origin = visit.custody.directory, _require_here(visit)
        provider = find_provider(directory, organization)
        if provider is None:
            raise Problem(
                "there is no organization of that name that signs its members in",
                where="Organization",
                fix="write its name as your admin has it, or sign in otherwise",
            )
        browser = visit.form["form_token"]
        state, sent = send(
            directory, organization, account=account, browser=browser, place=visit.form.get("next", "")
        )
        with self._turn():
            address = self._providers.make_address(
                provider.issuer,
                provider.client,
                back=origin + BACK,
                state=state,
                nonce=sent.nonce,
                verifier=sent.verifier,
            )
        facts = {"address": address, "host": urlsplit(address).netloc, "organization": organization}
        return View("sign_in_elsewhere.html", facts)

    def _take_back(self, visit: Visit) -> Answer:
        self._limit(visit, "")
        directory = visit.custody.directory
        sent = take_back(directory, visit.form.get("state", ""), browser=visit.form["form_token"])
        provider = find_provider(directory, sent.organization)
        if provider is None:
            raise Problem("the organization signs nobody in any more", where="Organization")
        if sent.account is not None and sent.account != (visit.visitor.account and visit.visitor.account.id):
            raise Problem(
                "somebody else is signed in than began this", where="Organization", fix="begin anew"
            )
        with self._turn():
            self._providers.check_issuer(provider.issuer, visit.form.get("iss") or None)
            claims = self._providers.redeem(
                provider.issuer,
                provider.client,
                open_client_secret(directory, visit.custody.keystore.wrapper, provider),
                code=require(visit.form, "code"),
                back=_require_here(visit) + BACK,
                nonce=sent.nonce,
                verifier=sent.verifier,
            )
        account = admit(directory, provider, sent, claims)
        if sent.account is not None:
            return Moved(ACCOUNT, f"{sent.organization} signs you in from now on.")
        address, agent = visit.address, visit.agent
        token = sign_in(directory, account.id, None, Way.ORGANIZATION, address=address, agent=agent)
        return self._let_in(token, sent.place)

    def _name_provider(self, visit: Visit) -> Answer:
        organization, directory, admin = organization_of(visit), visit.custody.directory, visit.account.name
        require_admin(directory, admin, visit.visitor.operator, "identity_provider", given=True)
        claim, domain = require(visit.form, "claim"), visit.form.get("domain", "").strip().lower()
        if claim not in set(Claim) or (claim == Claim.EMAIL) != bool(domain):
            raise Problem(
                "members are known by their user name, or by an e-mail address of one domain",
                where="Known by",
                fix="choose one, and write the domain for e-mail addresses alone",
            )
        provider = IdentityProvider(
            organization=organization,
            issuer=require(visit.form, "issuer")[:LONGEST],
            client=require(visit.form, "client")[:LONGEST],
            claim=Claim(claim),
            domain=domain[:LONGEST],
            makes_accounts=visit.form.get("makes_accounts") == "yes",
        )
        with self._turn():
            self._providers.discover(provider.issuer)
        secret = visit.form.get("secret", "").strip()
        name_provider(directory, visit.custody.keystore.wrapper, provider, secret=secret, by=admin)
        return Moved(ADMIN_PATH, "Saved. Members sign in with it from now on.")

    def _turn(self) -> threading.BoundedSemaphore:
        return self._asking


def _require_here(visit: Visit) -> str:
    origin = read_origin(visit)
    if visit.base != origin:
        raise Problem(
            f"your organization sends browsers to {origin}",
            where="the address of this page",
            fix=f"sign in there: {origin}/console/sign-in",
        )
    return origin


def _come_back(visit: Visit) -> Answer:
    """Show a form that does it: a link that somebody else made does nothing by being looked at."""
    if error := visit.query.get("error"):
        said = visit.query.get("error_description", "")[:300]
        raise Problem(
            f"your organization does not sign you in: {error[:100]}{f' ({said})' if said else ''}",
            where="your organization's sign-in",
            fix="begin anew on the page that signs you in",
        )
    facts = {name: visit.query.get(name, "")[:4000] for name in ("code", "state", "iss")}
    return View("sign_in_back.html", facts)


def _show_provider(visit: Visit) -> Answer:
    provider = find_provider(visit.custody.directory, organization_of(visit))
    facts = {"provider": provider, "back": f"{visit.origin}{BACK}" if visit.origin else "", "Claim": Claim}
    return View("identity_provider.html", facts)


def _forget_provider(visit: Visit) -> Answer:
    admin, directory = visit.account.name, visit.custody.directory
    require_admin(directory, admin, visit.visitor.operator, "identity_provider", given=False)
    forget_provider(directory, organization_of(visit), by=admin)
    return Moved(ADMIN_PATH, "Removed. Whoever it signed in is signed out.")
