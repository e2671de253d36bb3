"""An account holder's own choices: training, what is taken at all, how long it is held, who may come in."""

import msgspec

from bailee.accounts.choices import choose_flow, choose_retention, choose_training
from bailee.accounts.keys import Key, list_keys, revoke_key
from bailee.accounts.people import Account
from bailee.console.refusals import list_taken, name_flow, read_choice
from bailee.console.rendering import TEMPLATES
from bailee.pages import Answer, Installation, Moved, Page, Part, Section, View, Visit, require
from bailee.policy.consents import offers_training, require_available
from bailee.policy.flows import FlowId
from bailee.policy.periods import UNLIMITED, Period, tighten
from bailee.policy.plans import Provider
from bailee.policy.problems import Problem
from bailee.sizes import tell_count
from bailee.vault.kinds import sum_up
from bailee.vault.tightening import bring_into_force

PATH = "/console/privacy"
# Of who read what so many are shown; the export has all of them.
MOST_ACCESSES = 50
_HOLDER = frozenset({Part.HOLDER})


def make_pages() -> list[Page]:
    """Return the pages."""
    return [
        Page(
            path=PATH,
            title="Privacy",
            parts=_HOLDER,
            templates=TEMPLATES,
            show=_show,
            section=Section.YOURS,
        ),
        Page(
            path=f"{PATH}/training",
            title="Training",
            parts=_HOLDER,
            templates=TEMPLATES,
            show=_ask_training,
            act=_choose_training,
        ),
        Page(
            path=f"{PATH}/retention",
            title="How long it is held",
            parts=_HOLDER,
            templates=TEMPLATES,
            show=_ask_retention,
            act=_choose_retention,
        ),
        Page(
            path=f"{PATH}/flows", title="What is taken", parts=_HOLDER, templates=TEMPLATES, act=_choose_flow
        ),
        Page(path=f"{PATH}/keys", title="Keys", parts=_HOLDER, templates=TEMPLATES, act=_revoke),
    ]


def list_keys_of(visit: Visit, name: str) -> list[Key]:
    """Return the keys of an account that are in force; those of runs say nothing to a person."""
    now = visit.custody.now_ms()
    return [key for key in list_keys(visit.custody.directory) if key.account == name and key.is_in_force(now)]


def _show(visit: Visit) -> Answer:
    account, custody = visit.account, visit.custody
    holdings = sum_up(visit.held(account.id))
    accesses = custody.directory.list_accesses(account.id)
    reason = ""
    try:
        require_available(account.plan, visit.installation.provider, training=True)
    except Problem as problem:
        reason = problem.what
    facts = {
        "account": account,
        "holdings": holdings,
        "sessions": sum(one.sessions for one in holdings),
        "kept": sum(one.kept for one in holdings),
        "trainable": sum(one.trainable for one in holdings),
        "offers_training": offers_training(account.plan, visit.installation.provider),
        "reason": reason,
        "taken": list_taken(visit),
        "is_dpp_here": is_claude_api(visit.installation),
        "accesses": accesses[:MOST_ACCESSES],
        "accesses_in_all": len(accesses),
        "keys": list_keys_of(visit, account.name),
        "plan_period": period_of_plan(account),
    }
    return View("privacy.html", facts)


def period_of_plan(account: Account) -> Period:
    """Return how long conversations are held where nobody wishes them to be held for less long."""
    from bailee.vault.terms import terms_of

    free = msgspec.structs.replace(account, retention=None, organization_retention=None, zdr=False)
    return terms_of(free, FlowId.MESSAGES).retention


def _ask_training(visit: Visit) -> Answer:
    account = visit.account
    is_given = visit.query.get("to", "off" if account.training else "on") == "on"
    require_available(account.plan, visit.installation.provider, training=True)
    changed = msgspec.structs.replace(account, training=is_given)
    facts = {
        "to": "on" if is_given else "off",
        "was": account.training,
        "preview": visit.preview([changed]),
        "periods": {one: _period_of(visit, one) for one in (True, False)},
    }
    return View("training.html", facts, heading=f"Switch training {facts['to']}")


def _choose_training(visit: Visit) -> Answer:
    given = require(visit.form, "to")
    if given not in ("on", "off"):
        raise Problem("training is on or off", where="Training", fix="choose one of them")
    directory, name = visit.custody.directory, visit.account.name
    choose_training(directory, name, visit.visitor.operator, given=given == "on")
    changed = bring_into_force(visit.custody, [directory.get(name)])
    kept = visit.preview([directory.get(name)]).kept
    return Moved(PATH, f"Training is {given}.{tell_changed(changed, kept)}")


def _ask_retention(visit: Visit) -> Answer:
    text = visit.query.get("period", "").strip()
    limit = Period.parse(text, where="How long it is held") if text else visit.account.retention or UNLIMITED
    wish = None if limit.is_unlimited else limit
    changed = msgspec.structs.replace(visit.account, retention=wish)
    plan_period = period_of_plan(visit.account)
    facts = {
        "period": str(limit),
        "words": name_limit(limit),
        "preview": visit.preview([changed]),
        "changes_nothing": wish is not None and tighten(limit, plan_period) == plan_period != limit,
        "plan_period": str(plan_period),
    }
    return View("retention_limit.html", facts, heading=name_limit(limit))


def _choose_retention(visit: Visit) -> Answer:
    limit = Period.parse(require(visit.form, "period"), where="How long it is held")
    directory, name = visit.custody.directory, visit.account.name
    wish = None if limit.is_unlimited else limit
    seen = visit.preview([msgspec.structs.replace(visit.account, retention=wish)])
    if (seen.gone or seen.waiting) and visit.form.get("name", "").strip() != name:
        raise Problem(
            f"something would be erased, and the name of your account, {name}, is not what you wrote",
            where="How long it is held",
            fix=f"write {name} to confirm",
        )
    choose_retention(directory, name, visit.visitor.operator, limit)
    changed = bring_into_force(visit.custody, [directory.get(name)])
    kept = visit.preview([directory.get(name)]).kept
    told = f"Records are held at most {limit}."
    if limit.is_none or limit.is_unlimited:
        told = "Nothing is held from now on." if limit.is_none else "There is no wish of yours any more."
    return Moved(PATH, f"{told}{tell_changed(changed, kept)}")


def is_claude_api(installation: Installation) -> bool:
    """Tell whether the model is reached at the Claude API itself, which alone the partner program is for."""
    return installation.provider is Provider.ANTHROPIC and installation.is_first_party


def name_limit(limit: Period) -> str:
    """Return what a button says that limits how long records are held."""
    if limit.is_none:
        return "Hold nothing"
    return "Take the wish back" if limit.is_unlimited else f"Hold at most {limit}"


def _choose_flow(visit: Visit) -> Answer:
    flow, refused = read_choice(visit)
    choose_flow(visit.custody.directory, visit.account.name, visit.visitor.operator, flow, refused=refused)
    return Moved(PATH, f"You {'refuse' if refused else 'let pass'} {name_flow(flow)} from now on.")


def _revoke(visit: Visit) -> Answer:
    id = require(visit.form, "key")
    if not any(key.id == id for key in list_keys_of(visit, visit.account.name)):
        raise Problem("you have no such key in force", where="Keys", fix="load the page anew")
    revoke_key(visit.custody.directory, id, person=visit.visitor.person)
    return Moved(PATH, f"Key {id} is revoked: the next request that presents it is refused.")


def tell_changed(changed: int, kept: int) -> str:
    """Say what a change did to what was held.

    Args:
        changed: segments that came under it.
        kept: segments that a legal hold keeps.
    """
    if not changed:
        return ""
    stays = f" A legal hold keeps {tell_count(kept, 'segment')} until it is released." if kept else ""
    return f" {tell_count(changed, 'segment')} held already came under it, or went.{stays}"


def _period_of(visit: Visit, training: bool) -> str:
    from bailee.vault.terms import terms_of

    account = msgspec.structs.replace(visit.account, training=training)
    return str(terms_of(account, FlowId.MESSAGES).retention)
