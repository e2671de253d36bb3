"""What left and what was refused: the egress audit, and the rule that lets a host through from now on.

A log of connections is held under an account's terms, as a conversation is: an operator says why they open
the logs of others, and each of these accounts is shown that, before anything is opened.
"""

import hashlib
import secrets
from pathlib import Path

from bailee.accounts import tables as accounts_tables
from bailee.flows.web.files import NAME, RulesFile, add_rule, read_rules_file
from bailee.flows.web.log import Closed, Opened, Row
from bailee.flows.web.refused import count_denied, list_runs, read_rows
from bailee.ledger.entries import RuleAdded
from bailee.ledger.outbox import put
from bailee.ledger.pseudonyms import OPERATOR
from bailee.pages import Answer, Moved, Page, Part, Section, View, Visit, require
from bailee.policy.flows import FlowId
from bailee.policy.problems import Problem

PATH = "/console/flows/web"
TEMPLATES = Path(__file__).parent / "templates"
_OPERATOR = frozenset({Part.OPERATOR})


def make_pages() -> list[Page]:
    """Return the pages."""
    return [
        Page(
            path=PATH,
            title="Egress",
            parts=_OPERATOR,
            templates=TEMPLATES,
            show=_show,
            act=_open,
            section=Section.SERVICE,
            flow=FlowId.WEB,
        ),
        Page(path=f"{PATH}/rules", title="Rules", parts=_OPERATOR, templates=TEMPLATES, act=_allow),
    ]


def allow(visit: Visit, host: str, port: int) -> str:
    """Write a rule that lets a host and port through, ledger it, and return it in words.

    Raises:
        Problem: see `files.add_rule`.
    """
    rule = add_rule(visit.custody.home / NAME, host, port)
    directory = visit.custody.directory
    entry = RuleAdded(
        id=secrets.token_hex(16),
        at_ms=directory.now_ms(),
        digest=hashlib.sha256(f"allow {rule.host}:{port}".encode()).hexdigest(),
        by=directory.name(f"{OPERATOR}{visit.visitor.name}"),
    )
    with directory.engine.begin() as connection:
        put(connection, accounts_tables.outbox, [entry])
    return f"{rule.host} port {port}"


def _read_rules(visit: Visit) -> tuple[RulesFile, str]:
    path = visit.custody.home / NAME
    try:
        return (read_rules_file(path) if path.exists() else RulesFile()), ""
    except Problem as problem:
        return RulesFile(), f"{problem.what} ({problem.where})"


def _show(visit: Visit) -> Answer:
    rules, fault = _read_rules(visit)
    custody = visit.custody
    runs = visit.kept.get("runs", lambda: list_runs(custody, today=custody.today()))
    facts = {"rules": rules, "fault": fault, "runs": len(runs), "denied": None, "connections": 0}
    return View("egress.html", {**facts, "sent": 0, "received": 0})


def _open(visit: Visit) -> Answer:
    custody, today = visit.custody, visit.custody.today()
    runs = list_runs(custody, today=today)
    own = visit.visitor.account.id if visit.visitor.account else ""
    others = dict.fromkeys(run.account for run in runs if run.account != own)
    if others:
        reason = require(visit.form, "reason")
        for account in others:
            custody.record_access(account, None, reader=visit.visitor.name, purpose="audit", reason=reason)
    rows: list[Row] = [row for run in runs for row in read_rows(custody, run, today=today)]
    rules, fault = _read_rules(visit)
    closed = [row for row in rows if isinstance(row, Closed)]
    facts = {
        "rules": rules,
        "fault": fault,
        "runs": len(runs),
        "denied": count_denied(rows),
        "connections": sum(isinstance(row, Opened) for row in rows),
        "sent": sum(row.sent for row in closed),
        "received": sum(row.received for row in closed),
    }
    return View("egress.html", facts)


def _allow(visit: Visit) -> Answer:
    port = require(visit.form, "port")
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise Problem(f"{port!r} is no port", where="Rules", fix="give one from 1 to 65535")
    told = allow(visit, require(visit.form, "host"), int(port))
    return Moved(PATH, f"Allowed: {told}, from the next session on. It stands in {NAME}.")
