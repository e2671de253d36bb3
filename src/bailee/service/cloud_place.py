"""Cloud sessions as a place where something of accounts is held: counted, exported, erased."""

import codecs
from collections.abc import Iterator

from bailee.accounts.people import Account
from bailee.cloud.records import CloudSession, Sessions
from bailee.moments import tell_moment
from bailee.pages import Place
from bailee.service.cloud_disks import list_of_account, remove_of_account
from bailee.service.cloud_logs import read_log
from bailee.service.cloud_pages import PATH
from bailee.vault.custody import Custody
from bailee.vault.disks import FLOW


def _count(custody: Custody, account: Account) -> int:
    return len(list_of_account(custody.home, account.name))


def _tell(custody: Custody, account: Account) -> Iterator[dict[str, object]]:
    sessions = Sessions(custody.home)
    for facts in list_of_account(custody.home, account.name):
        session = sessions.look(facts.id)
        yield _tell_session(session)
        # A piece may end within a character.
        text, at = codecs.getincrementaldecoder("utf-8")("replace"), 0
        while piece := read_log(sessions, session.id, at):
            yield {"id": session.id, "log": text.decode(piece)}
            at += len(piece)


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
    for _, receipt in remove_of_account(custody.home, account.name, by=by, person=person):
        yield receipt


PLACE = Place(flow=FLOW, name="cloud session", path=PATH, count=_count, tell=_tell, erase=_erase)
