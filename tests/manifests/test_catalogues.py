"""Catalogues say enough of each event, and let through nothing else."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bailee
from bailee.manifests import catalogues
from bailee.manifests.catalogues import (
    LONGEST_LIFE_DAYS,
    Catalogue,
    Entry,
    Field,
    FieldType,
    name_plainly,
    read_catalogue,
    round_number,
)
from bailee.policy.problems import Problem

FLOWS = Path(bailee.__file__).parent / "flows"
FILES = sorted(FLOWS.glob("*/catalogue.toml"))
TODAY = date(2026, 5, 4)
COMPLETE = """
[[entries]]
name = "agent.turn"
title = "A turn"
description = "A turn ended."
why = "To know."
owner = "agent"
sender = "bailee"
expires = 2027-01-01
fields = [
  { name = "outcome", description = "how", type = "word", words = ["done", "failed"], required = true },
  { name = "milliseconds", description = "how long", type = "number", unit = "ms", least = 0, most = 1000 },
]
"""


def entries() -> Iterator[tuple[Path, Entry]]:
    for path in FILES:
        for entry in read_catalogue(path).entries.values():
            yield path, entry


def write(folder: Path, text: str) -> Path:
    path = folder / "catalogue.toml"
    path.write_text(text)
    return path


def test_there_are_catalogues() -> None:
    """What the next test looks at is there."""
    assert FLOWS / "metrics" / "catalogue.toml" in FILES


@pytest.mark.parametrize(("path", "entry"), [pytest.param(*one, id=one[1].name) for one in entries()])
def test_no_entry_has_expired_or_lives_too_long(path: Path, entry: Entry) -> None:
    """Somebody looks at each entry again within two years, or what it names is dropped."""
    today = datetime.now(UTC).date()
    assert today < entry.expires <= today + timedelta(days=LONGEST_LIFE_DAYS), f"{path}: {entry.name}"


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        ('why = "To know."', 'why = " "', "does not say: why"),
        ('owner = "agent"', 'owner = ""', "does not say: owner"),
        ('owner = "agent"', "", "cannot be understood"),
        ("expires = 2027-01-01", 'expires = "soon"', "cannot be understood"),
        ('name = "agent.turn"', 'name = "a turn"', "no plain name"),
        ('description = "how long"', 'description = ""', "does not say what it tells"),
        ('words = ["done", "failed"]', "words = []", "needs its words"),
        ('words = ["done", "failed"]', 'words = ["it was done"]', "a word has letters"),
        ('unit = "ms"', 'unit = ""', "needs its unit"),
        ("most = 1000", "most = 0", "needs its unit"),
        ('type = "number"', 'type = "text"', "cannot be understood"),
    ],
)
def test_an_entry_that_says_too_little_is_refused(tmp_path: Path, before: str, after: str, what: str) -> None:
    """Each thing that an entry has to say is missed, by the file and the entry."""
    assert before in COMPLETE
    assert read_catalogue(write(tmp_path, COMPLETE)).entries.keys() == {"agent.turn"}
    with pytest.raises(Problem, match=what):
        read_catalogue(write(tmp_path, COMPLETE.replace(before, after)))


def test_an_expired_entry_lets_nothing_through(tmp_path: Path) -> None:
    """From its day on what it names is dropped, whoever forgot to look."""
    catalogue = read_catalogue(write(tmp_path, COMPLETE))
    assert catalogue.admit("agent.turn", {"outcome": "done"}, today=date(2026, 12, 31)) is not None
    assert catalogue.admit("agent.turn", {"outcome": "done"}, today=date(2027, 1, 1)) is None
    assert catalogue.expired(date(2027, 1, 1)) == ("agent.turn",)


def test_an_event_is_cut_to_its_entry(tmp_path: Path) -> None:
    """Fields that the entry does not name go, and whoever asks learns which those were."""
    catalogue = read_catalogue(write(tmp_path, COMPLETE))
    given = {"outcome": "done", "milliseconds": 12345, "user.email": "a@b.example", "/home/ada": 1}
    admitted = catalogue.admit("agent.turn", given, today=TODAY)
    assert admitted is not None
    assert admitted.fields == {"outcome": "done", "milliseconds": 1000.0}
    assert admitted.dropped == {"/home/ada", "user.email"}
    assert catalogue.admit("agent.turn", {"milliseconds": 5}, today=TODAY) is None
    assert catalogue.admit("agent.other", given, today=TODAY) is None


WORD = Field(name="w", description="d", type=FieldType.WORD, words=("true", "429"), prefixes=("claude",))
OPEN = Field(name="w", description="d", type=FieldType.WORD, words=("on",), is_open=True)
NUMBER = Field(name="n", description="d", type=FieldType.NUMBER, unit="ms", least=0, most=1e6)
VERSION = Field(name="v", description="d", type=FieldType.VERSION)


@pytest.mark.parametrize(
    ("field", "value", "held"),
    [
        (WORD, True, "true"),
        (WORD, 429, "429"),
        (WORD, "claude-of-our-secret-project", "claude"),
        (WORD, "Claude", None),
        (OPEN, "our secret", "other"),
        (OPEN, None, None),
        (NUMBER, "1234", 1200.0),
        (NUMBER, 1234, 1200.0),
        (NUMBER, -3, 0.0),
        (NUMBER, 1e300, 1e6),
        (NUMBER, float("nan"), None),
        (NUMBER, "0x41", None),
        (NUMBER, True, None),
        (VERSION, "1.20.3", "1.20.3"),
        (VERSION, "1.20.3-of-ours", None),
        (VERSION, "١.٢.٣", None),
    ],
)
def test_fields_hold_what_their_type_has_room_for(field: Field, value: object, held: object) -> None:
    """Words of a list or its beginnings, numbers in coarse steps, versions; look-alikes are none."""
    assert field.admit(value) == held


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.dictionaries(st.text() | st.sampled_from(["w", "n", "v"]), ANYTHING))
def test_nothing_of_what_came_is_in_what_is_held(fields: dict[str, object]) -> None:
    """Whatever comes, a held word is one of the entry's own and a held number has two digits."""
    entry = Entry(
        name="e",
        title="t",
        description="d",
        why="w",
        owner="o",
        expires=date(2030, 1, 1),
        sender="s",
        fields=(OPEN, NUMBER, VERSION),
    )
    admitted = Catalogue({"e": entry}).admit("e", fields, today=TODAY)
    assert admitted is not None
    assert admitted.fields.get("w", "on") in ("on", "other")
    number = admitted.fields.get("n", 0.0)
    assert isinstance(number, float)
    assert number == round_number(number)
    version = str(admitted.fields.get("v", "1.1.1"))
    assert version.replace(".", "").isascii()
    assert version.replace(".", "").isdigit()


def test_control_a_type_with_room_for_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: with the look at words taken out, the same event holds what was said."""
    monkeypatch.setattr(catalogues.Field, "_admit_word", lambda self, value: value)
    assert WORD.admit("our secret") == "our secret"


@given(st.text())
def test_names_are_told_only_where_they_are_plain(name: str) -> None:
    """A name that is told has no path, no space and no address in it."""
    told = name_plainly(name)
    assert told == "(another name)" or all(one.isascii() and (one.isalnum() or one in "_.") for one in told)
