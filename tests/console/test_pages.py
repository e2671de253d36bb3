"""Every page as a browser shows it: axe finds no fault, nothing is foreign, and a phone is wide enough."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from playwright.sync_api import Page, Route

from bailee.console.ledgers import KINDS
from bailee.console.rendering import STATIC
from bailee.ledger.entries import AnyEntry
from bailee.service.console import make_pages
from console.browsers import DESKTOP, PHONE, Visitor
from console.cast import HOSTILE_ID, Cast, found_organization
from console.screens import OF_A_HOLD, RELEASE, SCREENS, place

Visit = Callable[..., Visitor]
SMALL = {"width": PHONE[0], "height": PHONE[1]}
# What one comes to a page for.
SOUGHT = {
    "account": ("td button:has-text('Sign out')",),
    "cloud": ("td[data-label=State]",),
    "data": tuple(f"td[data-label='{head}']" for head in ("Kept", "Goes", "Days left", "Trains")),
    "flows": ("td[data-label=Times]", "td[data-label=Received]", ".slim a[href$=metrics]"),
    "keys": ("button:has-text('Revoke')",),
    "ledger": ("td[data-label=By]", "td[data-label=Says]"),
    "organization": tuple(
        f"button:has-text('{one}')" for one in ("Suspend bob", "Make bob an admin", "Refuse")
    ),
    "privacy": tuple(f"button:has-text('{one}')" for one in ("Refuse bug reports", "Revoke")),
}
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
    for width, height in (DESKTOP, PHONE):
        page.set_viewport_size({"width": width, "height": height})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert window.check_with_axe() == []
    assert window.list_out_of_sight() == []
    assert window.list_hard_to_press() == []
    assert window.list_mislabelled() == []
    assert window.foreign() == []


@pytest.mark.parametrize("name", SOUGHT)
def test_what_one_comes_for_is_in_sight_on_a_phone(
    name: str, visit: Visit, cast: Cast, has_scripts: bool
) -> None:
    """Nobody has to move a table to a side for it, with JavaScript or without."""
    person, path = SCREENS[name]
    page = visit(person, java_script_enabled=has_scripts, viewport=SMALL).go(path)
    assert [one for one in SOUGHT[name] if not is_in_sight(page, one)] == []


@pytest.mark.parametrize("name", SOUGHT)
def test_control_it_is_the_rule_that_brings_it_into_sight(name: str, visit: Visit, cast: Cast) -> None:
    """Control: without the rule for narrow screens some of it is off to a side."""
    person, path = SCREENS[name]
    window = visit(person, viewport=SMALL)
    window.page.route("**/console.css*", leave_out_cards)
    page = window.go(path)
    assert [one for one in SOUGHT[name] if not is_in_sight(page, one)]
    assert window.list_out_of_sight()


def test_a_hold_is_released_on_a_phone(visit: Visit, cast: Cast, has_scripts: bool) -> None:
    """Field and button are in sight, and can be pressed; what is released says so under its head."""
    umbrella = found_organization(cast.home, cast.service, f"umbrella-{has_scripts}".lower())
    window = visit("admin", umbrella, java_script_enabled=has_scripts, viewport=SMALL)
    page = window.go("/console/organization/holds")
    page.fill("#f-reason", "case 12, which is a long story and takes up all of the room that there is")
    page.click("text=Place it")
    assert is_in_sight(page, "td a:has-text('Release…')")
    page.click("td a:has-text('Release…')")
    assert is_in_sight(page, "#f-reason")
    assert is_in_sight(page, "button:has-text('Release it')")
    assert window.list_out_of_sight() == []
    assert window.list_hard_to_press() == []
    assert not has_scripts or window.check_with_axe() == []
    page.fill("#f-reason", "case closed")
    page.click("text=Release it")
    assert "released" in page.inner_text("td[data-label=State]")
    assert is_in_sight(page, "td[data-label=State]")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_long_text_shows_that_it_goes_on(scheme: str, visit: Visit) -> None:
    """At its foot there is a shadow, until its end is reached; control: without the rule there is none."""
    window = visit("alice", viewport=SMALL, color_scheme=scheme)
    page = window.go("/console/data")
    page.click(f"main td a:text-is('{HOSTILE_ID}')")
    page.wait_for_load_state()  # it is long
    begun, ended = read_foot(window, 0), read_foot(window, 10**6)
    assert abs(begun - ended) > 20
    page.eval_on_selector("pre", "one => one.style.background = 'none'")
    assert read_foot(window, 0) == read_foot(window, 10**6)


def test_every_page_is_looked_at(cast: Cast) -> None:
    """No page that can be opened is without its pictures; and axe looks at all of them."""
    shown = {page.path for page in make_pages() if page.show is not None}
    shown -= {"/console", "/console/sign-in/link"}  # leads on; needs its token
    shown -= {RELEASE}  # with a hold of its own above
    shown -= {"/console/sign-in/organization/back"}  # sends its form at once
    shown -= {path for path in shown if path.endswith(("/export", "/events", "/data/receipts"))}  # files
    fixed = {path for path in shown if "{" not in path}
    seen = {path.removeprefix("{here}").partition("?")[0] for _, path in SCREENS.values()}
    assert fixed <= seen
    assert len(SCREENS) >= len(shown)
    names = {path.name for path in PICTURES.glob("*.png")} - {"flows-dark.png"}
    assert names == {f"{name}-{kind}.png" for name in [*SCREENS, OF_A_HOLD] for kind in ("desktop", "phone")}


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


def test_control_what_cannot_be_reached_on_a_phone_is_found(visit: Visit) -> None:
    """Control: a button off to a side, one too small to press, and a cell with another's head, are told."""
    window = visit("operator", viewport=SMALL)
    page = window.go("/console/flows")
    page.evaluate(
        """() => {
          const small = Object.assign(document.createElement("button"), { textContent: "x" });
          small.style.cssText = "position: absolute; left: 600px; min-height: 0";
          document.querySelector("main").append(small);
          document.querySelector("td").dataset.label = "Sent";
        }"""
    )
    assert (len(window.list_out_of_sight()), len(window.list_hard_to_press())) == (1, 1)
    assert len(window.list_mislabelled()) == 1


def is_in_sight(page: Page, selector: str) -> bool:
    """Tell whether the first that is meant lies within the window from side to side."""
    box = page.locator(f"main {selector}").first.bounding_box()
    return box is not None and box["x"] >= 0 and box["x"] + box["width"] <= PHONE[0]


def leave_out_cards(route: Route) -> None:
    """Answer with the style sheet as it is without its rule for narrow screens."""
    whole = (STATIC / "console.css").read_text()
    before, rule, _ = whole.partition("@media (max-width: 46rem)")
    assert rule
    route.fulfill(body=before, content_type="text/css")


def read_foot(window: Visitor, moved: int) -> int:
    """Return how light the foot of the page's first long text is, moved on by so much, beside its letters."""
    window.page.eval_on_selector("pre", "(one, moved) => { one.scrollTop = moved; }", moved)
    picture = base64.b64encode(window.page.locator("pre").first.screenshot()).decode()
    reader = window.context.new_page()  # the console's own policy lets no picture be read
    light: int = reader.evaluate(
        """async (picture) => {
          const image = Object.assign(new Image(), { src: `data:image/png;base64,${picture}` });
          await image.decode();
          const canvas = new OffscreenCanvas(image.width, image.height).getContext("2d");
          canvas.drawImage(image, 0, 0);
          return canvas.getImageData(image.width - 6, image.height - 4, 1, 1).data[0];
        }""",
        picture,
    )
    reader.close()
    return light
