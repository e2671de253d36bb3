"""What an organization's admin decides: members and roles, what is held and for how long, keys and holds."""

import msgspec

from bailee.accounts.choices import RETENTION, require_admin
from bailee.accounts.directory import NameTaken
from bailee.accounts.keys import create_key, list_keys, revoke_key
from bailee.accounts.people import Account, Kind
from bailee.accounts.roles import change_role
from bailee.accounts.suspensions import suspend_member
from bailee.accounts.tables import KeyOrigin, Role
from bailee.console.privacy import is_claude_api, name_limit, period_of_plan, tell_changed
from bailee.console.refusals import list_taken, name_flow, read_choice
from bailee.console.rendering import TEMPLATES
from bailee.pages import Answer, Handler, Moved, NotThere, Page, Part, Section, View, Visit, require
from bailee.policy.consents import offers_dpp, offers_zdr
from bailee.policy.periods import UNLIMITED, Period
from bailee.policy.plans import Provider
from bailee.policy.problems import Problem
from bailee.sizes import tell_count
from bailee.vault.erasure import NothingHeld, count_session
from bailee.vault.holds import Hold, NotInForce, count_freed, list_holds
from bailee.vault.tables import holds as holds_table
from bailee.vault.tightening import bring_into_force

PATH = "/console/organization"
_ADMIN = frozenset({Part.ADMIN})
_SWITCHES = {"zdr": Kind.ZDR, "dpp": Kind.DPP}


def make_pages() -> list[Page]:
    """Return the pages."""

    def make(
        path: str, title: str, show: Handler | None, act: Handler | None = None, *, listed: bool = False
    ) -> Page:
        return Page(
            path=PATH + path,
            title=title,
            parts=_ADMIN,
            templates=TEMPLATES,
            show=show,
            act=act,
            section=Section.ORGANIZATION if listed else Section.NONE,
        )

    return [
        make("", "Organization", _show, _change, listed=True),
        make("/switch", "Switch", _ask_switch, _switch),
        make("/retention", "How long it is held", _ask_retention, _limit),
        make("/keys", "Keys", _show_keys, _make_key, listed=True),
        make("/keys/revoke", "Keys", None, _revoke_key),
        make("/holds", "Legal holds", _show_holds, _place, listed=True),
        make("/holds/release", "Release a legal hold", _ask_release, _release),
    ]


def organization_of(visit: Visit) -> str:
    """Return the organization whose admin the visitor is."""
    if visit.account.organization is None:
        raise NotThere
    return visit.account.organization


def _members(visit: Visit) -> list[Account]:
    return visit.custody.directory.members(organization_of(visit))


def find_member(visit: Visit, name: str) -> Account:
    """Return a member by name.

    Raises:
        Problem: there is none.
    """
    found = next((one for one in _members(visit) if one.name == name), None)
    if found is None:
        raise Problem(f"{name!r} is no member", where="Members", fix="choose one who is")
    return found


# --- Members, and what holds for all of them ---


def _show(visit: Visit) -> Answer:
    members, account = _members(visit), visit.account
    facts = {
        "organization": organization_of(visit),
        "members": members,
        "account": account,
        "admins": sum(one.role is Role.ADMIN and not one.is_suspended for one in members),
        "taken": list_taken(visit, of_organization=True),
        "offers_dpp": offers_dpp(account.plan),
        "is_dpp_here": is_claude_api(visit.installation),
        "offers_zdr": offers_zdr(account.plan),
        "plans": sorted({one.plan.value for one in members}),
        "plan_periods": sorted({str(period_of_plan(one)) for one in members}),
    }
    return View("organization.html", facts)


def _change(visit: Visit) -> Answer:
    organization, directory = organization_of(visit), visit.custody.directory
    admin, operator = visit.account.name, visit.visitor.operator
    match require(visit.form, "act"):
        case "role":
            role = require(visit.form, "role")
            if role not in set(Role):
                raise Problem("there is no such role", where="Members", fix="load the page anew")
            member = require(visit.form, "member")
            change_role(directory, organization, member, Role(role), operator)
            return Moved(PATH, f"{member} is {'an admin' if role == Role.ADMIN else 'a member'} from now on.")
        case "suspend":
            given = require(visit.form, "to") == "on"
            member = require(visit.form, "member")
            suspend_member(directory, organization, member, operator, given=given)
            if not given:
                return Moved(PATH, f"{member} is let in again.")
            return Moved(PATH, f"{member} is suspended: signed out, and no key of theirs opens anything.")
        case "add":
            name = require(visit.form, "member")
            require_admin(directory, admin, operator, "admin", given=True)
            plan, by = visit.account.plan, visit.account.id
            try:
                directory.add(name, plan, organization=organization, role=Role.MEMBER, by=by)
            except NameTaken as taken:
                # Of others no more is told than that, and nobody becomes a member without their own say.
                fix = "choose another name, such as one with the organization's in front"
                raise Problem(taken.what, where="Add a member", fix=fix) from None
            return Moved(
                PATH, f"{name} is a member. For a first password: bailee console password {name} --for-holder"
            )
        case "flow":
            flow, refused = read_choice(visit)
            kind = Kind.refusing(flow)
            require_admin(directory, admin, operator, kind, given=refused)
            directory.decide_for_organization(organization, kind, given=refused, by=admin)
            what = (
                f"{name_flow(flow)} of members"
                if refused
                else f"{name_flow(flow)}; each member may refuse it"
            )
            return Moved(PATH, f"{'Refused' if refused else 'Let pass'} from now on: {what}.")
    raise Problem("there is no such thing to do", where="Organization", fix="load the page anew")


def _provider(visit: Visit) -> Provider | None:
    """Return where the organization's traffic reaches the model; None where nobody knows, as of the CLI."""
    name = visit.installation.upstream
    return Provider(name) if name in set(Provider) else None


def _read_switch(visit: Visit, said: dict[str, str]) -> tuple[Kind, bool]:
    what, to = said.get("what", ""), said.get("to", "")
    if what not in _SWITCHES or to not in ("on", "off"):
        raise Problem("there is no such switch", where="Organization", fix="load the page anew")
    return _SWITCHES[what], to == "on"


def _ask_switch(visit: Visit) -> Answer:
    kind, given = _read_switch(visit, dict(visit.query))
    members = _with_switch(visit, kind, given=given)
    facts = {
        "what": kind.value,
        "to": "on" if given else "off",
        "organization": organization_of(visit),
        "members": len(members),
        "preview": visit.preview(members),
        "is_other_on": visit.account.zdr if kind is Kind.DPP else visit.account.dpp,
    }
    words = {"zdr": "zero data retention", "dpp": "the development partner program"}[kind.value]
    return View("switch.html", facts, heading=f"Switch {words} {facts['to']}")


def _with_switch(visit: Visit, kind: Kind, *, given: bool) -> list[Account]:
    return [msgspec.structs.replace(one, **{kind.value: given}) for one in _members(visit)]


def _with_limit(visit: Visit, limit: Period) -> list[Account]:
    wish = None if limit.is_unlimited else limit
    return [msgspec.structs.replace(one, organization_retention=wish) for one in _members(visit)]


def _require_name(visit: Visit, changed: list[Account]) -> None:
    """Have an admin write the organization's name where what members hold goes at once, for good."""
    organization = organization_of(visit)
    seen = visit.preview(changed)
    if (seen.gone or seen.waiting) and visit.form.get("name", "").strip() != organization:
        raise Problem(
            "what members hold would be erased, and the name of the organization is not that",
            where="Organization",
            fix=f"go back, and write {organization} to confirm",
        )


def _switch(visit: Visit) -> Answer:
    kind, given = _read_switch(visit, dict(visit.form))
    organization, directory, admin = organization_of(visit), visit.custody.directory, visit.account.name
    require_admin(directory, admin, visit.visitor.operator, kind, given=given)
    _require_name(visit, _with_switch(visit, kind, given=given))
    directory.decide_for_organization(organization, kind, given=given, by=admin, provider=_provider(visit))
    changed = bring_into_force(visit.custody, directory.members(organization))
    kept = visit.preview(directory.members(organization)).kept
    words = {"zdr": "Zero data retention", "dpp": "The development partner program"}[kind.value]
    return Moved(PATH, f"{words} is {'on' if given else 'off'}.{tell_changed(changed, kept)}")


def _ask_retention(visit: Visit) -> Answer:
    text = visit.query.get("period", "").strip()
    present = visit.account.organization_retention or UNLIMITED
    limit = Period.parse(text, where="How long it is held") if text else present
    preview = visit.preview(_with_limit(visit, limit))
    facts = {"period": str(limit), "words": name_limit(limit), "preview": preview}
    return View("organization_limit.html", facts, heading=f"{name_limit(limit)}: members' records")


def _limit(visit: Visit) -> Answer:
    limit = Period.parse(require(visit.form, "period"), where="How long it is held")
    organization, directory, admin = organization_of(visit), visit.custody.directory, visit.account.name
    require_admin(directory, admin, visit.visitor.operator, RETENTION, given=True)
    _require_name(visit, _with_limit(visit, limit))
    directory.limit_organization(organization, limit, by=admin)
    changed = bring_into_force(visit.custody, directory.members(organization))
    kept = visit.preview(directory.members(organization)).kept
    told = f"Members' records are held at most {limit}."
    if limit.is_none or limit.is_unlimited:
        told = (
            "Nothing is held of members from now on." if limit.is_none else "There is no such wish any more."
        )
    return Moved(PATH, f"{told}{tell_changed(changed, kept)}")


# --- Keys ---


def _show_keys(visit: Visit) -> Answer:
    members, now = _members(visit), visit.custody.now_ms()
    names = {one.name for one in members}
    suspended = {one.name for one in members if one.is_suspended}
    known = [key for key in list_keys(visit.custody.directory) if key.account in names]
    facts = {
        "keys": [key for key in known if key.is_in_force(now)],
        "ended": sum(not key.is_in_force(now) for key in known),
        # A key of theirs opens nothing meanwhile.
        "suspended": suspended,
        "members": [(name, name) for name in sorted(names - suspended)],
        "made": None,
        "secret": "",
        "after": _find_last(visit),
    }
    return View("keys.html", facts)


def _find_last(visit: Visit) -> str:
    """Return the id of the last key that this admin made for an agent; empty for none."""
    own = [
        (key.created_ms, key.id)
        for key in list_keys(visit.custody.directory)
        if key.origin is KeyOrigin.OTHER and key.made_by == visit.visitor.name
    ]
    return max(own)[1] if own else ""


def _make_key(visit: Visit) -> Answer:
    member = find_member(visit, require(visit.form, "member"))
    if member.is_suspended:
        raise Problem(f"{member.name!r} is suspended", where="Keys", fix="let them in again first")
    # The answer shows a secret once, so that no page is led on to: loading it anew sends the form again.
    if visit.form.get("after", "") != _find_last(visit):
        raise Problem(
            "you made a key since this page was drawn",
            where="Keys",
            fix="it is in the list; make another from here if one is meant",
        )
    # For agents: a key that an admin makes proves no account holder.
    key, secret = create_key(
        visit.custody.directory,
        member.name,
        label=visit.form.get("label", "").strip(),
        origin=KeyOrigin.OTHER,
        made_by=visit.visitor.name,
        person=visit.visitor.person,
    )
    view = _show_keys(visit)
    assert isinstance(view, View)
    return View("keys.html", {**view.facts, "made": key, "secret": secret})


def _revoke_key(visit: Visit) -> Answer:
    id, names = require(visit.form, "key"), {one.name for one in _members(visit)}
    if not any(key.id == id and key.account in names for key in list_keys(visit.custody.directory)):
        raise Problem("no member has such a key", where="Keys", fix="load the page anew")
    revoke_key(visit.custody.directory, id, person=visit.visitor.person)
    return Moved(f"{PATH}/keys", f"Key {id} is revoked: the next request that presents it is refused.")


# --- Holds ---


def _show_holds(visit: Visit) -> Answer:
    names = {one.id: one.name for one in _members(visit)}
    with visit.custody.vault.connect() as connection:
        found = list_holds(connection, holds_table.c.account.in_(list(names)))
    facts = {
        "holds": found,
        "names": names,
        "in_force": sum(one.released_ms is None for one in found),
        "members": [(name, name) for name in sorted(names.values())],
    }
    return View("holds.html", facts)


def _place(visit: Visit) -> Answer:
    member = find_member(visit, require(visit.form, "member"))
    session = visit.form.get("session", "").strip() or None
    if session is not None:
        _require_session(visit, member, session)
    by, person = visit.visitor.name, visit.visitor.person
    placed = visit.custody.hold(member, session, reason=require(visit.form, "reason"), by=by, person=person)
    gone = f" Gone before it was placed: {tell_count(placed.gone, 'segment')}." if placed.gone else ""
    what = f"session {session}" if session else "all that is held"
    return Moved(f"{PATH}/holds", f"Hold {placed.id}: {what} of {member.name} stays.{gone}")


def _require_session(visit: Visit, member: Account, session: str) -> None:
    try:
        count_session(visit.custody.vault, member.id, session)
    except NothingHeld:
        raise Problem(
            f"nothing is held of a session {session!r} of {member.name}",
            where="Only this session",
            fix="write its id as its holder sees it under My data, or none for all that is held of them",
        ) from None


def _find_hold(visit: Visit, id: str) -> tuple[Hold, int, int]:
    """Return a hold on a member, and what its release would free: segments, and those that go at once."""
    table, accounts = holds_table, [one.id for one in _members(visit)]
    with visit.custody.vault.connect() as connection:
        found = list_holds(connection, table.c.account.in_(accounts), table.c.id == id)
        if not found:
            raise Problem("there is no such hold on a member", where="Legal holds", fix="load the page anew")
        if found[0].released_ms is not None:
            raise NotInForce("it is released already", where="Legal holds", fix="load the page anew")
        return found[0], *count_freed(connection, found[0], visit.custody.today())


def _ask_release(visit: Visit) -> Answer:
    if not visit.query.get("hold", ""):
        return Moved(f"{PATH}/holds")
    try:
        hold, freed, due = _find_hold(visit, visit.query["hold"])
    except NotInForce:
        return Moved(f"{PATH}/holds")
    names = {one.id: one.name for one in _members(visit)}
    facts = {"hold": hold, "name": names[hold.account], "freed": freed, "due": due}
    return View("release.html", facts)


def _release(visit: Visit) -> Answer:
    by, person = visit.visitor.name, visit.visitor.person
    try:
        hold, _, due = _find_hold(visit, require(visit.form, "hold"))
        released = visit.custody.release(hold.id, reason=require(visit.form, "reason"), by=by, person=person)
    except NotInForce:
        return Moved(f"{PATH}/holds", "Not done: somebody released it before.")
    gone = (
        f" {tell_count(due, 'segment')} that it kept beyond their day go with the next sweep." if due else ""
    )
    return Moved(f"{PATH}/holds", f"Hold {released.id} is released.{gone}")
