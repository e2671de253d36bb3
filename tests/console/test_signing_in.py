"""Signing in: by password, by a link that works once, and what becomes of it."""

import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import urlencode

import pytest
import sqlalchemy as sa

from bailee.accounts import tables
from bailee.accounts.directory import open_directory
from bailee.accounts.passwords import set_password
from bailee.accounts.sign_ins import make_link
from bailee.ledger.log import FOLDER, open_log
from console.browsers import Visitor
from console.cast import PASSWORD, RUNNER, Cast, found_organization, make_people
from counterparts.programs import run_program
from counterparts.services import Service, clean_environment, serving

Visit = Callable[..., Visitor]


@pytest.mark.parametrize("has_scripts", [True, False])
def test_with_a_password(visit: Visit, has_scripts: bool) -> None:
    """A wrong one is refused, the right one leads to where one was going; signing out ends it."""
    window = visit("nobody", java_script_enabled=has_scripts)
    page = window.go("/console/privacy")
    assert page.url.endswith("/console/sign-in?next=/console/privacy")
    for password in ("wrong wrong wrong", PASSWORD):
        page.fill("#f-name", "charlie")
        page.fill("#f-password", password)
        page.click("main button")
        if password != PASSWORD:
            assert "not the name and the password" in page.inner_text("main")
    assert page.url.endswith("/console/privacy")
    token = next(one for one in window.context.cookies() if one["name"] == "bailee_console")
    assert (token["httpOnly"], token["sameSite"], token["secure"]) == (True, "Lax", False)
    page.click("text=Sign out")
    assert page.url.endswith("/console/sign-in")
    assert window.go("/console/privacy").url.endswith("next=/console/privacy")
    # What was signed out stays so, whoever kept the cookie.
    window.context.add_cookies(
        [{"name": "bailee_console", "value": token["value"], "url": window.cast.service.url}]
    )
    assert window.go("/console/privacy").url.endswith("next=/console/privacy")


def test_with_a_link(visit: Visit, cast: Cast, tmp_path: Path) -> None:
    """`bailee up` and `bailee console link` print one; looking uses nothing up, and it signs in once."""
    assert "/console/sign-in/link?token=" in cast.service.errors
    environment = clean_environment(tmp_path)
    command = ("console", "link", "--home", str(cast.home))
    url = run_program(*command, environment=environment, folder=tmp_path).stdout.strip()
    port = cast.service.address[1]
    assert url.startswith(f"http://bailee.localhost:{port}/")
    window = visit("nobody")
    window.go(url)
    page = window.go(url)
    page.click("text=Sign in here")
    assert page.url == f"http://bailee.localhost:{port}/console/flows"
    assert "Sign out" in page.inner_text("header")
    # Cookies know no ports: nothing that listens on 127.0.0.1 is sent this one.
    assert [one["domain"] for one in window.context.cookies()] == ["bailee.localhost"]
    assert window.context.cookies(f"http://127.0.0.1:{port}") == []
    other = visit("nobody").go(url)
    assert "this link was used" in other.inner_text("main").lower()
    assert other.query_selector("text=Sign in here") is None


def test_a_form_of_another_site_is_refused(cast: Cast) -> None:
    """Without the page's token, with another's, and with another origin; with ours it is taken."""
    form = {"content-type": "application/x-www-form-urlencoded"}
    path = "/console/privacy/flows"
    fields = "flow=survey&to=refused"
    assert cast.ask("POST", path, "bob", fields, **form)[0] == 403
    token = cast.ask("GET", "/console/privacy", "bob")[1].partition('form_token" value="')[2][:64]
    others = cast.ask("GET", "/console/privacy", "alice")[1].partition('form_token" value="')[2][:64]
    assert cast.ask("POST", path, "bob", f"{fields}&form_token={others}", **form)[0] == 403
    mine = f"{fields}&form_token={token}"
    for name, value in (
        ("origin", "http://evil.example"),
        ("sec-fetch-site", "cross-site"),
        ("origin", "null"),
    ):
        assert cast.ask("POST", path, "bob", mine, **form, **{name: value})[0] == 403
    assert cast.ask("POST", path, "bob", mine, **form, origin=cast.service.url)[0] == 303


def test_a_name_that_somebody_else_has_lead_here(cast: Cast) -> None:
    """A page whose name somebody has lead to this machine gets nothing; under our own it is there."""
    port = cast.service.address[1]
    for path in ("/console/sign-in", "/data-usage", "/oauth/device", "/console/static/console.css"):
        for host in (f"evil.example:{port}", "localhost.evil.example", "127.0.0.1.evil.example"):
            status, told, _ = cast.ask("GET", path, host=host)
            assert (status, "form_token" in told) == (421, False), (path, host)
        for host in (f"bailee.localhost:{port}", f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}"):
            assert cast.ask("GET", path, host=host)[0] == 200, (path, host)
    assert cast.ask("POST", "/console/sign-in", body="name=x", host="evil.example")[0] == 421


def send_unsigned(cast: Cast, path: str, *forms: str) -> list[int]:
    """Send forms as somebody who is not signed in, with the token of their page; return the statuses."""
    _, told, headers = cast.ask("GET", "/console/sign-in")
    cookie = headers["set-cookie"].partition(";")[0]
    token = told.partition('form_token" value="')[2][:64]
    sent = {"content-type": "application/x-www-form-urlencoded", "cookie": cookie}
    return [cast.ask("POST", path, body=f"form_token={token}&{form}", **sent)[0] for form in forms]


def test_signing_in_anew_ends_what_the_browser_had(cast: Cast) -> None:
    """Its earlier token opens nothing any more; control: that of another browser does."""
    tokens = [cast.sign_in("bob") for _ in range(2)]
    cookie = {"cookie": f"bailee_console={tokens[0]}"}
    token = cast.ask("GET", "/console/privacy", **cookie)[1].partition('form_token" value="')[2][:64]
    form = {"content-type": "application/x-www-form-urlencoded", **cookie}
    directory = open_directory(cast.home)
    link = make_link(directory, account=cast.ids["charlie"], user=None)
    directory.close()
    body = urlencode({"form_token": token, "link": link})
    assert cast.ask("POST", "/console/sign-in/link", body=body, **form)[0] == 303
    statuses = [cast.ask("GET", "/console/data", cookie=f"bailee_console={one}")[0] for one in tokens]
    assert statuses == [303, 200]


GUESSES = ["name=nobody-here&password=x"] * 12
# On a busy machine ten tries take longer than it takes to be given another, six seconds.
STILL = "import bailee.console.signing_in as s\ns.OF_ADDRESS = s.OF_NAME = (1e-6, 10)\n"


def test_trying_is_limited(tmp_path: Path) -> None:
    """Of one name from one address ten may be tried at once, and then one waits; a link is let in all the
    same.
    """
    with serving(tmp_path / "state", tmp_path, "--upstream", "rehearsal", changes=STILL) as service:
        cast = Cast(tmp_path / "state", service)
        assert send_unsigned(cast, "/console/sign-in", *GUESSES) == [403] * 10 + [429] * 2
        directory = open_directory(cast.home)
        link = make_link(directory, account=None, user="runner")
        directory.close()
        assert send_unsigned(cast, "/console/sign-in/link", f"link={link}", f"link={link}") == [303, 400]


PROXIED = {"host": "bailee.example", "x-forwarded-proto": "https"}


def try_from(service: Service, home: Path, addresses: Iterable[str], **sent: str) -> list[int]:
    """Try to sign in by another name each, from where each request says that it comes from."""
    cast = Cast(home, service)
    _, told, headers = cast.ask("GET", "/console/sign-in", **sent)
    sent |= {"cookie": headers["set-cookie"].partition(";")[0]}
    sent |= {"content-type": "application/x-www-form-urlencoded"}
    token = told.partition('form_token" value="')[2][:64]
    return [
        cast.ask(
            "POST",
            "/console/sign-in",
            body=f"form_token={token}&name=nobody-{place}&password=x",
            **sent,
            **{"x-forwarded-for": address},
        )[0]
        for place, address in enumerate(addresses)
    ]


def test_where_a_request_says_it_comes_from_counts_with_a_proxy_alone(tmp_path: Path) -> None:
    """Any program on this machine can say so. Behind a declared proxy it counts: https, and each address for
    itself; its forms are taken and its cookies are for TLS alone.
    """
    addresses = [f"192.0.2.{place}" for place in range(12)]
    home = tmp_path / "state"
    with serving(home, tmp_path, "--upstream", "rehearsal", changes=STILL) as service:
        assert try_from(service, home, addresses) == [403] * 10 + [429] * 2
    behind = {"BAILEE_CONSOLE_URL": "https://bailee.example"}
    with serving(home, tmp_path, "--upstream", "rehearsal", environment=behind, changes=STILL) as service:
        sent = {**PROXIED, "origin": "https://bailee.example"}
        assert try_from(service, home, addresses, **sent) == [403] * 12
        assert try_from(service, home, ["192.0.2.99"] * 12, **sent) == [403] * 10 + [429] * 2
        cookies = Cast(home, service).ask("GET", "/console/sign-in", **PROXIED)[2]["set-cookie"]
        assert "secure" in cookies.lower()


def test_control_without_a_limit(tmp_path: Path) -> None:
    """Control: with the limit out all of them are tried."""
    changes = f"{STILL}s.SigningIn._limit = lambda self, rates, who: None\n"
    with serving(tmp_path / "state", tmp_path, "--upstream", "rehearsal", changes=changes) as service:
        cast = Cast(tmp_path / "state", service)
        assert send_unsigned(cast, "/console/sign-in", *GUESSES) == [403] * 12


def test_what_was_typed_is_not_lost_with_a_sign_in(visit: Visit, cast: Cast, has_scripts: bool) -> None:
    """A form whose sign-in has ended comes back with what was typed, but for secrets, and is filled in once
    there is another; what another site has a browser send is not shown at all.
    """
    window = visit("admin", java_script_enabled=has_scripts)
    page = window.go("/console/organization/secrets")
    page.fill("#f-name", "DEPLOY_TOKEN")
    page.fill("#f-value", "hunter2-hunter2-hunter2")
    page.fill("#f-hosts", "deploy.example")
    known = page.context.cookies()
    page.context.clear_cookies()
    page.click("main button:has-text('Keep it')")
    assert "Your sign-in has ended, and nothing was done" in page.inner_text("main")
    assert "hunter2" not in page.content()
    assert page.input_value("#f-hosts") == "deploy.example"
    page.context.add_cookies([{**one, "value": cast.sign_in("admin")} for one in known])
    page.click("main button:has-text('Send it once more')")
    assert "of an earlier sign-in" in page.inner_text(".problem")
    assert (page.input_value("#f-name"), page.input_value("#f-value")) == ("DEPLOY_TOKEN", "")
    assert page.input_value("#f-hosts") == "deploy.example"
    page.fill("#f-value", "hunter2-hunter2-hunter2")
    page.click("main button:has-text('Keep it')")
    assert "DEPLOY_TOKEN" in page.inner_text("tbody")
    page.click("tr:has-text('DEPLOY_TOKEN') button:has-text('Remove')")
    page = window.go("/console/organization/settings")
    page.fill("#f-settings", '{"cleanupPeriodDays": 3}')
    tag = page.input_value("input[name=tag]")
    page.context.clear_cookies()
    page.click("text=Check and save")
    page.context.add_cookies([{**one, "value": cast.sign_in("admin")} for one in known])
    page.click("main button:has-text('Send it once more')")
    assert page.input_value("#f-settings").strip() == '{"cleanupPeriodDays": 3}'
    assert page.input_value("input[name=tag]") == tag
    form = {"content-type": "application/x-www-form-urlencoded", "sec-fetch-site": "cross-site"}
    for person in ("admin", "nobody"):
        body = "form_token=x&name=planted-by-another-site"
        status, told, _ = cast.ask("POST", "/console/organization/secrets", person, body, **form)
        assert (status, "planted" in told) == (403 if person == "admin" else 303, False)


def test_a_new_password_ends_other_sign_ins(visit: Visit, cast: Cast) -> None:
    """It takes the present one; the browser that changes it stays signed in, every other does not."""
    other = cast.sign_in("charlie")
    known, cast.tokens["charlie"] = cast.tokens["charlie"], cast.sign_in("charlie")
    page = visit("charlie").go("/console/account")
    for present, again in (("wrong", PASSWORD), (PASSWORD, "not the same at all")):
        page.fill("#f-present", present)
        page.fill("#f-password", PASSWORD)
        page.fill("#f-again", again)
        page.click("main button:has-text('Change it')")
        assert page.inner_text(".problem")
        page = visit("charlie").go("/console/account")
    page.fill("#f-present", PASSWORD)
    page.fill("#f-password", PASSWORD)
    page.fill("#f-again", PASSWORD)
    page.click("main button:has-text('Change it')")
    assert "Other browsers are signed out" in page.inner_text("main")
    assert page.inner_text(".big strong") == "1"
    for token in (other, known):
        sent = {"cookie": f"bailee_console={token}"}
        assert cast.ask("GET", "/console/data", **sent)[0] == 303


def test_a_first_password_takes_a_sign_in_of_just_now(cast: Cast) -> None:
    """What outlasts a sign-in is not added by one of eleven minutes ago; control: by one of now it is."""
    organization = found_organization(cast.home, cast.service, "initech")
    form = {"content-type": "application/x-www-form-urlencoded"}

    def set_first_password() -> int:
        page = organization.ask("GET", "/console/account", "member")[1]
        token = page.partition('form_token" value="')[2][:64]
        body = urlencode({"form_token": token, "password": PASSWORD, "again": PASSWORD})
        return organization.ask("POST", "/console/account/password", "member", body, **form)[0]

    directory = open_directory(cast.home)
    since, account = tables.sign_ins.c.created_ms, tables.sign_ins.c.account
    with directory.engine.begin() as connection:
        older = sa.update(tables.sign_ins).where(account == organization.ids["member"])
        connection.execute(older.values(created_ms=since - 11 * 60_000))
    directory.close()
    assert set_first_password() == 400
    organization.tokens["member"] = organization.sign_in("member")
    assert set_first_password() == 303


def test_a_browser_is_signed_out_from_another(visit: Visit, cast: Cast) -> None:
    """Each sign-in is listed with where it came from, and ended alone."""
    other = cast.sign_in("bob")
    page = visit("bob").go("/console/account")
    before = int(page.inner_text(".big strong"))
    page.click("tr:has-text(\"a test's\"):not(:has-text('this one')) button")
    assert int(page.inner_text(".big strong")) == before - 1
    assert cast.ask("GET", "/console/data", cookie=f"bailee_console={other}")[0] == 303


def test_sign_ins_are_in_the_ledger(tmp_path: Path) -> None:
    """Who signed in and how, and who was refused; nobody by name."""
    home = tmp_path / "state"
    make_people(home)
    directory = open_directory(home)
    set_password(directory, "bob", RUNNER, PASSWORD, for_holder=True)
    directory.close()
    with serving(home, tmp_path, "--upstream", "rehearsal") as service:
        tried = [f"name=bob&{urlencode({'password': password})}" for password in ("wrong", PASSWORD)]
        assert send_unsigned(Cast(home, service), "/console/sign-in", *tried) == [403, 303]
    entries = [entry.decode() for entry in open_log(home / FOLDER).read()]
    assert any('"signed_in"' in one and '"password"' in one for one in entries)
    assert any('"sign_in_refused"' in one for one in entries)
    assert not any('"bob"' in one for one in entries)


def test_the_address_of_the_service_leads_to_the_console(cast: Cast) -> None:
    """A person's browser is led on; an agent that asks whether anybody is there is told so, as before."""
    status, _, headers = cast.ask("GET", "/", accept="text/html,application/xhtml+xml")
    assert (status, headers["location"]) == (303, "/console")
    assert cast.ask("GET", "/", accept="*/*")[:2] == (200, '{"service":"bailee"}')


def test_a_password_is_nowhere_in_clear(cast: Cast) -> None:
    """It is kept as an Argon2id hash."""
    directory = open_directory(cast.home)
    with directory.engine.connect() as connection:
        hashes = list(connection.exec_driver_sql("SELECT hash FROM passwords").scalars())
    directory.close()
    assert hashes
    assert all(one.startswith("$argon2id$") for one in hashes)
    assert not subprocess.run(
        ["grep", "-ra", PASSWORD, str(cast.home)], capture_output=True, check=False
    ).stdout
