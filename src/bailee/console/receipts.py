"""Receipts: verified in the page, with the key of this ledger or another, and downloaded."""

import re

import msgspec

from bailee.console.ledgers import KINDS, LONGEST_ID, Told, read_things, tell_entry
from bailee.console.rendering import TEMPLATES
from bailee.ledger.notes import Verifier, parse_verifier
from bailee.ledger.receipts import ReceiptRefused, verify_receipt
from bailee.pages import Answer, File, Page, Part, Section, View, Visit, require
from bailee.policy.problems import Problem

PATH = "/console/receipts"
MOST = 1000


class Verdict(msgspec.Struct, frozen=True):
    """What was found of one receipt; `fault` is empty where it holds."""

    fault: str
    entries: list[Told]


def make_pages() -> list[Page]:
    """Return the pages."""
    signed_in = frozenset({Part.SIGNED_IN})
    return [
        Page(
            path=PATH,
            title="Receipts",
            parts=signed_in,
            templates=TEMPLATES,
            show=_show,
            act=_verify,
            section=Section.YOURS,
        ),
        Page(path=f"{PATH}/download", title="Receipt", parts=signed_in, templates=TEMPLATES, act=_download),
    ]


def _show(visit: Visit) -> Answer:
    # Of a form that was refused, what it had.
    facts = {
        "key": visit.query.get("key") or visit.custody.log.verifier.text,
        "receipt": visit.query.get("receipt", ""),
        "session": "",
        "verdicts": [],
        "is_asked": False,
    }
    return View("receipts.html", facts)


def _verify(visit: Visit) -> Answer:
    given = require(visit.form, "receipt")
    own = visit.custody.log.verifier
    key = visit.form.get("key", "").strip()
    verifier = _read_key(key) if key else own
    session = visit.form.get("session", "").strip()[:LONGEST_ID]
    names = read_things(visit, *([session] if session else []))
    verdicts = []
    # One receipt, or several that were downloaded together.
    for text in _split(given)[:MOST]:
        try:
            proven = verify_receipt(text.encode(), verifier)
        except ReceiptRefused as refused:
            verdicts.append(Verdict(str(refused), []))
        else:
            verdicts.append(Verdict("", [tell_entry(one.index, one.entry, names) for one in proven]))
    facts = {
        "key": verifier.text,
        "receipt": given,
        "session": session,
        "is_about": any(
            f"session {session}," in f"{one.facts}," for verdict in verdicts for one in verdict.entries
        ),
        "kinds": KINDS,
        "verdicts": verdicts,
        "is_asked": True,
        "origin": verifier.name,
    }
    return View("receipts.html", facts)


def _read_key(text: str) -> Verifier:
    try:
        return parse_verifier(text)
    except Problem:
        raise Problem(
            "this is no ledger's public key, or it is damaged",
            where="Public key",
            fix="give the one line that the page Ledger shows, of the service that gave the receipt",
        ) from None


def _download(visit: Visit) -> Answer:
    receipt = _as_written(require(visit.form, "receipt"))
    name = visit.form.get("name", "receipt")
    return File(receipt.encode(), f"{name if name in ('receipt', 'receipts') else 'receipt'}.json")


def _split(given: str) -> list[str]:
    """Return receipts one by one: each begins and ends with a brace at the beginning of a line."""
    return [f"{one.strip()}\n" for one in re.split(r"(?<=\n\})\n+(?=\{)", _as_written(given))]


def _as_written(given: str) -> str:
    """Return a receipt as it was before a form sent it: with line feeds alone, and one at its end."""
    return given.replace("\r\n", "\n").strip() + "\n"
