"""What an account or an organization refuses is not taken, whatever a client sends."""

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest

from bailee.accounts.directory import open_directory
from bailee.accounts.keys import create_key
from bailee.agent.account import Account, ask_account
from bailee.agent.service import Service as Place
from bailee.manifests import load_manifest
from bailee.policy.decisions import decide
from bailee.policy.flows import FlowId
from bailee.policy.plans import Plan
from counterparts.holdings import read_exchanges, read_transcripts
from counterparts.reports import REPORT, Desk
from counterparts.services import serving

FRAME = {"module": "bailee.agent.work", "function": "answer", "lineno": 3}
RAISED = {"values": [{"type": "ValueError", "stacktrace": {"frames": [FRAME]}}]}
POINT = {"asInt": "1", "attributes": [{"key": "start_type", "value": {"stringValue": "fresh"}}]}
SUM = {"aggregationTemporality": 1, "dataPoints": [POINT]}
COUNT = {"scopeMetrics": [{"metrics": [{"name": "claude_code.session.count", "sum": SUM}]}]}
# Of each flow a request that is taken, and the status that says so.
REQUESTS: dict[FlowId, tuple[str, bytes, int]] = {
    FlowId.METRICS: ("/v1/metrics", json.dumps({"resourceMetrics": [COUNT]}).encode(), 200),
    FlowId.ERRORS: ("/api/1/store/", json.dumps({"exception": RAISED}).encode(), 200),
    FlowId.FEEDBACK: ("/api/sessions/one/feedback", REPORT, 201),
    FlowId.SURVEY: ("/api/survey", b'{"rating":"1","version":"0.1.0"}', 204),
}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Give a service with ada and bob (pro), and zoe and max of the organization acme."""
    folder = tmp_path_factory.mktemp("refusing")
    desk = Desk(folder)
    directory = open_directory(desk.home)
    for name in ("zoe", "max"):
        directory.add(name, Plan.TEAM, organization="acme")
        desk.keys[name] = create_key(directory, name)[1]
    directory.close()
    with serving(desk.home, folder, "--upstream", "rehearsal") as desk.service:
        yield desk


def send(desk: Desk, flow: FlowId, name: str) -> tuple[int, str]:
    """Send what is taken, and return the status and what was answered."""
    path, body, _ = REQUESTS[flow]
    connection = http.client.HTTPConnection(*desk.service.address, timeout=30)
    headers = {"Authorization": f"Bearer {desk.keys[name]}", "Content-Type": "application/json"}
    connection.request("POST", path, body, headers)
    response = connection.getresponse()
    answer = response.status, response.read().decode()
    connection.close()
    return answer


def count(desk: Desk, flow: FlowId) -> int:
    of_flow = {one.id for one in read_exchanges(desk.home) if one.flow == flow}
    return len(of_flow & read_transcripts(desk.home, flow).keys())


def prove(desk: Desk, name: str) -> str:
    """Make the key that proves an account holder."""
    return str(desk.run("keys", "create", "--account", name, "--for-holder").stdout.strip())


@pytest.mark.parametrize("flow", REQUESTS)
def test_what_an_account_refuses_is_not_taken(desk: Desk, flow: FlowId) -> None:
    """It is refused by name and not held; others' is, and what was taken before stays."""
    taken = REQUESTS[flow][2]
    assert send(desk, flow, "ada")[0] == taken
    before = count(desk, flow)
    assert before
    told = desk.run("privacy", "refuse", flow.value, "--account", "ada").stdout
    assert told == f"{flow.value} of ada: refused (it was taken).\n"
    status, answer = send(desk, flow, "ada")
    assert status == 403
    assert f"account/refused.{flow.value}" in answer
    # What was taken before keeps its terms: refusing is no erasure.
    desk.run("retention", "sweep")
    assert count(desk, flow) == before
    assert send(desk, flow, "bob")[0] == taken
    assert count(desk, flow) == before + 1


def test_only_the_account_holder_accepts_again(desk: Desk) -> None:
    """Whoever runs the machine may refuse for an account holder; accepting takes their proof."""
    desk.run("privacy", "refuse", "all", "--account", "bob")
    refused = desk.run("privacy", "accept", "metrics", "--account", "bob", code=2)
    assert "account holder alone" in refused.stderr
    assert send(desk, FlowId.METRICS, "bob")[0] == 403
    proof = prove(desk, "bob")
    desk.run("privacy", "accept", "metrics", "--account", "bob", BAILEE_KEY=proof)
    assert send(desk, FlowId.METRICS, "bob")[0] == 200
    assert send(desk, FlowId.ERRORS, "bob")[0] == 403
    shown = desk.json("privacy", "show", "--account", "bob")
    assert shown["refuses"] == ["errors", "feedback", "survey", "forwarding"]
    assert (
        "Nothing is taken of: errors, feedback, survey, forwarding."
        in desk.run("privacy", "show", "--account", "bob").stdout
    )


def test_an_organization_refuses_for_its_members(desk: Desk) -> None:
    """An admin with a proof does; a member is refused, and so is an admin without; each is ledgered."""
    proof = {name: prove(desk, name) for name in ("zoe", "max")}
    words = ("org", "refuse", "metrics", "--org", "acme", "--as")
    desk.run(*words, "zoe", code=2)
    denied = desk.run(*words, "max", code=2, BAILEE_KEY=proof["max"])
    assert "admin" in denied.stderr
    assert send(desk, FlowId.METRICS, "max")[0] == 200
    desk.run(*words, "zoe", BAILEE_KEY=proof["zoe"])
    status, answer = send(desk, FlowId.METRICS, "max")
    assert status == 403
    assert "organization/refused.metrics" in answer
    entries = [one["entry"] for one in desk.json("ledger", "show", "--limit", "1000")]
    told = [(one["kind"], one["given"]) for one in entries if one.get("consent") == "no_metrics"]
    assert told[-3:] == [("consent_refused", True), ("consent_refused", True), ("consent", True)]
    desk.run("org", "accept", "metrics", "--org", "acme", "--as", "zoe", BAILEE_KEY=proof["zoe"])
    assert send(desk, FlowId.METRICS, "max")[0] == 200


def test_the_agent_knows_and_does_not_send(desk: Desk) -> None:
    """What the service tells of an account makes the agent's own policy refuse, before anything is sent."""
    desk.run("privacy", "refuse", "errors", "--account", "ada")
    known = ask(desk, "ada")
    decision = decide(load_manifest("bailee").flow(FlowId.ERRORS), known.context())
    assert (decision.allowed, decision.decided_by) == (False, "account/refused.errors")


def ask(desk: Desk, name: str) -> Account:
    environment: dict[str, Any] = {}
    return ask_account(Place(desk.service.url, desk.keys[name]), environment, now=1)
