"""A login of an agent, approved or refused on the page that the agent names."""

import json
from collections.abc import Callable
from urllib.parse import urlencode

import pytest

from console.browsers import Visitor
from console.cast import Cast

Visit = Callable[..., Visitor]
GRANT = "urn:ietf:params:oauth:grant-type:device_code"
FORM = {"content-type": "application/x-www-form-urlencoded"}


def begin(cast: Cast) -> dict[str, str]:
    """Begin a login as an agent does."""
    body = urlencode({"client_id": "bailee-agent", "machine": "<b>laptop</b>"})
    return dict(json.loads(cast.ask("POST", "/oauth/device_authorization", body=body, **FORM)[1]))


def exchange(cast: Cast, codes: dict[str, str]) -> dict[str, str]:
    """Poll for the token."""
    body = {"grant_type": GRANT, "device_code": codes["device_code"], "client_id": "bailee-agent"}
    return dict(json.loads(cast.ask("POST", "/oauth/token", body=urlencode(body), **FORM)[1]))


@pytest.mark.parametrize("has_scripts", [True, False])
def test_a_login_is_approved(visit: Visit, cast: Cast, has_scripts: bool) -> None:
    """The page shows who asks before it is approved; the agent's token is for Alice's account."""
    codes = begin(cast)
    assert codes["verification_uri"] == f"{cast.own_url}/oauth/device"
    page = visit("alice", java_script_enabled=has_scripts).go("/oauth/device")
    page.fill("#f-code", codes["user_code"].lower())
    page.click("text=Look")
    told = page.inner_text("main")
    assert "<b>laptop</b>" in told
    assert "127.0.0.1" in told
    assert codes["user_code"].lower() in told.lower()
    page.click("text=Let it in")
    assert "the agent logs in to alice" in page.inner_text("main")
    token = exchange(cast, codes)["access_token"]
    account = cast.ask("GET", "/api/account", authorization=f"Bearer {token}")[1]
    assert json.loads(account)["name"] == "alice"


def test_a_login_is_refused(visit: Visit, cast: Cast) -> None:
    """The agent is told so."""
    codes = begin(cast)
    page = visit("bob").go("/oauth/device")
    page.fill("#f-code", codes["user_code"])
    page.click("text=Look")
    page.click("text=Refuse it")
    assert "Denied" in page.inner_text("main")
    assert exchange(cast, codes)["error"] == "access_denied"


def test_wrong_codes_are_counted(visit: Visit, cast: Cast) -> None:
    """After five of them one has to wait, and is told for how long (RFC 6585, 4)."""
    page = visit("charlie").go("/oauth/device")
    for _ in range(6):
        page.fill("#f-code", "BBBB-BBBB")
        page.click("text=Look")
        told = page.inner_text(".problem")
        page = visit("charlie").go("/oauth/device")
    assert "too many wrong codes" in told
    status, _, headers = cast.press("/oauth/device", "charlie", code="BBBB-BBBB")
    assert (status, 500 < int(headers["retry-after"]) <= 600) == (429, True)


def test_who_is_not_signed_in_is_told_both_ways(visit: Visit) -> None:
    """To sign in, or to use the command."""
    page = visit("nobody").go("/oauth/device")
    assert "bailee logins approve CODE --account NAME" in page.inner_text("main")
    page.click("text=Sign in to approve it")
    assert page.url.endswith("/console/sign-in?next=/oauth/device")
