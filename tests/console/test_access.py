"""Who sees what: every address, for each of the cast, as the table of `docs/console.md` has it."""

import re
from pathlib import Path

import pytest

from bailee.accounts.directory import open_directory
from bailee.service.console import make_pages
from console.cast import PEOPLE, SESSIONS, Cast, make_people
from counterparts.services import serving
from counterparts.waiting import wait_for

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
    path = path.replace("{agent}", "aider")
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


def test_a_stranger_learns_of_no_page_by_a_bad_request(cast: Cast) -> None:
    """A body that is no form, and a NUL, are told of where the page is theirs (control), else nothing."""
    json = {"content-type": "application/json"}
    for person, wanted in (("charlie", 404), ("operator", 400)):
        assert cast.ask("POST", "/console/flows/web", person, "{}", **json)[0] == wanted
        assert cast.ask("GET", "/console/flows?x=%00", person)[0] == wanted


def test_a_fault_of_the_program_is_told_as_a_page(tmp_path: Path) -> None:
    """Whether its facts fail or its drawing: the traceback is in the log alone, other pages are there."""
    home = tmp_path / "state"
    changes = (
        "import bailee.console.privacy as p\nimport bailee.console.receipts as r\n"
        "p.sum_up = lambda held: 1 / 0\n"
        "r._show = lambda visit: r.View('receipts.html', {})\n"
    )
    make_people(home)
    with serving(home, tmp_path, "--upstream", "rehearsal", changes=changes) as service:
        cast = Cast(home, service)
        directory = open_directory(home)
        cast.ids["charlie"] = directory.get("charlie").id
        directory.close()
        cast.tokens["charlie"] = cast.sign_in("charlie")
        for path in ("/console/privacy", "/console/receipts"):
            status, told, _ = cast.ask("GET", path, "charlie")
            assert (status, "a fault of the program" in told, "Traceback" in told) == (500, True, False)
        assert cast.ask("GET", "/console/ledger", "charlie")[0] == 200
        assert "ZeroDivisionError" in service.errors


def test_answers_are_sealed_off(cast: Cast) -> None:
    """Every page, as each sees it, forbids what is foreign, frames, inline scripts and styles, and caches."""
    for page in make_pages():
        if page.show is None:
            continue
        statuses = set()
        for person in PEOPLE:
            status, told, headers = cast.ask("GET", fill(page.path, cast), person)
            statuses.add(status)
            if "content-disposition" in headers:
                continue  # a file, which is saved and never shown
            policy = headers["content-security-policy"]
            assert policy.startswith("default-src 'none'")
            assert "unsafe" not in policy
            assert headers["cache-control"] == "no-store"
            assert headers["x-content-type-options"] == "nosniff"
            is_page = headers.get("content-type", "").startswith("text/html")
            if is_page:
                assert not re.search(r"<style|<script(?! src=)|\sstyle=|\son[a-z]+=\"", told), page.path
        # Of what takes a choice first the choice is missing, and no such error ever was.
        leading = ("/console", "/console/flows/errors/{id}", "/console/organization/holds/release")
        is_led_on = page.path in leading
        assert statuses & {200, 400} or is_led_on, page.path


FORMS = (
    "/console/data/session/{session}/erase",
    "/console/feedback/{report}/withdraw",
    "/console/cloud/{cloud}",
    "/console/cloud/{cloud}/stop",
    "/console/cloud/{cloud}/erase",
    "/console/privacy/keys",
)


@pytest.mark.parametrize("person", ["bob", "charlie", "admin"])
def test_forms_about_what_is_anothers_do_nothing(person: str, cast: Cast) -> None:
    """With their own page's token, too, nobody erases, withdraws, stops or opens what is Alice's."""
    token = cast.ask("GET", "/console/privacy", person)[1].partition('form_token" value="')[2][:64]
    form = {"content-type": "application/x-www-form-urlencoded"}
    key = cast.keys["alice"].split("_")[1]
    for path in FORMS:
        place = path.format(session=SESSIONS["alice"], report=cast.report, cloud=cast.cloud)
        body = f"form_token={token}&reason=x&key={key}"
        status, told, _ = cast.ask("POST", place, person, body, **form)
        assert status == (400 if path.endswith("/keys") else 404), f"{path}: {told[-600:]}"
    assert cast.ask("GET", f"/console/data/session/{SESSIONS['alice']}", "alice")[0] == 200
    assert cast.ask("GET", f"/console/feedback/{cast.report}", "alice")[0] == 200
    assert cast.ask("GET", "/api/account", authorization=f"Bearer {cast.keys['alice']}")[0] == 200


def test_control_with_the_checks_out(tmp_path: Path) -> None:
    """Control: with these checks out Charlie sees an operator's page, and sends a form without its token."""
    changes = (
        "import bailee.console.application as a\nimport bailee.pages as p\n"
        "a.is_from_here, a.has_token = lambda request: True, lambda form, token: True\n"
        "p.Visitor.parts = property(lambda self: frozenset(p.Part))\n"
    )
    home = tmp_path / "state"
    make_people(home)
    with serving(home, tmp_path, "--upstream", "rehearsal", changes=changes) as service:
        cast = Cast(home, service)
        directory = open_directory(home)
        cast.ids = {"charlie": directory.get("charlie").id}
        directory.close()
        cast.tokens["charlie"] = cast.sign_in("charlie")
        assert cast.ask("GET", "/console/flows", "charlie")[0] == 200
        form = {"content-type": "application/x-www-form-urlencoded"}
        body = "flow=survey&to=refused"
        assert cast.ask("POST", "/console/privacy/flows", "charlie", body, **form)[0] == 303


def test_control_a_holder_erases_their_own(cast: Cast) -> None:
    """Control: the same form from Alice's own page does what it says."""
    cast.say("alice", "alice-control", "to be erased")
    token = cast.ask("GET", "/console/privacy", "alice")[1].partition('form_token" value="')[2][:64]
    form = {"content-type": "application/x-www-form-urlencoded"}
    path = "/console/data/session/alice-control"
    wait_for("it to be held", lambda: cast.ask("GET", path, "alice")[0] == 200 or None)
    assert cast.ask("POST", f"{path}/erase", "alice", f"form_token={token}", **form)[0] == 200
    assert cast.ask("GET", path, "alice")[0] == 404
