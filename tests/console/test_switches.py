"""What an admin switches for an organization, each switch driven to its end in a real browser."""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import uvicorn
from playwright.sync_api import Page

from bailee.flows.messages.rehearsal.application import create_application
from bailee.vault.reader import Exchange, Session, list_sessions, read_session
from bailee.vault.store import open_keys, open_vault
from console.browsers import Visitor
from console.cast import Cast, found_organization
from counterparts.holdings import wait_until_ended
from counterparts.services import serving

Visit = Callable[..., Visitor]
HOME = "/console/organization"


@contextlib.contextmanager
def standing_in_for_the_claude_api() -> Iterator[str]:
    """Serve the rehearsal model where a service takes it for the Claude API, and give its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_application(), log_config=None, lifespan="off"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        thread.join()
        listener.close()


def read_headline(page: Page) -> str:
    """Return the number that a page leads with, and its words."""
    return (page.text_content(".big") or "").strip()


def say(organization: Cast, session: str) -> Exchange:
    """Have the member's agent say something, and return the exchange once it has ended on disk."""
    organization.say("member", session, f"said in {session}")
    return wait_until_ended(organization.home, session)


def find_session(organization: Cast, id: str) -> Session:
    """Return a session of the member's, as the vault says."""
    vault = open_vault(organization.home)
    (found,) = list_sessions(vault, account=organization.ids["member"], session=id)
    vault.dispose()
    return found


def has_content(organization: Cast, exchange: Exchange) -> bool:
    """Tell whether what was said opens."""
    vault, keys = open_vault(organization.home), open_keys(organization.home)
    account, today = organization.ids["member"], datetime.now(UTC).date()
    found = [one.exchange for one in read_session(vault, keys, account, exchange.session, today=today)]
    keys.close()
    vault.dispose()
    return found == [exchange.id]


def test_zero_data_retention(visit: Visit, cast: Cast, has_scripts: bool) -> None:
    """Its effect is told before it happens; on, what was held is gone and nothing that a member says is
    stored; off, it is again.
    """
    name = f"globex-{has_scripts}".lower()
    globex = found_organization(cast.home, cast.service, name)
    before = say(globex, f"{name}-before")
    window = visit("admin", globex, java_script_enabled=has_scripts)
    page = window.go(HOME)
    page.click("text=Switch it on…")
    assert read_headline(page) == "1 segment of 2 members goes at once"
    assert "There is no way back" in page.inner_text("main")
    assert has_content(globex, before)
    page.fill("#f-name", "another")
    page.click("main button:has-text('Switch it on')")
    assert "would be erased" in page.inner_text("main")
    assert has_content(globex, before)
    page = window.go("/console/organization/switch?what=zdr&to=on")
    page.fill("#f-name", name)
    page.click("main button:has-text('Switch it on')")
    told = page.inner_text("main")
    assert "Zero data retention is on. 1 segment held already came under it, or went." in told
    assert "Nothing of a conversation is kept." in told
    assert not has_content(globex, before)
    during = say(globex, f"{name}-during")
    assert (during.state, during.is_kept, has_content(globex, during)) == ("complete", False, False)
    told = globex.ask("GET", "/console/privacy", "member")[1]
    assert "Nothing of a conversation is kept from now on." in told
    assert "Not at all: your organization has zero data retention." in told
    assert told.count("off under zero data retention") == 1  # bug reports
    page = window.go(HOME)
    page.click("text=Switch it off…")
    assert read_headline(page).startswith("0 segments change today")
    page.click("main button:has-text('Switch it off')")
    told = page.inner_text("main")
    assert "Zero data retention is off." in told
    assert "Conversations are kept for their time." in told
    after = say(globex, f"{name}-after")
    assert (after.is_kept, has_content(globex, after)) == (True, True)
    assert not has_content(globex, during)


def test_the_partner_program(visit: Visit, tmp_path: Path) -> None:
    """Joined where the Claude API is reached, what members say from then on may train, and no earlier; left,
    it stops at once, counted before.
    """
    home = tmp_path / "state"
    environment = {"BAILEE_UPSTREAM_KEY": "sk-of-the-organization"}
    with (
        standing_in_for_the_claude_api() as url,
        serving(home, tmp_path, "--upstream", f"anthropic={url}", environment=environment) as service,
    ):
        globex = found_organization(home, service, "globex")
        say(globex, "before")
        window = visit("admin", globex)
        page = window.go(HOME)
        page.click("text=Join it…")
        assert read_headline(page).startswith("0 segments change today")
        assert "conversations of 2 members may train models" in page.inner_text("main")
        page.click("main button:has-text('Join it')")
        told = page.inner_text("main")
        assert "The development partner program is on." in told
        assert "What passes through the Claude API itself may train models." in told
        say(globex, "during")
        assert [find_session(globex, one).trainable for one in ("before", "during")] == [False, True]
        assert "joined the development partner program" in globex.ask("GET", "/console/privacy", "member")[1]
        page = visit("admin", globex, java_script_enabled=False).go(HOME)
        page.click("text=Leave it…")
        assert read_headline(page) == "1 segment stops training at once"
        page.click("main button:has-text('Leave it')")
        told = page.inner_text("main")
        assert "The development partner program is off. 1 segment held already" in told
        assert "Nothing that your members say trains a model." in told
        say(globex, "after")
        assert not any(find_session(globex, one).trainable for one in ("before", "during", "after"))


def test_zero_data_retention_where_the_upstream_retains(tmp_path: Path, cast: Cast) -> None:
    """It is told before it is switched on and while it is that the upstream has to declare it too; until then
    members' requests are refused. Control: of the rehearsal model none of it is told.
    """
    words = "does not declare that it retains nothing"
    home = tmp_path / "state"
    environment = {"BAILEE_UPSTREAM_KEY": "sk-of-the-organization"}
    with (
        standing_in_for_the_claude_api() as url,
        serving(home, tmp_path, "--upstream", f"anthropic={url}", environment=environment) as service,
    ):
        globex = found_organization(home, service, "globex")
        for path in (HOME, f"{HOME}/switch?what=zdr&to=on"):
            assert words in globex.ask("GET", path, "admin")[1]
            assert words not in cast.ask("GET", path, "admin")[1]
        say(globex, "before")
        switching = {"what": "zdr", "to": "on", "name": "globex"}
        assert globex.send_form(f"{HOME}/switch", "admin", **switching)[0] == 303
        assert words in globex.ask("GET", HOME, "admin")[1]
        bearer = {"authorization": f"Bearer {globex.keys['member']}", "content-type": "application/json"}
        asked = {"model": "claude-rehearsal-1", "max_tokens": 64, "messages": []}
        body = json.dumps(asked)
        status, told, _ = globex.ask("POST", "/v1/messages", body=body, **bearer)
        assert (status, "zero data retention" in told.lower()) == (403, True), told
        assert globex.send_form(f"{HOME}/switch", "admin", what="zdr", to="off")[0] == 303
        say(globex, "after")
