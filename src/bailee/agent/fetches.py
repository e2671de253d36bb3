"""The organization's settings, asked for when the agent starts."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from bailee.agent.account import LOGIN_FILE, find_login, read_account
from bailee.agent.clients import REHEARSAL
from bailee.agent.managed import (
    FOLDER,
    LOGIN_SETTINGS,
    Managed,
    find_caller,
    path_of,
    read_managed,
    read_managed_source,
    write_managed,
)
from bailee.agent.permissions import read_rule
from bailee.agent.service import Service, tell_fault
from bailee.agent.settings import AGENT, USUAL_DAYS, Effective, Telemetry, compose, understand
from bailee.agent.state import state_folder
from bailee.agent.tools import TOOLS
from bailee.manifests import load_manifest
from bailee.manifests.settings import Source
from bailee.moments import tell_minute
from bailee.policy.layers import LayerName
from bailee.policy.plans import Provider
from bailee.policy.problems import Problem

PATH = "/api/settings"
# The start waits for it.
SECONDS = 1.0
LONGEST_TAG = 200  # characters


def fetch_managed(
    settings: Effective, environment: Mapping[str, str], *, now: int, is_kept: bool
) -> tuple[Managed | None, str]:
    """Ask the service of the model traffic what the organization manages, and keep it.

    Nobody is asked where nothing is sent to a service: with the rehearsal model, or without an account.

    Args:
        settings: what is in force by what is known so far.
        environment: the process's variables.
        now: milliseconds since 1970 UTC.
        is_kept: whether the answer may be written on this machine.

    Returns:
        What the service says is in force, None where it did not say; and, in words, what the user should know
        of why it did not. An answer that cannot be understood is none: the last known settings stay in force.

    Raises:
        Problem: what is kept cannot be understood.
    """
    provider = settings.context().provider
    model = settings.values["model"]
    # An organization that once chose that model could never say anything else.
    is_offline = model.value == REHEARSAL and model.origin.layer != LayerName.ORGANIZATION
    if is_offline or provider is not Provider.ANTHROPIC:
        return None, ""
    state, whole = state_folder(environment), {**settings.environment, **environment}
    try:
        service, path = _find_asked(state, whole)
    except Problem as problem:
        return None, str(problem)
    if service is None:
        return None, ""
    known = read_managed(path, service.recipient)
    try:
        told = ask_managed(service, whole, known, now=now)
    except OSError as fault:
        # That it cannot be reached is told with the account.
        is_strict = known is not None and known.body.strip() != "{}"
        return None, _tell_last(f"{service.place}: {tell_fault(fault)}", known) if is_strict else ""
    except Problem as problem:
        return None, _tell_last(str(problem), known)
    if is_kept:
        try:
            write_managed(path, told)
        except (OSError, Problem) as fault:
            return told, f"the organization's settings cannot be kept: {fault}"
    return told, ""


def fetch_at_login(state: Path, service: Service, environment: Mapping[str, str], *, now: int) -> str:
    """Ask the service of a new login what the organization manages, so that what is told before the agent's
    first start is so; return in words why it did not say.
    """
    try:
        write_managed(state / FOLDER / LOGIN_SETTINGS, ask_managed(service, environment, None, now=now))
    except (OSError, Problem) as fault:
        return f"what its organization manages was not told, and is asked for when the agent starts: {fault}"
    return ""


def _find_asked(state: Path, environment: Mapping[str, str]) -> tuple[Service | None, Path]:
    """Return whom to ask, and where its answer is kept: whom the account is asked of."""
    if (service := find_caller(environment)) is not None:
        return service, path_of(state, service)
    path = state / FOLDER / LOGIN_SETTINGS
    # A keyring is not asked where nobody is logged in: it might ask back.
    known = read_account(state / LOGIN_FILE) is not None
    login = find_login(state, environment, Provider.ANTHROPIC) if known else None
    return (login.to_service() if login else None), path


def ask_managed(
    service: Service, environment: Mapping[str, str], known: Managed | None, *, now: int
) -> Managed:
    """Ask a service what is managed, unless it is what is known.

    Args:
        now: milliseconds since 1970 UTC.

    Raises:
        OSError: the service cannot be reached, or does not say.
        Problem: what it says is no settings file, or has what nobody can know the meaning of.
    """
    tag = known.tag if known else ""
    answer = service.fetch("GET", PATH, environment, seconds=SECONDS, known=tag)
    if known is not None and tag and answer.status == 304:
        return msgspec.structs.replace(known, as_of=now)
    if answer.status != 200:
        raise OSError(f"it answers {answer.status}")
    # A folded or endless header could not be sent back.
    kept = answer.tag if answer.tag.isprintable() and len(answer.tag) <= LONGEST_TAG else ""
    try:
        told = Managed(service.recipient, service.place, kept, answer.body.decode(), now)
    except UnicodeDecodeError:
        raise Problem("the organization's settings are not UTF-8 text", where=service.place) from None
    if (source := read_managed_source(told, load_manifest(AGENT))) is not None:
        check_source(source)
    return told


def check_source(source: Source) -> None:
    """Find out whether the agent can heed what a settings file says, its rules for tools included.

    Raises:
        Problem: there is something that nobody can know the meaning of.
    """
    permissions = understand(source).permissions
    for name, rules in (("allow", permissions.allow), ("deny", permissions.deny)):
        for rule in rules:
            read_rule(rule, tuple(TOOLS), where=f"{source.origin}: permissions.{name}")


def list_unheeded(source: Source) -> list[str]:
    """Return what an organization's settings say in vain: they only tighten what members chose themselves.

    Raises:
        Problem: see `check_source`.
    """
    settings = understand(source)
    effective = compose(
        load_manifest(AGENT), [(LayerName.ORGANIZATION, source.origin, settings)], (source.decided,), {}
    )
    told = [notice.removeprefix(f"{source.origin}: ") for notice in effective.notices]
    if settings.telemetry is Telemetry.ON:
        told.append("telemetry: on switches nothing on")
    days = settings.cleanup_period_days
    if days == "unlimited" or (isinstance(days, int) and days > USUAL_DAYS):
        told.append(f"cleanupPeriodDays: {days} lengthens nothing; {USUAL_DAYS} days are usual")
    if settings.feedback_survey_rate not in (None, effective.values["feedbackSurveyRate"].value):
        told.append("feedbackSurveyRate: nobody is asked more often by it than usual")
    return told


def _tell_last(reason: str, known: Managed | None) -> str:
    stays = f"those as of {tell_minute(known.as_of)} UTC stay in force" if known else "none are known"
    return f"the organization's settings could not be fetched: {reason}; {stays}"
