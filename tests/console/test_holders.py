"""What an account holder does in the console, driven in a real browser, with and without JavaScript."""

import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

from bailee.accounts.directory import open_directory
from bailee.accounts.keys import create_key
from bailee.accounts.people import Kind
from bailee.accounts.tables import KeyOrigin
from bailee.flows.web.receiver import is_taken
from bailee.ledger.log import FOLDER, open_log
from bailee.ledger.receipts import verify_receipt
from bailee.policy.flows import FlowId
from bailee.policy.plans import Plan, Provider
from bailee.vault.proofs import count_receipts
from bailee.vault.reader import list_sessions
from bailee.vault.store import open_vault
from console.browsers import Visitor
from console.cast import HOSTILE_ID, LONG, Cast, found_organization
from console.filling import REFUSED_HOST, leave_log
from counterparts import claude
from counterparts.projects import CALCULATOR, TEST
from counterparts.services import serving
from counterparts.waiting import wait_for

Visit = Callable[..., Visitor]


def sessions_of(cast: Cast, person: str) -> list[str]:
    """Return the sessions that somebody has, as the vault says."""
    vault = open_vault(cast.home)
    found = [one.id for one in list_sessions(vault, account=cast.ids[person])]
    vault.dispose()
    return found


def test_training_is_switched_with_its_effect_told_first(visit: Visit, cast: Cast, has_scripts: bool) -> None:
    """Switched on nothing held changes; switched off what trains stops at once, counted before."""
    session = f"charlie-trains-{has_scripts}"
    window = visit("charlie", java_script_enabled=has_scripts)
    page = window.go("/console/privacy")
    page.click("text=Switch training on…")
    told = page.inner_text("main")
    assert "held 5y instead of 30d" in told
    assert "keeps its terms" in told
    page.click("main button:has-text('Switch training on')")
    assert "Training is on." in page.inner_text("main")
    cast.say("charlie", session, "this may train")
    wait_for("it to be held", lambda: session in sessions_of(cast, "charlie") or None)
    page = window.go("/console/privacy/training?to=off")
    assert page.inner_text(".big strong") == "1"
    assert "Trains no more" in page.inner_text("main")
    page.click("main button:has-text('Switch training off')")
    assert re.search(r"Training is off\. 1 segment held already came under", page.inner_text("main"))
    assert page.inner_text(".big strong") == "0"


def test_a_plan_without_the_switch_says_why(visit: Visit) -> None:
    """Alice's plan is commercial: there is no switch, and the page says so."""
    page = visit("alice").go("/console/privacy")
    assert "has no training switch" in page.inner_text("main")
    assert page.query_selector("text=Switch training on…") is None


def test_a_shorter_time_is_told_and_applied(visit: Visit, has_scripts: bool) -> None:
    """The page says what goes before it goes; what cannot be meant is refused with its reason."""
    period = "7d" if has_scripts else "6d"
    window = visit("bob", java_script_enabled=has_scripts)
    page = window.go("/console/privacy")
    page.fill("#f-period", "fortnight")
    page.click("text=See what it changes…")
    assert "fortnight" in page.inner_text(".problem")
    page = window.go("/console/privacy")
    page.fill("#f-period", period)
    page.click("text=See what it changes…")
    assert "Held for less long" in page.inner_text("main")
    page.click(f"main button:has-text('Hold at most {period}')")
    assert re.search(rf"Records are held at most {period}\. \d+ segments?", page.inner_text("main"))
    assert f"At most {period}, as you wished" in page.inner_text("main")


def test_holding_nothing_takes_the_accounts_name(visit: Visit, cast: Cast, has_scripts: bool) -> None:
    """Where something would be erased by it, the name of the account is written first; a longer time than the
    plan's is said to change nothing.
    """
    name = f"hooli-{has_scripts}".lower()
    hooli = found_organization(cast.home, cast.service, name)
    hooli.say("member", f"{name}-first", "hello")
    wait_for("it", lambda: f"{name}-first" in hooli.ask("GET", "/console/data", "member")[1] or None)
    window = visit("member", hooli, java_script_enabled=has_scripts)
    page = window.go("/console/privacy/retention?period=5y")
    assert "this one changes nothing" in page.inner_text("main")
    page = window.go("/console/privacy/retention?period=none")
    assert page.inner_text(".big strong") == "1"
    page.fill("#f-name", "somebody")
    page.click("main button:has-text('Hold nothing')")
    assert "is not what you wrote" in page.inner_text(".problem")
    assert sessions_of(hooli, "member") == [f"{name}-first"]
    page.fill("#f-name", f"{name}-member")
    page.click("main button:has-text('Hold nothing')")
    assert "Nothing is held from now on. 1 segment" in page.inner_text("main")


def test_a_session_that_is_not_there_is_not_found(visit: Visit, has_scripts: bool) -> None:
    """Another's id, and one that nobody has, are answered alike: below what was typed."""
    window = visit("alice", java_script_enabled=has_scripts)
    for id in ("bob-first", "no-such-session"):
        page = window.go("/console/data")
        page.fill("#f-session", id)
        page.click("main button:has-text('Find')")
        assert "No session of yours has that id" in page.inner_text("main")
        assert page.input_value("#f-session") == id


def test_each_of_program_and_retention_says_what_the_other_means(visit: Visit, cast: Cast) -> None:
    """Who switches zero data retention off, having joined the partner program, is told that conversations may
    train from then on; who joins while it is on, that nothing is kept. Control: without the other neither is.
    """
    hooli = found_organization(cast.home, cast.service, "hooli-both")
    off = "/console/organization/switch?what=zdr&to=off"
    on = "/console/organization/switch?what=dpp&to=on"
    words = ("may train models from then on", "nothing is kept that could")
    for given in (False, True):
        directory = open_directory(cast.home)
        for kind in (Kind.DPP, Kind.ZDR) if given else ():
            directory.decide_for_organization(
                "hooli-both", kind, given=True, by="hooli-both-admin", provider=Provider.ANTHROPIC
            )
        directory.close()
        told = hooli.ask("GET", off, "admin")[1], hooli.ask("GET", on, "admin")[1]
        assert tuple(word in page for word, page in zip(words, told, strict=True)) == (given, given)


def test_a_flow_is_refused_and_taken_again(visit: Visit, has_scripts: bool) -> None:
    """Refusing errors shows at once, and so does taking it back."""
    page = visit("bob", java_script_enabled=has_scripts).go("/console/privacy")
    page.click("text=Refuse errors")
    assert "You refuse errors from now on" in page.inner_text("main")
    page.click("text=Let errors pass")
    assert "You let pass errors from now on" in page.inner_text("main")


def test_a_key_is_revoked(visit: Visit, cast: Cast, has_scripts: bool) -> None:
    """The next request that presents it is refused, and it is not listed any more; other keys stay."""
    directory = open_directory(cast.home)
    key, secret = create_key(directory, "bob", label="old", origin=KeyOrigin.OTHER, made_by="runner")
    directory.close()
    bearer = {"authorization": f"Bearer {secret}"}
    assert cast.ask("GET", "/api/account", **bearer)[0] == 200
    page = visit("bob", java_script_enabled=has_scripts).go("/console/privacy")
    page.click(f"tr:has-text('{key.id}') button:has-text('Revoke')")
    assert f"Key {key.id} is revoked" in page.inner_text("main")
    assert key.id not in page.inner_text("div[aria-label=Keys]")
    assert cast.ask("GET", "/api/account", **bearer)[0] == 401
    assert cast.ask("GET", "/api/account", authorization=f"Bearer {cast.keys['bob']}")[0] == 200


def test_a_report_is_withdrawn(visit: Visit, cast: Cast, has_scripts: bool) -> None:
    """Nothing goes before it is confirmed; then that report alone is erased, with a receipt."""
    report = cast.send_report("bob", "bob-first", "the parser fails")
    kept = count_receipts(cast.home, cast.ids["bob"])
    window = visit("bob", java_script_enabled=has_scripts)
    page = window.go("/console/feedback")
    page.click(f"text={report}")
    assert "the parser fails" in page.inner_text("pre")
    page.click("text=Withdraw…")
    assert "its keys are destroyed first" in page.inner_text("main")
    page.click("text=Keep it")
    page.click(f"tr:has-text('{report}') >> text=Withdraw…")
    page.click("text=Withdraw it")
    assert f"Report {report} is erased" in page.inner_text("main")
    assert count_receipts(cast.home, cast.ids["bob"]) == kept + 1
    page.click("text=Verify it here")
    assert page.inner_text(".big").startswith("1 of 1")
    assert report not in window.go("/console/feedback").inner_text("main")
    assert cast.ask("GET", f"/console/feedback/{report}", "bob")[0] == 404
    assert cast.ask("GET", f"/console/feedback/{cast.report}", "alice")[0] == 200


def test_reading_hostile_content(visit: Visit) -> None:
    """What was said is shown as text: no element of it, no script, no escape; any id leads to its page."""
    window = visit("alice")
    page = window.go("/console/data")
    page.click(f"main td a:text-is({json.dumps(HOSTILE_ID)})")
    page.wait_for_load_state()  # it is long
    shown = page.inner_text("main")
    assert HOSTILE_ID in shown
    assert f"{len(LONG) - 20_000:,} characters more" in shown
    assert len(shown) < 100_000
    page = window.go("/console/data")
    page.click("main a:has-text('alice-first')")
    assert page.title() == "Session alice-first · Bailee"
    shown = page.inner_text("main")
    assert "<script>document.title='owned'</script>" in shown
    assert "\\x1b[2J" in shown
    assert "\x1b" not in page.content()
    assert "‮" not in page.content()
    assert page.query_selector("main img, main script") is None


def test_export_of_one_and_of_all(visit: Visit, cast: Cast, has_scripts: bool) -> None:
    """A session comes as JSON with its content and terms; everything as an archive of JSON Lines."""
    window = visit("alice", java_script_enabled=has_scripts)
    page = window.go("/console/data/session/alice-first")
    with page.expect_download() as download:
        page.click("text=Export as JSON")
    told = json.loads(Path(download.value.path()).read_text())
    assert told["id"] == "alice-first"
    assert "owned" in told["exchanges"][0]["content"]["request"]
    page = window.go("/console/data")
    with page.expect_download() as download:
        page.click("text=Export everything")
    with tarfile.open(download.value.path()) as archive:
        names = {Path(name).name for name in archive.getnames()}
        held = archive.extractfile("bailee-alice/sessions.jsonl")
        assert held is not None
        told_of = {json.loads(line)["id"] for line in held}
    assert {"README.txt", "export.json", "exchanges.jsonl", "content.jsonl"} <= names
    assert told_of >= set(sessions_of(cast, "alice"))


def test_erasing_gives_a_receipt_that_verifies(visit: Visit, cast: Cast, has_scripts: bool) -> None:
    """It is gone, the receipt is downloaded as it was made, and holds in the page; a changed one does not."""
    session = f"alice-goes-{has_scripts}"
    cast.say("alice", session, "forget this")
    wait_for("it to be held", lambda: session in sessions_of(cast, "alice") or None)
    window = visit("alice", java_script_enabled=has_scripts)
    page = window.go(f"/console/data/session/{session}")
    page.click("text=Erase…")
    assert "1 segment with its key" in page.inner_text("main")
    page.click("text=Erase this session")
    assert page.inner_text(".big strong") == "1"
    assert session not in sessions_of(cast, "alice")
    # By her account's id, which goes with the account, and not by a name that stays.
    assert cast.ids["alice"] in cast.list_known()
    assert "operator alice" not in cast.list_known()
    with page.expect_download() as download:
        page.click("text=Download it")
    receipt = Path(download.value.path()).read_bytes()
    log = open_log(cast.home / FOLDER)
    assert len(verify_receipt(receipt, log.verifier)) == 2
    page.click("text=Verify it here")
    assert page.inner_text(".big").startswith("1 of 1")
    assert "erased" in page.inner_text("main")
    assert f"Session {session} is named in it" in page.inner_text("main")
    for other in ("another", "1", session[:-1]):
        page.fill("#f-session", other)
        page.click("main button:has-text('Verify')")
        assert f"Session {other} is named in none of it" in page.inner_text("main")
    told = window.go(f"/console/ledger?q={session}").inner_text("main")
    assert f"session {session}" in told  # what it was called is for its holder alone to know
    assert "Nothing here says that" in visit("bob").go(f"/console/ledger?q={session}").inner_text("main")
    page = window.go("/console/receipts")
    page.fill("#f-receipt", receipt.decode().replace('"index": ', '"index": 1', 1))
    page.click("main button:has-text('Verify')")
    assert page.inner_text(".big").startswith("0 of 1")
    assert "Not verified: it has no entries" in page.inner_text("main")
    page.fill("#f-receipt", receipt.decode().replace('"index": ', '"index":  ', 1))
    page.click("main button:has-text('Verify')")
    assert "it was changed after it was made" in page.inner_text(".problem")
    page.fill("#f-receipt", "no receipt")
    page.fill("#f-key", "no key")
    page.click("main button:has-text('Verify')")
    assert "no ledger's public key" in page.inner_text(".problem")
    assert (page.input_value("#f-receipt").strip(), page.input_value("#f-key")) == ("no receipt", "no key")
    page = window.go("/console/receipts")
    page.fill("#f-receipt", "no receipt")
    page.click("main button:has-text('Verify')")
    assert "this is not a receipt" in page.inner_text(".problem")


def test_a_log_of_connections_is_read_and_erased(visit: Visit, cast: Cast, has_scripts: bool) -> None:
    """What is held besides conversations is listed by its flow, read, exported, and erased with a receipt."""
    run, key = f"a-run-of-bob-{has_scripts}", str(int(has_scripts) + 1) * 16
    leave_log(cast, run, "bob", key)
    wait_for("the log to be taken", lambda: is_taken(cast.home, run) or None)
    session = f"key-{key}"
    place = f"/console/data/session/{session}"
    wait_for("it to be held", lambda: cast.ask("GET", place, "bob")[0] == 200 or None)
    window = visit("bob", java_script_enabled=has_scripts)
    page = window.go("/console/data")
    assert session not in page.inner_text("main")
    page.click("main a:has-text('of web')")
    assert "of web" in page.inner_text(".big")
    page.click(f"main a:text-is('{session}')")
    told = page.inner_text("article.turn tr:has-text('pypi.org')")
    assert "passed" in told
    assert "910,000" in told
    assert page.locator(f"article.turn tr:has-text('{REFUSED_HOST}')").count() == 3
    assert not has_scripts or window.check_with_axe() == []
    assert page.query_selector("main b") is None
    with page.expect_download() as download:
        page.click("text=Export as JSON")
    assert REFUSED_HOST in Path(download.value.path()).read_text()
    page.click("text=Erase…")
    page.click("text=Erase this session")
    page.click("text=Verify it here")
    assert page.inner_text(".big").startswith("1 of 1")
    assert session not in window.go("/console/data?flow=web").inner_text("main")
    assert cast.ask("GET", place, "bob")[0] == 404


def test_erasing_everything(visit: Visit, cast: Cast) -> None:
    """It takes the account's name; all that is held goes, with a receipt for each session."""
    for place in (1, 2):
        cast.say("operator", f"olga-{place}", "forget all of this")
    wait_for("both", lambda: len(sessions_of(cast, "operator")) == 2 or None)
    page = visit("operator").go("/console/data/erase")
    page.fill("#f-name", "somebody")
    page.click("main button")
    assert "that is not the name of your account" in page.inner_text(".problem")
    page = visit("operator", java_script_enabled=False).go("/console/data/erase")
    page.fill("#f-name", "olga")
    page.click("main button")
    assert "Erased 2 sessions" in page.inner_text("main")
    page.click("text=Verify it here")
    assert page.inner_text(".big").startswith("2 of 2")
    assert sessions_of(cast, "operator") == []


def test_the_ledger_is_searched(visit: Visit, has_scripts: bool) -> None:
    """A holder sees what is told of them, by name; entries of others are not there."""
    page = visit("charlie", java_script_enabled=has_scripts).go("/console/ledger?kind=signed_in")
    assert "charlie" in page.inner_text("table")
    assert {row.inner_text() for row in page.query_selector_all("tbody td:nth-child(4)")} == {"charlie"}
    page.fill("#f-q", "no such thing")
    page.click("main button:has-text('Search')")
    assert "Nothing here says that" in page.inner_text("main")


def test_a_ledger_full_of_others_entries_is_looked_through(tmp_path: Path) -> None:
    """Where others filled what a page looks at, it says how far it looked and leads on, to the beginning;
    never that there is nothing.
    """
    few = "import bailee.console.ledgers as l\nl.WINDOW, l.SEARCHED = 10, 20\n"
    home = tmp_path / "state"
    with serving(home, tmp_path, "--upstream", "rehearsal", changes=few) as service:
        globex = found_organization(home, service, "globex")
        directory = open_directory(home)
        directory.add("eve", Plan.PRO)
        for number in range(60):
            directory.refuse("eve", FlowId.METRICS, given=not number % 2)
        directory.close()
        for query in ("?", "?kind=signed_in&"):
            place, looks = f"/console/ledger{query}", 0
            while "<tbody>" not in (told := globex.ask("GET", place, "member")[1]):
                assert "there are older ones" in told
                assert "Nothing is told of you yet" not in told
                assert "Nothing here says that" not in told
                looks += 1
                place = f"/console/ledger{query}before={told.partition('before=')[2].partition('&')[0]}"
            assert looks >= 2
            assert "globex-member" in told
        told = globex.ask("GET", "/console/ledger?q=nothing-of-that&before=5", "member")[1]
        assert "Nothing says that in entries 0 to 4, the oldest." in told


def test_a_session_of_the_real_agent(visit: Visit, cast: Cast, tmp_path: Path) -> None:
    """Claude Code mends a bug in many turns; all of it is read, turn by turn, exported, and erased with a
    receipt.
    """
    project = tmp_path / "project"
    claude.make_project(project, {"calculator.py": CALCULATOR, "test_calculator.py": TEST})
    environment = claude.make_environment(
        tmp_path / "user", ANTHROPIC_BASE_URL=cast.service.url, ANTHROPIC_AUTH_TOKEN=cast.keys["bob"]
    )
    before = set(sessions_of(cast, "bob"))
    done = claude.run("rehearse mend-the-test", project, environment)
    assert done.returncode == 0, done.stderr
    (session,) = wait_for("its session", lambda: set(sessions_of(cast, "bob")) - before or None)
    window = visit("bob")
    page = window.go("/console/data")
    page.click(f"text={session}")
    page.wait_for_load_state()
    turns = page.query_selector_all("article.turn")
    assert len(turns) >= 4
    told = page.inner_text("main")
    assert "rehearse mend-the-test" in told
    assert "assistant calls" in told
    assert "tool result" in told
    assert window.check_with_axe() == []
    with page.expect_download() as download:
        page.click("text=Export as JSON")
    exported = json.loads(Path(download.value.path()).read_text())
    assert len(exported["exchanges"]) >= len(turns)
    page.click("text=Erase…")
    page.click("text=Erase this session")
    page.click("text=Verify it here")
    assert page.inner_text(".big").startswith("1 of 1")
    assert session not in sessions_of(cast, "bob")
