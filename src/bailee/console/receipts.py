"""Receipts: verified in the page, with the key of this ledger or another, and downloaded."""

import re

import msgspec

from bailee.console.ledgers import KINDS, LONGEST_ID, Told, name_session, read_things, tell_entry
from bailee.console.rendering import TEMPLATES
from bailee.ledger.notes import Verifier, parse_verifier
from bailee.ledger.receipts import ProvenEntry, ReceiptRefused, split_receipts, verify_receipt
from bailee.pages import Answer, File, Page, Part, Section, View, Visit, require
from bailee.policy.problems import Problem
from bailee.vault.proofs import read_receipts

PATH = "/console/receipts"
# Of more than that it is told how many hold, and what is wrong with those that do not.
MOST_SHOWN = 50
# What of a session's id does not go into the name of a file.
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


class Verdict(msgspec.Struct, frozen=True):
    """What was found of one receipt, by its place among those given; `fault` is empty where it holds."""

    number: int
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
        "is_asked": False,
    }
    return View("receipts.html", facts)


def _verify(visit: Visit) -> Answer:
    is_kept = visit.form.get("kept", "") == "1"
    given = "" if is_kept else require(visit.form, "receipt")
    # One receipt, or several that were downloaded together; or all that is kept for the visitor.
    receipts = list(read_receipts(visit.custody.home, visit.account.id)) if is_kept else _split(given)
    key = visit.form.get("key", "").strip()
    verifier = _read_key(key) if key else visit.custody.log.verifier
    session = visit.form.get("session", "").strip()[:LONGEST_ID]
    names = read_things(visit, *([session] if session else []))
    pseudonyms = name_session(visit, session) if session else set()
    verdicts, good, is_about = [], 0, False
    for number, receipt in enumerate(receipts, 1):
        entries, fault = [], ""
        try:
            proven = verify_receipt(receipt, verifier)
        except ReceiptRefused as refused:
            fault = str(refused)
        else:
            good += 1
            is_about = is_about or any(_is_about(one, pseudonyms) for one in proven)
            if number <= MOST_SHOWN:
                entries = [tell_entry(one.index, one.entry, names) for one in proven]
        if fault or entries:
            verdicts.append(Verdict(number, fault, entries))
    facts = {
        "key": verifier.text,
        "receipt": given,
        "session": session,
        "is_about": is_about,
        "is_kept": is_kept,
        "kinds": KINDS,
        "verdicts": verdicts[: 2 * MOST_SHOWN],
        "good": good,
        "total": len(receipts),
        "is_asked": True,
        "origin": verifier.name,
    }
    return View("receipts.html", facts)


def _is_about(proven: ProvenEntry, pseudonyms: set[str]) -> bool:
    try:
        return msgspec.json.decode(proven.entry, type=_OfSession).session in pseudonyms
    except msgspec.MsgspecError:
        return False


class _OfSession(msgspec.Struct):
    session: str | None = None


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
    name = "receipts" if visit.form.get("name", "") == "receipts" else "receipt"
    session = _UNSAFE.sub("-", visit.form.get("session", ""))[:60].strip("-.")
    return File(receipt.encode(), f"{name}-{session}.json" if session else f"{name}.json")


def _split(given: str) -> list[bytes]:
    return split_receipts(_as_written(given).encode())


def _as_written(given: str) -> str:
    """Return a receipt as it was before a form sent it: with line feeds alone, and one at its end."""
    return given.replace("\r\n", "\n").strip() + "\n"
