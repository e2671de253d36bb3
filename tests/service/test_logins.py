"""Logins over HTTP, as the RFCs have it: each error by its name, and a client that is not ours."""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from oauthlib.oauth2 import DeviceClient

from bailee.accounts.directory import open_directory
from bailee.accounts.keys import create_key, list_keys
from bailee.accounts.tables import KeyOrigin
from bailee.policy.plans import Plan
from bailee.service.oauth import CLIENT_ID, INTERVAL_SECONDS, Polls
from cli.test_holdings import Bailee
from counterparts.services import Service, serving
from counterparts.waiting import wait_for

GRANT = "urn:ietf:params:oauth:grant-type:device_code"
# A clock of the service that runs on, from the next request, by what a file says: seconds.
HASTE = """
import os, time
from pathlib import Path
import bailee.accounts.logins as logins
place = Path(os.environ["TMPDIR"], "ahead")
real = time.time
import bailee.accounts.directory as directory
def now(self):
    return int((real() + (float(place.read_text()) if place.exists() else 0)) * 1000)
directory.Directory.now_ms = now
"""
UNTHROTTLED = "import bailee.service.oauth as o\no.Polls.is_too_fast = lambda self, login: False\n"


class Client:
    """An agent, led by hand."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def post(self, path: str, form: dict[str, str] | str, **headers: str) -> tuple[int, Any, dict[str, str]]:
        body = form if isinstance(form, str) else urlencode(form)
        sent = {"Content-Type": "application/x-www-form-urlencoded", **headers}
        return self.ask("POST", path, body, sent)

    def ask(
        self, method: str, path: str, body: str | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        connection = http.client.HTTPConnection(*self.service.address, timeout=30)
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        told = answer.read()
        connection.close()
        is_json = "json" in (answer.headers["content-type"] or "")
        found = {name.lower(): value for name, value in answer.headers.items()}
        return answer.status, json.loads(told) if is_json else told.decode(), found

    def begin(self, **more: str) -> dict[str, Any]:
        status, told, _ = self.post("/oauth/device_authorization", {"client_id": CLIENT_ID, **more})
        assert status == 200, told
        return dict(told)

    def exchange(self, device_code: str, **more: str) -> tuple[int, Any]:
        form = {"grant_type": GRANT, "device_code": device_code, "client_id": CLIENT_ID, **more}
        status, told, _ = self.post("/oauth/token", form)
        return status, told

    def error(self, device_code: str, **more: str) -> str:
        status, told = self.exchange(device_code, **more)
        assert status == 400
        return str(told["error"])


@pytest.fixture
def bailee(tmp_path: Path) -> Bailee:
    """Give the program on a home with ada, who is no user of this machine."""
    directory = open_directory(tmp_path / "state")
    directory.add("ada", Plan.PRO)
    directory.close()
    return Bailee(tmp_path)


@pytest.fixture
def service(bailee: Bailee, tmp_path: Path) -> Iterator[Service]:
    """Give a service with the rehearsal model."""
    with serving(tmp_path / "state", tmp_path, "--upstream", "rehearsal") as running:
        yield running


@pytest.fixture
def client(service: Service) -> Client:
    """Give an agent."""
    return Client(service)


def approve(bailee: Bailee, user_code: str) -> None:
    """Approve a login as ada."""
    keys = [key for key in bailee.json("keys", "list") if key["is_proof"]]
    for key in keys:
        assert bailee("keys", "revoke", key["id"]).returncode == 0
    done = bailee("logins", "approve", user_code, "--account", "ada", "--yes", BAILEE_KEY=bailee.proof("ada"))
    assert done.returncode == 0, done.stderr


# --- The whole way ---


def test_a_walk_by_the_rfc(database: str, bailee: Bailee, client: Client) -> None:
    """Codes, a poll that waits, an approval, a token that opens the account, its revocation."""
    status, codes, headers = client.post(
        "/oauth/device_authorization", {"client_id": CLIENT_ID, "machine": "laptop"}
    )
    assert status == 200
    assert headers["cache-control"] == "no-store"
    assert codes.keys() == {"device_code", "user_code", "verification_uri", "expires_in", "interval"}
    assert (codes["expires_in"], codes["interval"]) == (600, 2)
    # Where the console is for browsers: what one holds for 127.0.0.1 goes to other ports there as well.
    url = client.service.url.replace("127.0.0.1", "bailee.localhost")
    assert codes["verification_uri"] == f"{url}/oauth/device"
    assert "bailee logins approve CODE" in client.ask("GET", "/oauth/device")[1]
    assert client.error(codes["device_code"]) == "authorization_pending"
    approve(bailee, codes["user_code"])
    status, token = client.exchange(codes["device_code"])
    assert (status, token["token_type"], token["expires_in"]) == (200, "Bearer", 90 * 86_400)
    assert token.keys() == {"access_token", "token_type", "expires_in"}
    bearer = {"Authorization": f"Bearer {token['access_token']}"}
    status, account, headers = client.ask("GET", "/api/account", headers=bearer)
    assert (status, headers["cache-control"]) == (200, "no-store")
    assert account == {
        "name": "ada",
        "plan": "pro",
        "organization": None,
        "training": False,
        "dpp": False,
        "zdr": False,
        "account_limit": None,
        "organization_limit": None,
        "is_first_party": False,
        "account_refuses": [],
        "organization_refuses": [],
    }
    assert client.error(codes["device_code"]) == "invalid_grant"  # once
    form = {"client_id": CLIENT_ID, "token": token["access_token"], "token_type_hint": "refresh_token"}
    assert client.post("/oauth/revoke", form)[0] == 200
    assert client.ask("GET", "/api/account", headers=bearer)[0] == 401
    assert client.post("/oauth/revoke", form)[0] == 200  # RFC 7009, 2.2

    def told() -> list[str]:
        kinds = [entry["entry"]["kind"] for entry in bailee.json("ledger", "show", "--limit", "100")]
        return sorted(kind for kind in kinds if kind.startswith("key_"))

    # The proof, and the login's.
    wait_for("the ledger", lambda: told() == ["key_created", "key_created", "key_revoked"] or None)
    assert bailee("ledger", "verify").returncode == 0


def test_a_client_that_is_not_ours(bailee: Bailee, client: Client) -> None:
    """oauthlib's, led by the metadata of RFC 8414 alone."""
    _, metadata, _ = client.ask("GET", "/.well-known/oauth-authorization-server")
    checked = AuthorizationServerMetadata(metadata)
    for part in ("issuer", "token_endpoint", "grant_types_supported", "revocation_endpoint"):
        getattr(checked, f"validate_{part}")()
    assert metadata["issuer"] == client.service.url
    paths = {
        name: metadata[f"{name}_endpoint"].removeprefix(client.service.url)
        for name in ("token", "device_authorization", "revocation")
    }
    theirs = DeviceClient(CLIENT_ID)
    _, codes, _ = client.post(paths["device_authorization"], {"client_id": CLIENT_ID})
    approve(bailee, codes["user_code"])
    body = theirs.prepare_request_body(codes["device_code"], include_client_id=True)
    _, told, _ = client.post(paths["token"], body)
    token = theirs.parse_request_body_response(json.dumps(told))
    uri, headers, _ = theirs.add_token("https://service.example/api/account")
    assert uri.endswith("/api/account")
    assert client.ask("GET", "/api/account", headers=headers)[1]["name"] == "ada"
    # It revokes by sending client and token, as RFC 7009 has it.
    _, sent, form = theirs.prepare_token_revocation_request(
        f"https://service.example{paths['revocation']}", token["access_token"], client_id=CLIENT_ID
    )
    assert client.post(paths["revocation"], form, **sent)[0] == 200
    assert client.ask("GET", "/api/account", headers=headers)[0] == 401


# --- Errors, by their names ---


def test_who_polls_too_fast_is_slowed_down(client: Client) -> None:
    """Before the interval is over it is told to slow down, each time by five seconds more."""
    code = client.begin()["device_code"]
    assert [client.error(code) for _ in range(3)] == ["authorization_pending", "slow_down", "slow_down"]


def test_control_without_a_throttle(bailee: Bailee, tmp_path: Path) -> None:
    """Control: with the throttle out nobody is slowed down."""
    with serving(tmp_path / "state", tmp_path, "--upstream", "rehearsal", changes=UNTHROTTLED) as service:
        client = Client(service)
        code = client.begin()["device_code"]
        assert {client.error(code) for _ in range(3)} == {"authorization_pending"}


def test_the_interval_grows_by_five_seconds() -> None:
    """As RFC 8628, 3.5, has it: for this and all later polls of that login, and of no other."""
    now = 1000.0
    polls = Polls(lambda: now)
    assert not polls.is_too_fast("a")
    now += INTERVAL_SECONDS
    assert not polls.is_too_fast("a")
    assert not polls.is_too_fast("b")
    now += INTERVAL_SECONDS - 1
    assert polls.is_too_fast("a")
    now += INTERVAL_SECONDS
    assert polls.is_too_fast("a")  # ten by now
    now += INTERVAL_SECONDS
    assert polls.is_too_fast("a")  # fifteen
    now += 20
    assert not polls.is_too_fast("a")
    assert not polls.is_too_fast("b")


def test_a_denied_login_is_told(bailee: Bailee, client: Client) -> None:
    """access_denied, and it stays so."""
    codes = client.begin()
    assert bailee("logins", "deny", codes["user_code"]).returncode == 0
    assert [client.error(codes["device_code"]) for _ in range(2)] == ["access_denied"] * 2


def test_an_expired_login_is_told(bailee: Bailee, tmp_path: Path) -> None:
    """expired_token, approved or not; once it is forgotten, invalid_grant."""
    with serving(tmp_path / "state", tmp_path, "--upstream", "rehearsal", changes=HASTE) as service:
        client = Client(service)
        waiting, approved = client.begin(), client.begin()
        approve(bailee, approved["user_code"])
        ahead = service.temporary / "ahead"
        ahead.write_text("601")
        for codes in (waiting, approved):
            assert client.error(codes["device_code"]) == "expired_token"
        ahead.write_text("1201")
        client.begin()
        assert client.error(waiting["device_code"]) == "invalid_grant"
        assert {key["origin"] for key in bailee.json("keys", "list")} == {"handed_over"}


WRONG: list[tuple[dict[str, str], str]] = [
    ({"grant_type": GRANT, "client_id": CLIENT_ID}, "invalid_request"),
    ({"grant_type": GRANT, "device_code": "x"}, "invalid_client"),
    ({"grant_type": GRANT, "device_code": "x", "client_id": "another"}, "invalid_client"),
    (
        {"grant_type": GRANT, "device_code": "x", "client_id": CLIENT_ID, "client_secret": "s"},
        "invalid_client",
    ),
    ({"grant_type": GRANT, "device_code": "x", "client_id": CLIENT_ID}, "invalid_grant"),
    (
        {"grant_type": GRANT, "device_code": "0" * 16 + "_" + "0" * 64, "client_id": CLIENT_ID},
        "invalid_grant",
    ),
    ({"grant_type": "password", "username": "ada", "password": "x"}, "unsupported_grant_type"),
    ({"client_id": CLIENT_ID}, "unsupported_grant_type"),
    ({}, "unsupported_grant_type"),
]


@pytest.mark.parametrize(("form", "error"), WRONG)
def test_a_wrong_request_is_told(client: Client, form: dict[str, str], error: str) -> None:
    """Each by the name that the RFC gives it, in JSON, not to be stored."""
    status, told, headers = client.post("/oauth/token", form)
    assert (status, told["error"]) == (400, error)
    assert headers["cache-control"] == "no-store"


def test_what_is_no_form_is_told(client: Client) -> None:
    """Another type, a parameter given twice, no UTF-8, too long; each path answers its own method only."""
    for path in ("/oauth/token", "/oauth/device_authorization", "/oauth/revoke"):
        for body, kind in (
            ('{"client_id": "bailee-agent"}', "application/json"),
            (f"client_id={CLIENT_ID}&client_id={CLIENT_ID}", "application/x-www-form-urlencoded"),
            (f"client_id={CLIENT_ID}&machine={'x' * 9000}", "application/x-www-form-urlencoded"),
        ):
            status, told, _ = client.post(path, body, **{"Content-Type": kind})
            assert (status, told["error"]) == (400, "invalid_request")
        assert client.ask("GET", path)[0] == 405
    assert (
        client.post("/oauth/device_authorization", {"client_id": "another"})[1]["error"] == "invalid_client"
    )
    for machine in ("two\nlines", "x" * 101):
        form = {"client_id": CLIENT_ID, "machine": machine}
        assert client.post("/oauth/device_authorization", form)[1]["error"] == "invalid_request"


def test_only_so_many_wait(client: Client) -> None:
    """The twenty-first of one address is told to come later."""
    for _ in range(20):
        client.begin()
    status, told, headers = client.post("/oauth/device_authorization", {"client_id": CLIENT_ID})
    assert (status, told["error"], headers["retry-after"]) == (429, "slow_down", "60")


def test_only_a_logins_token_is_revoked(bailee: Bailee, client: Client) -> None:
    """Keys of other origins were not issued to the client (RFC 7009, 2.1), and stay in force."""
    directory = open_directory(bailee.folder / "state")
    for origin in (KeyOrigin.OTHER, KeyOrigin.HANDED_OVER, KeyOrigin.RUN):
        _, secret = create_key(directory, "ada", origin=origin)
        status, told, _ = client.post("/oauth/revoke", {"client_id": CLIENT_ID, "token": secret})
        assert (status, told["error"]) == (400, "invalid_grant")
        assert client.ask("GET", "/api/account", headers={"X-Api-Key": secret})[0] == 200
    assert all(key.revoked_ms is None for key in list_keys(directory))
    directory.close()
    assert client.post("/oauth/revoke", {"client_id": CLIENT_ID})[1]["error"] == "invalid_request"
    assert client.post("/oauth/revoke", {"token": "x"})[1]["error"] == "invalid_client"
    assert client.post("/oauth/revoke", {"client_id": CLIENT_ID, "token": "x"})[0] == 200


# --- What is in force ---


def test_a_key_is_told_what_is_in_force(bailee: Bailee, client: Client) -> None:
    """Consents, limits and the organization as they are now; without a key nothing."""
    assert bailee("accounts", "add", "tom", "--plan", "team", "--org", "acme").returncode == 0
    proof = bailee.proof("tom")
    key = bailee("keys", "create", "--account", "tom").stdout.strip()

    def told() -> dict[str, Any]:
        status, account, _ = client.ask("GET", "/api/account", headers={"X-Bailee-Key": key})
        assert status == 200
        return dict(account)

    assert (told()["name"], told()["plan"], told()["organization"], told()["zdr"]) == (
        "tom",
        "team",
        "acme",
        False,
    )
    bailee.json("org", "zdr", "on", "--org", "acme", "--as", "tom", "--yes", BAILEE_KEY=proof)
    bailee.json("org", "retention", "14d", "--org", "acme", "--as", "tom", BAILEE_KEY=proof)
    bailee.json("privacy", "retention", "7d", "--account", "tom")
    account = told()
    assert (account["zdr"], account["organization_limit"], account["account_limit"]) == (True, "14d", "7d")
    for headers in ({}, {"Authorization": "Bearer bailee_0_0"}):
        status, refused, found = client.ask("GET", "/api/account", headers=headers)
        assert (status, refused["error"]["type"]) == (401, "authentication_error")
        assert found["x-bailee-refused"] == "authentication_error"


# --- From the command line ---


def test_a_login_is_shown_before_it_is_approved(bailee: Bailee, client: Client) -> None:
    """What asks, on what machine, from where; its code is in no list."""
    codes = client.begin(machine="ada's laptop")
    (listed,) = bailee.json("logins", "list")
    assert (listed["client"], listed["label"], listed["state"]) == (CLIENT_ID, "ada's laptop", "waiting")
    for shown in (bailee("logins", "list").stdout, json.dumps(listed)):
        assert codes["user_code"] not in shown
        assert codes["device_code"] not in shown
        assert "ada's laptop" in shown
    words = ("logins", "approve", codes["user_code"], "--account", "ada")
    assert "alone approves a login" in bailee.refused(*words, "--yes")
    proof = bailee.proof("ada")
    told = bailee.refused(*words, BAILEE_KEY=proof)
    assert "bailee-agent, on a machine that calls itself" in told
    assert "from 127.0.0.1" in told
    assert "confirm with --yes" in told
    assert client.error(codes["device_code"]) == "authorization_pending"
    assert "no login waits" in bailee.refused(
        "logins", "approve", "BBBB-BBBB", "--account", "ada", BAILEE_KEY=proof
    )
    assert bailee.json(*words, "--yes", BAILEE_KEY=proof)["state"] == "approved"
    refused = [entry["entry"] for entry in bailee.json("ledger", "show", "--limit", "100")]
    assert [one["consent"] for one in refused if one["kind"] == "consent_refused"] == ["login"]
    assert client.exchange(codes["device_code"])[0] == 200
    shown = bailee("privacy", "show", "--account", "ada").stdout
    assert "(login ada's laptop): made by a login that" in shown


def test_control_where_nobody_has_to_prove_anything(bailee: Bailee, client: Client) -> None:
    """Control: with the proof taken out, anybody approves a login to anybody's account."""
    folder = bailee.folder / "changes"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "from bailee.accounts import choices\nchoices.is_holder = lambda *_: True\n"
    )
    words = ("logins", "approve", client.begin()["user_code"], "--account", "ada", "--yes")
    assert bailee(*words, PYTHONPATH=str(folder)).returncode == 0


def test_control_where_nothing_is_revoked(bailee: Bailee, tmp_path: Path) -> None:
    """Control: with the revocation taken out, a token is told to be revoked and goes on."""
    changes = "import bailee.service.oauth as o\no.Server.revoke = lambda self, key_id: None\n"
    with serving(tmp_path / "state", tmp_path, "--upstream", "rehearsal", changes=changes) as service:
        client = Client(service)
        codes = client.begin()
        approve(bailee, codes["user_code"])
        token = client.exchange(codes["device_code"])[1]["access_token"]
        assert client.post("/oauth/revoke", {"client_id": CLIENT_ID, "token": token})[0] == 200
        assert client.ask("GET", "/api/account", headers={"X-Api-Key": token})[0] == 200


def test_a_service_that_starts_again_knows_them(bailee: Bailee, tmp_path: Path) -> None:
    """What waits is in the home and not in the service: it is approved and redeemed after a restart."""
    with serving(tmp_path / "state", tmp_path, "--upstream", "rehearsal") as first:
        codes = Client(first).begin()
    approve(bailee, codes["user_code"])
    with serving(tmp_path / "state", tmp_path, "--upstream", "rehearsal") as second:
        assert Client(second).exchange(codes["device_code"])[0] == 200


def test_polls_write_nothing(bailee: Bailee, client: Client) -> None:
    """Neither of what waits nor of what is unknown: after every commit a service reads its keys anew."""
    file = bailee.folder / "state" / "accounts.db-wal"
    code = client.begin()["device_code"]
    before = file.stat().st_size
    for _ in range(20):
        client.error(code)
        assert client.error("0" * 16 + "_" + "0" * 64) == "invalid_grant"
    assert file.stat().st_size == before
