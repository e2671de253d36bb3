"""Who is let through: keys, zero data retention, formats; and the shape of a refusal."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bailee.accounts.directory import Kind, open_directory
from bailee.accounts.keys import create_key, revoke_key
from bailee.policy.plans import Plan
from counterparts.agents import Agent, exchange, prompt
from counterparts.answers import whole_answer
from counterparts.gates import Gate, open_gate
from counterparts.holdings import find_bytes, read_exchanges
from counterparts.services import clean_environment
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
    directory.engine.dispose()
    assert not gate.upstream.has_visitor()


def test_a_key_revoked_by_another_process_is_refused(gate: Gate) -> None:
    """`bailee keys revoke` in a shell of its own reaches the running service."""
    directory = open_directory(gate.home)
    key, secret = create_key(directory, directory.ensure_default().name)
    directory.engine.dispose()
    command = [sys.executable, "-m", "bailee", "keys", "revoke", key.id, "--home", str(gate.home)]
    subprocess.run(command, check=True, env=clean_environment(gate.home), capture_output=True)
    with gate.connect(secret) as agent:
        agent.ask("never", prompt("never"))
        assert agent.read_answer().status == 401


def switch_on_zero_retention(home: Path) -> str:
    """Make an organization with zero data retention, and a key of its admin."""
    directory = open_directory(home)
    directory.add("zoe", Plan.ENTERPRISE, organization="zeros")
    directory.decide_for_organization("zeros", Kind.ZDR, given=True, by="zoe")
    _, secret = create_key(directory, "zoe")
    directory.engine.dispose()
    return secret


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
