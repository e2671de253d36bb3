"""Catalogues: what operational data may be, event by event and field by field.

An event that no entry names is dropped and counted, and so is a field that its entry does not name. A field
is a word of a list, a number in coarse steps, or a version: no type holds free text. So neither code nor a
path can be held, by construction and not by scrubbing.
"""

import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from datetime import date
from enum import StrEnum
from pathlib import Path

import msgspec

from bailee.policy.problems import Problem

OTHER = "other"
# Numbers keep so many significant digits: 90 steps to a decade, exact enough for sums and no place to hide.
SIGNIFICANT_DIGITS = 2
LONGEST_LIFE_DAYS = 730
_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,39}")
_VERSION = re.compile(r"\d{1,4}\.\d{1,4}\.\d{1,4}", re.ASCII)
# Of Python's `<module>`, `<lambda>` and `outer.<locals>.inner` as well.
_FUNCTION = re.compile(r"[A-Za-z_<][A-Za-z0-9_.<>]{0,63}", re.ASCII)
_MOST_DIGITS = 6
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,63}", re.ASCII)

Kept = str | float


class FieldType(StrEnum):
    """What a field may hold."""

    WORD = "word"
    NUMBER = "number"
    VERSION = "version"
    NAME = "name"
    IDENTIFIER = "identifier"


class Field(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A field of an entry.

    Attributes:
        description: what it tells.
        type: `word`, `number`, `version` (three numbers with dots), `name` (of a module or of what is in
            one, whose first part is one of the words), or `identifier` (of published source code, which
            whoever takes it looks it up in).
        words: of a word: all it may be.
        prefixes: of a word: what it may begin with; the beginning alone is held.
        is_open: of a word: whether another is held as `other`; else it is dropped.
        unit: of a number.
        least, most: of a number: what lies beyond is held as that.
        digits: of a number: how many significant ones are held.
        required: whether an event without it is dropped.
    """

    name: str
    description: str
    type: FieldType
    words: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    is_open: bool = False
    unit: str = ""
    least: float = 0
    most: float = 0
    digits: int = SIGNIFICANT_DIGITS
    required: bool = False

    def admit(self, value: object) -> Kept | None:
        """Return what of a value may be held; None if nothing may."""
        match self.type:
            case FieldType.WORD:
                return self._admit_word(value)
            case FieldType.NUMBER:
                return self._admit_number(value)
            case FieldType.VERSION:
                return value if isinstance(value, str) and _VERSION.fullmatch(value) else None
            case FieldType.NAME:
                return self._admit_name(value)
            case FieldType.IDENTIFIER:
                return value if isinstance(value, str) and _FUNCTION.fullmatch(value) else None

    def _admit_word(self, value: object) -> str | None:
        text: object = value
        if isinstance(value, bool):
            text = "true" if value else "false"
        elif isinstance(value, int) and abs(value) < 1_000_000:
            text = str(value)
        if not isinstance(text, str):
            return None
        if text in self.words:
            return text
        # The longest: where one beginning is the beginning of another.
        found = max((one for one in self.prefixes if text.startswith(one)), key=len, default=None)
        return found or (OTHER if self.is_open else None)

    def _admit_name(self, value: object) -> str | None:
        if not isinstance(value, str) or not _IDENTIFIER.fullmatch(value):
            return None
        return value if value.partition(".")[0] in self.words else None

    def _admit_number(self, value: object) -> float | None:
        if isinstance(value, str):
            value = _read_number(value)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return None
        return round_number(min(max(float(value), self.least), self.most), self.digits)


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One event or counter that may be held.

    Attributes:
        name: as it stands on the wire.
        title: what a person calls it.
        description: what it tells.
        why: what for.
        owner: who answers for it.
        expires: the day from which on it is dropped, so that nothing is gathered out of habit.
        sender: the agent that sends it.
    """

    name: str
    title: str
    description: str
    why: str
    owner: str
    expires: date
    sender: str
    fields: tuple[Field, ...]


class Admitted(msgspec.Struct, frozen=True):
    """What is left of an event.

    Attributes:
        fields: what may be held.
        dropped: the names of what may not, as they came: they may be anything.
    """

    name: str
    fields: dict[str, Kept]
    dropped: frozenset[str]


class Catalogue(msgspec.Struct, frozen=True):
    """The entries of one flow, by name."""

    entries: Mapping[str, Entry]

    def admit(self, name: str, fields: Mapping[str, object], *, today: date) -> Admitted | None:
        """Return what of an event may be held; None if nothing may.

        Args:
            today: the UTC day; what has expired is dropped.
        """
        entry = self.entries.get(name)
        if entry is None or entry.expires <= today:
            return None
        kept: dict[str, Kept] = {}
        for field in entry.fields:
            value = field.admit(fields[field.name]) if field.name in fields else None
            if value is not None:
                kept[field.name] = value
            elif field.required:
                return None
        return Admitted(name, kept, frozenset(fields.keys() - kept.keys()))

    def expired(self, today: date) -> tuple[str, ...]:
        """Return the names of entries that have expired."""
        return tuple(name for name, entry in self.entries.items() if entry.expires <= today)


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    entries: tuple[Entry, ...]


def read_catalogue(path: Path) -> Catalogue:
    """Read a catalogue.

    Raises:
        Problem: it cannot be understood, or an entry says too little.
    """
    try:
        file = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _File)
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError) as fault:
        raise Problem(f"the catalogue cannot be understood: {fault}", where=str(path)) from None
    for entry in file.entries:
        for what in find_faults(entry):
            raise Problem(what, where=f"{path}: {entry.name}", fix="complete the entry")
    entries = {entry.name: entry for entry in file.entries}
    if len(entries) != len(file.entries):
        raise Problem("an entry stands twice", where=str(path))
    return Catalogue(entries)


def find_catalogues() -> Mapping[str, Catalogue]:
    """Return the catalogue of each flow that has one, by the flow's name."""
    folder = Path(__file__).resolve().parent.parent / "flows"
    return {path.parent.name: read_catalogue(path) for path in sorted(folder.glob("*/catalogue.toml"))}


def find_faults(entry: Entry) -> Iterable[str]:
    """Give what an entry lacks, or says that it may not."""
    if not _NAME.fullmatch(entry.name):
        yield "its name is no plain name"
    for attribute in ("title", "description", "why", "owner", "sender"):
        if not getattr(entry, attribute).strip():
            yield f"it does not say: {attribute}"
    for field in entry.fields:
        if not field.description.strip():
            yield f"{field.name}: it does not say what it tells"
        # Longer ones could be sentences.
        words = (*field.words, *field.prefixes)
        if field.type in (FieldType.WORD, FieldType.NAME) and not words:
            yield f"{field.name}: a word needs its words, or its prefixes"
        if not 1 <= field.digits <= _MOST_DIGITS:
            yield f"{field.name}: a number has 1 to {_MOST_DIGITS} digits"
        if any(not _WORD.fullmatch(word) for word in words):
            yield f"{field.name}: a word has letters, digits and _.:- and at most 40 of them"
        if field.type is FieldType.NUMBER and not (field.unit and field.least < field.most):
            yield f"{field.name}: a number needs its unit, the least and the most"


def round_number(value: float, digits: int = SIGNIFICANT_DIGITS) -> float:
    """Return a number with so many significant digits."""
    return float(f"{value:.{digits - 1}e}")


def name_plainly(name: str) -> str:
    """Return a name as it may be told; `(another name)` where it may be anything."""
    return name if _IDENTIFIER.fullmatch(name) else "(another name)"


def _read_number(text: str) -> float | None:
    try:
        return float(text) if len(text) < 30 else None
    except ValueError:
        return None
