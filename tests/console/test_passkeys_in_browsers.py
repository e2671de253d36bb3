"""Passkeys in a real browser with Chromium's virtual authenticator, and what is refused over HTTP."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest

from bailee.accounts.directory import open_directory
from bailee.accounts.passkeys import list_passkeys
from bailee.ledger.log import FOLDER, open_log
from console.browsers import Visitor
from console.cast import PASSWORD, Cast
from counterparts.authenticators import Authenticator

Visit = Callable[..., Visitor]
FORM = {"content-type": "application/x-www-form-urlencoded"}
DEVICE = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}


def find_origin(cast: Cast) -> str:
    """Return what passkeys are for on this machine."""
    return f"http://bailee.localhost:{cast.service.address[1]}"


def plug_in(window: Visitor) -> tuple[Any, str]:
    """Give a window an authenticator; return what speaks to it, and its id."""
    devices = window.context.new_cdp_session(window.page)
    devices.send("WebAuthn.enable")
    made = devices.send("WebAuthn.addVirtualAuthenticator", {"options": DEVICE})
    return devices, made["authenticatorId"]


def test_a_passkey_from_its_first_day_to_its_last(visit: Visit, cast: Cast) -> None:
    """Bob adds one, signs out, signs in with it, and removes it; then it signs nobody in."""
    window = visit("nobody")
    devices, device = plug_in(window)
    page = window.go(f"{find_origin(cast)}/console/account")
    page.fill("#f-name", "bob")
    page.fill("#f-password", PASSWORD)
    page.click("main button.main")
    page.fill("#f-name", "<b>phone</b>")
    page.fill("#f-proof", "not the password")
    page.click("text=Add a passkey")
    page.wait_for_selector(".problem")
    assert "not your present password" in page.inner_text(".problem")
    devices.send("WebAuthn.clearCredentials", {"authenticatorId": device})
    page = window.go(f"{find_origin(cast)}/console/account")
    page.fill("#f-name", "<b>phone</b>")
    page.fill("#f-proof", PASSWORD)
    page.click("text=Add a passkey")
    page.wait_for_selector(".said")
    row = page.inner_text("tr:has-text('<b>phone</b>')")
    assert "bailee.localhost" in row
    assert "never" in row
    assert window.check_with_axe() == []
    page.click("header button:has-text('Sign out')")
    page.wait_for_url("**/console/sign-in")
    page = window.go(f"{find_origin(cast)}/console/privacy")
    page.click("text=Sign in with a passkey")
    page.wait_for_url(f"{find_origin(cast)}/console/privacy")
    page = window.go(f"{find_origin(cast)}/console/account")
    assert "passkey" in page.inner_text("tr:has-text('this one')")
    assert "never" not in page.inner_text("tr:has-text('<b>phone</b>')")
    page.click("tr:has-text('<b>phone</b>') button")
    page.wait_for_selector(".said")
    sent = {"cookie": f"bailee_console={cast.tokens['bob']}"}
    assert cast.ask("GET", "/console/data", **sent)[0] == 303
    cast.tokens["bob"] = cast.sign_in("bob")
    page.click("header button:has-text('Sign out')")
    page.wait_for_url("**/console/sign-in")
    page.click("text=Sign in with a passkey")
    page.wait_for_selector(".problem")
    assert "not a passkey of an account here" in page.inner_text(".problem")
    entries = b"".join(open_log(cast.home / FOLDER).read()).decode()
    for words in ('"added"', '"removed"', '"way":"passkey"'):
        assert words in entries


@pytest.mark.parametrize("person", ["nobody", "alice"])
def test_without_scripts_the_page_says_what_else_there_is(visit: Visit, cast: Cast, person: str) -> None:
    """In words, and with no button that does nothing."""
    origin = find_origin(cast)
    window = visit("nobody", java_script_enabled=False)
    if person in cast.tokens:
        kept = {"name": "bailee_console", "value": cast.tokens[person], "url": origin}
        window.context.add_cookies([kept])  # type: ignore[list-item]
    page = window.go(f"{origin}/console/{'account' if person in cast.tokens else 'sign-in'}")
    assert "use the password, or a link" in page.inner_text("main")
    assert not page.is_visible("[data-passkey] button")
    assert page.is_visible("main button")


def test_elsewhere_the_page_leads_to_where_passkeys_are(visit: Visit, cast: Cast) -> None:
    """At 127.0.0.1, where no browser keeps passkeys, it names the address that is for them."""
    page = visit("nobody").go("/console/sign-in")
    page.click("main a:has-text('bailee.localhost')")
    assert page.url == f"{find_origin(cast)}/console/sign-in"


def open_form(cast: Cast, person: str, host: str) -> tuple[str, dict[str, str]]:
    """Load a page, and return its form's token and the headers to send it with."""
    path = "/console/account" if person in cast.tokens else "/console/sign-in"
    _, told, headers = cast.ask("GET", path, person, host=host)
    token = told.partition('form_token" value="')[2][:64]
    cookie = headers.get("set-cookie", "").partition(";")[0]
    return token, {**FORM, "host": host, **({} if person in cast.tokens else {"cookie": cookie})}


def use(cast: Cast, device: Authenticator, *, host: str, origin: str, other: bool = False) -> tuple[int, str]:
    """Sign in over HTTP with what was signed at an origin; the answer's status and text."""
    token, sent = open_form(cast, "nobody", host)
    path = "/console/sign-in/passkey"
    asked = cast.ask("POST", f"{path}/challenge", body=urlencode({"form_token": token}), **sent)[1]
    answer = device.get(asked.encode(), origin, cast.ids["alice"])
    if other:
        token, sent = open_form(cast, "nobody", host)
    body = urlencode({"form_token": token, "answer": answer, "next": "//evil.example/"})
    status, told, headers = cast.ask("POST", path, body=body, **sent)
    return status, headers.get("location", told)


def test_what_is_relayed_signs_nobody_in(cast: Cast) -> None:
    """A server on another port that relays what it got, with a Host of its choice, is refused; so is another
    browser. What was signed here signs in, and leads nowhere else.
    """
    device, here = Authenticator(), find_origin(cast)
    host = here.removeprefix("http://")
    token, sent = open_form(cast, "alice", host)
    path = "/console/account/passkeys"
    asked = cast.ask("POST", f"{path}/challenge", "alice", urlencode({"form_token": token}), **sent)[1]
    made = {
        "form_token": token,
        "answer": device.create(asked.encode(), here),
        "name": "key",
        "proof": PASSWORD,
    }
    assert cast.ask("POST", path, "alice", urlencode(made), **sent)[0] == 303
    theirs = "http://bailee.localhost:1"
    for at in (host, "bailee.localhost:1"):
        status, told = use(cast, device, host=at, origin=theirs)
        assert (status, "not a passkey of an account here" in told) == (400, True)
    status, told = use(cast, device, host=host, origin=here, other=True)
    assert (status, "not for this browser" in told) == (400, True)
    assert use(cast, device, host=host, origin=here) == (303, "/console")
    directory = open_directory(cast.home)
    assert [one.name for one in list_passkeys(directory, cast.ids["alice"])] == ["key"]
    directory.close()
