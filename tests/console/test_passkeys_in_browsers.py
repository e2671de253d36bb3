"""Passkeys in a real browser with Chromium's virtual authenticator, and what is refused over HTTP."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from bailee.accounts.directory import open_directory
from bailee.accounts.passkeys import list_passkeys
from bailee.accounts.passwords import set_password
from bailee.ledger.log import FOLDER, open_log
from bailee.policy.problems import Problem
from bailee.service.console import read_console_url
from console.browsers import Visitor
from console.cast import PASSWORD, RUNNER, Cast, make_people
from console.filling import keep_passkey
from counterparts.authenticators import Authenticator
from counterparts.programs import run_program
from counterparts.services import clean_environment, serving

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
    page = window.go(f"{cast.own_url}/console/account")
    page.fill("#f-name", "bob")
    page.fill("#f-password", PASSWORD)
    page.click("main button.main")
    page.fill("#f-name", "<b>phone</b>")
    page.fill("#f-proof", "not the password")
    page.click("text=Add a passkey")
    page.wait_for_selector(".problem")
    assert "not your present password" in page.inner_text(".problem")
    devices.send("WebAuthn.clearCredentials", {"authenticatorId": device})
    page = window.go(f"{cast.own_url}/console/account")
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
    page = window.go(f"{cast.own_url}/console/privacy")
    page.click("text=Sign in with a passkey")
    page.wait_for_url(f"{cast.own_url}/console/privacy")
    page = window.go(f"{cast.own_url}/console/account")
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
    path = "account" if person in cast.tokens else "sign-in"
    page = visit(person, java_script_enabled=False).go(f"{cast.own_url}/console/{path}")
    assert "use the password, or a link" in page.inner_text("main")
    assert not page.is_visible("[data-passkey] button")
    assert page.is_visible("main button")


def test_elsewhere_the_page_leads_to_where_passkeys_are(visit: Visit, cast: Cast) -> None:
    """At 127.0.0.1, where no browser keeps passkeys, it names the address that is for them."""
    page = visit("nobody").go("/console/sign-in")
    assert "sign in there" in page.inner_text(".note.warn")
    assert not visit("nobody").go(f"{cast.own_url}/console/sign-in").query_selector(".note.warn")  # Control
    page.click("section a:has-text('bailee.localhost')")
    assert page.url == f"{cast.own_url}/console/sign-in"


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


def add(cast: Cast, device: Authenticator) -> None:
    """Add a passkey of Alice's over HTTP, as her browser does."""
    here, path = cast.own_url, "/console/account/passkeys"
    token, sent = open_form(cast, "alice", here.removeprefix("http://"))
    asked = cast.ask("POST", f"{path}/challenge", "alice", urlencode({"form_token": token}), **sent)[1]
    answer = device.create(asked.encode(), here)
    made = {"form_token": token, "answer": answer, "name": "key", "proof": PASSWORD}
    assert cast.ask("POST", path, "alice", urlencode(made), **sent)[0] == 303


def test_what_is_relayed_signs_nobody_in(cast: Cast) -> None:
    """A server on another port that relays what it got, with a Host of its choice, is refused; so is another
    browser. What was signed here signs in, and leads nowhere else.
    """
    device, here = Authenticator(), cast.own_url
    host = here.removeprefix("http://")
    add(cast, device)
    theirs = "http://bailee.localhost:1"
    for at in (host, "bailee.localhost:1"):
        status, told = use(cast, device, host=at, origin=theirs)
        assert (status, "not a passkey of an account here" in told) == (400, True)
    status, told = use(cast, device, host=host, origin=here, other=True)
    assert (status, "not for this browser" in told) == (400, True)
    assert use(cast, device, host=host, origin=here) == (303, "/console")
    directory = open_directory(cast.home)
    assert "key" in [one.name for one in list_passkeys(directory, cast.ids["alice"])]
    directory.close()


def test_control_with_the_origin_of_the_request(tmp_path: Path) -> None:
    """Control: where the origin is what a request says it was sent to, what is relayed signs in; and without
    limits nobody who asks for challenges has to wait.
    """
    changes = (
        "import bailee.console.application as a\nimport bailee.console.passkeys as p\n"
        "a.Console._find_origin = lambda self, request: str(request.base_url).rstrip('/')\n"
        "p.OF_ADDRESS = (1000, 1000)\n"
    )
    home = tmp_path / "state"
    make_people(home)
    directory = open_directory(home)
    alice = directory.get("alice").id
    set_password(directory, "alice", RUNNER, PASSWORD, for_holder=True)
    directory.close()
    with serving(home, tmp_path, "--upstream", "rehearsal", changes=changes) as service:
        cast = Cast(home, service, ids={"alice": alice})
        cast.tokens["alice"] = cast.sign_in("alice")
        device = Authenticator()
        add(cast, device)
        found = use(cast, device, host="bailee.localhost:1", origin="http://bailee.localhost:1")
        assert found == (303, "/console")
        assert set(ask_for_challenges(cast, 25)) == {200}


def ask_for_challenges(cast: Cast, count: int) -> list[int]:
    """Ask for challenges as somebody who is not signed in; return the statuses."""
    token, sent = open_form(cast, "nobody", cast.own_url.removeprefix("http://"))
    path, body = "/console/sign-in/passkey/challenge", urlencode({"form_token": token})
    return [cast.ask("POST", path, body=body, **sent)[0] for _ in range(count)]


def test_asking_is_limited(tmp_path: Path) -> None:
    """Of one address twenty challenges may be asked for at once, and answers count as passwords do."""
    with serving(tmp_path / "state", tmp_path, "--upstream", "rehearsal") as service:
        cast = Cast(tmp_path / "state", service, ids={"alice": "nobody's"})
        statuses = ask_for_challenges(cast, 25)
        assert statuses[:20] == [200] * 20
        assert statuses[-1] == 429
        token, sent = open_form(cast, "nobody", cast.own_url.removeprefix("http://"))
        body = urlencode({"form_token": token, "answer": "{}"})
        told = [cast.ask("POST", "/console/sign-in/passkey", body=body, **sent)[1] for _ in range(12)]
        assert ["too often" in one for one in told] == [False] * 10 + [True] * 2


def test_the_console_has_an_address() -> None:
    """What browsers use passkeys at is taken as they write it; everything else is told so at the start."""
    assert read_console_url("") == ""
    assert read_console_url("https://bailee.example.com/") == "https://bailee.example.com"
    assert read_console_url("https://bailee.example.com:443") == "https://bailee.example.com"
    assert read_console_url("https://bailee.example.com:8443") == "https://bailee.example.com:8443"
    assert read_console_url("http://bailee.localhost:8787") == "http://bailee.localhost:8787"
    for wrong in (
        "http://bailee.example.com",
        "https://bailee.example.com/a",
        "bailee.example.com",
        "https://",
    ):
        with pytest.raises(Problem):
            read_console_url(wrong)


def test_passkeys_are_taken_away_where_a_device_is_lost(tmp_path: Path) -> None:
    """`bailee console passkeys` lists them, and takes them away by who runs the service."""
    home = tmp_path / "state"
    make_people(home)
    directory = open_directory(home)
    holder = directory.get("alice")
    keep_passkey(directory, holder, "https://a.example")
    directory.close()
    command = ("console", "passkeys", "alice", "--home", str(home))
    environment = clean_environment(tmp_path)
    assert run_program(*command, environment=environment, folder=tmp_path).stdout == "phone  a.example\n"
    told = run_program(*command, "--remove", "--json", environment=environment, folder=tmp_path)
    assert (told.returncode, told.stdout.strip()) == (0, "[]")
    again = run_program(*command, "--remove", environment=environment, folder=tmp_path)
    assert again.returncode != 0
    assert "has no passkey" in again.stderr
