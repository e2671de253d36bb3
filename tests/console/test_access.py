"""Who sees what: every address, for each of the cast, as the table of `docs/console.md` has it."""

import re
from pathlib import Path

import pytest

from bailee.service.console import make_pages
from console.cast import PEOPLE, SESSIONS, Cast

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "console.md"
ROW = re.compile(r"^\| `(GET|POST) (/\S*)` \| (.+) \|$", re.MULTILINE)
# How an answer is called in the table, by its status.
WORDS = {"sees it": (200,), "goes on": (303,), "signs in": (303,), "nothing": (404,), "refused": (400, 403)}


def read_table() -> dict[tuple[str, str], list[str]]:
    """Return the table: method and path, and a word for each of the cast."""
    return {
        (method, path): [word.strip() for word in words.split("|")]
        for method, path, words in ROW.findall(DOCUMENT.read_text())
    }


def fill(path: str, cast: Cast) -> str:
    """Put in what braces stand for: things of Alice's."""
    values = {
        "/console/data/session/{id}": SESSIONS["alice"],
        "/console/feedback/{id}": cast.report,
        "/console/flows/feedback/{id}": cast.report,
        "/console/flows/errors/{id}": "0123456789ab",
        "/console/cloud/{id}": cast.cloud,
    }
    for start, value in values.items():
        if path.startswith(start):
            return path.replace("{id}", value)
    return path


def test_every_page_is_in_the_table() -> None:
    """No page of the console, and no form, is without its row; and no row without its page."""
    pages = {
        (method, page.path)
        for page in make_pages()
        for method, handler in (("GET", page.show), ("POST", page.act))
        if handler is not None
    }
    assert set(read_table()) == pages


@pytest.mark.parametrize("row", sorted(read_table()), ids=lambda row: " ".join(row))
def test_everybody_gets_the_answer_of_the_table(row: tuple[str, str], cast: Cast) -> None:
    """Each of the cast, and nobody, asks; forms are sent without their token, which who may send them is
    told.
    """
    method, path = row
    form = {"content-type": "application/x-www-form-urlencoded"} if method == "POST" else {}
    found = {}
    for person, word in zip(PEOPLE, read_table()[row], strict=True):
        status, told, headers = cast.ask(method, fill(path, cast), person, "x=1" if form else None, **form)
        is_right = status in WORDS[word]
        if word == "signs in":
            is_right = is_right and headers["location"].startswith("/console/sign-in")
        elif word == "goes on":
            is_right = is_right and not headers["location"].startswith("/console/sign-in")
        if not is_right:
            found[person] = f"{status} {headers.get('location', '')} and not: {word}; {told[:0]}"
    assert found == {}


def test_a_stranger_is_told_nothing(cast: Cast) -> None:
    """What is Alice's and what never was are one answer to Charlie, but for the path."""
    for path in ("/console/data/session/{}", "/console/feedback/{}", "/console/cloud/{}"):
        theirs = cast.ask("GET", path.format(SESSIONS["alice"]), "charlie")
        nobodys = cast.ask("GET", path.format("never-was"), "charlie")
        assert (theirs[0], theirs[1].replace(SESSIONS["alice"], "never-was")) == (404, nobodys[1])


def test_answers_are_sealed_off(cast: Cast) -> None:
    """Every page forbids what is foreign, frames, inline scripts and styles, and caches."""
    for page in make_pages():
        if page.show is None:
            continue
        _, told, headers = cast.ask("GET", fill(page.path, cast), "operator")
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert headers["cache-control"] == "no-store"
        assert not re.search(r"<style|<script(?! src=)|\sstyle=|\son[a-z]+=\"", told), page.path
