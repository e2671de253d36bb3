"""An organization's secrets and the repositories that its sessions work on."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from bailee.accounts.secrets import (
    KEPT_OUTSIDE,
    SHORTEST_BOUND,
    StoredSecret,
    list_secrets,
    owner_of_organization,
    remove_secret,
)
from bailee.cloud.records import ENDED, Sessions
from bailee.flows.git.access import scope_of
from bailee.pages import Answer, Moved, NotThere, Page, Part, Section, View, Visit, require
from bailee.policy.problems import Problem
from bailee.service.secrets import keep

PATH = "/console/organization"
TEMPLATES = Path(__file__).parent / "templates"
_ADMIN = frozenset({Part.ADMIN})


class Repository(msgspec.Struct):
    """A repository that members' sessions worked on, or that a secret is for; `last_ms` since 1970 UTC."""

    place: str
    sessions: int = 0
    running: int = 0
    last_ms: int = 0
    secrets: int = 0
    has_credential: bool = False


def make_pages() -> list[Page]:
    """Return the pages."""
    return [
        Page(
            path=f"{PATH}/secrets",
            title="Secrets",
            parts=_ADMIN,
            templates=TEMPLATES,
            show=_show,
            act=_keep,
            section=Section.ORGANIZATION,
        ),
        Page(path=f"{PATH}/secrets/remove", title="Secrets", parts=_ADMIN, templates=TEMPLATES, act=_remove),
        Page(
            path=f"{PATH}/repositories",
            title="Repositories",
            parts=_ADMIN,
            templates=TEMPLATES,
            show=_show_repositories,
            section=Section.ORGANIZATION,
        ),
    ]


def _owner(visit: Visit) -> str:
    if visit.account.organization is None:
        raise NotThere
    return owner_of_organization(visit.account.organization)


def _list(visit: Visit) -> list[StoredSecret]:
    return list_secrets(visit.custody.directory, [_owner(visit)])


def _show(visit: Visit) -> Answer:
    facts = {"secrets": _list(visit), "outside": sorted(KEPT_OUTSIDE), "shortest": SHORTEST_BOUND}
    return View("secrets.html", facts)


def _keep(visit: Visit) -> Answer:
    form, name = visit.form, require(visit.form, "name")
    _check(form, name)
    keep(
        visit.custody.directory,
        visit.custody.keystore.wrapper,
        # A GitHub App is of several lines; a browser sends them with carriage returns.
        require(form, "value").replace("\r\n", "\n"),
        owner=_owner(visit),
        name=name,
        repository=form.get("repository", "").strip(),
        hosts=form.get("hosts", "").split(),
        is_exposed=form.get("exposed", "") == "yes",
        by=visit.visitor.operator,
    )
    return Moved(f"{PATH}/secrets", f"{name} is kept, sealed. Its value is shown to nobody.")


def _check(form: Mapping[str, str], name: str) -> None:
    """Check what a form leaves open; the rest is checked for forms and commands alike.

    Raises:
        Problem: nobody may have the secret, two ways are named, or a credential of Git is for no repository.
    """
    has_hosts, is_exposed = bool(form.get("hosts", "").split()), form.get("exposed", "") == "yes"
    if name in KEPT_OUTSIDE:
        if not form.get("repository", "").strip():
            fix = "write its URL under Repository"
            raise Problem("a credential of Git is for one repository", where=name, fix=fix)
    elif has_hosts == is_exposed:
        both = "a secret is bound to hosts, or given as it is"
        what = both if is_exposed else "nobody may have this secret"
        fix = "name the hosts that may have it, or else have sessions given the value itself"
        raise Problem(what, where=name, fix=fix)


def _remove(visit: Visit) -> Answer:
    name, repository = require(visit.form, "name"), visit.form.get("repository", "")
    directory, by = visit.custody.directory, visit.visitor.operator
    remove_secret(directory, owner=_owner(visit), name=name, repository=repository, by=by)
    return Moved(f"{PATH}/secrets", f"{name} is removed.")


def _show_repositories(visit: Visit) -> Answer:
    organization = visit.account.organization
    if organization is None:
        raise NotThere
    members = {one.name for one in visit.custody.directory.members(organization)}
    found: dict[str, Repository] = {}
    for session in Sessions(visit.custody.home).all():
        if session.account in members:
            place = scope_of(session.repository)
            one = found.setdefault(place, Repository(place))
            one.sessions += 1
            one.running += session.state not in ENDED
            one.last_ms = max(one.last_ms, session.changed_ms)
    for secret in _list(visit):
        if not secret.repository:
            continue
        one = found.setdefault(secret.repository, Repository(secret.repository))
        one.secrets += 1
        one.has_credential = one.has_credential or secret.name in KEPT_OUTSIDE
    facts = {"repositories": sorted(found.values(), key=lambda one: (-one.last_ms, one.place))}
    return View("repositories.html", facts)
