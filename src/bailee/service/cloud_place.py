"""Cloud sessions as a place where something of accounts is held: counted, exported, erased."""

import codecs
import time
from collections.abc import Iterator

from bailee.accounts.people import Account
from bailee.cloud.records import CloudSession, NoSuchSession, Sessions
from bailee.flows.web.receiver import is_open
from bailee.moments import tell_moment
from bailee.pages import Place
from bailee.policy.problems import Problem
from bailee.service.cloud_disks import list_of_account, remove_of_account
from bailee.service.cloud_logs import read_log
from bailee.service.cloud_pages import PATH
from bailee.vault.custody import Custody
from bailee.vault.disks import FLOW

# How long a log of connections is waited for, and between looks.
PATIENCE_SECONDS, LOOK_SECONDS = 15.0, 0.1


def _count(custody: Custody, account: Account) -> int:
    return len(list_of_account(custody.home, account.name))


def _tell(custody: Custody, account: Account) -> Iterator[dict[str, object]]:
    sessions = Sessions(custody.home)
    for facts in list_of_account(custody.home, account.name):
        try:
            yield _tell_session(sessions.look(facts.id))
            # A piece may end within a character.
            text, at = codecs.getincrementaldecoder("utf-8")("replace"), 0
            while piece := read_log(sessions, facts.id, at):
                yield {"id": facts.id, "log": text.decode(piece)}
                at += len(piece)
        except NoSuchSession:
            continue  # it went meanwhile
        except Problem as problem:
            # One that is damaged keeps nobody from all else.
            yield {"id": facts.id, "fault": problem.what}


def _tell_session(session: CloudSession) -> dict[str, object]:
    return {
        "id": session.id,
        "repository": session.repository,
        "base": session.base,
        "branch": session.branch,
        "agent": session.agent,
        "setup": session.setup,
        "prompts": session.turns,
        "state": session.state,
        "reason": session.reason,
        "isolation": session.isolation,
        "network": session.network,
        "allow": session.allow,
        "began": tell_moment(session.created_ms),
        "changed": tell_moment(session.changed_ms),
        "retention": session.retention,
        "disk_bytes": session.disk_bytes,
        "disk_sha256": session.disk_digest,
    }


def _erase(custody: Custody, account: Account, by: str, person: str) -> Iterator[bytes]:
    keys = {key for one in list_of_account(custody.home, account.name) for key in one.keys}
    for _, receipt in remove_of_account(custody.home, account.name, by=by, person=person):
        yield receipt
    # What a machine that was just ended had asked for comes to the vault a moment later.
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until and any(is_open(custody.home, key) for key in keys):
        time.sleep(LOOK_SECONDS)


PLACE = Place(flow=FLOW, name="cloud session", path=PATH, count=_count, tell=_tell, erase=_erase)
