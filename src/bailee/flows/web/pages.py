"""What left and what was refused: the egress audit, and the rule that lets a host through from now on.

A log of connections is held under an account's terms, as a conversation is: an operator says why they open
the logs of others, and each of these accounts is shown that, before anything is opened.
"""

import hashlib
import re
import secrets
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from bailee.accounts import tables as accounts_tables
from bailee.flows.web.addresses import tell_forbidden
from bailee.flows.web.files import NAME, RulesFile, add_rule, has_added, read_rules_file, remove_rule
from bailee.flows.web.log import Closed, Opened, Row
from bailee.flows.web.refused import count_denied, count_passed, list_runs, read_rows
from bailee.flows.web.rules import Rule, Wire
from bailee.flows.web.targets import Unreadable, read_target
from bailee.ledger.entries import RuleChanged
from bailee.ledger.outbox import put
from bailee.pages import Answer, Moved, Page, Part, Section, View, Visit, read_number, require
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
        Page(path=f"{PATH}/rules/remove", title="Rules", parts=_OPERATOR, templates=TEMPLATES, act=_remove),
    ]


def _note(visit: Visit, rule: Rule, *, given: bool) -> None:
    directory, (port,) = visit.custody.directory, rule.ports
    entry = RuleChanged(
        id=secrets.token_hex(16),
        at_ms=directory.now_ms(),
        digest=hashlib.sha256(f"allow {rule.host}:{port}".encode()).hexdigest(),
        by=directory.name(visit.visitor.person),
        given=given,
    )
    with directory.engine.begin() as connection:
        put(connection, accounts_tables.outbox, [entry])


def is_allowed(rules: RulesFile, host: str, port: int) -> bool:
    """Tell whether a file of rules lets a host and port through by now."""
    try:
        target = read_target(host, port)
    except Unreadable:
        return False
    return any(rule.covers(target) for rule in rules.allow)


def read_rules(visit: Visit) -> tuple[RulesFile, str]:
    """Return this installation's rules, and what is wrong with their file."""
    path = visit.custody.home / NAME
    try:
        return (read_rules_file(path) if path.exists() else RulesFile()), ""
    except Problem as problem:
        return RulesFile(), f"{problem.what} ({problem.where})"


def _name(rule: Rule) -> str:
    return f"{rule.wire} {rule.label}"


def _tell_rules(visit: Visit) -> dict[str, Any]:
    rules, fault = read_rules(visit)
    path = visit.custody.home / NAME
    text = path.read_text("utf-8", "replace") if path.exists() else ""
    removable = {_name(rule) for rule in rules.allow if has_added(text, rule)}
    return {
        "rules": rules,
        "fault": fault,
        "removable": removable,
        "name": _name,
        "is_allowed": partial(is_allowed, rules),
        "file": path,
    }


def _show(visit: Visit) -> Answer:
    custody = visit.custody
    runs = visit.kept.get("runs", lambda: list_runs(custody, today=custody.today()))
    return View("egress.html", {"runs": len(runs), "denied": None} | _tell_rules(visit))


def _open(visit: Visit) -> Answer:
    custody, today = visit.custody, visit.custody.today()
    runs = list_runs(custody, today=today)
    own = visit.visitor.account.id if visit.visitor.account else ""
    others = dict.fromkeys(run.account for run in runs if run.account != own)
    if others:
        reason = require(visit.form, "reason")
        for account in others:
            reader, person = visit.visitor.name, visit.visitor.person
            custody.record_access(account, None, reader=reader, person=person, purpose="audit", reason=reason)
    logs = [read_rows(custody, run, today=today) for run in runs]
    rows: list[Row] = [row for log in logs for row in log]
    closed = [row for row in rows if isinstance(row, Closed)]
    facts = {
        "runs": len(runs),
        "denied": count_denied(rows),
        "connections": sum(isinstance(row, Opened) for row in rows),
        "sent": sum(row.sent for row in closed),
        "received": sum(row.received for row in closed),
        "passed": count_passed(logs),
    }
    return View("egress.html", facts | _tell_rules(visit))


def _read_asked(visit: Visit) -> tuple[str, int, bool]:
    host, port = require(visit.form, "host").strip(), require(visit.form, "port").strip()
    if "/" in host:
        fix = "write the host alone, such as deploy.example"
        raise Problem(f"{host[:80]!r} is more than a host", where="Rules", fix=fix)
    if not 0 < read_number(port, 0) < 65536:
        raise Problem(f"{port[:20]!r} is no port", where="Rules", fix="give one from 1 to 65535")
    return host, int(port), visit.form.get("wire", "") == Wire.HTTP


def _allow(visit: Visit) -> Answer:
    host, port, is_plain = _read_asked(visit)
    # Where the form was; a page of ours, and never another host's.
    back = visit.form.get("back", "")
    back = back if re.fullmatch(r"/console/cloud/[0-9a-f]{1,64}", back) else PATH
    forbidden = tell_private(host)
    if forbidden and visit.form.get("sure", "") != "yes":
        facts = {
            "host": host,
            "port": port,
            "wire": visit.form.get("wire", ""),
            "back": back,
            "why": forbidden,
        }
        return View("allow.html", facts, heading=f"Allow {host[:80]}, {forbidden}?")
    rule = add_rule(visit.custody.home / NAME, host, port, is_plain=is_plain)
    _note(visit, rule, given=True)
    told = f"Allowed for every agent of this installation: {rule.host} port {port}, within seconds."
    return Moved(back, f"{told} It stands in {NAME}, and is taken back under Egress.")


def _remove(visit: Visit) -> Answer:
    name = require(visit.form, "rule")
    rules, fault = read_rules(visit)
    found = next((rule for rule in rules.allow if _name(rule) == name), None)
    if found is None:
        what = fault or "there is no such rule any more"
        raise Problem(what, where="Rules", fix="load the page anew")
    remove_rule(visit.custody.home / NAME, found)
    _note(visit, found, given=False)
    return Moved(PATH, f"Taken back: {found.host} port {found.ports[0]}, within seconds.")


def tell_private(host: str) -> str:
    """Tell what keeps an address from being reached unless a rule says that it may; empty for names."""
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return ""
    return tell_forbidden(address, frozenset())
