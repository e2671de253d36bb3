"""Reports at a real service: what is taken and what is refused, how it is held, taken back and told."""

import http.client
import json
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bailee.accounts.directory import open_directory
from bailee.accounts.keys import create_key
from bailee.accounts.people import Kind
from bailee.flows.feedback.reports import MOST_BYTES
from bailee.flows.feedback.storage import find_sent
from bailee.policy.periods import Period
from bailee.policy.plans import Plan
from bailee.vault.reader import list_exchanges
from bailee.vault.store import open_vault
from counterparts.holdings import find_bytes
from counterparts.reports import CANARY, REPORT, SESSION, Desk
from counterparts.services import serving
from counterparts.waiting import wait_for

Start = Callable[..., Desk]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Give a way to start a service on a new home, changed for a control."""
    running: list[Any] = []

    def begin(*options: str, **more: Any) -> Desk:
        desk = Desk(tmp_path)
        running.append(serving(desk.home, tmp_path, *(options or ("--upstream", "rehearsal")), **more))
        desk.service = running[-1].__enter__()
        return desk

    yield begin
    for one in running:
        one.__exit__(None, None, None)


@pytest.fixture
def desk(start: Start) -> Desk:
    """Give a service as it is."""
    return start()


# --- What is taken, and held ---


def test_a_report_is_held_for_five_years_as_it_was_sent(desk: Desk) -> None:
    """To the byte, sealed, under the account that sent it, in a session of its own; it trains nothing."""
    status, told = desk.send()
    assert (status, set(told)) == (201, {"id", "expires_on"})
    id = told["id"]
    assert desk.content(id) == [REPORT]
    assert find_bytes(desk.home, CANARY.encode()) == []
    (report,) = desk.json("feedback", "list")
    assert (report["id"], report["account"], report["session"]) == (id, "ada", SESSION)
    assert (report["retention"], report["expires_on"], report["state"]) == ("5y", told["expires_on"], "open")
    day = datetime.now(UTC).date()
    assert told["expires_on"].startswith(str(day.year + 5))
    vault = open_vault(desk.home)
    (exchange,) = list_exchanges(vault, account=desk.ids["ada"])
    vault.dispose()
    decision = json.loads(exchange.decision)
    assert (exchange.flow, decision["terms"]["trainable"]) == ("feedback", False)
    assert {"retention.feedback", "training.feedback"} <= {rule["id"] for rule in decision["rules"]}
    # 3 * 365 days later it is there, after its day it is not.
    assert desk.held(days=1095) == [id]
    assert desk.held(days=1827) == []


def test_what_was_acknowledged_survives_a_kill(desk: Desk) -> None:
    """Answered with an id, it is on the disk: kill -9 right after that loses nothing."""
    id = desk.sent()
    desk.service.kill()
    assert desk.content(id) == [REPORT]


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"\xff",
        b'{"version":"1","description":""}',
        b'{"version":"/home/ada","description":"x"}',
        b'{"version":"1","description":"x","home":"/home/ada"}',
        b'{"version":"1","description":"x","conversation":[{"role":"user","blocks":[{"type":"image"}]}]}',
        b'{"version":"1","description":"x","attachments":[{"name":"/etc/passwd","text":""}]}',
        b'{"version":"1","description":"x","masked":{"aws":0}}',
        b'{"version":"1","description":"%s"}' % (b"x" * (MOST_BYTES + 1)),
        b"[" * 100_000,
    ],
)
def test_what_is_no_report_is_refused_and_not_held(desk: Desk, body: bytes) -> None:
    """There is no field for anything but what was shown; the refusal says what is wrong."""
    status, told = desk.send(body)
    assert status == (413 if len(body) > MOST_BYTES else 400)
    assert told["error"]
    assert told["fix"]
    assert desk.held() == []


def test_nobody_else_gets_in(desk: Desk) -> None:
    """Without a key of an account nothing is told, taken or erased."""
    id = desk.sent()
    for method, path, body in (
        ("GET", "/api/feedback", b""),
        ("POST", f"/api/sessions/{SESSION}/feedback", REPORT),
        ("DELETE", f"/api/feedback/{id}", b""),
    ):
        assert desk.ask(method, path, body, name="")[0] == 401
    assert desk.held() == [id]


# --- What is refused, and by what ---


def limit_to_nothing(desk: Desk) -> str:
    directory = open_directory(desk.home)
    directory.limit_account("ada", Period.parse("none"))
    directory.close()
    return desk.keys["ada"]


def limit_organization(desk: Desk) -> str:
    """Let the organization hold nothing, whatever its member asked."""
    directory = open_directory(desk.home)
    directory.add("boss", Plan.TEAM, organization="acme", retention=Period.parse("7d"))
    directory.limit_organization("acme", Period.parse("none"), by="boss")
    key = create_key(directory, "boss")[1]
    directory.close()
    return key


def switch_on_zero_retention(desk: Desk) -> str:
    directory = open_directory(desk.home)
    directory.add("zoe", Plan.ENTERPRISE, organization="zeros")
    directory.decide_for_organization("zeros", Kind.ZDR, given=True, by="zoe")
    key = create_key(directory, "zoe")[1]
    desk.ids["zoe"] = directory.get("zoe").id
    directory.close()
    return key


REFUSALS: dict[str, tuple[Callable[[Desk], str], str]] = {
    "zdr": (switch_on_zero_retention, "account/zdr.feedback"),
    "limit": (limit_to_nothing, "account/limit.account"),
    "organization": (limit_organization, "organization/limit.organization"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_forbids_reports_is_named(desk: Desk, case: str) -> None:
    """Under zero data retention, or where the holder lets nothing be held: refused before it is read."""
    forbid, rule = REFUSALS[case]
    key = forbid(desk)
    status, offer = desk.ask("GET", "/api/feedback", key=key)
    assert (status, offer["allowed"], offer["decided_by"]) == (200, False, rule)
    status, told = desk.ask("POST", f"/api/sessions/{SESSION}/feedback", REPORT, key=key)
    assert status == 403
    assert f"refused by {rule}" in told["error"]
    assert find_bytes(desk.home, CANARY.encode()) == []
    assert not desk.held("ada")

    def recorded() -> bool:
        vault = open_vault(desk.home)
        try:
            return any(one.reason == f"refused by {rule}" for one in list_exchanges(vault))
        finally:
            vault.dispose()

    wait_for("the refusal in the record", recorded)


def test_control_without_the_rule_a_report_is_taken(start: Start) -> None:
    """Control: with the rules of the policy left out, zero data retention forbids nothing."""
    from_policy = "import bailee.policy.decisions as d\nd._refusals = lambda flow, context: iter(())\n"
    desk = start(changes=from_policy)
    key = switch_on_zero_retention(desk)
    assert desk.ask("POST", f"/api/sessions/{SESSION}/feedback", REPORT, key=key)[0] == 201


def test_a_provider_that_reports_are_off_for_by_default(start: Start) -> None:
    """With the model on Bedrock the service takes no report, and says so."""
    environment = {"AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    desk = start("--upstream", "bedrock", environment=environment)
    status, told = desk.send()
    assert (status, "refused by provider/default.bedrock" in told["error"]) == (403, True)
    assert desk.ask("GET", "/api/feedback")[1]["decided_by"] == "provider/default.bedrock"


def test_zero_retention_switched_on_later_erases_what_is_held(desk: Desk) -> None:
    """A report is a transcript: none is held under zero data retention, also of those sent before."""
    desk.run("accounts", "add", "zed", "--plan", "enterprise", "--org", "late")
    proof = desk.run("keys", "create", "--account", "zed", "--for-holder").stdout.strip()
    assert desk.ask("POST", f"/api/sessions/{SESSION}/feedback", REPORT, key=proof)[0] == 201
    assert len(desk.json("feedback", "list", "--account", "zed")) == 1
    desk.run("org", "zdr", "on", "--org", "late", "--as", "zed", "--yes", BAILEE_KEY=proof)
    assert desk.json("feedback", "list", "--account", "zed", "--all") == []


# --- Taking it back ---


def test_whoever_sent_it_takes_it_back(desk: Desk) -> None:
    """Erased keys first: it opens in no copy of the vault, and the receipt proves it offline."""
    id = desk.sent()
    desk.run("feedback", "close", id, "--note", "the warbler")
    copy = desk.folder / "copy"
    (copy / "vault").mkdir(parents=True, mode=0o700)
    vault = open_vault(desk.home)
    with vault.connect() as connection:
        connection.exec_driver_sql(f"VACUUM INTO '{copy / 'vault' / 'vault.db'}'")
    vault.dispose()
    (copy / "vault" / "vault.db").chmod(0o600)
    assert desk.content(id, copy) == [REPORT]
    status, told = desk.ask("DELETE", f"/api/feedback/{id}")
    assert (status, told["id"]) == (200, id)
    assert desk.content(id, copy) == []
    assert desk.held() == []
    assert desk.ask("DELETE", f"/api/feedback/{id}")[0] == 404
    receipt = desk.folder / "receipt.json"
    receipt.write_text(told["receipt"])
    desk.run("ledger", "verify", str(receipt))
    assert [entry["entry"]["kind"] for entry in desk.json("ledger", "show")].count("erased") == 1
    assert find_bytes(desk.home, b"the warbler", id.encode()) == []


def test_another_account_takes_nothing_back(desk: Desk) -> None:
    """Somebody else's report is none of theirs, and is there afterwards."""
    id = desk.sent()
    status, told = desk.ask("DELETE", f"/api/feedback/{id}", name="bob")
    assert (status, "of this account" in told["error"]) == (404, True)
    assert desk.held() == [id]


def test_control_where_an_id_is_enough(start: Start) -> None:
    """Control: with the account left out of the look, anybody who has its id erases it."""
    changes = (
        "import bailee.service.serving as s, bailee.flows.feedback.storage as f, sqlalchemy as sa\n"
        "from bailee.vault import tables\n"
        "def owner(engine, id):\n"
        "    with engine.connect() as c:\n"
        "        return c.execute(sa.select(tables.exchanges.c.account)"
        ".where(tables.exchanges.c.session == id)).scalar_one()\n"
        "find, erase = f.find_sent, f.erase_report\n"
        "s.find_sent = lambda engine, account, id: find(engine, owner(engine, id), id)\n"
        "from bailee.vault.store import open_vault\n"
        "s.erase_report = lambda home, account, id, by: erase(home, owner(open_vault(home), id), id, by)\n"
    )
    desk = start(changes=changes)
    id = desk.sent()
    assert desk.ask("DELETE", f"/api/feedback/{id}", name="bob")[0] == 200
    assert desk.held() == []


def test_after_ten_minutes_the_service_says_how(start: Start) -> None:
    """Then it is withdrawn where the service runs, by the whole id, with a receipt."""
    desk = start(changes="import bailee.flows.feedback.receiver as r\nr.UNDO_SECONDS = -1\n")
    id = desk.sent()
    status, told = desk.ask("DELETE", f"/api/feedback/{id}")
    assert (status, f"bailee feedback withdraw {id}" in told["fix"]) == (409, True)
    assert desk.held() == [id]
    assert "give the whole id" in desk.run("feedback", "withdraw", id[:-2], "--yes", code=2).stderr
    assert "Would erase" in desk.run("feedback", "withdraw", id, "--dry-run").stdout
    receipt = desk.folder / "receipt.json"
    desk.run("feedback", "withdraw", id, "--yes", "--receipt", str(receipt))
    assert desk.held() == []
    desk.run("ledger", "verify", str(receipt))
    assert desk.content(id) == []


def test_the_command_takes_it_back_from_another_terminal(desk: Desk) -> None:
    """`bailee feedback undo` with a key of the account, by HTTP, and a receipt."""
    id = desk.sent()
    receipt = desk.folder / "undone.json"
    to = ("--service", desk.service.url)
    assert (
        "no such report"
        in desk.run("feedback", "undo", "report-0", *to, code=2, BAILEE_KEY=desk.keys["ada"]).stderr
    )
    assert "no service" in desk.run("feedback", "undo", id, code=2).stderr
    done = desk.run("feedback", "undo", id, *to, "--receipt", str(receipt), BAILEE_KEY=desk.keys["ada"])
    assert id in done.stdout
    desk.run("ledger", "verify", str(receipt))
    assert desk.held() == []
    gone = desk.run("feedback", "undo", id, "--service", "http://127.0.0.1:9", code=2, BAILEE_KEY="x")
    assert "cannot be reached" in gone.stderr


def test_a_hold_keeps_it(desk: Desk) -> None:
    """What is under legal hold is not taken back; the answer names the hold."""
    id = desk.sent()
    hold = desk.json("holds", "place", "--account", "ada", "--session", id, "--reason", "case 7")
    status, told = desk.ask("DELETE", f"/api/feedback/{id}")
    assert (status, hold["id"] in told["error"]) == (409, True)
    assert desk.content(id) == [REPORT]


# --- What other erasures leave, and take ---


def test_a_session_goes_and_its_report_stays_and_is_told_of(desk: Desk) -> None:
    """The conversation is erased; the report was sent to be kept, and the command says how to let it go."""
    key = desk.keys["ada"]
    connection = http.client.HTTPConnection(*desk.service.address, timeout=30)
    prompt = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "rehearse greet"}]}
    connection.request(
        "POST", "/v1/messages", json.dumps(prompt), {"x-api-key": key, "x-bailee-session": SESSION}
    )
    assert connection.getresponse().status == 200
    connection.close()
    id = desk.sent()
    other = desk.ask("POST", "/api/sessions/another/feedback", REPORT)[1]["id"]
    told = desk.run("sessions", "erase", SESSION, "--yes").stderr
    assert f"bailee feedback withdraw {id}" in told
    assert other not in told
    assert desk.content(id) == [REPORT]
    desk.run("accounts", "erase", "ada", "--yes")
    assert desk.content(id) == []
    assert desk.json("feedback", "list", "--all") == []


def test_an_account_is_exported_with_its_reports(desk: Desk) -> None:
    """Readable, with the terms that they are held under."""
    id = desk.sent()
    desk.run("feedback", "close", id, "--note", "mended")
    out = desk.folder / "export"
    desk.run("accounts", "export", "ada", "--out", str(out), "--reason", "asked")
    content = [json.loads(line) for line in (out / "content.jsonl").read_text().splitlines()]
    exchanges = [json.loads(line) for line in (out / "exchanges.jsonl").read_text().splitlines()]
    (said,) = [one for one in content if one["session"] == id]
    assert json.loads(said["request"])["description"] == CANARY
    (held,) = [one for one in exchanges if one["session"] == id]
    assert (held["flow"], held["terms"]["retention"]) == ("feedback", "5y")
    (session,) = [json.loads(line) for line in (out / "sessions.jsonl").read_text().splitlines()]
    assert (session["id"], session["triage"]["state"], session["triage"]["note"]) == (id, "closed", "mended")
    # Taken back, it leaves the export as well.
    desk.ask("DELETE", f"/api/feedback/{id}")
    assert CANARY not in (out / "content.jsonl").read_text()
    assert "mended" not in (out / "sessions.jsonl").read_text()


def test_a_run_tells_of_its_reports(desk: Desk) -> None:
    """The receipt of the run has the flow with its terms, and how to withdraw the report."""
    script = desk.folder / "send.py"
    script.write_text(
        "import os, urllib.request as r\n"
        "url = os.environ['ANTHROPIC_BASE_URL'] + '/api/sessions/s/feedback'\n"
        "key = {'Authorization': 'Bearer ' + os.environ['ANTHROPIC_AUTH_TOKEN']}\n"
        "assert 'BAILEE_GITHUB_TOKEN' not in os.environ\n"
        f"r.urlopen(r.Request(url, {REPORT!r}, key)).read()\n"
    )
    words = ("run", "--account", "ada", "--", sys.executable, str(script))
    told = desk.run(*words, BAILEE_GITHUB_TOKEN="ghp_made_up").stderr
    (id,) = desk.held()
    assert "feedback -> bailee: 1 exchange (1 complete)" in told
    assert "kept 5y (retention.feedback)" in told
    assert f"erase: bailee feedback withdraw {id}" in told
    assert "ghp_made_up" not in told


# --- Reading and triage ---


def test_reading_it_takes_a_reason(desk: Desk) -> None:
    """Facts need none; content is shown with a reason, which the account holder sees."""
    id = desk.sent()
    assert "--reason" in desk.run("feedback", "show", id, code=2).stderr
    assert CANARY not in desk.run("feedback", "show", id, "--facts").stdout
    shown = desk.run("feedback", "show", id[:10], "--reason", "triage").stdout
    assert CANARY in shown
    assert "2 secrets were masked: 2 aws" in shown
    assert f"Sent from session {SESSION}." in shown
    (access,) = desk.json("privacy", "show", "--account", "ada")["accesses"]
    assert (access["session"], access["reason"]) == (id, "triage")
    assert "feedback show" in desk.run("sessions", "show", id, "--facts").stdout


def test_triage(desk: Desk) -> None:
    """A closed report is out of the list, with its note, until it is opened again."""
    ids = [desk.sent(), desk.sent(name="bob")]
    assert {report["id"] for report in desk.json("feedback", "list")} == set(ids)
    closed = desk.json("feedback", "close", ids[0], "--note", "mended in 1.3")
    assert (closed["state"], closed["note"]) == ("closed", "mended in 1.3")
    assert [report["id"] for report in desk.json("feedback", "list")] == [ids[1]]
    assert len(desk.json("feedback", "list", "--all")) == 2
    assert "mended in 1.3" in desk.run("feedback", "show", ids[0], "--facts").stdout
    desk.run("feedback", "reopen", ids[0])
    assert len(desk.json("feedback", "list")) == 2
    assert "one printable line" in desk.run("feedback", "close", ids[0], "--note", "a\nb", code=2).stderr
    assert "no report" in desk.run("feedback", "close", "report-none", code=2).stderr
    assert "2 reports begin" in desk.run("feedback", "show", "report-", code=2).stderr


def test_a_session_that_is_called_like_a_report_is_none(desk: Desk) -> None:
    """An agent may call its session anything: what is no report is not listed as one."""
    connection = http.client.HTTPConnection(*desk.service.address, timeout=30)
    prompt = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "rehearse greet"}]}
    headers = {"x-api-key": desk.keys["ada"], "x-bailee-session": "report-7"}
    connection.request("POST", "/v1/messages", json.dumps(prompt), headers)
    assert connection.getresponse().status == 200
    connection.close()
    assert desk.json("feedback", "list") == []
    assert desk.ask("DELETE", "/api/feedback/report-7")[0] == 404
    vault = open_vault(desk.home)
    assert find_sent(vault, desk.ids["ada"], "report-7") is None
    vault.dispose()
