"""What an organization's admin does in the console, driven in a real browser."""

import json
from collections.abc import Callable
from urllib.parse import urlencode

import pytest

from bailee.accounts.directory import open_directory
from bailee.accounts.managed import LONGEST
from bailee.accounts.secrets import list_secrets, open_secrets
from bailee.ledger.log import FOLDER, open_log
from bailee.vault.store import open_keys
from console.browsers import Visitor
from console.cast import Cast, found_organization

Visit = Callable[..., Visitor]
HOME = "/console/organization"


@pytest.fixture
def admin(has_scripts: bool, visit: Visit) -> Visitor:
    """Give the admin's browser, with JavaScript and without."""
    return visit("admin", java_script_enabled=has_scripts)


def test_roles(admin: Visitor, cast: Cast) -> None:
    """Bob is made an admin and a member again; the last admin stays one; it is ledgered."""
    page = admin.go(HOME)
    page.click("text=Make bob an admin")
    assert "bob is an admin from now on" in page.inner_text("main")
    assert cast.ask("GET", HOME, "bob")[0] == 200
    page.click("text=Make bob a member")
    assert cast.ask("GET", HOME, "bob")[0] == 404
    assert page.query_selector("text=Make ada a member") is None
    assert any(b'"role"' in entry for entry in open_log(cast.home / FOLDER).read())


def test_a_member_is_added(visit: Visit, cast: Cast) -> None:
    """Under the organization's plan; a name that is taken is refused."""
    page = visit("admin").go(HOME)
    page.fill("#f-member", "dora")
    page.click("main button:has-text('Add')")
    assert "dora is a member" in page.inner_text("main")
    page = visit("admin", java_script_enabled=False).go(HOME)
    page.fill("#f-member", "charlie")
    page.click("main button:has-text('Add')")
    assert "there is an account 'charlie' already" in page.inner_text(".problem")
    assert "bailee accounts" not in page.inner_text(".problem")
    directory = open_directory(cast.home)
    dora = directory.get("dora")
    directory.close()
    assert (dora.organization, dora.plan, dora.role) == ("acme", "team", "member")
    (told,) = cast.ask("GET", "/console/ledger?kind=member&q=dora", "admin")[1].split("<tbody>")[1:]
    assert told.count("<tr ") == 1
    assert "organization acme" in told
    assert ">ada<" in told


def test_a_member_is_suspended(visit: Visit, cast: Cast, has_scripts: bool) -> None:
    """Their key opens nothing and their browser is signed out until they are let in again; it is ledgered."""
    initech = found_organization(cast.home, cast.service, f"initech-{has_scripts}".lower())
    name = f"initech-{has_scripts}-member".lower()
    bearer = {"authorization": f"Bearer {initech.keys['member']}"}
    assert initech.ask("GET", "/api/account", **bearer)[0] == 200
    assert initech.ask("GET", "/console/data", "member")[0] == 200
    page = visit("admin", initech, java_script_enabled=has_scripts).go(HOME)
    page.click(f"text=Suspend {name}")
    assert f"{name} is suspended" in page.inner_text("main")
    assert initech.ask("GET", "/api/account", **bearer)[0] == 401
    assert initech.ask("GET", "/console/data", "member")[0] == 303
    assert "suspended" in page.inner_text(f"tr:has-text('{name}')")
    assert page.query_selector(f"text=Make {name} an admin") is None
    keys = initech.ask("GET", f"{HOME}/keys", "admin")[1]
    assert f"<option>{name}</option>" not in keys.replace(f' value="{name}"', "")
    assert "suspended" in keys
    status, told = initech.send_form(f"{HOME}/keys", "admin", member=name, label="late")
    assert (status, "is suspended" in told, "Shown this once" in told) == (400, True, False)
    page.click(f"text=Let {name} in again")
    assert initech.ask("GET", "/api/account", **bearer)[0] == 200
    told = page.goto(f"{page.url.partition('/console')[0]}/console/ledger?kind=suspension")
    assert told is not None
    assert page.inner_text("tbody").count(name) >= 2


def test_zero_data_retention_says_what_goes(admin: Visitor, cast: Cast) -> None:
    """The page counts what would go and changes nothing; switched off again what comes later is kept."""
    page = admin.go(HOME)
    page.click("text=Switch it on…")
    told = page.inner_text("main")
    assert int(page.inner_text(".big strong")) > 30
    assert "erased, keys first" in told
    assert "no way back" in told
    page.click("text=Leave it as it is")
    assert "Conversations are kept for their time" in page.inner_text("main")


def test_the_partner_program_needs_the_first_party(admin: Visitor) -> None:
    """On another upstream it is not offered, and it is said why; asked for all the same, it is refused."""
    page = admin.go(HOME)
    assert "It cannot be joined here" in page.inner_text("main")
    assert page.query_selector("text=Join it…") is None
    page = admin.go(f"{HOME}/switch?what=dpp&to=on")
    assert "may train models, where they pass through the Claude API itself" in page.inner_text("main")
    page.click("main button:has-text('Join it')")
    assert "first-party API only" in page.inner_text(".problem")


def test_tighter_retention(admin: Visitor, cast: Cast) -> None:
    """Members' records are held 20 days at most, what is held already too; then as the plan has it."""
    page = admin.go(HOME)
    page.fill("#f-period", "20d")
    page.click("text=See what it changes…")
    assert page.inner_text(".big strong") == "0"
    page.click("main button:has-text('Hold at most 20d')")
    assert "Members' records are held at most 20d." in page.inner_text("main")
    page = admin.go(f"{HOME}/retention?period=unlimited")
    page.click("main button:has-text('Take the wish back')")
    assert "As the plan has it" in page.inner_text("main")


def test_a_flow_is_refused_for_all(admin: Visitor, cast: Cast) -> None:
    """Refused by the organization it shows for Alice; taken again it does not."""
    page = admin.go(HOME)
    page.click("text=Refuse session survey")
    assert "refused by your organization" in cast.ask("GET", "/console/privacy", "alice")[1]
    page.click("text=Let session survey pass")
    assert "refused by your organization" not in cast.ask("GET", "/console/privacy", "alice")[1]


def test_keys(admin: Visitor, cast: Cast) -> None:
    """A key is shown once, opens traffic and proves nobody; revoked it opens nothing."""
    page = admin.go(f"{HOME}/keys")
    page.select_option("#f-member", "bob")
    page.fill("#f-label", "<i>ci</i>")
    page.click("text=Make it")
    secret = page.inner_text(".card code").strip()
    bearer = {"authorization": f"Bearer {secret}"}
    assert json.loads(cast.ask("GET", "/api/account", **bearer)[1])["name"] == "bob"
    assert cast.ask("GET", "/api/cloud/sessions", **bearer)[0] == 403
    page = admin.go(f"{HOME}/keys")
    assert secret not in page.content()
    assert page.query_selector("td i") is None
    page.click(f"tr:has-text('{secret.split('_')[1]}') button")
    assert cast.ask("GET", "/api/account", **bearer)[0] == 401


def test_loading_a_made_key_anew_makes_no_other(admin: Visitor) -> None:
    """The browser sends the form again and is told so; from the page that tells it another can be made."""
    page = admin.go(f"{HOME}/keys")
    before = page.locator("tbody tr").count()
    page.select_option("#f-member", "bob")
    page.fill("#f-label", "twice")
    page.click("text=Make it")
    page.wait_for_selector(".card code")
    assert page.locator("tbody tr").count() == before + 1
    page.reload()
    assert "you made a key since this page was drawn" in page.inner_text(".problem")
    assert page.locator("tbody tr").count() == before + 1
    assert page.input_value("#f-label") == "twice"
    page.click("text=Make it")
    page.wait_for_selector(".card code")
    assert page.locator("tbody tr").count() == before + 2


def test_a_hold_keeps_what_its_member_would_erase(admin: Visitor, visit: Visit, cast: Cast) -> None:
    """Placed it stops the erasure and is told to Bob; released it does not."""
    page = admin.go(f"{HOME}/holds")
    page.select_option("#f-member", "bob")
    page.fill("#f-session", "bob-first")
    page.fill("#f-reason", "case 12")
    page.click("text=Place it")
    assert "session bob-first of bob stays" in page.inner_text("main")
    bob = visit("bob").go("/console/data/session/bob-first")
    assert "Legal hold" in bob.inner_text("main")
    assert bob.query_selector("text=Erase…") is None
    told = visit("bob").go("/console/data")
    assert "held by a legal hold" in told.inner_text("tr:has-text('bob-first')")
    assert told.query_selector("text=Erase everything…") is None
    status, told, _ = cast.ask("GET", "/console/data/session/bob-first/erase", "bob")
    assert status == 400
    assert "hold" in told
    page = admin.go(f"{HOME}/holds")
    page.click("tr:has-text('in force') >> text=Release…")
    assert "each of which goes on its own day" in page.inner_text("main")
    page.fill("#f-reason", "case closed")
    page.click("text=Release it")
    assert "is released" in page.inner_text("main")
    assert cast.ask("GET", "/console/data/session/bob-first/erase", "bob")[0] == 200
    assert "legal hold" not in visit("bob").go("/console/data").inner_text("main")  # Control
    for kind in ("hold_placed", "hold_released"):
        for person in ("admin", "bob"):
            told = cast.ask("GET", f"/console/ledger?kind={kind}", person)[1].split("<tbody>")[1]
            assert ">bob<" in told, (kind, person)
    assert ">ada<" in cast.ask("GET", "/console/ledger?kind=hold_released", "admin")[1].split("<tbody>")[1]
    assert "operator ada" not in cast.list_known()


def test_a_refused_hold_is_still_on_whom_it_was_for(admin: Visitor) -> None:
    """A blank reason and a session that is none are refused, and the form comes again with its member."""
    for session, reason, words in (
        ("", " ", "reason is empty"),
        ("none-such", "case 9", "nothing is held of a session 'none-such' of bob"),
    ):
        page = admin.go(f"{HOME}/holds")
        page.select_option("#f-member", "bob")
        page.fill("#f-session", session)
        page.fill("#f-reason", reason)
        page.click("text=Place it")
        assert words in page.inner_text(".problem")
        assert "bailee " not in page.inner_text(".problem")
        assert page.input_value("#f-member") == "bob"


def test_a_hold_is_told_wherever_it_keeps_something(cast: Cast, visit: Visit) -> None:
    """Its holder sees that a report is held, and not why; a switch tells what it would leave; Privacy that
    some of it stays. Released, none of them says so any more.
    """
    report = cast.send_report("bob", "bob-first", "it hangs")
    why = "a reason that nobody else may know"
    page = visit("admin").go(f"{HOME}/holds")
    page.select_option("#f-member", "bob")
    page.fill("#f-reason", why)
    page.click("text=Place it")
    places = ("/console/feedback", f"/console/feedback/{report}", "/console/privacy")
    for place in places:
        status, told, _ = cast.ask("GET", place, "bob")
        assert (status, "a legal hold" in told, "Withdraw…" in told) == (200, True, False), place
    for place in (f"/console/feedback/{report}/withdraw", "/console/data/erase"):
        status, told, _ = cast.ask("GET", place, "bob")
        assert status == 400
        assert "ask whoever placed it" in told
        assert why not in told
    status, told, _ = cast.ask("GET", f"{HOME}/switch?what=zdr&to=on", "admin")
    assert "but for what a legal hold keeps" in told
    assert "until it is released" in told
    page.click("tr:has-text('in force') >> text=Release…")
    page.fill("#f-reason", "settled")
    page.click("text=Release it")
    for place in (*places, f"/console/feedback/{report}/withdraw"):
        status, told, _ = cast.ask("GET", place, "bob")
        assert (status, "legal hold" in told) == (200, False), place
    assert "legal hold" not in cast.ask("GET", f"{HOME}/switch?what=zdr&to=on", "admin")[1]


def test_a_secret_is_kept_and_shown_to_nobody(admin: Visitor, cast: Cast, has_scripts: bool) -> None:
    """It opens with the home's key alone; the page has its name and where it goes, and what is no host is
    refused.
    """
    value = "token-0123456789abcdef"
    page = admin.go(f"{HOME}/secrets")
    page.fill("#f-name", "NPM_TOKEN")
    page.fill("#f-value", value)
    page.fill("#f-hosts", "registry.npmjs.org")
    page.click("text=Keep it")
    assert "NPM_TOKEN is kept" in page.inner_text("main")
    assert value not in page.content()
    directory, keys = open_directory(cast.home), open_keys(cast.home)
    held = open_secrets(directory, keys.wrapper, ["organization:acme"], "")
    assert held["NPM_TOKEN"][1] == value
    page.fill("#f-name", "OTHER")
    page.fill("#f-value", value)
    page.click("text=Keep it")
    assert "nobody may have this secret" in page.inner_text(".problem")
    assert (page.input_value("#f-name"), page.input_value("#f-value")) == ("OTHER", "")
    assert "--" not in page.inner_text(".problem")
    assert not has_scripts or admin.check_with_axe() == []
    page.click("tr:has-text('NPM_TOKEN') button")
    assert "NPM_TOKEN is removed" in page.inner_text("main")
    told = admin.go("/console/ledger?kind=secret&q=NPM_TOKEN").inner_text("tbody")
    assert "secret NPM_TOKEN, change removed" in told
    assert "secret NPM_TOKEN, change kept" in told
    assert value not in b"".join(open_log(cast.home / FOLDER).read()).decode()
    assert list_secrets(directory, ["organization:acme"]) == []
    directory.close()
    keys.close()


def test_repositories(admin: Visitor, cast: Cast) -> None:
    """Where a member's session worked is listed."""
    page = admin.go(f"{HOME}/repositories")
    assert "git.example/acme/app" in page.inner_text("tbody")


def test_managed_settings_are_checked_and_served(admin: Visitor, cast: Cast) -> None:
    """What cannot be meant is not saved; what is saved is served with an ETag, anew if it changed."""
    page = admin.go(f"{HOME}/settings")
    for wrong in (
        *('{"telemetry": "maybe"}', "{", '{"nothing": 1}', "[]"),
        '{"permissions": {"deny": ["fly(*)"]}}',  # a tool that there is not
    ):
        page.fill("#f-settings", wrong)
        page.click("text=Check and save")
        assert page.inner_text(".problem").strip()
        assert page.input_value("#f-settings").strip() == wrong
    right = '{"telemetry": "off", "cleanupPeriodDays": 7}'
    page.fill("#f-settings", right)
    page.click("text=Check and save")
    assert "Saved." in page.inner_text("main")
    bearer = {"authorization": f"Bearer {cast.keys['alice']}"}
    status, told, headers = cast.ask("GET", "/api/settings", **bearer)
    assert (status, json.loads(told)) == (200, json.loads(right))
    again = cast.ask("GET", "/api/settings", **bearer, **{"if-none-match": headers["etag"]})
    assert (again[0], again[1]) == (304, "")
    other = cast.ask("GET", "/api/settings", authorization=f"Bearer {cast.keys['charlie']}")
    assert (other[0], other[1]) == (200, "{}\n")
    assert cast.ask("GET", "/api/settings")[0] == 401
    assert "will not heed" not in page.inner_text("main")
    vain = {
        "telemetry": "on",
        "cleanupPeriodDays": 400,
        "permissions": {"allow": ["bash(*)"]},
        "env": {"A": 1},
    }
    page.fill("#f-settings", json.dumps(vain))
    page.click("text=Check and save")
    told = page.inner_text(".note.warn")
    for what in ("telemetry: on", "cleanupPeriodDays: 400", "permissions.allow bash(*)", "env.A"):
        assert what in told
    stale = cast.ask("GET", f"{HOME}/settings", "admin")[1]
    page.click("text=Remove them")
    assert page.inner_text(".big").startswith("No settings")
    assert cast.ask("GET", "/api/settings", **bearer)[1] == "{}\n"
    token = stale.partition('form_token" value="')[2][:64]
    tag = stale.partition('name="tag" value="')[2].partition('"><p')[0].replace("&#34;", '"')
    form = {"content-type": "application/x-www-form-urlencoded"}
    body = urlencode({"form_token": token, "tag": tag, "settings": right})
    status, told, _ = cast.ask("POST", f"{HOME}/settings", "admin", body, **form)
    assert status == 400
    assert "somebody changed them" in told
    assert "In force by now" in told
    written = told.partition("<textarea")[2].partition("</textarea>")[0]
    assert "cleanupPeriodDays" in written
    assert cast.ask("GET", "/api/settings", **bearer)[1] == "{}\n"


def test_managed_settings_that_are_too_long_are_not_saved(cast: Cast) -> None:
    """One character more than there may be is refused, and what was served before is served still; so many
    are saved (control).
    """
    organization = found_organization(cast.home, cast.service, "massive")
    place, bearer = f"{HOME}/settings", {"authorization": f"Bearer {organization.keys['member']}"}

    def save(settings: str) -> tuple[int, str]:
        shown = organization.ask("GET", place, "admin")[1]
        tag = shown.partition('name="tag" value="')[2].partition('"><')[0].replace("&#34;", '"')
        return organization.send_form(place, "admin", settings=settings, tag=tag)

    def write(length: int) -> str:
        """Return settings that are saved with so many characters, of which a line feed is one."""
        settings = '{"telemetry": "off"}'
        return settings[:-1] + " " * (length - len(settings) - 1) + settings[-1]

    before = '{"cleanupPeriodDays": 7}'
    assert save(before)[0] == 303
    status, told = save(write(LONGEST + 1))
    assert (status, "the settings are too long" in told) == (400, True)
    assert f"keep them below {LONGEST:,} characters" in told
    assert organization.ask("GET", "/api/settings", **bearer)[1] == f"{before}\n"
    assert save(write(LONGEST))[0] == 303
    served = organization.ask("GET", "/api/settings", **bearer)[1]
    assert (len(served), json.loads(served)) == (LONGEST, {"telemetry": "off"})


def test_managed_settings_are_saved_over_what_was_looked_at(cast: Cast) -> None:
    """Whose settings were refused, and who sends them mended, still does not save over what another saved
    meanwhile; once that was shown, they do.
    """
    organization = found_organization(cast.home, cast.service, "overtaken")
    place, bearer = f"{HOME}/settings", {"authorization": f"Bearer {organization.keys['member']}"}

    def read_tag(told: str) -> str:
        return told.partition('name="tag" value="')[2].partition('"><')[0].replace("&#34;", '"')

    def serve() -> str:
        return organization.ask("GET", "/api/settings", **bearer)[1].strip()

    first = read_tag(organization.ask("GET", place, "admin")[1])
    theirs, ours = '{"telemetry": "off"}', '{"cleanupPeriodDays": 7}'
    assert organization.send_form(place, "admin", settings=theirs, tag=first)[0] == 303
    status, told = organization.send_form(place, "admin", settings="{", tag=first)
    assert (status, read_tag(told), "somebody changed them" in told) == (400, first, False)
    status, told = organization.send_form(place, "admin", settings=ours, tag=read_tag(told))
    assert (status, "somebody changed them" in told, serve()) == (400, True, theirs)
    assert organization.send_form(place, "admin", settings=ours, tag=read_tag(told))[0] == 303
    assert serve() == ours
    shown = organization.ask("GET", place, "admin")[1]
    assert "Changed by overtaken-admin" in shown
    assert "<strong>Served</strong>" in shown
    removing = {"act": "remove", "settings": ours, "tag": read_tag(shown)}
    assert organization.send_form(place, "admin", **removing)[0] == 303
    assert (serve(), "<strong>No settings</strong>" in organization.ask("GET", place, "admin")[1]) == (
        "{}",
        True,
    )


def test_another_organizations_members_are_out_of_reach(cast: Cast) -> None:
    """With the right token, too, an admin does nothing to Charlie, who is no member."""
    page = cast.ask("GET", HOME, "admin")[1]
    token = page.partition('form_token" value="')[2][:64]
    form = {"content-type": "application/x-www-form-urlencoded"}
    for path, fields in (
        (HOME, "act=role&member=charlie&role=member"),
        (f"{HOME}/keys", "member=charlie"),
        (f"{HOME}/holds", "member=charlie&reason=x"),
    ):
        status, told, _ = cast.ask("POST", path, "admin", f"{fields}&form_token={token}", **form)
        assert status == 400, path
        assert "no member" in told
