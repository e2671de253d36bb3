"""What an account holder sees of their conversations: each with its terms, to read, export and erase."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import quote, unquote

import msgspec

from bailee.flows.messages.conversations import Said, read_said, read_text
from bailee.ledger.receipts import join_receipts
from bailee.pages import (
    Answer,
    Download,
    File,
    Moved,
    NotThere,
    Page,
    Part,
    Place,
    Section,
    View,
    Visit,
    read_number,
)
from bailee.policy.flows import FlowId
from bailee.policy.problems import Problem
from bailee.vault.custody import Custody
from bailee.vault.downloads import stream_account
from bailee.vault.erasure import Erasure, NothingHeld, count_session, refuse_held
from bailee.vault.exports import list_ids
from bailee.vault.holds import UnderHold, covering, list_holds, read_covered
from bailee.vault.kinds import has_many, sum_up
from bailee.vault.proofs import count_receipts, keep_receipt, read_receipts
from bailee.vault.reader import Session, Transcript, list_exchanges, read_session
from bailee.vault.recent import Recent, count_flows, describe_sessions, list_recent

PATH = "/console/data"
# Of a record in columns so many rows are shown; the export has all of them.
MOST_ROWS = 500
# Where reports are read and taken back.
REPORTS = "/console/feedback"
PAGE_SESSIONS, PAGE_EXCHANGES = 50, 20
MOST_RECEIPTS = 100
# The ids of exchanges, which pages of sessions begin before, are 63 bits long.
_LATEST = (1 << 63) - 1
TEMPLATES = Path(__file__).parent / "templates"
_HOLDER = frozenset({Part.HOLDER})


class Table(msgspec.Struct, frozen=True):
    """What a record says, where it is no conversation, in columns; heads that begin with # are of numbers."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


def make_pages(
    tellers: Mapping[FlowId, Callable[[bytes], Table]] = {}, places: Sequence[Place] = ()
) -> list[Page]:
    """Return the pages.

    Args:
        tellers: put what is recorded of other flows in columns; of one without it is shown as it is.
        places: where something of an account is held besides.
    """
    of_session = PATH + "/session/{id}"
    return [
        Page(
            path=PATH,
            title="My data",
            parts=_HOLDER,
            templates=TEMPLATES,
            show=partial(_show, places),
            section=Section.YOURS,
        ),
        Page(
            path=f"{PATH}/export",
            title="Export",
            parts=_HOLDER,
            templates=TEMPLATES,
            act=partial(_export_all, places),
        ),
        Page(
            path=f"{PATH}/erase",
            title="Erase everything",
            parts=_HOLDER,
            templates=TEMPLATES,
            show=partial(_ask_all, places),
            act=partial(_erase_all, places),
        ),
        Page(
            path=f"{PATH}/receipts",
            title="Receipts of what you erased",
            parts=_HOLDER,
            templates=TEMPLATES,
            show=_give_receipts,
        ),
        Page(
            path=of_session, title="Session", parts=_HOLDER, templates=TEMPLATES, show=partial(_read, tellers)
        ),
        Page(
            path=f"{of_session}/export",
            title="Export",
            parts=_HOLDER,
            templates=TEMPLATES,
            show=_export,
        ),
        Page(
            path=f"{of_session}/erase",
            title="Erase a session",
            parts=_HOLDER,
            templates=TEMPLATES,
            show=_ask,
            act=_erase,
        ),
    ]


def link_to(id: str) -> str:
    """Return the path of a session's page; an agent may put anything into an id."""
    # Twice, as a slash would end it once it is read; and with its dots, which browsers take for folders.
    written = quote(id, safe="").replace(".", "%2E")
    return f"{PATH}/session/{quote(written, safe='')}"


def _show(places: Sequence[Place], visit: Visit) -> Answer:
    account, custody = visit.account, visit.custody
    for place in places:
        if visit.query.get("flow", "") == place.flow:
            return Moved(place.path)
    before = read_number(visit.query.get("before", ""), 0, most=_LATEST) or None
    flow = _read_flow(visit.query.get("flow", ""))
    if flow is FlowId.FEEDBACK:
        return Moved(REPORTS)
    found = _list(visit, flow, before)
    wanted = visit.query.get("session", "").strip()
    if wanted:
        with contextlib.suppress(NotThere):
            return Moved(link_to(_find(visit, wanted).id))
    held = {one.flow: one for one in sum_up(visit.held(account.id))}
    with custody.vault.connect() as connection:
        covered = {session for of, session in read_covered(connection) if of == account.id}
    facts = {
        "is_covered": lambda session: None in covered or session in covered,
        "has_holds": bool(covered),
        "missing": wanted,
        "sessions": found.sessions,
        "next": found.next,
        "is_first": before is None,
        "flow": flow.value,
        "is_main": flow is FlowId.MESSAGES,
        "held": held.get(flow.value),
        "others": [one for of, one in held.items() if of != flow],
        "places": {one.flow: one.name for one in places},
        "link_to": link_to,
        "kept": _count_kept(visit),
    }
    return View("data.html", facts)


def _list(visit: Visit, flow: FlowId, before: int | None) -> Recent:
    """Return a page of sessions. Where there are many, those of a flow that is rarely used are looked for
    among all: 0.1 s for 50,000, so that what was found is kept a while.
    """
    vault, account = visit.custody.vault, visit.account.id

    def find() -> Recent:
        return list_recent(vault, account, limit=PAGE_SESSIONS, before=before, flow=flow)

    if flow is FlowId.MESSAGES or before is not None or not has_many(vault, account):
        return find()
    return visit.kept.get(f"sessions of {flow} {account}", find)


def _read_flow(text: str) -> FlowId:
    """Return the flow that a query names; conversations where it names none that there is."""
    try:
        return FlowId(text)
    except ValueError:
        return FlowId.MESSAGES


def _count_kept(visit: Visit) -> int:
    return count_receipts(visit.custody.home, visit.account.id)


def _find(visit: Visit, id: str) -> Session:
    """Return a session of the visitor's; of others' it is not told whether there are any."""
    with visit.custody.vault.connect() as connection:
        found = describe_sessions(connection, visit.account.id, [id], None)
    if not found:
        raise NotThere
    return found[0]


def _session_of(visit: Visit) -> Session:
    return _find(visit, unquote(visit.path["id"]))


def _read(tellers: Mapping[FlowId, Callable[[bytes], Table]], visit: Visit) -> Answer:
    custody, session = visit.custody, _session_of(visit)
    exchanges = list_exchanges(custody.vault, account=session.account, session=session.id)
    start = read_number(visit.query.get("from", ""), 0, most=max(0, len(exchanges) - 1))
    shown = exchanges[start : start + PAGE_EXCHANGES]
    # A report has a page of its own, where it can be taken back.
    wanted = {one.id: one.flow for one in shown if one.flow != FlowId.FEEDBACK}
    said: dict[int, list[Said] | Table] = {}
    fault = ""
    try:
        for transcript in read_session(
            custody.vault, custody.keystore, session.account, session.id, today=custody.today()
        ):
            if transcript.exchange in wanted:
                said[transcript.exchange] = _tell(transcript, FlowId(wanted[transcript.exchange]), tellers)
                if len(said) == len(wanted):
                    break
    except Problem as problem:
        fault = problem.what
    with custody.vault.connect() as connection:
        holds = list_holds(connection, covering(session.account, session.id))
    facts = {
        "session": session,
        "exchanges": list(enumerate(shown, start + 1)),
        "decisions": {one.id: msgspec.json.decode(one.decision) for one in shown},
        "count": len(exchanges),
        "is_said": any(one.flow == FlowId.MESSAGES for one in exchanges),
        "start": start,
        "step": PAGE_EXCHANGES,
        "turns": {id: one for id, one in said.items() if not isinstance(one, Table)},
        "tables": {id: one for id, one in said.items() if isinstance(one, Table)},
        "most": MOST_ROWS,
        "fault": fault,
        "holds": holds,
        "here": link_to(session.id),
    }
    return View("session.html", facts, heading=f"Session {session.id[:80]}")


def _tell(
    transcript: Transcript, flow: FlowId, tellers: Mapping[FlowId, Callable[[bytes], Table]]
) -> list[Said] | Table:
    if flow is FlowId.MESSAGES:
        return list(read_said(transcript))
    if (tell := tellers.get(flow)) is not None:
        with contextlib.suppress(msgspec.MsgspecError):  # as an earlier version may have written it
            return tell(transcript.request.reveal())
    texts = read_text(transcript)
    return [(name, texts[name].decode("utf-8", "replace")) for name in ("request", "response") if texts[name]]


def _export(visit: Visit) -> Answer:
    custody, session = visit.custody, _session_of(visit)
    opened = {
        one.exchange: {name: text.decode("utf-8", "replace") for name, text in read_text(one).items()}
        for one in read_session(
            custody.vault, custody.keystore, session.account, session.id, today=custody.today()
        )
    }
    exchanges = [
        {
            **msgspec.to_builtins(one),
            "id": f"{one.id:x}",
            "decision": msgspec.json.decode(one.decision),
            "content": opened.get(one.id),
        }
        for one in list_exchanges(custody.vault, account=session.account, session=session.id)
    ]
    told = {**msgspec.to_builtins(session), "account": visit.account.name, "exchanges": exchanges}
    data = msgspec.json.format(msgspec.json.encode(told), indent=2)
    return File(data, f"session-{session.id[:60]}.json")


def _export_all(places: Sequence[Place], visit: Visit) -> Answer:
    account = visit.account

    def pieces(custody: Custody) -> Iterator[bytes]:
        more = {place.flow: place.tell(custody, account) for place in places}
        return stream_account(custody, account, read_text=read_text, more=more)

    return Download(pieces, f"bailee-{account.name}.tar.gz", "application/gzip")


def _give_receipts(visit: Visit) -> Answer:
    account = visit.account

    def pieces(custody: Custody) -> Iterator[bytes]:
        return join_receipts(read_receipts(custody.home, account.id))

    return Download(pieces, "receipts.json", "application/json")


def _ask(visit: Visit) -> Answer:
    session = _session_of(visit)
    refuse_held(visit.custody.vault, session.account, session.id)
    counted = count_session(visit.custody.vault, session.account, session.id)
    with visit.custody.vault.connect() as connection:
        flows = count_flows(connection, session.account, session.id)
    facts = {"session": session, "counted": counted, "flows": flows, "here": link_to(session.id)}
    return View("erase.html", facts)


def _erase(visit: Visit) -> Answer:
    session = _session_of(visit)
    erased, receipt = _erase_one(visit, session.id)
    facts = {
        "what": f"session {session.id}",
        "session": session.id,
        "erased": erased,
        "receipt": receipt,
    }
    return View("erased.html", facts, heading="Erased")


def _erase_one(visit: Visit, session: str) -> tuple[Erasure, str]:
    """Erase a session and keep its receipt: the browser may not wait for the answer."""
    custody, account = visit.custody, visit.account.id
    by, person = visit.visitor.name, visit.visitor.person
    erased, proof = custody.erase_session(account, session, by=by, person=person)
    keep_receipt(custody.home, account, proof, at_ms=custody.now_ms())
    return erased, proof.decode()


def _ask_all(places: Sequence[Place], visit: Visit) -> Answer:
    refuse_held(visit.custody.vault, visit.account.id, None)
    if has_many(visit.custody.vault, visit.account.id):
        count = visit.kept.get(
            f"sessions {visit.account.id}", lambda: len(list_ids(visit.custody, visit.account))
        )
    else:
        count = len(list_ids(visit.custody, visit.account))
    besides = [(place.name, place.count(visit.custody, visit.account)) for place in places]
    facts = {
        "count": count,
        "besides": [(name, many) for name, many in besides if many],
        "account": visit.account,
        "kept": _count_kept(visit),
    }
    return View("erase_all.html", facts)


class _Done(msgspec.Struct):
    """What has been erased so far."""

    receipts: list[bytes] = []
    besides: list[tuple[str, int]] = []
    sessions: int = 0
    segments: int = 0
    exchanges: int = 0
    stored: int = 0

    def add(self, erased: Erasure, receipt: str) -> None:
        self.receipts.append(receipt.encode())
        self.sessions += 1
        self.segments += erased.segments
        self.exchanges += erased.exchanges
        self.stored += erased.stored_bytes


def _erase_places(places: Sequence[Place], visit: Visit, done: _Done) -> None:
    """Erase what is held besides: first, as what runs there leaves something in the vault when it ends."""
    custody, account = visit.custody, visit.account
    for place in places:
        gone = 0
        try:
            for proof in place.erase(custody, account, visit.visitor.name, visit.visitor.person):
                keep_receipt(custody.home, account.id, proof, at_ms=custody.now_ms())
                done.receipts.append(proof)
                gone += 1
        finally:
            if gone:
                done.besides.append((place.name, gone))


def _erase_all(places: Sequence[Place], visit: Visit) -> Answer:
    account, custody = visit.account, visit.custody
    if visit.form.get("name", "").strip() != account.name:
        raise Problem(
            f"that is not the name of your account, {account.name}",
            where="Erase everything",
            fix=f"write {account.name} to confirm",
        )
    refuse_held(custody.vault, account.id, None)
    done = _Done()
    stopped = ""
    try:
        _erase_places(places, visit, done)
        for id in list_ids(custody, account):
            with contextlib.suppress(NothingHeld):  # it went meanwhile, as where this is sent twice
                done.add(*_erase_one(visit, id))
    except Problem as problem:
        if not done.receipts:
            raise
        # What went is gone, and its receipts are there to be had.
        stopped = problem.without_reason().what if isinstance(problem, UnderHold) else problem.what
    receipts = done.receipts
    facts = {
        "sessions": done.sessions,
        "besides": done.besides,
        "keys": done.segments + sum(many for _, many in done.besides),
        "segments": done.segments,
        "exchanges": done.exchanges,
        "stored": done.stored,
        "stopped": stopped,
        # A form takes so many; all of them are kept.
        "receipts": b"".join(join_receipts(receipts)).decode() if len(receipts) <= MOST_RECEIPTS else "",
        "many": len(receipts),
    }
    return View("erased_all.html", facts, heading="Erased")
