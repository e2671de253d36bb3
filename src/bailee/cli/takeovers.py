"""`bailee code --from-cloud`: a cloud session's branch and conversation, taken over in a clone."""

import contextlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from bailee.characters import make_visible
from bailee.cli.erasures import require_confirmation
from bailee.policy.problems import Problem
from bailee.sizes import tell_count

if TYPE_CHECKING:
    from bailee.agent.service import Service
    from bailee.agent.sessions.copies import Taken
    from bailee.cloud.conversations import Offer

THERE = "/session/repository"  # where the clone is in a session's machine
_ID = re.compile(r"[0-9a-f]{12}")
_PATH = "/api/cloud/sessions/{id}/conversation"
_WHERE = "--from-cloud"


class TakenOver(msgspec.Struct, frozen=True):
    """A session whose branch is checked out, and whose conversation is ready to be gone on with."""

    taken: "Taken"
    told: str


def fetch_session(beginning: str, folder: Path, *, yes: bool) -> TakenOver:
    """Check a cloud session, read its conversation, and check its branch out once a person has agreed.

    Nothing is changed before all of it has been found good.

    Raises:
        Problem: there is no such session, it is another's, runs, or is of another agent or repository; its
            conversation cannot be gone on with; the tree is not clean; git refuses.
    """
    from bailee.agent.clones import check_out, fetch_branch, find_clone, plan_move, require_clean
    from bailee.agent.sessions.copies import take_copy
    from bailee.cloud.conversations import open_copy
    from bailee.flows.git.access import check_branch, check_url

    offer = _find_offer(beginning)
    check_url(offer.repository, where=offer.id)
    check_branch(offer.branch, where=offer.id)
    _require_ended(offer)
    clone = find_clone(folder, offer.repository)
    _require_conversation(offer)
    require_clean(clone)
    copy = open_copy(offer.conversation)
    taken = take_copy(copy.id, copy.key, copy.journal, there=THERE, here=clone.root)
    if offer.has_unsaved:
        what = f"note: what it did last may not be on {offer.branch}, nor in its conversation"
        click.echo(f"{what}; to have it first: bailee cloud save {offer.id}", err=True)
    commit = fetch_branch(clone, offer.branch)
    said = f"{tell_count(offer.answered, 'prompt')} and {tell_count(taken.messages, 'message')}"
    if commit is None:
        click.echo(f"note: it pushed nothing: there is no {offer.branch}; the branch here stays", err=True)
        require_confirmation(f"Take over {said} of the session {offer.id}?", yes=yes)
        return TakenOver(taken, f"Took over the cloud session {offer.id}: {said}; it had pushed nothing.")
    move = plan_move(clone, offer.branch, commit)
    ahead = f"{tell_count(move.ahead, 'commit')} ahead of {make_visible(move.begun)}"
    if move.begun == move.branch:
        ahead = f"{tell_count(move.ahead, 'commit')} new"
    require_confirmation(f"Check out {move.branch} ({ahead}) and take over {said}?", yes=yes)
    check_out(clone, move)
    return TakenOver(taken, f"Took over the cloud session {offer.id}: {said}; on {move.branch}, {ahead}.")


def _require_ended(offer: "Offer") -> None:
    from bailee.cloud.records import ENDED

    if offer.state not in ENDED:
        raise Problem(
            f"the session is {offer.state}: what it says and does now would not come along",
            where=offer.id,
            fix=f"wait for its end (bailee cloud logs -f {offer.id}) or: bailee cloud stop {offer.id}",
        )


def _require_conversation(offer: "Offer") -> None:
    by_hand = f"go on with its work by hand: git fetch REMOTE {offer.branch} && git switch {offer.branch}"
    if offer.agent != "bailee":
        whose = "Claude Code's own" if offer.agent == "claude-code" else "its own agent's, if it has one"
        raise Problem(f"the conversation of this session is {whose}", where=offer.id, fix=by_hand)
    if not offer.conversation:
        fix = f"bailee cloud save {offer.id} copies it, if its disk has it; or {by_hand}"
        raise Problem("no conversation of this session is kept", where=offer.id, fix=fix)


def _find_offer(beginning: str) -> "Offer":
    """Return the session of this home that is named so, or else of the service that knows the user."""
    from bailee.cloud.conversations import make_offer
    from bailee.cloud.records import Sessions
    from bailee.home import home_directory

    home = home_directory()
    sessions = Sessions(home)
    if beginning and any(id.startswith(beginning) for id in sessions.ids()):
        session = sessions.get(beginning)
        _require_holder(home, session.account, session.id)
        return make_offer(session, sessions)
    service = _find_service()
    if service is None:
        raise Problem(
            f"no cloud session here begins with {make_visible(beginning[:40])!r}",
            where=_WHERE,
            fix="see: bailee cloud list; for one of a service elsewhere, log in there: bailee login",
        )
    if not _ID.fullmatch(beginning):
        raise Problem(
            f"no cloud session here begins with {make_visible(beginning[:40])!r}",
            where=_WHERE,
            fix=f"for one of {service.place}, write its id in full: 12 letters and digits",
        )
    return _ask_offer(service, beginning)


def _require_holder(home: Path, account: str, id: str) -> None:
    """Raise Problem for another's session: what they said would stay here, under other terms than theirs."""
    from bailee.accounts.directory import open_directory
    from bailee.accounts.holders import is_holder
    from bailee.cli.accesses import this_operator

    directory = open_directory(home)
    try:
        if not is_holder(directory.engine, directory.get(account).id, this_operator()):
            raise Problem(
                "this is another person's session",
                where=id,
                fix="its account holder takes it over, or presents their key in BAILEE_KEY",
            )
    finally:
        directory.close()


def _find_service() -> "Service | None":
    """Return the service that is asked: that of the login, or else the one that the environment names."""
    from bailee.agent.login import read_login
    from bailee.agent.service import find_gateway, find_service
    from bailee.agent.state import state_folder

    login = read_login(state_folder(), os.environ)
    return login.to_service() if login else find_service(os.environ) or find_gateway(os.environ)


def _ask_offer(service: "Service", id: str) -> "Offer":
    from bailee.agent.service import tell_fault
    from bailee.cloud.conversations import LARGEST_COPY, Offer

    try:
        # In base64 a third longer, and what else is told.
        most = LARGEST_COPY * 4 // 3 + 100_000
        status, body = service.ask("GET", _PATH.format(id=id), os.environ, most=most)
    except OSError as fault:
        raise Problem(
            f"the service cannot be reached: {tell_fault(fault)}", where=service.place, fix="is it running?"
        ) from None
    if status != 200:
        told = _Refusal()
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
            told = msgspec.json.decode(body, type=_Refusal)
        raise Problem(
            f"the service does not give the session: {make_visible(told.error)[:300] or status}",
            where=service.place,
            fix=make_visible(told.fix)[:300] if status != 401 else "run: bailee login",
        )
    try:
        offer = msgspec.json.decode(body, type=Offer)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        offer = None
    if offer is None or offer.id != id:
        raise Problem(
            "the service's answer cannot be understood",
            where=service.place,
            fix="is it a Bailee service, and one of this version?",
        )
    return offer


class _Refusal(msgspec.Struct, frozen=True):
    error: str = ""
    fix: str = ""
