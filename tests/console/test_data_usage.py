"""What anybody is told leaves this installation, compared with what the service was started with."""

import html
import re
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from bailee.accounts.directory import open_directory
from bailee.manifests import agents, load_manifest
from bailee.pages import LOOPBACK, TLS, Installation
from bailee.policy.plans import Provider
from console.browsers import Visitor
from console.cast import NAMES, Cast, make_people
from counterparts.services import Service, serving

Visit = Callable[..., Visitor]
HOP = "http://127.0.0.1:9"
KEY = {"BAILEE_UPSTREAM_KEY": "sk-of-the-operator"}
AMAZON = {"AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "none"}
TRACKER = {
    "BAILEE_GITHUB_REPOSITORY": "octo/shop",
    "BAILEE_GITHUB_TOKEN": "none",
    "BAILEE_GITHUB_URL": "https://github.example.com/api/v3",
}
PLANS = ("Free", "Pro", "Max", "Team", "Enterprise", "API", "Third-party platform", "Claude Gov")
HOLDER, ADMIN, NOBODY = "the account holder", "an admin, by the partner program", "nobody"
YES, UNDECLARED = "yes, an admin switches it on", "no: the upstream is not declared to retain nothing"


def fetch(service: Service, path: str = "/data-usage") -> str:
    """Return a page as nobody sees it."""
    with urllib.request.urlopen(f"{service.url}{path}", timeout=10) as answer:
        told: str = answer.read().decode()
        return told


def strip(piece: str) -> str:
    """Return the words of a piece of a page."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", piece)).split())


def read_rows(told: str, of: str = "Every flow") -> dict[str, list[str]]:
    """Return the rows of a table: the first cell, and the others."""
    table = told.partition(f'aria-label="{of}">')[2].partition("</table>")[0]
    rows = [
        re.findall(r"(?s)<t[hd]\b[^>]*>(.*?)</t[hd]>", row)
        for row in re.findall(r"(?s)<tr\b[^>]*>(.*?)</tr>", table)
    ]
    return {strip(cells[0]): [strip(cell) for cell in cells[1:]] for cells in rows}


def read_facts(told: str, of: str = "") -> dict[str, str]:
    """Return what the page says at its top, or of one flow in full."""
    section = told.partition(f'id="{of}">')[2].partition("</section>")[0] if of else told
    listed = section.partition('<dl class="facts">')[2].partition("</dl>")[0]
    return {
        strip(name): strip(value)
        for name, value in re.findall(r"(?s)<dt>(.*?)</dt><dd[^>]*>(.*?)</dd>", listed)
    }


def read_plans(told: str) -> tuple[list[str], list[str]]:
    """Return, plan by plan, who may allow training, and whether zero data retention can be had."""
    rows = read_rows(told, "Training, plan by plan, with the upstream of this installation")
    return [rows[plan][0] for plan in PLANS], [rows[plan][1] for plan in PLANS]


def sign_in(home: Path, service: Service, *people: str) -> Cast:
    """Sign some of the cast in."""
    cast = Cast(home, service)
    directory = open_directory(home)
    cast.ids = {person: directory.get(NAMES[person]).id for person in people}
    directory.close()
    cast.tokens = {person: cast.sign_in(person) for person in people}
    return cast


# --- Forwarding ---


@pytest.mark.parametrize("switch", ["BAILEE_DISABLE_FORWARDING", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"])
def test_forwarding_follows_the_switches_of_the_service(switch: str, tmp_path: Path) -> None:
    """Switched off in its environment it is off on every page that tells of it, which names the switch."""
    home = tmp_path / "state"
    make_people(home)
    options = ("--upstream", "rehearsal", "--forward", f"otlp={HOP}/v1")
    with serving(home, tmp_path, *options, environment={switch: "1"}) as service:
        told = fetch(service)
        reason = f"{switch} is set in the environment of the service."
        assert read_facts(told)["Metrics and errors go on to"] == f"nobody. Named is otlp to {HOP}; {reason}"
        assert read_rows(told)["Forwarding"][1] == "off"
        assert read_facts(told, "forwarding")["Here"] == f"off: {reason}"
        assert "Forwarding: off." in told.partition("<desc>")[2]
        cast = sign_in(home, service, "operator", "charlie")
        live = cast.ask("GET", "/console/flows", "operator")[1]
        assert read_rows(live, "The same in numbers")["Forwarding"][1] == "off"
        assert reason in cast.ask("GET", "/console/flows/forwarding", "operator")[1]
        own = cast.ask("GET", "/console/privacy", "charlie")[1]
        assert read_rows(own, "What is taken")["Forwarding"][0] == "off on this service"


def test_forwarding_that_nothing_switches_off_is_told(tmp_path: Path) -> None:
    """It goes on to what the operator named, in clear where that is on this machine."""
    home = tmp_path / "state"
    make_people(home)
    with serving(home, tmp_path, "--upstream", "rehearsal", "--forward", f"otlp={HOP}/v1") as service:
        told = fetch(service)
        assert read_facts(told)["Metrics and errors go on to"] == f"otlp to {HOP}"
        assert read_rows(told)["Forwarding"][:3] == [f"otlp to {HOP}", "on", f"{LOOPBACK} / nothing is kept"]
        cast = sign_in(home, service, "operator", "charlie")
        assert "Nothing goes on just now" not in cast.ask("GET", "/console/flows/forwarding", "operator")[1]
        own = cast.ask("GET", "/console/privacy", "charlie")[1]
        assert read_rows(own, "What is taken")["Forwarding"][0] == "taken"


def test_a_next_hop_elsewhere_is_reached_with_tls(tmp_path: Path) -> None:
    """Of two that are reached differently each is told by itself."""
    options = ("--upstream", "rehearsal", "--forward", f"otlp={HOP}", "--forward", "sentry")
    environment = {
        "BAILEE_FORWARD_SENTRY_DSN": "https://key@sentry.example.com/1",
        "BAILEE_DISABLE_FORWARDING": "1",
    }
    with serving(tmp_path / "state", tmp_path, *options, environment=environment) as service:
        told = read_rows(fetch(service))["Forwarding"]
        assert told[0] == f"otlp to {HOP}, sentry to https://sentry.example.com"
        assert told[2] == f"otlp {LOOPBACK}, sentry {TLS} / nothing is kept"


def test_control_without_what_the_service_decided(tmp_path: Path) -> None:
    """Control: told by the next hop alone, a switched-off forwarding is said to be on."""
    changes = "import bailee.pages as p\np.Installation.decisions = {}\n"
    options = ("--upstream", "rehearsal", "--forward", f"otlp={HOP}/v1")
    environment = {"BAILEE_DISABLE_FORWARDING": "1"}
    home = tmp_path / "state"
    with serving(home, tmp_path, *options, environment=environment, changes=changes) as service:
        assert read_rows(fetch(service))["Forwarding"][1] == "on"


# --- On the way ---


@pytest.mark.parametrize(
    ("has_tls", "console_url", "scheme", "way"),
    [
        (False, "", "http", LOOPBACK),
        (False, "", "https", f"{LOOPBACK}, then {TLS}"),
        (True, "", "https", TLS),
        (True, "https://bailee.example.com", "http", f"{TLS}, then {LOOPBACK}"),
        (False, "https://bailee.example.com", "https", f"{TLS}, then {LOOPBACK}, then {TLS}"),
    ],
)
def test_the_way_is_told_step_by_step(
    has_tls: bool, console_url: str, scheme: str, way: str, tmp_path: Path
) -> None:
    """With a certificate or without, behind a proxy, and to an upstream of either kind."""
    installation = Installation(
        home=tmp_path,
        upstream="compatible",
        upstream_url=f"{scheme}://127.0.0.1",
        upstream_scheme=scheme,
        provider=Provider.ANTHROPIC,
        is_first_party=False,
        retains_nothing=False,
        hops=(),
        tracker="",
        started_ms=0,
        console_url=console_url,
        has_tls=has_tls,
    )
    assert installation.tell_way(f"{scheme}:") == way


# --- Where the model is reached ---


def start_upstream(kind: str, folder: Path, *options: str, changes: str = "") -> str:
    """Return the page of a service with an upstream, which nobody asks for anything."""
    environment = {"bedrock": AMAZON, "rehearsal": {}}.get(kind.partition("=")[0], KEY)
    home = folder / "state"
    with serving(
        home, folder, "--upstream", kind, *options, environment=environment, changes=changes
    ) as service:
        return fetch(service)


def test_through_bedrock_nobody_may_allow_training(tmp_path: Path) -> None:
    """Every plan is treated as a third-party platform; what is off by default there is told by its name."""
    told = start_upstream("bedrock", tmp_path)
    assert read_plans(told) == ([NOBODY] * 8, ["no"] * 3 + [UNDECLARED] * 5)
    facts = read_facts(told)
    assert facts["The model is reached at"] == "Amazon Bedrock"
    assert facts["This service holds it"].startswith("under the terms of a third-party platform")
    assert facts["There it is kept"] == "as its own terms say"
    assert read_facts(told, "metrics")["Here"].startswith(
        "off: Off by default where the model is reached through"
    )
    assert "A consumer" not in " ".join(read_rows(told, "Retention"))


def test_the_rehearsal_model_is_no_providers(tmp_path: Path) -> None:
    """It runs here and keeps nothing, which nobody needs to declare; no partner program reaches it."""
    told = start_upstream("rehearsal", tmp_path)
    assert read_plans(told) == ([HOLDER] * 3 + [NOBODY] * 5, ["no"] * 3 + [YES] * 5)
    assert read_facts(told)["There it is kept"] == "not at all: the model runs here and keeps nothing"
    assert read_facts(told, "metrics")["Here"].startswith("on: On by default with this upstream, as with the")
    assert read_rows(told)["Model traffic"][2] == f"{LOOPBACK} / AES-256-GCM"
    assert "on anthropic" not in told


def test_a_compatible_upstream_has_terms_of_its_own(tmp_path: Path) -> None:
    """The service holds what passes as the account's plan has it; what is done there is not its to say."""
    told = start_upstream("compatible=https://model.example.com", tmp_path)
    assert read_plans(told) == ([HOLDER] * 3 + [NOBODY] * 5, ["no"] * 3 + [UNDECLARED] * 5)
    facts = read_facts(told)
    assert (
        facts["The model is reached at"] == "https://model.example.com, which speaks as the Claude API does"
    )
    assert facts["This service holds it"] == "under the terms of each account's plan"
    assert facts["There it is kept"] == "as its own terms say; nothing on this page binds whoever runs it"
    assert "terms of the" not in told.replace("under the terms of the account", "")
    assert "Zero data retention: no transcript is held." not in read_rows(told, "Retention")


def test_the_claude_api_has_the_partner_program(tmp_path: Path) -> None:
    """There an admin may join it; where the operator declares it, zero data retention can be had."""
    told = start_upstream("anthropic", tmp_path, "--upstream-zero-data-retention")
    assert read_plans(told) == ([HOLDER] * 3 + [ADMIN] * 3 + [NOBODY] * 2, ["no"] * 3 + [YES] * 5)
    assert read_facts(told)["There it is kept"] == "not at all, as the operator of this service declares"
    assert "Zero data retention: no transcript is held." in read_rows(told, "Retention")
    assert "through the Claude API" in read_facts(told, "metrics")["Here"]


def test_control_plans_told_without_the_upstream(tmp_path: Path) -> None:
    """Control: without a look at where the model is reached, training is offered on Bedrock."""
    changes = (
        "import bailee.console.terms as t\noffers = t.offers_training\n"
        "t.offers_training = lambda plan, provider: offers(plan)\n"
    )
    assert read_plans(start_upstream("bedrock", tmp_path, changes=changes))[0][0] == HOLDER


# --- Issues ---


def test_issues_are_opened_where_the_operator_says(tmp_path: Path) -> None:
    """The host and the repository are those that are set."""
    home = tmp_path / "state"
    with serving(home, tmp_path, "--upstream", "rehearsal", environment=TRACKER) as service:
        told = fetch(service)
        wanted = "the Bailee service, then github.example.com for an issue in octo/shop, if asked for"
        assert read_rows(told)["Bug reports"][0] == wanted
        assert read_rows(told)["Bug reports"][2] == f"{LOOPBACK}, then {TLS} / AES-256-GCM"
        assert read_facts(told)["Issues are opened in"] == "octo/shop, through github.example.com"
        assert "api.github.com" not in told.partition('aria-label="Other agents"')[0]


def test_without_a_repository_no_issue_is_opened(tmp_path: Path) -> None:
    """Nor is another host named; without what tells of it, that of the manifest is (control)."""
    told = start_upstream("rehearsal", tmp_path)
    assert read_rows(told)["Bug reports"][0] == "the Bailee service"
    assert read_facts(told)["Issues are opened in"] == "no repository: this service opens none"
    changes = "import bailee.flows.feedback.pages as p\np._tell_tracker = lambda installation: ''\n"
    told = start_upstream("rehearsal", tmp_path / "control", changes=changes)
    assert "api.github.com" in read_rows(told)["Bug reports"][0]


# --- Agents ---


def test_it_is_said_which_agent_a_page_is_about(visit: Visit, cast: Cast) -> None:
    """The page of the installation is that of `bailee code`, and leads to those of all others, which lead
    back.
    """
    page = visit("nobody").go("/data-usage")
    assert "The agent of this page is bailee code" in page.inner_text("main")
    assert read_facts(fetch(cast.service), "metrics")["From"] == "the agent, bailee code"
    for name in agents():
        if name != "bailee":
            title = load_manifest(name).title
            page.click(f".tabs a:has-text('{title}')")
            assert page.url.endswith(f"/data-usage/{name}")
            assert page.inner_text("h1") == f"Data usage: {title}"
            assert page.inner_text(".tabs [aria-current]") == title
    page.click(".tabs a:has-text('bailee code')")
    assert page.url.endswith("/data-usage")


@pytest.mark.parametrize("name", [name for name in agents() if name != "bailee"])
def test_the_page_of_an_agent_has_all_that_its_manifest_declares(name: str, cast: Cast) -> None:
    """Every flow with its data, where it goes by itself, what stops it and what it rests on."""
    told, manifest = fetch(cast.service, f"/data-usage/{name}"), load_manifest(name)
    assert list(read_rows(told))[1:] == [flow.title for flow in manifest.flows]
    words = strip(told)
    for flow in manifest.flows:
        facts = read_facts(told, flow.id.value)
        assert facts["Data"] == flow.what.replace("`", "")
        assert flow.destinations[Provider.ANTHROPIC] in words
        assert " ".join(flow.source.split()) in facts["Rests on"]
        assert all(switch.name in facts["Stop it with"] for switch in flow.switches)
    for file in manifest.settings_files:
        assert file.path in read_rows(told, "Settings files").get(file.layer, [""])[0] or file.path in words
    for variable in manifest.launch.remove:
        assert variable in words
    assert f"bailee explain --agent {name}" in words


def test_an_agent_that_is_led_here_is_told_as_such(cast: Cast) -> None:
    """Its model traffic passes this service, and what `bailee run` switches off is off; one that cannot be
    led goes past, with what it sends by itself.
    """
    told = fetch(cast.service, "/data-usage/claude-code")
    assert "to this service, whose rehearsal model answers" in read_facts(told)["Its model traffic"]
    rows = read_rows(told)
    assert rows["Model traffic"][0] == "the Bailee service, then the rehearsal model in it"
    assert rows["Model traffic"][3] == f"{LOOPBACK} / AES-256-GCM"
    assert rows["Metrics"][1:3] == ["off", "on"]
    assert "the environment that bailee run makes" in read_facts(told, "metrics")["Under bailee run"]
    assert read_rows(fetch(cast.service, "/data-usage/opencode"))["Shared sessions"][1:3] == ["off", "on"]
    told = fetch(cast.service, "/data-usage/codex")
    assert read_facts(told)["Its model traffic"].startswith("Past this service")
    assert read_rows(told)["Model traffic"][0] == "api.openai.com, or chatgpt.com with a login"
    assert read_rows(told)["Metrics"][1:3] == ["on", "on"]


def test_an_agent_that_cannot_be_led_to_the_upstream(tmp_path: Path) -> None:
    """Bedrock's requests aider does not make: nothing of it is held, and its page says so; Claude Code's does
    not (control).
    """
    home = tmp_path / "state"
    with serving(home, tmp_path, "--upstream", "bedrock", environment=AMAZON) as service:
        told = fetch(service, "/data-usage/aider")
        assert "it cannot be led here for Bedrock" in read_facts(told)["Its model traffic"]
        assert read_facts(told)["This service holds"] == "nothing of it"
        assert read_rows(told)["Model traffic"][3] == "as its keeper says"
        told = fetch(service, "/data-usage/claude-code")
        assert "through this service to Amazon Bedrock" in read_facts(told)["Its model traffic"]
        # Started by itself it goes to the Claude API, where all of it is on.
        assert [read_rows(told)[name][2] for name in ("Metrics", "Errors")] == ["on", "on"]


def test_control_an_agent_told_without_the_run(tmp_path: Path) -> None:
    """Control: without what `bailee run` sets, an agent's metrics are said to be on."""
    changes = "import bailee.console.agent_pages as a\na._find_layers = lambda manifest, installation: ()\n"
    home = tmp_path / "state"
    with serving(home, tmp_path, "--upstream", "rehearsal", changes=changes) as service:
        assert read_rows(fetch(service, "/data-usage/claude-code"))["Metrics"][1:3] == ["on", "on"]


def test_of_an_unknown_agent_there_is_no_page(cast: Cast) -> None:
    """Nor of what is no name; our own has the page of the installation."""
    for name in ("cursor", "..", "%2e%2e", "bailee.toml"):
        for person in ("nobody", "charlie"):
            assert cast.ask("GET", f"/data-usage/{name}", person)[0] == 404, name
    status, _, headers = cast.ask("GET", "/data-usage/bailee")
    assert (status, headers["location"]) == (303, "/data-usage")
