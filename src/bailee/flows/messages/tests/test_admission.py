"""Who is let through: keys, zero data retention, formats; and the shape of a refusal."""

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bailee.accounts.directory import open_directory
from bailee.accounts.keys import create_key, revoke_key
from bailee.accounts.people import Kind
from bailee.flows.messages.wires import Wire, recognize_wire
from bailee.policy.plans import Plan
from bailee.vault.reader import list_sessions
from bailee.vault.store import open_vault
from counterparts.agents import Agent, Answer, exchange, prompt
from counterparts.answers import whole_answer
from counterparts.gates import Gate, open_gate
from counterparts.holdings import find_bytes, read_exchanges, wait_until_ended
from counterparts.services import clean_environment, serving
from counterparts.upstreams import Upstream
from counterparts.waiting import wait_for

CANARY = "a-canary-in-the-prompt"


def ask_with(gate: Gate, *headers: str) -> Agent:
    """Send a small request with these headers only."""
    agent = gate.connect()
    lines = ["POST /v1/messages HTTP/1.1", "Host: a", "Content-Length: 2", *headers]
    agent.socket.sendall(("\r\n".join([*lines, "", "{}"])).encode())
    return agent


@pytest.mark.parametrize("form", ["x-api-key: {}", "Authorization: Bearer {}", "authorization: bearer  {} "])
def test_a_key_is_taken_in_every_form_agents_use(gate: Gate, form: str) -> None:
    """SDKs send `x-api-key`, agents behind gateways `Authorization: Bearer`: both are let through."""
    with ask_with(gate, form.format(gate.key)) as agent:
        visit = gate.upstream.accept()
        visit.read_request()
        visit.send(whole_answer("in"))
        assert agent.read_answer().status == 200
        visit.close()


@pytest.mark.parametrize(
    "headers",
    [
        ("x-api-key: sk-ant-another", "Authorization: Bearer {}"),
        ("x-api-key: {}", "Authorization: Bearer another"),
        ("x-bailee-key: {}", "x-api-key: another", "Authorization: Basic YTpi"),
    ],
)
def test_a_key_of_another_beside_ours_does_not_matter(gate: Gate, headers: tuple[str, ...]) -> None:
    """An SDK that finds a key in its user's environment sends that one too; neither reaches the upstream."""
    with ask_with(gate, *[header.format(gate.key) for header in headers]) as agent:
        visit = gate.upstream.accept()
        head, _ = visit.read_request()
        assert b"another" not in head
        assert gate.key.encode() not in head
        visit.send(whole_answer("in"))
        assert agent.read_answer().status == 200
        visit.close()


@pytest.mark.parametrize(
    "header",
    [
        "X-None: 1",
        "x-api-key:",
        "x-api-key: bailee_0000000000000000_" + "0" * 64,
        "x-api-key: {}x",
        "x-api-key: {} {}",
        "Authorization: Basic {}",
        "Authorization: {}",
        "Cookie: x-api-key={}",
    ],
)
def test_nobody_else_gets_in(gate: Gate, header: str) -> None:
    """A missing, wrong or misplaced key is a 401 in the API's shape, and the upstream hears nothing."""
    with ask_with(gate, header.format(gate.key, gate.key)) as agent:
        answer = agent.read_answer()
    assert answer.status == 401
    assert answer.error[0] == "authentication_error"
    assert "bailee keys create" in answer.error[1]
    assert not gate.upstream.has_visitor()


def test_a_revoked_key_is_refused_on_an_open_connection(gate: Gate) -> None:
    """Revoking holds from the next request on, even on a connection that was let through before."""
    directory = open_directory(gate.home)
    key, secret = create_key(directory, directory.ensure_default().name)
    with gate.connect(secret) as agent:
        assert exchange(agent, gate.upstream, "revoked", "before").status == 200
        revoke_key(directory, key.id)
        agent.ask("revoked", prompt("after"))
        assert agent.read_answer().status == 401
    directory.close()
    assert not gate.upstream.has_visitor()


def test_a_key_revoked_by_another_process_is_refused(gate: Gate) -> None:
    """`bailee keys revoke` in a shell of its own reaches the running service."""
    directory = open_directory(gate.home)
    key, secret = create_key(directory, directory.ensure_default().name)
    directory.close()
    command = [sys.executable, "-m", "bailee", "keys", "revoke", key.id, "--home", str(gate.home)]
    subprocess.run(command, check=True, env=clean_environment(gate.home), capture_output=True)
    with gate.connect(secret) as agent:
        agent.ask("never", prompt("never"))
        assert agent.read_answer().status == 401


def revoke_during_upload(gate: Gate) -> int:
    """Send a head, revoke the key, send the body, and return the status of the answer."""
    directory = open_directory(gate.home)
    key, secret = create_key(directory, directory.ensure_default().name)
    body = prompt(CANARY, stream=False)
    with gate.connect(secret) as agent:
        agent.socket.sendall(agent.head(len(body), "slow-upload") + body[:10])
        time.sleep(0.2)
        revoke_key(directory, key.id)
        directory.close()
        agent.socket.sendall(body[10:])
        with contextlib.suppress(TimeoutError):
            visit = gate.upstream.accept(1.0)
            visit.read_request()
            visit.send(whole_answer("late"))
        return agent.read_answer().status


def test_a_key_revoked_during_an_upload_is_refused(gate: Gate) -> None:
    """What was in force as the request began does not let through what is whole only after it ended."""
    assert revoke_during_upload(gate) == 401
    assert read_exchanges(gate.home, "slow-upload") == []


def test_the_check_of_uploads_can_fail(tmp_path: Path) -> None:
    """Negative control: a gateway that asks only once lets the request through."""
    changes = (
        "from bailee.flows.messages.receiver import MessagesProtocol\n"
        "MessagesProtocol._admit_again = lambda self, incoming: incoming.admission\n"
    )
    with open_gate(tmp_path, changes=changes) as opened:
        assert revoke_during_upload(opened) == 200


def test_zero_retention_switched_on_during_an_upload_counts(tmp_path: Path) -> None:
    """Content that was on its way as an organization switched is not forwarded, nor kept."""
    with open_gate(tmp_path) as opened:
        directory = open_directory(opened.home)
        directory.add("zoe", Plan.ENTERPRISE, organization="zeros")
        _, secret = create_key(directory, "zoe")
        body = prompt(CANARY)
        with opened.connect(secret) as agent:
            agent.socket.sendall(agent.head(len(body), "switched") + body[:10])
            time.sleep(0.2)
            directory.decide_for_organization("zeros", Kind.ZDR, given=True, by="zoe")
            directory.close()
            agent.socket.sendall(body[10:])
            assert agent.read_answer().status == 403
        assert not opened.upstream.has_visitor()
        wait_for("the refusal in the record", lambda: read_exchanges(opened.home, "switched"))
        (held,) = read_exchanges(opened.home, "switched")
        assert (held.state, held.is_kept) == ("refused", False)


def test_an_exchange_starts_with_its_head(gate: Gate) -> None:
    """It is dated before the key is looked up, so that what older consents decided never looks newer."""
    body = prompt("slowly", stream=False)
    with gate.connect() as agent:
        agent.socket.sendall(agent.head(len(body), "dated"))
        time.sleep(0.2)
        middle_ms = time.time() * 1000
        time.sleep(0.2)
        agent.socket.sendall(body)
        visit = gate.upstream.accept()
        visit.read_request()
        visit.send(whole_answer("x"))
        assert agent.read_answer().status == 200
        visit.close()
    (held,) = read_exchanges(gate.home, "dated")
    assert held.started_ms < middle_ms


def ask_for_models(gate: Gate, key: str, target: str) -> Answer:
    """Ask for the list of models, with a header of the API and one that is none of it."""
    with gate.connect() as agent:
        lines = [f"GET {target} HTTP/1.1", "Host: a", f"x-api-key: {key}", "anthropic-version: 2023-06-01"]
        agent.socket.sendall("\r\n".join([*lines, f"X-Note: {CANARY}", f"Cookie: {CANARY}", "", ""]).encode())
        with contextlib.suppress(TimeoutError):
            visit = gate.upstream.accept(0.5)
            while b"\r\n\r\n" not in visit.received:
                visit.received += visit.socket.recv(65536)
            visit.send(b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\nX-Got: yes\r\n\r\n{"data":[]}')
            assert CANARY.encode() not in visit.received
            assert b"anthropic-version: 2023-06-01\r\n" in visit.received
            visit.close()
        return agent.read_answer()


@pytest.mark.parametrize(
    "target",
    [
        "/v1/models/../files",
        "/v1/models/..",
        "/v1/models/%2e%2e/files",
        "/v1/models/%2e%2e%2ffiles",
        "/v1/models/a/b",
        "/v1/models/a%20b",
        "/v1/models/",
        "/v1/models?limit=what%20was%20said",
        "/v1/models?limit=" + "a" * 200,
    ],
)
def test_the_list_of_models_is_no_way_elsewhere(gate: Gate, target: str) -> None:
    """A path that leads out of the list, or more than an id or a number, reaches no upstream."""
    assert ask_for_models(gate, gate.key, target).status in (400, 404)


@pytest.mark.parametrize("target", ["/v1/models?limit=5&q=" + CANARY, "/v1/models/claude-x:1"])
def test_the_list_of_models_is_on_record(gate: Gate, target: str) -> None:
    """It is asked for with what the API knows and no more, under a decision, and noted without content."""
    session = "key-" + gate.key.split("_")[1]
    before = len(read_exchanges(gate.home, session))
    assert ask_for_models(gate, gate.key, target).headers["x-got"] == "yes"
    wait_for("the note", lambda: len(read_exchanges(gate.home, session)) > before)
    held = read_exchanges(gate.home, session)[-1]
    assert (held.state, held.status, held.is_kept, held.path) == ("complete", 200, False, "/v1/models")
    assert not find_bytes(gate.home, CANARY.encode())


def test_zero_retention_holds_for_the_list_of_models(gate: Gate) -> None:
    """With an upstream that is not declared to retain nothing, this is refused like any other request."""
    secret = switch_on_zero_retention(gate.home, "models")
    answer = ask_for_models(gate, secret, "/v1/models?limit=5")
    assert (answer.status, answer.error[0]) == (403, "permission_error")
    session = "key-" + secret.split("_")[1]
    wait_for("the refusal in the record", lambda: read_exchanges(gate.home, session))


def test_the_check_of_the_list_can_fail(tmp_path: Path) -> None:
    """Negative control: with refusals taken out, the list is asked for."""
    changes = "from bailee.flows.messages.gateway import Gateway\nGateway.refuse = lambda *arguments: None\n"
    with open_gate(tmp_path, changes=changes) as opened:
        secret = switch_on_zero_retention(opened.home)
        assert ask_for_models(opened, secret, "/v1/models?limit=5").status == 200


@pytest.mark.parametrize("target", ["/model/../invoke", "/model/%2e%2E/invoke", "/model/./invoke"])
def test_a_dot_segment_is_no_model(target: str) -> None:
    """What stands for another path there is no path of model traffic here."""
    assert recognize_wire(target.encode()) is None
    assert recognize_wire(target.replace("/.", "/a.").replace("/%", "/a%").encode()) is Wire.BEDROCK


def switch_on_zero_retention(home: Path, name: str = "zeros") -> str:
    """Make an organization with zero data retention, and a key of its admin."""
    directory = open_directory(home)
    directory.add(f"zoe-{name}", Plan.ENTERPRISE, organization=name)
    directory.decide_for_organization(name, Kind.ZDR, given=True, by=f"zoe-{name}")
    _, secret = create_key(directory, f"zoe-{name}")
    directory.close()
    return secret


@pytest.mark.parametrize(("kind", "trains"), [("anthropic", True), ("compatible", False)])
def test_the_partner_program_covers_the_first_party_api_only(tmp_path: Path, kind: str, trains: bool) -> None:
    """What goes to a server that only speaks like it never trains, whatever the organization joined."""
    home = tmp_path / "state"
    directory = open_directory(home)
    directory.add("zoe", Plan.TEAM, organization="partners")
    directory.decide_for_organization("partners", Kind.DPP, given=True, by="zoe")
    _, secret = create_key(directory, "zoe")
    directory.close()
    with Upstream() as upstream:
        environment = {"BAILEE_UPSTREAM_KEY": "made-up"}
        options = ("--upstream", f"{kind}={upstream.url}")
        with serving(home, tmp_path, *options, environment=environment) as service:
            with Agent(service, secret) as agent:
                assert exchange(agent, upstream, "partner", CANARY).status == 200
            wait_until_ended(home, "partner")
    vault = open_vault(home)
    (session,) = list_sessions(vault)
    vault.dispose()
    assert session.trainable is trains
    rule = "training.dpp" if trains else "training.dpp_not_offered"
    (recorded,) = read_exchanges(home, "partner")
    assert rule in [one["id"] for one in json.loads(recorded.decision)["rules"]]


def test_zero_retention_needs_an_upstream_that_declares_it(gate: Gate) -> None:
    """Under zero data retention nothing goes to an upstream that may retain it; the answer says the fix."""
    secret = switch_on_zero_retention(gate.home)
    with gate.connect(secret) as agent:
        agent.ask("zero", prompt(CANARY))
        answer = agent.read_answer()
    assert answer.status == 403
    kind, message = answer.error
    assert kind == "permission_error"
    assert "--upstream-zero-data-retention" in message
    assert not gate.upstream.has_visitor()

    def recorded() -> bool:
        return bool(read_exchanges(gate.home, "zero"))

    wait_for("the refusal in the record", recorded)
    (held,) = read_exchanges(gate.home, "zero")
    assert (held.state, held.is_kept, held.status) == ("refused", False, 403)
    assert not find_bytes(gate.home, CANARY.encode())


def test_zero_retention_keeps_facts_and_no_content(tmp_path: Path) -> None:
    """With the upstream's declaration the exchange passes; tokens are counted, and no record is written."""
    with open_gate(tmp_path, "--upstream-zero-data-retention") as declared:
        secret = switch_on_zero_retention(declared.home)
        with declared.connect(secret) as agent:
            assert exchange(agent, declared.upstream, "zero", CANARY).is_whole
        (held,) = read_exchanges(declared.home, "zero")
        assert (held.state, held.is_kept) == ("complete", False)
        assert (held.input_tokens, held.output_tokens) == (11, 22)
        assert '"retention":{"unit":"none"' in held.decision
    assert not find_bytes(tmp_path, CANARY.encode())


def test_another_format_is_refused_and_not_translated(gate: Gate) -> None:
    """A Bedrock request to an upstream that speaks Messages is a 400 that names the fix."""
    with gate.connect() as agent:
        path = "/model/anthropic.claude-x/invoke"
        head = f"POST {path} HTTP/1.1\r\nHost: a\r\nX-Api-Key: {gate.key}\r\nContent-Length: 2\r\n\r\n{{}}"
        agent.socket.sendall(head.encode())
        answer = agent.read_answer()
    assert answer.status == 400
    assert "speaks messages" in json.loads(answer.body)["message"]
    assert not gate.upstream.has_visitor()


def test_a_refusal_is_marked_as_ours(gate: Gate) -> None:
    """A header tells our refusal from an upstream's answer of the same status."""
    with ask_with(gate, "x-api-key: wrong") as agent:
        assert agent.read_answer().headers["x-bailee-refused"] == "authentication_error"
