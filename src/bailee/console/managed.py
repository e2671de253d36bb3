"""The settings that an organization's agents are served: edited here, checked as the agent itself checks
them.
"""

from pathlib import Path

from bailee.accounts.choices import require_admin
from bailee.accounts.managed import LONGEST, Overtaken, read_managed, save_managed
from bailee.console.organizations import PATH as ORGANIZATION
from bailee.console.organizations import organization_of
from bailee.console.rendering import TEMPLATES
from bailee.manifests import load_manifest
from bailee.manifests.settings import Source, read_source
from bailee.pages import Answer, Moved, Page, Part, Section, View, Visit
from bailee.policy.layers import LayerName
from bailee.policy.problems import Problem

PATH = f"{ORGANIZATION}/settings"
WHERE = "managed settings"


def make_pages() -> list[Page]:
    """Return the page."""
    return [
        Page(
            path=PATH,
            title="Managed settings",
            parts=frozenset({Part.ADMIN}),
            templates=TEMPLATES,
            show=_show,
            act=_save,
            section=Section.ORGANIZATION,
        )
    ]


def check_settings(text: str) -> None:
    """Check settings as our own agent does before it heeds them.

    Raises:
        Problem: they are no settings file, or have a value that cannot be meant.
    """
    from bailee.agent.fetches import check_source  # the words of the agent, which the service does not need

    check_source(_read(text))


def list_unheeded(text: str) -> list[str]:
    """Return what of settings agents will not heed, as these only tighten; nothing of what cannot be read."""
    from bailee.agent.fetches import list_unheeded

    try:
        return list_unheeded(_read(text))
    except Problem:
        return []


def _read(text: str) -> Source:
    if len(text) > LONGEST:
        raise Problem("the settings are too long", where=WHERE, fix=f"keep them below {LONGEST:,} characters")
    if not text.strip():
        raise Problem("there is nothing in them", where=WHERE, fix="write a JSON object; {} says nothing")
    source = read_source(Path(WHERE), LayerName.ORGANIZATION, load_manifest("bailee"), {}, data=text.encode())
    if source is None:
        raise Problem("this is no settings file", where=WHERE, fix="write a JSON object; {} says nothing")
    return source


def _show(visit: Visit) -> Answer:
    managed = read_managed(visit.custody.directory, organization_of(visit))
    return _tell(visit, managed.body, None)


def _tell(visit: Visit, text: str, problem: Problem | None, *, is_stale: bool = False) -> Answer:
    managed = read_managed(visit.custody.directory, organization_of(visit))
    facts = {
        "managed": managed,
        "is_served": managed.body.strip() not in ("", "{}"),
        "text": text,
        "problem": problem,
        "unheeded": list_unheeded(text),
        "is_stale": is_stale,
        # What is refused for another reason is still over what its page was of.
        "over": visit.form.get("tag", "") if problem and not is_stale else managed.tag,
        "base": visit.base_of_programs,
    }
    return View("managed.html", facts, 400 if problem else 200)


def _save(visit: Visit) -> Answer:
    organization, directory, admin = organization_of(visit), visit.custody.directory, visit.account
    text = visit.form.get("settings", "").replace("\r\n", "\n").strip() + "\n"
    if visit.form.get("act", "") == "remove":
        text = "{}\n"
    require_admin(directory, admin.name, visit.visitor.operator, "managed_settings", given=True)
    over = visit.form.get("tag", "")
    try:
        check_settings(text)
        save_managed(directory, organization, text, account=admin.id, by=admin.name, over=over)
    except Problem as problem:
        return _tell(visit, text, problem, is_stale=isinstance(problem, Overtaken))
    what = "Removed" if text.strip() == "{}" else "Saved"
    return Moved(PATH, f"{what}. Agents are told the next time they ask.")
