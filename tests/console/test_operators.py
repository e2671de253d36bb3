"""What an operator does in the console, driven in a real browser."""

import json
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from bailee.accounts.directory import open_directory
from bailee.accounts.keys import create_key
from bailee.accounts.operators import appoint_operator
from bailee.cloud.records import Sessions
from bailee.flows.web.files import add_rule, read_rules_file, remove_rule
from bailee.ledger.log import FOLDER, open_log
from bailee.policy.problems import Problem
from console.browsers import Visitor
from console.cast import Cast
from console.filling import REFUSED_HOST, make_cloud_session

Visit = Callable[..., Visitor]


def test_the_diagram_is_live(visit: Visit, cast: Cast) -> None:
    """Each arrow has its state and what passed in an hour, the table says the same, and a title leads on."""
    page = visit("operator").go("/console/flows")
    assert int(page.inner_text(".big strong").replace(",", "")) >= 50
    rows = {row.inner_text().split("\t")[0]: row.inner_text() for row in page.query_selector_all("tbody tr")}
    assert len(rows) == 10
    assert "required" in rows["Model traffic"]
    assert "rehearsal" in rows["Model traffic"]
    assert "off" in rows["Forwarding"]
    assert "does not come to this service" in rows["Update check"]
    drawn = page.text_content(".diagram svg") or ""
    assert "14 times" in drawn
    page.click(".diagram a:has-text('Metrics')")
    assert page.url.endswith("/console/flows/metrics")


def test_it_is_renewed_by_itself(visit: Visit, cast: Cast) -> None:
    """Numbers go on while the page stays, until they are paused; whoever is signed out is led to sign in."""
    window = visit("operator")
    page = window.page
    page.clock.install()
    window.go("/console/cloud")
    known = page.inner_text("[data-live]")
    page.evaluate("window.isSame = true")

    def wait_ten_seconds() -> None:
        with page.expect_response("**/console/cloud"):
            page.clock.run_for(10_500)
        page.wait_for_timeout(200)

    before = cast.cloud
    added = make_cloud_session(cast)
    cast.cloud = before
    wait_ten_seconds()
    assert added in page.inner_text("[data-live]")
    assert page.evaluate("window.isSame")
    window.context.set_offline(True)
    page.clock.run_for(10_500)
    page.wait_for_selector("text=Not renewed since")
    window.context.set_offline(False)
    wait_ten_seconds()
    assert "Renewed every ten seconds" in page.inner_text("main")
    page.click("text=Pause")
    asked = len(window.requests)
    page.clock.run_for(30_000)
    assert len(window.requests) == asked
    page.click("text=Go on")
    page.evaluate("document.activeElement.blur()")
    shutil.rmtree(Sessions(cast.home).folder(added))
    wait_ten_seconds()
    assert page.inner_text("[data-live]") == known
    window.context.clear_cookies()
    page.clock.run_for(10_500)
    page.wait_for_url("**/console/sign-in**")


def test_charts_and_their_tables_say_the_same(visit: Visit) -> None:
    """Latency of two weeks is drawn, with its numbers beside it; a shorter time shows less."""
    page = visit("operator").go("/console/flows/metrics")
    rows = page.query_selector_all("div[aria-label=Latency] tbody tr")
    points = (page.get_attribute("figure polyline", "points") or "").split()
    assert len(rows) == len(points) == 14
    page.click("text=7 days")
    page.wait_for_load_state()
    assert len(page.query_selector_all("div[aria-label=Latency] tbody tr")) == 7
    page = visit("operator").go("/console/flows/messages")
    assert page.inner_text(".big strong") == "100.0 %"
    assert page.query_selector("rect.bar") is not None


def test_errors_are_triaged(visit: Visit, has_scripts: bool) -> None:
    """A group is resolved, found among all, and reopened; its frames are shown and nothing of its message."""
    window = visit("operator", java_script_enabled=has_scripts)
    page = window.go("/console/flows/errors")
    assert page.inner_text(".big strong") == "3"
    row = "tr:has-text('KeyError')"
    page.click(f"{row} a")
    assert "bailee.agent.work.answer:120" in page.inner_text("pre")
    assert "script" not in page.inner_text("main")
    page = window.go("/console/flows/errors")
    page.click(f"{row} button:has-text('Resolve')")
    assert page.inner_text(".big strong") == "2"
    page.click("text=1 resolved or muted as well")
    page.click(f"{row} button:has-text('Reopen')")
    assert page.inner_text(".big strong") == "3"


def count_entries(cast: Cast, kind: str) -> int:
    """Return how many entries of a kind the ledger has."""
    assert cast.ask("GET", "/console/ledger", "operator")[0] == 200  # it has what waited
    return sum(f'"{kind}"'.encode() in entry for entry in open_log(cast.home / FOLDER).read())


def test_a_report_is_read_with_a_reason_that_its_sender_sees(
    visit: Visit, cast: Cast, has_scripts: bool
) -> None:
    """Sealed until the operator says why; ledgered; shown to Alice; then closed with a note."""
    reason, before = f"ticket 17: the parser, {has_scripts}", count_entries(cast, "access")
    page = visit("operator", java_script_enabled=has_scripts).go("/console/flows/feedback")
    page.click(f"text={cast.report}")
    page.wait_for_load_state()
    assert page.query_selector("pre") is None
    page.fill("#f-reason", reason)
    page.click("main button:has-text('Read it')")
    assert "<script>" in page.inner_text("pre")
    assert "\x1b" not in page.content()
    page.fill("#f-note", "mended in 1.3")
    page.click("text=Close it")
    assert f"Report {cast.report} is closed" in page.inner_text("main")
    alice = visit("alice").go("/console/privacy")
    told = alice.inner_text("div[aria-label='Who read it']")
    assert "olga" in told
    assert reason in told
    assert count_entries(cast, "access") == before + 1
    assert not any(b"ticket 17" in entry for entry in open_log(cast.home / FOLDER).read())
    page.click("text=1 closed as well")
    page.click(f"text={cast.report}")
    page.click("text=Reopen it")
    assert f"Report {cast.report} is open" in page.inner_text("main")


def test_ratings_are_counted(visit: Visit, has_scripts: bool) -> None:
    """Two good, one fine, one bad and one dismissed."""
    page = visit("operator", java_script_enabled=has_scripts).go("/console/flows/survey")
    assert page.inner_text(".big strong") == "2.25 of 3"
    row = page.inner_text("div[aria-label='By version'] tbody tr").split()
    assert row == ["1.2", "1", "1", "2", "1", "2.25"]


@pytest.fixture
def rules_file(cast: Cast) -> Iterator[Path]:
    """Give where the cast's rules are written; afterwards there are none, as before."""
    path = cast.home / "boundary.toml"
    assert not path.exists()
    yield path
    path.unlink(missing_ok=True)


def test_what_was_refused_is_allowed_by_a_rule(
    visit: Visit, cast: Cast, rules_file: Path, has_scripts: bool
) -> None:
    """Opening the logs takes a reason; `Allow this` beside a denial writes the rule, which is ledgered."""
    reason, before = f"a build fails, {has_scripts}", count_entries(cast, "rule")
    page = visit("operator", java_script_enabled=has_scripts).go("/console/flows/web")
    page.fill("#f-reason", reason)
    page.click("text=Open them")
    assert page.inner_text(".big strong") == "5"
    assert "<b>evil</b>.example" in page.inner_text("main")
    assert page.query_selector("td b, th b") is None
    page.click(f"tr:has-text('{REFUSED_HOST}') button")
    assert f"Allowed for every agent of this installation: {REFUSED_HOST} port 443" in page.inner_text("main")
    rules = read_rules_file(rules_file)
    assert [(rule.host, rule.ports) for rule in rules.allow] == [(REFUSED_HOST, (443,))]
    assert REFUSED_HOST in page.inner_text("div[aria-label=Rules]")
    assert reason in visit("alice").go("/console/privacy").inner_text("main")
    assert count_entries(cast, "rule") == before + 1
    assert page.query_selector("text=private addresses too") is None
    page.click("text=Take it back")
    assert read_rules_file(rules_file).allow == ()
    assert count_entries(cast, "rule") == before + 2
    for host, why in (("no host at all", "cannot be allowed"), ("a.example/path", "more than a host")):
        page.fill("#f-host", host)
        page.click("text=Allow it")
        assert why in page.inner_text(".problem")
    assert read_rules_file(rules_file).allow == ()


def test_a_rule_is_added_and_the_rest_stays(tmp_path: Path) -> None:
    """What a person wrote stays to the letter; what is there already, forbidden or no host is refused."""
    path = tmp_path / "boundary.toml"
    written = '# mine\n[[allow]]\nhost = "a.example"\n\n[[forbid]]\nhost = "b.example"\n'
    path.write_text(written)
    add_rule(path, "c.example", 8443)
    assert path.read_text().startswith(written)
    assert [(one.host, one.ports) for one in read_rules_file(path).allow][-1] == ("c.example", (8443,))
    for one in read_rules_file(path).allow:
        if one.host == "c.example":
            remove_rule(path, one)
    assert path.read_text() == written
    (mine,) = read_rules_file(path).allow
    with pytest.raises(Problem, match="as the console writes them"):  # written otherwise, by hand
        remove_rule(path, mine)
    add_rule(path, "c.example", 8443)
    # What goes on below it is another rule, of which nothing may be left for the one above.
    path.write_text(f'{path.read_text()}methods = ["GET"]\n')
    with pytest.raises(Problem, match="as the console writes them"):
        remove_rule(path, read_rules_file(path).allow[-1])
    before = path.read_text()
    for host, port in (("a.example", 443), ("b.example", 443), ('x"\n[abuse]', 443), ("d.example", 0)):
        with pytest.raises(Problem):
            add_rule(path, host, port)
    assert path.read_text() == before
    path.write_text("allow = 7")
    with pytest.raises(Problem):
        add_rule(path, "c.example", 443)
    assert path.read_text() == "allow = 7"


def test_a_cloud_session_is_followed(visit: Visit, cast: Cast) -> None:
    """Its holder sees log and trail; an operator says why first; its events are made visible."""
    page = visit("alice").go("/console/cloud")
    page.click(f"text={cast.cloud}")
    log = page.inner_text("pre")
    assert "<script>" in log
    assert "\\x1b[2J" in log
    window = visit("operator", java_script_enabled=False)
    page = window.go(f"/console/cloud/{cast.cloud}")
    assert page.query_selector("pre") is None
    page.fill("#f-reason", "it hangs")
    page.click("text=Open log and audit")
    assert "pushed 2 commits" in page.inner_text("pre")
    assert "it hangs" in visit("alice").go("/console/privacy").inner_text("main")
    sessions = Sessions(cast.home)
    known = sessions.look(cast.cloud)
    sessions.write(msgspec.structs.replace(known, reason="\x1b[2J gone\u202e"))
    told = cast.ask("GET", f"/console/cloud/{cast.cloud}/events", "alice")[1]
    states = [line for line in told.splitlines() if line.startswith('data: {"state"')]
    assert json.loads(states[-1].removeprefix("data: "))["reason"] == "\\x1b[2J gone\\u202e"
    sessions.write(known)
    status, told, headers = cast.ask("GET", f"/console/cloud/{cast.cloud}/events", "alice")
    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    lines = [line for line in told.splitlines() if line.startswith("data: ")]
    assert "data: cloning https://git.example/acme/app" in lines
    assert json.loads(lines[-2].removeprefix("data: "))["state"] == "done"
    assert "\x1b" not in told


def test_retention_and_forwarding(visit: Visit) -> None:
    """What is due, and whether anything waits, is a number each."""
    assert visit("operator").go("/console/retention").inner_text(".big strong") == "0 s"
    assert visit("operator").go("/console/flows/forwarding").inner_text(".big strong") == "0"
    assert visit("operator").go("/console/flows/git").inner_text(".big strong") == "0"


def test_the_ledger_is_verified_at_a_click(visit: Visit, cast: Cast) -> None:
    """All entries hold; who is neither admin nor operator has no such button."""
    page = visit("operator", java_script_enabled=False).go("/console/ledger")
    page.click("text=Verify all of it now")
    assert "verified" in page.inner_text("main")
    assert int(page.inner_text(".big strong").replace(",", "")) == open_log(cast.home / FOLDER).size
    assert "Verify all" not in visit("alice").go("/console/ledger").inner_text("main")


def test_what_a_command_did_is_in_the_ledger_at_once(cast: Cast) -> None:
    """Its entry waits for whoever comes next, who is the one that looks."""
    directory = open_directory(cast.home)
    key, _ = create_key(directory, "olga", label="by a command", made_by="runner")
    directory.close()
    told = cast.ask("GET", f"/console/ledger?q={key.id}", "operator")[1]
    assert f"key {key.id}" in told.partition("<tbody>")[2]


def test_a_ledger_that_was_changed_is_not_verified(visit: Visit, cast: Cast) -> None:
    """One letter of one entry is enough; put back, all of it holds again (control)."""
    bundles = (cast.home / FOLDER / "tile" / "entries").rglob("*[0-9]")
    bundle = max(bundles, key=lambda path: path.stat().st_mtime)
    whole = bundle.read_bytes()
    window = visit("operator")
    at = whole.index(b"at_ms") + 10
    digit = b"1" if whole[at : at + 1] != b"1" else b"2"
    bundle.write_bytes(whole[:at] + digit + whole[at + 1 :])
    try:
        page = window.go("/console/ledger")
        page.click("text=Verify all of it now")
        assert "the ledger is damaged" in page.inner_text(".problem")
    finally:
        bundle.write_bytes(whole)
    page = window.go("/console/ledger")
    page.click("text=Verify all of it now")
    assert "every one of them" in page.inner_text(".big")


def test_the_published_page_is_of_this_installation(visit: Visit, cast: Cast) -> None:
    """It names the upstream in force, and links each flow to its full telling."""
    page = visit("nobody").go("/data-usage")
    told = page.inner_text("main")
    assert "the rehearsal model, which runs in this service" in told
    assert "the model runs here and keeps nothing" in told
    assert len(page.query_selector_all("section.card")) == 10
    assert page.get_attribute(".diagram a", "href") == "#messages"
    with urllib.request.urlopen(f"{cast.service.url}/data-usage", timeout=10) as answer:
        assert answer.status == 200


def test_an_operator_is_one_until_it_is_taken_back(cast: Cast) -> None:
    """Appointed, one sees the service's pages; no more, none of them."""
    directory = open_directory(cast.home)
    assert cast.ask("GET", "/console/flows", "bob")[0] == 404
    appoint_operator(directory, "bob", given=True, by="runner")
    assert cast.ask("GET", "/console/flows", "bob")[0] == 200
    appoint_operator(directory, "bob", given=False, by="runner")
    assert cast.ask("GET", "/console/flows", "bob")[0] == 404
    directory.close()
