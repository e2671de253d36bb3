"""Signing in by an organization's identity provider: a certified one, and answers that are not good."""

import html
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey
from playwright.sync_api import Browser, Page

from bailee.accounts.directory import open_directory
from bailee.accounts.passwords import set_password
from bailee.console.openid import Providers, _is_public, check_address
from bailee.ledger.log import FOLDER, open_log
from bailee.policy.problems import Problem
from console.cast import PASSWORD, RUNNER, Cast, make_people
from counterparts.identity_providers import CLIENT, SECRET, IdentityProvider, running_provider
from counterparts.services import serving

FORM = {"content-type": "application/x-www-form-urlencoded"}
BACK = "/console/sign-in/organization/back"
PEOPLE = {
    "u-bob": {"preferred_username": "bob"},
    "u-alice": {"preferred_username": "alice"},
    "u-eve": {"preferred_username": "eve", "email": "eve@acme.example", "email_verified": False},
    "u-fay": {"preferred_username": "x", "email": "Fay@Acme.example", "email_verified": True},
    "u-gus": {"preferred_username": "x", "email": "gus@evil.example", "email_verified": True},
    "u-other-bob": {"preferred_username": "bob"},
}


@pytest.fixture(scope="module")
def cast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cast]:
    """Give a service of its own: Ada is admin of acme, Alice has a password, Bob nothing that proves him."""
    folder = tmp_path_factory.mktemp("organizations")
    home = folder / "state"
    make_people(home)
    directory = open_directory(home)
    names = {"ada": "ada", "alice": "alice", "bob": "bob"}
    ids = {person: directory.get(name).id for person, name in names.items()}
    for name in ("ada", "alice"):
        set_password(directory, name, RUNNER, PASSWORD, for_holder=True)
    directory.close()
    changes = "import bailee.console.signing_in as s\ns.OF_ADDRESS = s.OF_NAME = (1000, 1000)\n"
    with serving(home, folder, "--upstream", "rehearsal", changes=changes) as service:
        made = Cast(home, service, ids=ids)
        for person in ("ada", "alice"):
            made.tokens[person] = made.sign_in(person)
        yield made


@pytest.fixture(scope="module")
def provider(cast: Cast) -> Iterator[IdentityProvider]:
    """Give a provider that knows some people."""
    with running_provider(cast.own_url + BACK, PEOPLE) as found:
        yield found


class Window:
    """A browser without scripts, as far as this service sees it."""

    def __init__(self, cast: Cast, person: str = "nobody") -> None:
        self.cast, self.person = cast, person
        self.cookies: dict[str, str] = {}
        self.text = ""

    def ask(self, method: str, path: str, **form: str) -> tuple[int, str]:
        """Ask for a page, or send the form of the one that is shown; return status, and where it leads."""
        sent = {"host": self.cast.own_url.removeprefix("http://")}
        if self.cookies:
            sent["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items() if value)
        body = None
        if method == "POST":
            token = re.search(r'name="form_token" value="(\w+)"', self.text)
            assert token, self.text
            body, sent = urlencode({"form_token": token[1], **form}), {**sent, **FORM}
        status, self.text, headers = self.cast.ask(method, path, self.person, body, **sent)
        for line in headers.get("set-cookie", "").splitlines():
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies[name] = value.strip('"')
        return status, headers.get("location", "")

    def go_on(self) -> str:
        """Return where the page that is shown says that it goes on to."""
        found = re.search(r'href="([^"]+)" rel="noreferrer"', self.text)
        assert found, self.text
        return html.unescape(found[1])

    def come_back(self, address: str, **more: str) -> tuple[int, str]:
        """Come back from the provider, and send what the page there has."""
        query = dict(parse_qsl(urlsplit(address).query)) | more
        assert self.ask("GET", f"{BACK}?{urlencode(query)}")[0] == 200
        shown = dict(re.findall(r'type="hidden" name="(code|state|iss)" value="([^"]*)"', self.text))
        return self.ask("POST", BACK, **{name: html.unescape(value) for name, value in shown.items()})


def name_provider(cast: Cast, issuer: str, **more: str) -> Window:
    """Have Ada name a provider on the admin's page; return her window."""
    window = Window(cast, "ada")
    window.ask("GET", "/console/organization/sign-in")
    fields = {"issuer": issuer, "client": CLIENT, "secret": SECRET, "claim": "preferred_username", **more}
    status, _ = window.ask("POST", "/console/organization/sign-in", **fields)
    assert status == 303, window.text
    return window


def begin(cast: Cast) -> Window:
    """Ask to be signed in by acme."""
    window = Window(cast)
    window.ask("GET", "/console/sign-in?next=/console/privacy")
    told = window.ask("POST", "/console/sign-in/organization", organization="acme", next="/console/privacy")
    assert told[0] == 200, window.text
    return window


def sign_in(cast: Cast, provider: IdentityProvider, login: str) -> tuple[int, str, Window]:
    """Sign in by acme as somebody; the status, where it leads, and the window."""
    window = begin(cast)
    status, place = window.come_back(provider.sign_in(window.go_on(), login))
    return status, place, window


def test_a_member_signs_in(cast: Cast, provider: IdentityProvider) -> None:
    """Bob, whom nothing proved, is known from then on by the provider's own id of him, and is ledgered."""
    name_provider(cast, provider.issuer)
    status, place, window = sign_in(cast, provider, "u-bob")
    assert (status, place) == (303, "/console/privacy")
    window.ask("GET", "/console/account")
    assert "organization" in window.text
    assert "signs you in at" in window.text
    # Another one of the same name is another person; Bob himself comes again.
    status, _, window = sign_in(cast, provider, "u-other-bob")
    assert (status, "proves themselves otherwise" in window.text) == (400, True)
    assert sign_in(cast, provider, "u-bob")[0] == 303
    kinds = [json.loads(entry)["kind"] for entry in open_log(cast.home / FOLDER).read(0, 10_000)]
    assert {"identity_provider", "identity", "signed_in", "sign_in_refused"} <= set(kinds)


def test_who_proves_themselves_otherwise_connects_the_two(cast: Cast, provider: IdentityProvider) -> None:
    """An admin's provider lets nobody in as Alice, who has a password, until she says that it is her."""
    name_provider(cast, provider.issuer)
    status, _, window = sign_in(cast, provider, "u-alice")
    assert (status, "connect the two" in window.text) == (400, True)
    hers = Window(cast, "alice")
    hers.ask("GET", "/console/account")
    assert hers.ask("POST", "/console/account/organization")[0] == 200
    assert hers.come_back(provider.sign_in(hers.go_on(), "u-alice")) == (303, "/console/account")
    assert sign_in(cast, provider, "u-alice")[0] == 303


def test_who_is_no_member(cast: Cast, provider: IdentityProvider) -> None:
    """A stranger is refused, and becomes a member where the admin said so; of e-mail the verified counts."""
    name_provider(cast, provider.issuer)
    status, _, window = sign_in(cast, provider, "u-eve")
    assert (status, "is no member of acme" in window.text) == (400, True)
    name_provider(cast, provider.issuer, claim="email", domain="acme.example", makes_accounts="yes")
    for login in ("u-eve", "u-gus"):
        status, _, window = sign_in(cast, provider, login)
        assert (status, "has no email that counts" in window.text) == (400, True), login
    assert sign_in(cast, provider, "u-fay")[0] == 303
    directory = open_directory(cast.home)
    fay = directory.get("fay")
    directory.close()
    assert (fay.organization, str(fay.role)) == ("acme", "member")


def test_what_comes_back_is_good_once_and_for_one_browser(cast: Cast, provider: IdentityProvider) -> None:
    """Used again, in another browser, with another state, issuer or an error it signs nobody in."""
    name_provider(cast, provider.issuer)
    window = begin(cast)
    address = provider.sign_in(window.go_on(), "u-bob")
    assert begin(cast).come_back(address)[0] == 400
    assert window.come_back(address, state="x")[0] == 400
    assert window.come_back(address, iss="https://evil.example")[0] == 400
    window = begin(cast)
    address = provider.sign_in(window.go_on(), "u-bob")
    assert window.come_back(address)[0] == 303  # Control
    again = Window(cast)
    again.ask("GET", "/console/sign-in")
    assert again.come_back(address)[0] == 400
    status, _ = again.ask("GET", f"{BACK}?error=access_denied&error_description=%3Cb%3Eno")
    assert (status, "<b>no" in again.text, "access_denied" in again.text) == (400, False, True)


def test_it_is_removed(cast: Cast, provider: IdentityProvider) -> None:
    """Who was signed in by it is signed out, and nobody is sent there any more."""
    name_provider(cast, provider.issuer)
    window = sign_in(cast, provider, "u-bob")[2]
    hers = Window(cast, "ada")
    hers.ask("GET", "/console/organization/sign-in")
    assert hers.ask("POST", "/console/organization/sign-in/remove")[0] == 303
    assert window.ask("GET", "/console/account")[1].startswith("/console/sign-in")
    window = Window(cast)
    window.ask("GET", "/console/sign-in")
    assert window.ask("POST", "/console/sign-in/organization", organization="acme")[0] == 400


def come_back(page: Page, cast: Cast, login: str) -> None:
    """Go to the provider by the organization's name, sign in and consent there, and come back."""
    page.goto(f"{cast.own_url}/console/sign-in")
    page.fill("#f-organization", "acme")
    page.click("text=Sign in by your organization")
    page.click("main a.button")
    page.fill("[name=login]", login)
    page.fill("[name=password]", "any")
    page.click("[type=submit]")
    page.click("[type=submit]")


def test_in_a_browser(cast: Cast, provider: IdentityProvider, browser: Browser) -> None:
    """In Chromium, with scripts and without: by the organization's name, sign-in and consent, and back."""
    name_provider(cast, provider.issuer)
    for scripted in (True, False):
        context = browser.new_context(java_script_enabled=scripted)
        page = context.new_page()
        come_back(page, cast, "u-bob")
        if not scripted:
            page.click("main button.main")
        page.wait_for_url(f"{cast.own_url}/console**")
        page.goto(f"{cast.own_url}/console/account")
        assert "organization" in page.inner_text("main table")
        context.close()


def test_a_browser_that_is_refused_stays_so(cast: Cast, provider: IdentityProvider, browser: Browser) -> None:
    """The page that sends its form by itself is not shown again; the page to sign in says why."""
    name_provider(cast, provider.issuer)
    context = browser.new_context()
    page, sent = context.new_page(), list[str]()
    page.on("request", lambda one: sent.append(one.url) if one.method == "POST" and BACK in one.url else None)
    come_back(page, cast, "u-eve")
    page.wait_for_selector(".problem:has-text('is no member of acme')")
    page.wait_for_timeout(500)
    assert len(sent) == 1
    assert page.is_visible("#f-organization")
    context.close()


# --- Answers that are not good ---


class Crooked:
    """A provider that signs whatever it is told to."""

    def __init__(self) -> None:
        self.key = RSAKey.generate_key(2048, {"kid": "one"})
        self.header: dict[str, Any] = {}
        self.claims: dict[str, Any] = {}
        self.token = ""
        self.said: dict[str, Any] = {}
        self.form: dict[str, list[str]] = {}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(crooked.tell(self.path))

            def do_POST(self) -> None:
                crooked.form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
                self.answer({"id_token": crooked.token or crooked.sign(), "access_token": "x"})

            def answer(self, told: dict[str, Any]) -> None:
                body = json.dumps(told).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *words: object) -> None:
                pass

        crooked = self
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def tell(self, path: str) -> dict[str, Any]:
        if path == "/keys":
            return {"keys": [self.key.as_dict(private=False)]}
        places = {"authorization_endpoint": "/go", "token_endpoint": "/token", "jwks_uri": "/keys"}
        return {"issuer": self.issuer, **{k: self.issuer + v for k, v in places.items()}, **self.said}

    def sign(self) -> str:
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": CLIENT, "sub": "u", "nonce": "n", "iat": now, "exp": now + 60}
        whole = {name: value for name, value in (claims | self.claims).items() if value is not None}
        return jwt.encode({"alg": "RS256", "kid": "one"} | self.header, whole, self.key)


@pytest.fixture
def crooked() -> Iterator[Crooked]:
    """Give one."""
    made = Crooked()
    yield made
    made.server.shutdown()
    made.server.server_close()


def redeem(crooked: Crooked) -> dict[str, Any]:
    """Exchange a code there."""
    return Providers().redeem(
        crooked.issuer, CLIENT, SECRET, code="c", back="http://back", nonce="n", verifier="v" * 43
    )


def test_control_a_good_word_is_taken(crooked: Crooked) -> None:
    """Control: what is as it should be is taken, and the code goes with its verifier."""
    assert redeem(crooked)["sub"] == "u"
    assert crooked.form["code_verifier"] == ["v" * 43]


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"aud": "another"},
        {"aud": [CLIENT, "another"]},
        {"azp": "another"},
        {"iss": "https://another.example"},
        {"exp": 1},
        {"exp": None},
        {"iat": None},
        {"sub": None},
    ],
    ids=str,
)
def test_a_word_for_somebody_else_or_another_time(crooked: Crooked, claims: dict[str, Any]) -> None:
    """Of another nonce, service, issuer or time it signs nobody in."""
    crooked.claims = claims
    with pytest.raises(Problem):
        redeem(crooked)


def test_a_word_that_its_provider_did_not_sign(crooked: Crooked) -> None:
    """Unsigned, signed by another key, by the client's secret, or altered it signs nobody in."""
    good = crooked.sign()
    head, body, signature = good.split(".")
    unsigned = "eyJhbGciOiJub25lIn0"  # {"alg":"none"}
    from joserfc.jwk import OctKey

    claims = jwt.decode(good, KeySet([crooked.key])).claims
    theirs = RSAKey.generate_key(2048, {"kid": "one"})
    for token in (
        f"{unsigned}.{body}.",
        f"{unsigned}.{body}.{signature}",
        jwt.encode({"alg": "RS256", "kid": "one"}, claims, theirs),
        jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(SECRET)),
        jwt.encode({"alg": "RS256", "kid": "two"}, claims, theirs),
        f"{head}.{body[:-2]}AA.{signature}",
        "no token",
    ):
        crooked.token = token
        with pytest.raises(Problem):
            redeem(crooked)
    crooked.token = good
    assert redeem(crooked)["sub"] == "u"  # Control


def test_a_key_that_is_new_is_asked_for(crooked: Crooked) -> None:
    """A provider that changed its key is believed by the new one, without a restart."""
    providers = Providers()
    words: dict[str, Any] = {"code": "c", "back": "http://back", "nonce": "n", "verifier": "v" * 43}
    providers.redeem(crooked.issuer, CLIENT, SECRET, **words)
    crooked.key, crooked.header = RSAKey.generate_key(2048, {"kid": "two"}), {"kid": "two"}
    assert providers.redeem(crooked.issuer, CLIENT, SECRET, **words)["sub"] == "u"


@pytest.mark.parametrize(
    "said",
    [
        {"issuer": "https://another.example"},
        {"token_endpoint": "http://10.0.0.1/token"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"jwks_uri": 5},
    ],
    ids=str,
)
def test_a_provider_that_says_something_else(crooked: Crooked, said: dict[str, Any]) -> None:
    """One that calls itself otherwise, or leads into a network in clear, is not taken."""
    crooked.said = said
    with pytest.raises(Problem):
        Providers().discover(crooked.issuer)


@pytest.mark.parametrize(
    "address", ["http://id.example", "https://", "https://a:b@id.example", "file:///x", "x"]
)
def test_addresses_that_are_none(address: str) -> None:
    """Words about people go nowhere in clear, and no credential stands in an address."""
    with pytest.raises(Problem):
        check_address(address)


class Silent(BaseHTTPRequestHandler):
    """Answers that there is nothing."""

    def do_GET(self) -> None:
        self.send_response(404)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *words: object) -> None:
        pass


def test_a_port_of_the_services_network_is_not_told(
    crooked: Crooked, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is closed, speaks otherwise, has nothing or calls itself otherwise is told in the same words,
    and why in the log of the service alone. Control: of a public address the reason is told.
    """
    crooked.said = {"issuer": "https://another.example"}
    silent = ThreadingHTTPServer(("127.0.0.1", 0), Silent)
    threading.Thread(target=silent.serve_forever, daemon=True).start()
    addresses = {
        f"http://127.0.0.1:{find_closed_port()}": "cannot be reached",
        f"http://127.0.0.1:{silent.server_address[1]}": "answers 404",
        crooked.issuer: "calls itself otherwise",
        f"https://127.0.0.1:{silent.server_address[1]}": "cannot be reached",
    }
    said = {ask(address) for address in addresses}
    assert said == {"no identity provider answers there; the log of the service says why"}
    assert all(why in one.message for why, one in zip(addresses.values(), caplog.records, strict=True))
    monkeypatch.setattr("bailee.console.openid._is_public", lambda address: True)
    assert all(why in ask(address) for address, why in addresses.items())
    silent.shutdown()
    silent.server_close()


@pytest.mark.parametrize("name", ["token_endpoint", "jwks_uri"])
def test_addresses_that_a_provider_names_are_told_no_better(crooked: Crooked, name: str) -> None:
    """An admin's own provider could lead the service to any port. Control: where it answers, it is taken."""
    whole = {"code": "c", "back": "http://bailee.localhost/", "nonce": "n", "verifier": "v" * 43}
    assert Providers().redeem(crooked.issuer, CLIENT, SECRET, **whole)["sub"] == "u"
    crooked.said = {name: f"http://127.0.0.1:{find_closed_port()}/"}
    with pytest.raises(Problem, match="no identity provider answers there"):
        Providers().redeem(crooked.issuer, CLIENT, SECRET, **whole)


def test_why_is_in_the_log_of_the_service(cast: Cast) -> None:
    """Whoever runs it reads what the admin is not told."""
    window = Window(cast, "ada")
    window.ask("GET", "/console/organization/sign-in")
    issuer = f"http://127.0.0.1:{find_closed_port()}"
    fields = {"issuer": issuer, "client": CLIENT, "secret": SECRET, "claim": "preferred_username"}
    assert window.ask("POST", "/console/organization/sign-in", **fields)[0] == 400
    assert "no identity provider answers there" in window.text
    assert "cannot be reached" not in window.text
    assert f"No identity provider at {issuer}: the identity provider cannot be reached" in cast.service.errors


@pytest.mark.parametrize(
    ("leads", "public"),
    [
        (("93.184.216.34",), True),
        (("93.184.216.34", "10.0.0.1"), False),
        (("127.0.0.1",), False),
        (("::1",), False),
        (("fe80::1%eth0",), False),
        (("169.254.169.254",), False),
        ((), True),
    ],
)
def test_where_a_name_leads_decides(
    leads: tuple[str, ...], public: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One address that is not public is enough; a name that leads nowhere tells of no network."""

    def resolve(*_: object, **__: object) -> list[Any]:
        if not leads:
            raise socket.gaierror
        return [(None, None, None, "", (one, 443)) for one in leads]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert _is_public("https://id.example") is public


def find_closed_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def ask(issuer: str) -> str:
    """Return why an issuer is not taken."""
    with pytest.raises(Problem) as caught:
        Providers().discover(issuer)
    return caught.value.what
