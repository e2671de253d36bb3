"""Reports that people sent: for who sent them, to take back; for an operator, to read with a reason and
triage.
"""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from bailee.accounts.holders import is_holder
from bailee.flows.feedback.reports import tell_report
from bailee.flows.feedback.storage import (
    HeldReport,
    Triage,
    find_report,
    list_reports,
    read_report,
    triage_report,
)
from bailee.pages import Answer, Installation, Moved, NotThere, Page, Part, Section, View, Visit, require
from bailee.policy.flows import FlowId
from bailee.policy.problems import Problem
from bailee.vault.erasure import refuse_held
from bailee.vault.holds import read_covered
from bailee.vault.proofs import keep_receipt

YOURS, TRIAGE = "/console/feedback", "/console/flows/feedback"
TEMPLATES = Path(__file__).parent / "templates"
_HOLDER, _OPERATOR = frozenset({Part.HOLDER}), frozenset({Part.OPERATOR})


def make_pages() -> list[Page]:
    """Return the pages."""
    return [
        Page(
            path=YOURS,
            title="Feedback",
            parts=_HOLDER,
            templates=TEMPLATES,
            show=_show_own,
            section=Section.YOURS,
        ),
        Page(path=YOURS + "/{id}", title="Report", parts=_HOLDER, templates=TEMPLATES, show=_read_own),
        Page(
            path=YOURS + "/{id}/withdraw",
            title="Withdraw a report",
            parts=_HOLDER,
            templates=TEMPLATES,
            show=_ask,
            act=_withdraw,
        ),
        Page(
            path=TRIAGE,
            title="Bug reports",
            parts=_OPERATOR,
            templates=TEMPLATES,
            show=_show_all,
            section=Section.SERVICE,
            flow=FlowId.FEEDBACK,
            leads=_tell_tracker,
            carries=_tell_encryption,
        ),
        Page(
            path=TRIAGE + "/{id}",
            title="Report",
            parts=_OPERATOR,
            templates=TEMPLATES,
            show=_show_one,
            act=_open,
        ),
        Page(path=TRIAGE + "/{id}/triage", title="Report", parts=_OPERATOR, templates=TEMPLATES, act=_triage),
    ]


def _tell_tracker(installation: Installation) -> str:
    if not installation.tracker:
        return "the Bailee service"
    host = urlsplit(installation.tracker_url).netloc
    return f"the Bailee service, then {host} for an issue in {installation.tracker}, if asked for"


def _tell_encryption(installation: Installation) -> str:
    return installation.tell_way(*filter(None, [installation.tracker_url]))


# --- Whoever sent them ---


def _show_own(visit: Visit) -> Answer:
    found = list_reports(visit.custody.vault, [visit.account.id], today=visit.custody.today())
    return View("own.html", {"reports": found, "is_kept": _tell_kept(visit)})


def _tell_kept(visit: Visit) -> Callable[[str], bool]:
    """Return what tells whether a legal hold keeps a report of the visitor's."""
    with visit.custody.vault.connect() as connection:
        covered = {session for account, session in read_covered(connection) if account == visit.account.id}
    return lambda id: None in covered or id in covered


def _find_own(visit: Visit) -> HeldReport:
    return _find(visit, [visit.account.id])


def _find(visit: Visit, accounts: list[str]) -> HeldReport:
    try:
        found = find_report(visit.custody.vault, accounts, visit.path["id"], today=visit.custody.today())
    except Problem:
        raise NotThere from None
    if found.id != visit.path["id"]:
        raise NotThere
    return found


def _read_own(visit: Visit) -> Answer:
    report = _find_own(visit)
    lines = list(tell_report(read_report(visit.custody, report.account, report.id)))
    facts = {"report": report, "lines": lines, "is_kept": _tell_kept(visit)(report.id)}
    return View("own_report.html", facts, heading=f"Report {report.id}")


def _ask(visit: Visit) -> Answer:
    report = _find_own(visit)
    refuse_held(visit.custody.vault, report.account, report.id)
    return View("withdraw.html", {"report": report})


def _withdraw(visit: Visit) -> Answer:
    report = _find_own(visit)
    custody = visit.custody
    by, person = visit.visitor.name, visit.visitor.person
    erased, proof = custody.erase_session(report.account, report.id, by=by, person=person)
    keep_receipt(custody.home, report.account, proof, at_ms=custody.now_ms())
    facts = {"report": report, "erased": erased, "receipt": proof.decode()}
    return View("withdrawn.html", facts, heading="Withdrawn")


# --- Whoever looks after them ---


def _names(visit: Visit) -> dict[str, str]:
    return {one.id: one.name for one in visit.custody.directory.all()}


def _show_all(visit: Visit) -> Answer:
    names, is_all = _names(visit), visit.query.get("all", "") == "1"
    vault, today = visit.custody.vault, visit.custody.today()
    found = visit.kept.get("reports", lambda: list_reports(vault, names, today=today), seconds=5)
    found = [one for one in found if one.account in names]
    facts = {
        "reports": [one for one in found if is_all or one.state is Triage.OPEN],
        "names": names,
        "is_all": is_all,
        "open": sum(one.state is Triage.OPEN for one in found),
        "closed": sum(one.state is Triage.CLOSED for one in found),
    }
    return View("triage.html", facts)


def _show_one(visit: Visit) -> Answer:
    names = _names(visit)
    return _tell(visit, _find(visit, list(names)), names, None)


def _open(visit: Visit) -> Answer:
    """Open a report: who is not its sender says why, which is recorded first."""
    names = _names(visit)
    report = _find(visit, list(names))
    custody = visit.custody
    if not is_holder(custody.directory.engine, report.account, visit.visitor.operator):
        reason = require(visit.form, "reason")
        custody.record_access(
            report.account,
            report.id,
            reader=visit.visitor.name,
            person=visit.visitor.person,
            purpose="show",
            reason=reason,
        )
    return _tell(visit, report, names, list(tell_report(read_report(custody, report.account, report.id))))


def _tell(visit: Visit, report: HeldReport, names: dict[str, str], lines: list[str] | None) -> Answer:
    facts = {"report": report, "whose": names[report.account], "lines": lines}
    return View("report.html", facts, heading=f"Report {report.id}")


def _triage(visit: Visit) -> Answer:
    report = _find(visit, list(_names(visit)))
    state = require(visit.form, "state")
    if state not in set(Triage):
        raise Problem("there is no such state", where="Reports", fix="load the page anew")
    note = visit.form.get("note", "").strip()
    custody = visit.custody
    triage_report(custody.vault, report, Triage(state), note, by=visit.visitor.name, at_ms=custody.now_ms())
    return Moved(TRIAGE, f"Report {report.id} is {msgspec.to_builtins(Triage(state))}.")
