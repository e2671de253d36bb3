"""Cloud sessions: an account holder's own with log and audit trail, an operator's by their facts and for a
reason.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import msgspec
from starlette.concurrency import run_in_threadpool

from bailee.accounts.operators import is_operator
from bailee.characters import make_visible
from bailee.cloud.records import ENDED, CloudSession, NoSuchSession, Sessions, WrongState
from bailee.flows.web.pages import is_allowed, read_rules
from bailee.pages import (
    Answer,
    Moved,
    NotThere,
    Page,
    Part,
    Section,
    Stream,
    View,
    Visit,
    read_number,
    require,
)
from bailee.policy.problems import Problem
from bailee.service import cloud_orders
from bailee.service.audits import read_audit
from bailee.service.cloud_disks import remove_session
from bailee.service.cloud_logs import measure_log, read_log, tell_line
from bailee.vault.erasure import refuse_held
from bailee.vault.proofs import keep_receipt

PATH = "/console/cloud"
TEMPLATES = Path(__file__).parent / "templates"
# How long an operator looks into another's session for one reason.
OPEN_MS = 15 * 60_000
NEVER = 1 << 62
LOOK_SECONDS, LONGEST_LOG = 0.5, 100_000
_PARTS = frozenset({Part.HOLDER, Part.OPERATOR})


class Log(msgspec.Struct, frozen=True):
    """The last of what a session said.

    Attributes:
        left_out: bytes before it.
        end: bytes to its end, of all that the session said.
    """

    text: str
    left_out: int
    end: int


def make_pages() -> list[Page]:
    """Return the pages."""
    one = PATH + "/{id}"
    return [
        Page(
            path=PATH,
            title="Cloud sessions",
            parts=_PARTS,
            templates=TEMPLATES,
            show=_show,
            section=Section.YOURS,
        ),
        Page(path=one, title="Cloud session", parts=_PARTS, templates=TEMPLATES, show=_look, act=_open),
        Page(
            path=f"{one}/events",
            title="Events",
            parts=_PARTS,
            templates=TEMPLATES,
            show=_follow,
        ),
        Page(
            path=f"{one}/stop",
            title="Stop",
            parts=frozenset({Part.HOLDER}),
            templates=TEMPLATES,
            act=_stop,
        ),
        Page(
            path=f"{one}/erase",
            title="Erase a cloud session",
            parts=frozenset({Part.HOLDER}),
            templates=TEMPLATES,
            show=_ask,
            act=_erase,
        ),
    ]


def _is_own(visit: Visit, session: CloudSession) -> bool:
    return visit.visitor.account is not None and session.account == visit.visitor.account.name


def _show(visit: Visit) -> Answer:
    sessions = Sessions(visit.custody.home)
    found = sessions.all()
    for id in set(sessions.ids()) - {one.id for one in found}:
        with contextlib.suppress(Problem):  # of one that is damaged, what can be read
            found.append(sessions.read_facts(id))
    if Part.OPERATOR not in visit.visitor.parts:
        found = [one for one in found if _is_own(visit, one)]
    found.sort(key=lambda one: -one.created_ms)
    facts = {"sessions": found[:200], "running": sum(one.state not in ENDED for one in found)}
    return View("cloud.html", facts)


def _find(visit: Visit) -> CloudSession:
    sessions, id = Sessions(visit.custody.home), visit.path["id"]
    if id not in sessions.ids():
        raise NotThere
    try:
        session = sessions.read_facts(id)
    except Problem:
        raise NotThere from None  # nobody can tell whose it is
    if not _is_own(visit, session) and Part.OPERATOR not in visit.visitor.parts:
        raise NotThere
    with contextlib.suppress(Problem):  # what a person wrote is damaged: the rest is told, and it is erased
        session = sessions.look(id)
    return session


def _open_until(visit: Visit, session: CloudSession) -> int:
    """Return until when a visitor may look into a session, in milliseconds since 1970 UTC.

    Of another's it is a while from when they last said why, which its holder is shown.
    """
    if _is_own(visit, session):
        return NEVER
    directory = visit.custody.directory
    try:
        accesses = directory.list_accesses(directory.get(session.account).id)
    except Problem:
        return 0  # its account is gone, and nobody is there to be shown why
    mine = (
        one.at_ms
        for one in accesses
        if one.reader == visit.visitor.name and one.session == f"cloud-{session.id}"
    )
    return max(mine, default=0) + OPEN_MS


def _look(visit: Visit) -> Answer:
    session = _find(visit)
    return _tell(visit, session, is_open=visit.custody.now_ms() < _open_until(visit, session))


def _open(visit: Visit) -> Answer:
    """Open the log and the trail of another's session: why is recorded first, and shown to them."""
    session, custody = _find(visit), visit.custody
    if not _is_own(visit, session):
        custody.record_access(
            custody.directory.get(session.account).id,
            f"cloud-{session.id}",
            reader=visit.visitor.name,
            person=visit.visitor.person,
            purpose="audit",
            reason=require(visit.form, "reason"),
        )
    return Moved(f"{PATH}/{session.id}")


def _tell(visit: Visit, session: CloudSession, *, is_open: bool) -> Answer:
    audited, log, fault = [], Log("", 0, 0), ""
    is_running = session.state not in ENDED
    if is_open:
        try:
            audited = read_audit(visit.custody.home, session)
            log = _read_last(visit.custody.home, session.id, is_running=is_running)
        except Problem as problem:
            fault = f"{problem.what} ({problem.where})"
    denied = [one for one in audited if one.is_denied]
    rules, _ = read_rules(visit)
    facts = {
        "session": session,
        "is_own": _is_own(visit, session),
        "is_open": is_open,
        "is_running": is_running,
        "is_allowed": partial(is_allowed, rules),
        "audited": audited[-500:],
        "denied": denied,
        "log": log,
        "fault": fault,
        "here": f"{PATH}/{session.id}",
        "may_allow": Part.OPERATOR in visit.visitor.parts,
        "passed": sum(not one.is_denied for one in audited),
    }
    return View("cloud_session.html", facts, heading=f"Cloud session {session.id}")


def _read_last(home: Path, id: str, *, is_running: bool) -> Log:
    """Return the end of a log, from the beginning of a line on; while it goes on, only whole lines of it."""
    sessions = Sessions(home)
    size = measure_log(sessions, id)
    start, data = max(0, size - LONGEST_LOG), b""
    while len(data) < 2 * LONGEST_LOG and (piece := read_log(sessions, id, start + len(data))):
        data += piece
    if start:
        cut = data.find(b"\n") + 1
        start, data = start + cut, data[cut:]
    if is_running:
        data = data[: data.rfind(b"\n") + 1]
    lines = [tell_line(line) for line in data.split(b"\n")]
    return Log("\n".join(lines), start, start + len(data))


def _follow(visit: Visit) -> Answer:
    session, now_ms = _find(visit), visit.custody.now_ms
    until_ms = _open_until(visit, session)
    if now_ms() >= until_ms:
        raise NotThere
    home, directory, visitor = visit.custody.home, visit.custody.directory, visit.visitor

    def may_look() -> bool:
        if visitor.account is not None and visitor.user is None and not _is_own(visit, session):
            return now_ms() < until_ms and is_operator(directory, visitor.account.id)
        return now_ms() < until_ms

    # What a browser that lost the connection had last (HTML, "The `Last-Event-ID` header"), else its page.
    at = read_number(visit.resumed or visit.query.get("from", ""), 0)
    return Stream(lambda: follow_events(home, session.id, at, may_look))


async def follow_events(home: Path, id: str, at: int, may_look: Callable[[], bool]) -> AsyncIterator[bytes]:
    """Give what a session says and how it stands, from a byte of its log to its end; nothing is a pause.

    The id of an event of the log is where the next line begins.
    """
    sessions, rest, told = Sessions(home), b"", b""
    while True:
        if not await run_in_threadpool(may_look):
            yield b"event: end\ndata: {}\n\n"
            return
        session = await run_in_threadpool(sessions.look, id)
        data = await run_in_threadpool(read_log, sessions, id, at + len(rest))
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            at += len(line) + 1
            yield f"event: log\nid: {at}\ndata: {tell_line(line)}\n\n".encode("utf-8", "replace")
        state = msgspec.json.encode({"state": session.state, "reason": make_visible(session.reason)})
        if state != told:
            told = state
            yield b"event: state\ndata: " + state + b"\n\n"
        if session.state in ENDED and not data:
            yield b"event: end\ndata: {}\n\n"
            return
        yield b""
        await asyncio.sleep(LOOK_SECONDS)


def _find_own(visit: Visit) -> CloudSession:
    session = _find(visit)
    if not _is_own(visit, session):
        raise NotThere
    return session


def _stop(visit: Visit) -> Answer:
    session = _find_own(visit)
    cloud_orders.stop(visit.custody.home, session.id)
    return Moved(f"{PATH}/{session.id}", "It is stopped.")


def _ask(visit: Visit) -> Answer:
    session = _find_own(visit)
    refuse_held(visit.custody.vault, visit.account.id, None)
    facts = {"session": session, "is_running": session.state not in ENDED, "here": f"{PATH}/{session.id}"}
    return View("cloud_erase.html", facts)


def _erase(visit: Visit) -> Answer:
    session, custody = _find_own(visit), visit.custody
    refuse_held(custody.vault, visit.account.id, None)
    with contextlib.suppress(WrongState, NoSuchSession):  # it has ended
        cloud_orders.stop(custody.home, session.id)
    by, person = visit.visitor.name, visit.visitor.person
    try:
        proof = remove_session(custody.home, session.id, by=by, person=person)
    except NoSuchSession:
        return Moved(PATH, "It is gone already.")
    keep_receipt(custody.home, visit.account.id, proof, at_ms=custody.now_ms())
    facts = {"id": session.id, "receipt": proof.decode()}
    return View("cloud_erased.html", facts, heading="Erased")
