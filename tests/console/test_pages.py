"""Every page as a browser shows it: axe finds no fault, nothing is foreign, and a phone is wide enough."""

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from bailee.console.ledgers import KINDS
from bailee.ledger.entries import AnyEntry
from bailee.service.console import make_pages
from console.browsers import DESKTOP, PHONE, Visitor
from console.cast import Cast
from console.screens import SCREENS, place

Visit = Callable[..., Visitor]
PICTURES = Path(__file__).resolve().parents[2] / "docs" / "screens"


@pytest.mark.parametrize("name", SCREENS)
def test_a_page_is_for_everybody(name: str, visit: Visit, cast: Cast) -> None:
    """In the light and in the dark axe finds nothing; at a phone's width nothing sticks out; one heading."""
    person, path = SCREENS[name]
    window = visit(person)
    page = window.go(place(path, cast))
    assert window.check_with_axe() == []
    page.emulate_media(color_scheme="dark")
    assert window.check_with_axe("color-contrast") == []
    assert len(page.query_selector_all("h1")) == 1
    for width, height in (PHONE, DESKTOP):
        page.set_viewport_size({"width": width, "height": height})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert window.foreign() == []


def test_every_page_is_looked_at(cast: Cast) -> None:
    """No page that can be opened is without its pictures; and axe looks at all of them."""
    shown = {page.path for page in make_pages() if page.show is not None}
    shown -= {"/console", "/console/sign-in/link"}  # leads on; needs its token
    shown -= {"/console/sign-in/organization/back"}  # sends its form at once
    shown -= {path for path in shown if path.endswith(("/export", "/events", "/data/receipts"))}  # files
    fixed = {path for path in shown if "{" not in path}
    seen = {path.removeprefix("{here}").partition("?")[0] for _, path in SCREENS.values()}
    assert fixed <= seen
    assert len(SCREENS) >= len(shown)
    names = {path.name for path in PICTURES.glob("*.png")} - {"flows-dark.png"}
    assert names == {f"{name}-{kind}.png" for name in SCREENS for kind in ("desktop", "phone")}


def test_the_ledger_has_words_for_every_kind_of_entry() -> None:
    """Each kind that the ledger knows can be searched for by its words, and there are no others."""
    assert set(KINDS) == {one.__struct_config__.tag for one in get_args(AnyEntry)}


def test_control_axe_finds_a_fault(visit: Visit) -> None:
    """Control: a picture without words, and a field without its label, are found."""
    window = visit("nobody")
    page = window.go("/console/sign-in")
    page.evaluate("document.querySelector('main').insertAdjacentHTML('beforeend', '<img src=\"/x\"><input>')")
    assert {one.partition(":")[0] for one in window.check_with_axe()} >= {"image-alt", "label"}


def test_control_what_is_foreign_is_noticed(visit: Visit) -> None:
    """Control: a page that loads something from elsewhere is seen, and its policy stops it."""
    window = visit("nobody")
    page = window.go("/console/sign-in")
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img alt=x src=\"http://127.0.0.1:9/x\">')")
    page.wait_for_timeout(200)
    assert window.foreign() in ([], ["http://127.0.0.1:9/x"])
    window.requests.clear()
    page.goto("about:blank")
    page.set_content("<img src='http://127.0.0.1:9/y'>")
    page.wait_for_timeout(200)
    assert window.foreign() == ["http://127.0.0.1:9/y"]
    window.requests.clear()
