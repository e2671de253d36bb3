"""The Git flow of a service, put together: sessions' grants, credentials of the secrets store, the record."""

import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bailee.accounts.directory import Directory
from bailee.accounts.keys import KeyRing
from bailee.accounts.secrets import GIT_CREDENTIAL, GITHUB_APP, open_secrets, owner_of_organization
from bailee.flows.git.access import Access, Attached
from bailee.flows.git.github.apps import App, read_app
from bailee.flows.git.grants import find_grant, note_stop
from bailee.flows.git.meters import ABUSE
from bailee.flows.git.receiver import GitReceiver
from bailee.flows.git.recording import GitRecorder
from bailee.flows.git.requests import GitRequest
from bailee.flows.git.upstreams import Credential
from bailee.flows.web.abuse import Limits, Watch
from bailee.flows.web.files import NAME, read_rules_file
from bailee.policy.contexts import Context
from bailee.policy.flows import Flow
from bailee.policy.problems import Problem
from bailee.sealing.wrapping import KeyWrapper
from bailee.vault.recording import Recording


def make_git(
    home: Path,
    *,
    flow: Flow,
    keys: KeyRing,
    recording: Recording,
    directory: Directory,
    wrapper: KeyWrapper,
    find_context: Callable[[str], Context | None],
    abuse: Counter[tuple[str, str]],
) -> tuple[GitReceiver, GitRecorder]:
    """Return what answers sessions, and what records it; close the first before the second is finished.

    Args:
        abuse: counts what is done about abuse, by kind and by what was done.
    """
    recorder = GitRecorder(flow=flow, recording=recording, find_context=find_context)

    def note(access: Access, request: GitRequest) -> None:
        if request.what == ABUSE:
            abuse[request.route, request.outcome] += 1
        recorder.note(access, request)

    receiver = GitReceiver(
        keys=keys,
        find_access=partial(find_grant, home),
        find_credential=partial(find_credential, directory, wrapper),
        note=note,
        make_watch=partial(make_watch, home),
        stop=partial(note_stop, home),
    )
    return receiver, recorder


def make_watch(home: Path) -> Watch | None:
    """Return what looks out for abuse of Git, by the rules that a session's other connections are under."""
    path = home / NAME
    try:
        limits = read_rules_file(path).abuse if path.exists() else Limits()
    except Problem:
        limits = Limits()  # a session whose rules cannot be read does not begin; one that runs goes on
    return Watch(limits, stops=True, clock=time.monotonic)


def list_owners(directory: Directory, account: str) -> list[str]:
    """Return whose secrets count for an account, by its id: its own first, then its organization's."""
    found = next((one for one in directory.all() if one.id == account), None)
    if found is None:
        return []
    return [found.id, *([owner_of_organization(found.organization)] if found.organization else [])]


def find_credential(
    directory: Directory, wrapper: KeyWrapper, access: Access, repository: Attached
) -> Credential | App | None:
    """Return what opens a repository for an account; None where nobody kept anything for it and its scheme.

    A GitHub App wins over a credential: what is made of it is for one repository and an hour.

    Raises:
        Problem: what was kept does not open.
    """
    held = open_secrets(directory, wrapper, list_owners(directory, access.account), repository.scope)
    if GITHUB_APP in held:
        return read_app(held[GITHUB_APP][1], where=GITHUB_APP)
    return Credential(held[GIT_CREDENTIAL][1]) if GIT_CREDENTIAL in held else None
