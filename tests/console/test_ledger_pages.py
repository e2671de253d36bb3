"""Whose entries the pages of the ledger tell, by name, and that all of them are reached."""

import html
import re

from bailee.ledger.log import FOLDER, open_log
from console.cast import Cast, found_organization
from console.tables import read_table

LEDGER = "/console/ledger"


def list_subjects(cast: Cast, person: str, query: str) -> set[str]:
    """Return of whom a page of the ledger tells somebody."""
    told = cast.ask("GET", f"{LEDGER}?{query}", person)[1]
    if "Nothing here says that." in told:
        return set()
    return {row["Of"] for row in read_table(told, "Entry").values()}


def test_an_admin_sees_entries_of_members_alone(cast: Cast) -> None:
    """Of strangers and of another organization's members there are none, neither by name nor otherwise;
    whoever sees to the service sees all of them by name (control).
    """
    other = found_organization(cast.home, cast.service, "nakatomi")
    for person in ("alice", "bob", "charlie"):
        cast.sign_in(person)
    own = list_subjects(cast, "admin", "kind=signed_in")
    assert {"alice", "bob"} <= own
    assert not own & {"charlie", "olga", "nakatomi-admin", "nakatomi-member"}
    assert not any(one.endswith("…") for one in own)
    assert list_subjects(other, "admin", "kind=signed_in") == {"nakatomi-admin", "nakatomi-member"}
    assert list_subjects(other, "member", "") == {"nakatomi-member"}
    for name in ("charlie", "nakatomi-member"):
        assert list_subjects(cast, "admin", f"q={name}") == set()
        assert list_subjects(cast, "alice", f"q={name}") == set()
        assert name in list_subjects(cast, "operator", f"q={name}")


def test_every_entry_is_reached_page_by_page(cast: Cast) -> None:
    """From the newest to the first, each once, as "Further back" leads."""
    other = found_organization(cast.home, cast.service, "hooli")
    for _ in range(60):
        other.sign_in("member")  # which ends those of before that are too many: not of one of the cast
    path, seen = LEDGER, list[int]()
    while path:
        told = cast.ask("GET", path, "operator")[1]
        seen += [int(index) for index in read_table(told, "Entry")]
        link = re.search(r'href="([^"]+)">Further back<', told)
        path = html.unescape(link[1]) if link else ""
    assert len(seen) > 50
    assert seen == list(range(seen[0], -1, -1))
    assert open_log(cast.home / FOLDER).size >= seen[0] + 1
