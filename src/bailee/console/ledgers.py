"""The ledger as a page: what is told of whom one may ask about, searched, and all of it verified at a click.

An entry names nobody. Who is meant is known here by the salts of the people a visitor may ask about: an
account holder themselves, an admin the members of their organization, an operator everybody. Entries about
others are not shown.
"""

import contextlib
from collections.abc import Mapping
from typing import Any

import msgspec
import sqlalchemy as sa

from bailee.accounts import tables
from bailee.accounts.keys import list_keys
from bailee.accounts.secrets import list_secrets, owner_of_organization
from bailee.console.rendering import TEMPLATES
from bailee.ledger.log import FOLDER
from bailee.ledger.pseudonyms import OPERATOR, name_with
from bailee.ledger.storage import DirectoryTiles
from bailee.ledger.verification import verify_ledger
from bailee.pages import Answer, Page, Part, Section, View, Visit, read_number
from bailee.policy.problems import Problem
from bailee.sizes import tell_count, tell_size
from bailee.vault.anchors import tell_rollback
from bailee.vault.custody import Custody
from bailee.vault.recent import list_recent
from bailee.vault.tables import vault_outbox

PATH = "/console/ledger"
PAGE = 50
# How many entries are looked at for a page: 20 ms' worth, and half a second's where somebody searches.
WINDOW, SEARCHED = 5_000, 50_000
RECENT, LONGEST_ID = 200, 1000
# What of an entry names a person, or something of theirs.
_PEOPLE = ("subject", "by", "reader")
# What of an entry is one of our own words.
_WORDS = ("origin", "way", "change", "flow", "purpose")
_HIDDEN = ("id", "kind", "at_ms", "segments", *_PEOPLE)
KINDS = {
    "access": "content read by another",
    "backup": "backup made",
    "consent": "training, program or zero retention",
    "consent_refused": "change refused",
    "copies": "copies reached",
    "copy_forgotten": "copy forgotten",
    "copy_withdrawn": "taken out of a copy",
    "dataset": "dataset built",
    "decision": "decision in force",
    "disk_destroyed": "disk destroyed",
    "erased": "erased",
    "flows": "run of an agent",
    "hold_placed": "hold placed",
    "hold_released": "hold released",
    "identity": "identity connected or not",
    "identity_provider": "identity provider",
    "key_copy_deleted": "copy of keys deleted",
    "key_created": "key made",
    "key_revoked": "key revoked",
    "keys_destroyed": "keys destroyed",
    "limit": "limit of retention",
    "managed_settings": "managed settings",
    "member": "member added",
    "operator": "operator",
    "passkey": "passkey",
    "password": "password",
    "restored": "restored",
    "role": "role",
    "rule": "rule of the egress proxy",
    "secret": "secret kept or removed",
    "sign_in_refused": "sign-in refused",
    "signed_in": "signed in",
    "suspension": "member suspended or not",
    "sweep": "sweep",
    "tightened": "terms tightened",
}


class Told(msgspec.Struct, frozen=True):
    """An entry in words.

    Attributes:
        subject, by: people by name, where the visitor may know them; else the beginning of a pseudonym.
        facts: what it says besides.
    """

    index: int
    kind: str
    at_ms: int
    subject: str
    by: str
    facts: str


def make_pages() -> list[Page]:
    """Return the pages."""
    return [
        Page(
            path=PATH,
            title="Ledger",
            parts=frozenset({Part.HOLDER, Part.ADMIN, Part.OPERATOR}),
            templates=TEMPLATES,
            show=_show,
            section=Section.YOURS,
        ),
        Page(
            path=f"{PATH}/verify",
            title="Verification of the ledger",
            parts=frozenset({Part.ADMIN, Part.OPERATOR}),
            templates=TEMPLATES,
            act=_verify,
        ),
    ]


def tell_entry(index: int, data: bytes, names: Mapping[str, str] = {}) -> Told:
    """Return an entry in words; what is no entry of ours is told by its size."""
    try:
        entry: Any = msgspec.json.decode(data)
    except (msgspec.MsgspecError, RecursionError):
        entry = None
    if not isinstance(entry, dict):
        return Told(index, "?", 0, "", "", f"{len(data)} bytes, no JSON")

    def name(field: str) -> str:
        value = str(entry.get(field, ""))
        return names.get(value, f"{value[:8]}…" if len(value) == 64 else value)

    facts = []
    if isinstance(segments := entry.get("segments"), list | int):
        facts.append(tell_count(segments if isinstance(segments, int) else len(segments), "segment"))
    facts += [
        _tell(key, value, names)
        for key, value in entry.items()
        if key not in _HIDDEN and value not in (None, "")
    ]
    at_ms = entry.get("at_ms")
    return Told(
        index,
        str(entry.get("kind", "?")),
        at_ms if isinstance(at_ms, int) and 0 <= at_ms < 1 << 45 else 0,
        name("subject"),
        name("by") or name("reader"),
        ", ".join(facts),
    )


def _tell(field: str, value: object, names: Mapping[str, str]) -> str:
    what = field.removesuffix("_bytes").replace("_", " ")
    if isinstance(value, str):
        told = value.replace("_", " ") if field in _WORDS else value
        return f"{what} {names.get(value, f'{value[:8]}…' if len(value) in (32, 64) else told)}"
    if isinstance(value, bool):
        return f"{what} {'yes' if value else 'no'}"
    if isinstance(value, int) and field.endswith("_bytes"):
        return f"{what} {tell_size(value)}"
    if isinstance(value, int | float):
        return f"{what} {value}"
    return f"{what} {msgspec.json.encode(value).decode()}"


def read_names(visit: Visit) -> tuple[dict[str, str], set[str] | None]:
    """Return what the visitor may call people, by pseudonym, and whose entries they see; None for all."""
    salts = visit.custody.pseudonyms.all()
    names = {name_with(salts[id]): name for id, name in _list_people(visit).items() if id in salts}
    seen = None if Part.OPERATOR in visit.visitor.parts else set(names)
    for person, salt in salts.items():
        if person.startswith(OPERATOR):
            names[name_with(salt)] = person.removeprefix(OPERATOR)
    return names, seen


def _list_people(visit: Visit) -> dict[str, str]:
    """Return whom the visitor may ask about: names of accounts by their id, and of organizations."""
    directory, parts, own = visit.custody.directory, visit.visitor.parts, visit.visitor.account
    people: dict[str, str] = {}
    if Part.OPERATOR in parts:
        for one in directory.all():
            people[one.id] = one.name
            if one.organization:
                people[one.organization] = one.organization
    elif own is not None and Part.ADMIN in parts and own.organization:
        people = {one.id: one.name for one in directory.members(own.organization)}
        people[own.organization] = own.organization
    elif own is not None:
        people = {own.id: own.name}
    return people


def read_things(visit: Visit, *ids: str) -> dict[str, str]:
    """Return what the visitor's own keys, sessions and secrets are called, by pseudonym.

    Of sessions those used last, and those that the visitor names: of what is erased only its holder knows
    what it was called.

    Args:
        ids: what the visitor takes for the id of a session or a key, or the name of a secret, of anybody
            whose entries they see.
    """
    custody, own = visit.custody, visit.visitor.account
    salts = custody.pseudonyms.all()
    things: dict[str, str] = {}
    if own is not None and own.id in salts:
        known = [f"key {key.id}" for key in list_keys(custody.directory) if key.account == own.name]
        recent = list_recent(custody.vault, own.id, limit=RECENT, before=None).sessions
        for thing in (*known, *(f"session {one.id}" for one in recent)):
            things[name_with(salts[own.id], thing)] = thing.partition(" ")[2]
    if own is not None and Part.ADMIN in visit.visitor.parts and own.organization in salts:
        for secret in list_secrets(custody.directory, [owner_of_organization(own.organization)]):
            things[name_with(salts[own.organization], f"secret {secret.name}")] = secret.name
    for id in ids:
        for person in _list_people(visit).keys() & salts.keys():
            for kind in ("key", "session", "secret"):
                things[name_with(salts[person], f"{kind} {id}")] = id
    return things


def name_session(visit: Visit, id: str) -> set[str]:
    """Return what a session of that id is called in the ledger, of anybody whose entries the visitor sees."""
    salts = visit.custody.pseudonyms.all()
    people = _list_people(visit).keys() & salts.keys()
    return {name_with(salts[person], f"session {id}") for person in people}


def _settle(custody: Custody) -> None:
    """Have what waits told now: a command leaves its entry to whoever comes next."""
    for engine, table in ((custody.directory.engine, tables.outbox), (custody.vault, vault_outbox)):
        with engine.connect() as connection:
            is_waiting = connection.execute(sa.select(table.c.number).limit(1)).first() is not None
        if is_waiting:
            # Of a ledger that was put back nothing is told anew; verification says so.
            with contextlib.suppress(Problem):
                custody.settle()
            return


def _show(visit: Visit) -> Answer:
    _settle(visit.custody)
    log = visit.custody.log
    names, seen = read_names(visit)
    size = log.size
    before = read_number(visit.query.get("before", ""), size, most=size)
    asked = visit.query.get("q", "").strip()[:LONGEST_ID]
    kind, wanted = visit.query.get("kind", ""), asked.lower()
    names |= read_things(visit, *([asked] if asked else []))
    found: list[Told] = []
    at = before
    low = max(0, before - (SEARCHED if wanted or kind else WINDOW))
    while at > low and len(found) < PAGE:
        start = max(low, at - 256)
        told = [
            tell_entry(index, data, names)
            for index, data in enumerate(log.read(start, at), start)
            if _is_wanted(data, seen, kind)
        ]
        found += [one for one in reversed(told) if _matches(one, wanted)]
        at = start
    more = found[PAGE - 1].index if len(found) >= PAGE else at
    facts = {
        "entries": found[:PAGE],
        "size": size,
        "looked": (at, before),
        "next": more if more > 0 else None,
        "kind": kind,
        "q": visit.query.get("q", ""),
        "is_whole": seen is None,
        "kinds": KINDS,
        "may_verify": bool(visit.visitor.parts & {Part.ADMIN, Part.OPERATOR}),
        "key": log.verifier.text,
    }
    return View("ledger.html", facts)


def _is_wanted(data: bytes, seen: set[str] | None, kind: str) -> bool:
    try:
        entry = msgspec.json.decode(data, type=_Entry)
    except msgspec.MsgspecError:
        return seen is None and not kind
    return (seen is None or entry.subject in seen) and (not kind or entry.kind == kind)


class _Entry(msgspec.Struct):
    subject: str = ""
    kind: str = ""


def _matches(one: Told, wanted: str) -> bool:
    said = f"{one.index} {one.kind} {KINDS.get(one.kind, '')} {one.subject} {one.by} {one.facts}"
    return not wanted or wanted in said.lower()


def _verify(visit: Visit) -> Answer:
    try:
        return _tell_verification(visit)
    except Problem as problem:
        # Such as a checkpoint that is gone; where it lay is not for everybody who may ask.
        facts = {"is_verified": False, "checkpoint": None, "faults": [problem.what], "key": ""}
        return View("ledger_verified.html", facts)


def _tell_verification(visit: Visit) -> Answer:
    _settle(visit.custody)
    verifier = visit.custody.log.verifier
    found = verify_ledger(DirectoryTiles(visit.custody.home / FOLDER), verifier)
    rollback = tell_rollback(visit.custody.keystore.engine, visit.custody.log) if found.verified else ""
    facts = {
        "is_verified": found.verified and not rollback,
        "checkpoint": found.checkpoint,
        "faults": [f"{one.path}: {one.what}" for one in found.faults] + ([rollback] if rollback else []),
        "key": verifier.text,
    }
    return View("ledger_verified.html", facts)
