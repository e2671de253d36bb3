"""`/bug`: nothing is sent that was not shown, nothing but a word sends it, and what forbids it is named."""

import json
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.test_terminal import READY, Desk
from bailee.accounts.directory import open_directory
from bailee.accounts.keys import create_key
from bailee.accounts.people import Kind
from bailee.agent.bugs import BugReporter, tell_conversation
from bailee.agent.conversations import result, say
from bailee.agent.settings import read_settings
from bailee.agent.terminal.reporting import WORD
from bailee.agent.work import Work
from bailee.characters import make_visible
from bailee.flows.feedback.reports import (
    Attachment,
    Call,
    LeftOut,
    Report,
    Result,
    Said,
    Text,
    decode_report,
    encode_report,
    tell_report,
)
from bailee.flows.feedback.sender import prepare_report, send_report
from bailee.flows.feedback.storage import list_reports
from bailee.policy.plans import Plan
from bailee.policy.problems import Problem
from bailee.vault.reader import list_exchanges, read_session
from bailee.vault.store import open_keys, open_vault
from counterparts.github import serving_github
from counterparts.holdings import find_bytes, make_key
from counterparts.programs import run_program
from counterparts.projects import make_project
from counterparts.services import Service, serving
from counterparts.terminals import opening
from counterparts.waiting import wait_for

TOKEN = "ghp_" + "i0VpEBOWfbZAVaBSo63bbH6xnAbnBEoonCrb"
CANARY = "the grebe dives wrongly"
SEND = f"Type {WORD} to send it"
ASKED = "Send this too?"


def held(home: Path) -> dict[str, bytes]:
    """Return every report that a home holds, by its id."""
    vault, keys, today = open_vault(home), open_keys(home), datetime.now(UTC).date()
    directory = open_directory(home)
    try:
        reports = list_reports(vault, [account.id for account in directory.all()], today=today)
        return {
            report.id: transcript.request.reveal()
            for report in reports
            for transcript in read_session(vault, keys, report.account, report.id, today=today)
        }
    finally:
        directory.close()
        keys.close()
        vault.dispose()


@pytest.fixture
def desk(tmp_path: Path, scanner_rules: Path) -> Iterator[Desk]:
    """Give a terminal on a user's machine."""
    with opening(tmp_path) as terminal:
        yield Desk(tmp_path, terminal, scanner_rules)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """Give a service with one account."""
    folder = tmp_path / "service"
    folder.mkdir()
    make_key(folder / "home")
    with serving(folder / "home", folder, "--upstream", "rehearsal") as service:
        yield service


def reach(service: Service, key: str = "") -> dict[str, str]:
    return {"BAILEE_SERVICE": service.url, "ANTHROPIC_AUTH_TOKEN": key or make_key(service.home)}


# --- In a terminal ---


def test_a_report_is_shown_sent_and_taken_back(desk: Desk, service: Service) -> None:
    """Word by word: all of it is on the screen, `send` sends that, and `/bug undo` erases it."""
    terminal = desk.terminal
    (desk.project / "AGENTS.md").write_text("Mind the bittern.\n")
    desk.start(**reach(service))
    terminal.wait(READY)
    terminal.type(f"rehearse greet {TOKEN}")
    terminal.wait("tokens in")
    terminal.type("/bug " + CANARY)
    shown = terminal.wait(ASKED)
    assert "a copy of this whole conversation, with the code" in shown
    assert "kept for 5 years, encrypted, and may be used to improve products and services" in shown
    terminal.type("y")  # settings and instructions are asked about apart; a letter is no yes
    terminal.wait(ASKED, times=2)
    terminal.type("no")
    terminal.wait("Mind the bittern.")
    terminal.wait(ASKED, times=3)
    terminal.type("yes")
    shown = terminal.wait(SEND)
    assert "1 secret was masked" in shown
    terminal.type("s")
    terminal.wait("Nothing was sent.")
    assert held(service.home) == {}
    before = len(terminal.screen)
    terminal.type("/feedback " + CANARY)
    for count in (4, 5, 6):
        terminal.wait(ASKED, times=count)
        terminal.type("yes" if count == 6 else "no")
    terminal.wait(SEND, times=2)
    terminal.type(WORD)
    terminal.wait("Sent: report report-")
    ((id, body),) = held(service.home).items()
    terminal.wait("At any time it can be withdrawn")
    sent = decode_report(body)
    assert [one.name for one in sent.attachments] == ["instructions 1"]
    assert TOKEN.encode() not in body
    lines = terminal.screen[before:].splitlines()
    on_screen = "\n".join(line.rstrip() for line in lines)
    for line in tell_report(sent):
        assert line.rstrip() in on_screen
    terminal.type("/bug undo")
    terminal.wait(f"Report {id} is erased")
    assert held(service.home) == {}
    terminal.type("/bug undo")
    terminal.wait("no report was sent here")
    terminal.leave()
    places = (service.home, desk.folder / "state", desk.folder / "user")
    assert [find for place in places for find in find_bytes(place, CANARY.encode(), TOKEN.encode())] == []


def test_an_issue_is_typed_shown_and_asked_for_apart(tmp_path: Path, scanner_rules: Path) -> None:
    """Where the operator has a repository: what is typed is all that is shown, and a word has it opened."""
    folder = tmp_path / "service"
    folder.mkdir()
    home = folder / "home"
    key = make_key(home)
    with (
        serving_github() as github,
        serving(
            home,
            folder,
            "--upstream",
            "rehearsal",
            environment={
                "BAILEE_GITHUB_REPOSITORY": "octo/shop",
                "BAILEE_GITHUB_TOKEN": "t",
                "BAILEE_GITHUB_URL": github.url,
            },
            changes="import bailee.flows.feedback.queue as q, bailee.flows.feedback.receiver as r\n"
            "q.POLL_SECONDS, r.UNDO_SECONDS = 0.1, 0\n",
        ) as service,
        opening(tmp_path) as terminal,
    ):
        desk = Desk(tmp_path, terminal, scanner_rules)
        desk.start(**reach(service, key))
        terminal.wait(READY)
        terminal.type("/bug " + CANARY)
        for count in (1, 2):
            terminal.wait(ASKED, times=count)
            terminal.type("no")
        terminal.wait(SEND)
        terminal.type(WORD)
        terminal.wait("Open an issue too?")
        terminal.type("yes")
        terminal.wait("Title:")
        terminal.type("The coot is silent")
        terminal.wait("Text, a line at a time")
        terminal.type(f"with {TOKEN}")
        terminal.wait("Text, a line at a time", times=2)
        terminal.type("")
        shown = terminal.wait("to have it opened")
        assert "1 secret was masked" in shown
        ((id, body),) = held(home).items()
        assert f"Sent with `/bug`, {id}." in shown
        terminal.type(WORD)
        terminal.wait("It will be opened in octo/shop")
        wait_for("the issue", lambda: github.opened)
        assert github.faults == []
    (opened,) = github.opened
    assert set(opened) == {"title", "body"}
    assert opened["title"] == "The coot is silent"
    assert TOKEN not in opened["body"]
    assert CANARY not in json.dumps(opened)
    assert CANARY in decode_report(body).description


@pytest.mark.parametrize("answer", ["", "s", "y", "yes", "SEND", "send it", "C-c", "C-d"])
def test_nothing_but_the_word_sends_it(desk: Desk, service: Service, answer: str) -> None:
    """A key, a yes and a bare Enter send nothing, and the session goes on."""
    terminal = desk.terminal
    desk.start(**reach(service))
    terminal.wait(READY)
    terminal.type("/bug " + CANARY)
    for count in (1, 2):
        terminal.wait(ASKED, times=count)
        terminal.type("no")
    terminal.wait(SEND)
    if answer.startswith("C-"):
        terminal.press(answer)
        terminal.wait("interrupted" if answer == "C-c" else "Nothing more is sent.")
    else:
        terminal.type(answer)
        terminal.wait("Nothing was sent.")
    terminal.type("rehearse greet")
    terminal.wait("tokens in")
    assert held(service.home) == {}


def test_control_where_another_word_sends_it(desk: Desk, service: Service) -> None:
    """Control: with `yes` for the word, the same answer sends it."""
    changes = desk.folder / "changes"
    changes.mkdir()
    (changes / "sitecustomize.py").write_text(
        "import bailee.agent.terminal.reporting as reporting\nreporting.WORD = 'yes'\n"
    )
    terminal = desk.terminal
    desk.start(**reach(service), PYTHONPATH=str(changes))
    terminal.wait(READY)
    terminal.type("/bug " + CANARY)
    for count in (1, 2):
        terminal.wait(ASKED, times=count)
        terminal.type("no")
    terminal.wait("Type yes to send it")
    terminal.type("yes")
    terminal.wait("Sent: report report-")
    assert len(held(service.home)) == 1


def test_a_long_report_is_shown_in_pages(desk: Desk, service: Service) -> None:
    """Every line of it comes by; `stop` sends nothing."""
    terminal = desk.terminal
    (desk.project / "AGENTS.md").write_text("".join(f"line {number} of many\n" for number in range(120)))
    desk.start(**reach(service))
    terminal.wait(READY)
    terminal.type("/bug " + CANARY)
    for count in (1, 2):
        terminal.wait(ASKED, times=count)
        terminal.type("no")
    terminal.wait("more: Enter goes on, stop leaves it out")
    terminal.type("")
    terminal.wait("more: Enter goes on, stop leaves it out", times=2)
    terminal.type("")
    terminal.wait(ASKED, times=3)
    terminal.type("yes")
    terminal.wait("more: Enter goes on, stop sends nothing")
    terminal.type("stop")
    shown = terminal.wait("Nothing was sent.")
    assert "line 119 of many" in shown
    assert held(service.home) == {}


def test_without_a_person_there_is_none(
    desk: Desk, service: Service, tmp_path: Path, scanner_rules: Path
) -> None:
    """With -p the line is a prompt like any other: the service gets no report."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "BAILEE_STATE": str(desk.folder / "state"),
    }
    key = reach(service)
    whole = environment | key | {"ANTHROPIC_BASE_URL": service.url}
    words = ("code", "--model", "claude-rehearsal-1", "-p", "/bug it is wrong")
    done = run_program(*words, environment=whole, folder=desk.project)
    assert done.returncode == 0, done.stderr
    vault = open_vault(service.home)
    flows = {exchange.flow for exchange in list_exchanges(vault)}
    vault.dispose()
    assert flows == {"messages"}


# --- What forbids it ---


def work_in(
    tmp_path: Path,
    rules: Path,
    environment: dict[str, str] | None = None,
    files: dict[str, Any] | None = None,
) -> Work:
    project = tmp_path / "project"
    if not project.exists():
        make_project(project)
        (tmp_path / "state").mkdir(mode=0o700)
        shutil.copytree(rules, tmp_path / "state" / "cache")
    for name, settings in (files or {}).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings))
    whole = {"HOME": str(tmp_path / "user"), "BAILEE_STATE": str(tmp_path / "state"), **(environment or {})}
    settings = read_settings(directory=project, environment=whole, root=tmp_path / "root")
    return Work(settings, environment=whole, folder=project)


USER = "user/.config/bailee/settings.json"
SWITCHES = ("DISABLE_BUG_COMMAND", "DISABLE_FEEDBACK_COMMAND", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC")
PLACES = {"environment": None, "user": USER, "project": "project/.bailee/settings.json"}


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize("layer", PLACES)
def test_each_switch_is_named_with_its_layer(
    tmp_path: Path, scanner_rules: Path, switch: str, layer: str
) -> None:
    """Off says by what and where, before anything is asked or sent."""
    place = PLACES[layer]
    environment = {} if place else {switch: "1"}
    files = {place: {"env": {switch: "1"}}} if place else {}
    with (
        work_in(tmp_path, scanner_rules, environment, files) as work,
        pytest.raises(Problem, match="bug reports are off") as off,
    ):
        BugReporter(work).ask_offer()
    assert off.value.where == f"{layer}/switch.{switch}"
    assert switch in off.value.what


@pytest.mark.parametrize(
    ("provider", "environment"),
    [
        ("bedrock", {"CLAUDE_CODE_USE_BEDROCK": "1", "AWS_REGION": "eu-west-1"}),
        ("vertex", {"CLAUDE_CODE_USE_VERTEX": "1", "CLOUD_ML_REGION": "europe-west1"}),
    ],
)
def test_a_provider_default_is_named(
    tmp_path: Path, scanner_rules: Path, provider: str, environment: dict[str, str]
) -> None:
    """On Bedrock and Vertex reports are off by default."""
    with work_in(tmp_path, scanner_rules, environment) as work, pytest.raises(Problem) as off:
        BugReporter(work).ask_offer()
    assert off.value.where == f"provider/default.{provider}"


def test_control_without_a_switch_it_is_on(tmp_path: Path, scanner_rules: Path, service: Service) -> None:
    """Control: where nothing forbids it the service is asked; without one there is nowhere to send it."""
    with work_in(tmp_path, scanner_rules, reach(service)) as work:
        assert BugReporter(work).ask_offer().retention == "5y"
    with work_in(tmp_path, scanner_rules) as work, pytest.raises(Problem, match="no Bailee service") as told:
        BugReporter(work).ask_offer()
    assert "bailee login" in told.value.fix
    assert "bailee run -- bailee code" in told.value.fix
    assert told.value.fix.startswith("set BAILEE_SERVICE to its address, with a key of that service")


def test_the_service_that_model_traffic_goes_through_is_named_and_not_taken(
    tmp_path: Path, scanner_rules: Path, service: Service
) -> None:
    """With the two variables for the model alone it is said what to set; set so, the service is asked."""
    key = make_key(service.home)
    model = {"ANTHROPIC_BASE_URL": service.url, "ANTHROPIC_AUTH_TOKEN": key}
    with work_in(tmp_path, scanner_rules, model) as work, pytest.raises(Problem) as told:
        BugReporter(work).ask_offer()
    assert told.value.where == "BAILEE_SERVICE"
    assert f"set BAILEE_SERVICE to {service.url}, with a key of that service in ANTHROPIC_AUTH_TOKEN" in (
        told.value.fix
    )
    assert key not in told.value.fix
    with work_in(tmp_path, scanner_rules, model | {"BAILEE_SERVICE": service.url}) as work:
        assert BugReporter(work).ask_offer().allowed


def test_zero_data_retention_is_named(tmp_path: Path, scanner_rules: Path, service: Service) -> None:
    """What only the service knows of the account is said before anything is shown or asked."""
    directory = open_directory(service.home)
    directory.add("zoe", Plan.ENTERPRISE, organization="zeros")
    directory.decide_for_organization("zeros", Kind.ZDR, given=True, by="zoe")
    key = create_key(directory, "zoe")[1]
    directory.close()
    with work_in(tmp_path, scanner_rules, reach(service, key)) as work, pytest.raises(Problem) as off:
        BugReporter(work).ask_offer()
    assert off.value.where == "account/zdr.feedback"
    assert "Zero data retention" in off.value.what


@pytest.mark.parametrize("url", ["http://example.test", "http://127.0.0.1.example.test:80"])
def test_nothing_crosses_the_network_in_clear(tmp_path: Path, scanner_rules: Path, url: str) -> None:
    """A service that is reached beyond this machine without TLS is refused."""
    environment = {"BAILEE_SERVICE": url, "ANTHROPIC_AUTH_TOKEN": "k"}
    with work_in(tmp_path, scanner_rules, environment) as work, pytest.raises(Problem, match="in clear"):
        BugReporter(work).ask_offer()


def test_what_is_no_service_is_told_so(tmp_path: Path, scanner_rules: Path, service: Service) -> None:
    """A key that is none, and an address where nobody answers."""
    with (
        work_in(tmp_path, scanner_rules, reach(service, "none")) as work,
        pytest.raises(Problem, match="key"),
    ):
        BugReporter(work).ask_offer()
    nobody = {"BAILEE_SERVICE": "http://127.0.0.1:9", "ANTHROPIC_AUTH_TOKEN": "k"}
    with work_in(tmp_path, scanner_rules, nobody) as work, pytest.raises(Problem, match="cannot be reached"):
        BugReporter(work).ask_offer()


# --- What is in it ---


MESSAGES = [
    say("mend it", "piped in"),
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "text", "text": "I look"},
            {"type": "tool_use", "id": "toolu_1", "name": "bash", "input": {"command": f"echo {TOKEN}"}},
        ],
    },
    {"role": "user", "content": [result("toolu_1", f"token = {TOKEN}\nas said", is_error=False)]},
    {"role": "user", "content": "as text"},
    {"role": "user", "content": [{"type": "image", "source": {"data": "AAAA"}}]},
]


def test_a_conversation_is_told_whole() -> None:
    """Prompts, answers, calls and results; thinking and images are named, and not sent."""
    first, second, third, fourth, fifth = tell_conversation(MESSAGES)
    assert first == Said("user", (Text("<input>\npiped in\n</input>"), Text("mend it")))
    assert second.blocks == (
        LeftOut("the thinking of the model"),
        Text("I look"),
        Call("bash", {"command": f"echo {TOKEN}"}),
    )
    assert third.blocks == (Result(f"token = {TOKEN}\nas said"),)
    assert (fourth.blocks, fifth.blocks) == ((Text("as text"),), (LeftOut("image"),))


def prepare(work: Work) -> bytes:
    work.conversation.messages = list(MESSAGES)
    reporter = BugReporter(work, fault=f"no such key {TOKEN}")
    attachments = reporter.list_attachments()
    assert [one.attachment.name for one in attachments][:2] == ["last problem", "environment"]
    return reporter.prepare(f"it says {TOKEN}", attachments).body


def test_secrets_are_masked_and_counted(tmp_path: Path, scanner_rules: Path) -> None:
    """In what is described, said, called, answered and attached; the count is in what is sent."""
    with work_in(tmp_path, scanner_rules) as work:
        body = prepare(work)
    assert TOKEN.encode() not in body
    assert sum(decode_report(body).masked.values()) == 4
    assert any("4 secrets were masked" in line for line in tell_report(decode_report(body)))


def test_control_without_masking(
    tmp_path: Path, scanner_rules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: where nothing is masked the same report holds the secret."""
    monkeypatch.setattr("bailee.agent.sessions.recording.SecretMasker.mask", lambda self, value: (value, {}))
    with work_in(tmp_path, scanner_rules) as work:
        assert TOKEN.encode() in prepare(work)


def test_attachments_name_no_person_and_no_folder(tmp_path: Path, scanner_rules: Path) -> None:
    """What the agent adds by itself says neither where the home is nor what the project is called."""
    with work_in(tmp_path, scanner_rules, files={USER: {"maxTokens": 2000}}) as work:
        told = "\n".join(one.attachment.text for one in BugReporter(work).list_attachments())
    assert "maxTokens = 2000 (user)" in told
    assert str(tmp_path) not in told
    assert "project" not in told.replace("(project)", "")


def test_what_nobody_knows_is_not_told_as_refused() -> None:
    """A service that does not answer in time may hold the report: that is what is said."""

    def hang(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        raise TimeoutError("timed out")

    with pytest.raises(Problem, match="may hold the report"):
        send_report(prepare_report(Report(version="1", description="x")), "session", hang)


def test_a_service_paints_no_terminal() -> None:
    """What a service answers is shown as what it is."""

    def answer(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        return 403, json.dumps({"error": "no\x1b[2J", "where": "\x07", "fix": ""}).encode()

    with pytest.raises(Problem) as refused:
        send_report(prepare_report(Report(version="1", description="x")), "session", answer)
    assert (refused.value.what, refused.value.where) == ("no\\x1b[2J", "\\x07")


def test_too_large_a_report_is_refused_with_the_way_out() -> None:
    """More than a service takes is told before it is shown."""
    with pytest.raises(Problem, match=r"has at most 8\.0 MB") as refused:
        prepare_report(
            Report(version="1", description="x", attachments=(Attachment("notes", "x" * 8_000_000),))
        )
    assert "/compact" in refused.value.fix


TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
BLOCKS = st.one_of(
    st.builds(Text, TEXTS),
    st.builds(Call, TEXTS, JSON),
    st.builds(Result, TEXTS, st.booleans()),
    st.builds(LeftOut, st.just("image")),
)
REPORTS = st.builds(
    Report,
    version=st.just("1.0"),
    description=TEXTS,
    conversation=st.lists(
        st.builds(Said, st.sampled_from(["user", "assistant"]), st.lists(BLOCKS, max_size=3).map(tuple)),
        max_size=3,
    ).map(tuple),
    attachments=st.lists(st.builds(Attachment, st.just("notes"), TEXTS), max_size=2).map(tuple),
    masked=st.dictionaries(st.sampled_from(["aws", "github"]), st.integers(1, 9), max_size=2),
)


@given(report=REPORTS)
def test_nothing_is_sent_that_was_not_shown(report: Report) -> None:
    """Whatever a report holds, every line of every text of it is shown, and the bytes hold nothing more."""
    prepared = prepare_report(report)
    assert prepared.report == report
    assert encode_report(prepared.report) == prepared.body
    assert unshown(report, tell_report(prepared.report)) == []


def test_control_what_is_not_shown_is_found() -> None:
    """Control: where an attachment, or a block, is left out of what is shown, the same look finds it."""
    whole = Report(
        version="1.0",
        description="a",
        conversation=(Said("user", (Text("the ruff"), Call("bash", {"command": "the knot"}))),),
        attachments=(Attachment("notes", "the stint"),),
    )
    assert unshown(whole, tell_report(whole)) == []
    bare = msgspec.structs.replace(whole, attachments=(), conversation=())
    assert [line.strip() for line in unshown(whole, tell_report(bare))] == [
        "the stint",
        "the ruff",
        "{",
        '"command": "the knot"',
        "}",
    ]


def unshown(report: Report, lines: Iterator[str]) -> list[str]:
    """Return the lines of a report's texts that are not among those that are shown."""
    shown = "\n".join(lines)
    told = [
        make_visible(line.replace("\t", "    ")) for text in texts_of(report) for line in text.split("\n")
    ]
    return [line for line in told if line not in shown]


def texts_of(report: Report) -> Iterator[str]:
    yield report.description
    for attachment in report.attachments:
        yield attachment.text
    for said in report.conversation:
        for block in said.blocks:
            match block:
                case Text(text) | Result(text):
                    yield text
                case Call(tool, input):
                    assert make_visible(tool) in "\n".join(tell_report(report))
                    yield msgspec.json.format(msgspec.json.encode(input)).decode()
                case _:
                    pass
