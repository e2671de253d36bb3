"""The official SDK's clients for each provider, and what they are told of the machine."""

from pathlib import Path

import pytest

from bailee.agent.clients import make_tls_context, open_client
from bailee.agent.costs import estimate_cost
from bailee.agent.events import Usage
from bailee.agent.faults import told_as_problem
from bailee.flows.messages.rehearsal.serving import rehearsing
from bailee.policy.plans import Provider
from bailee.policy.problems import Problem

# Of each provider: how a gateway is named to the agent, with the address left out.
GATEWAYS = {
    Provider.ANTHROPIC: {"ANTHROPIC_BASE_URL": "{url}"},
    Provider.BEDROCK: {"ANTHROPIC_BEDROCK_BASE_URL": "{url}", "CLAUDE_CODE_SKIP_BEDROCK_AUTH": "1"},
    Provider.VERTEX: {
        "ANTHROPIC_VERTEX_BASE_URL": "{url}/v1",
        "CLAUDE_CODE_SKIP_VERTEX_AUTH": "1",
        "CLOUD_ML_REGION": "us-east5",
    },
}


@pytest.mark.parametrize("provider", list(Provider))
def test_each_providers_client_talks_through_a_gateway(provider: Provider) -> None:
    """The Claude API's, Bedrock's and Vertex's format: the answer comes as a stream, in each."""
    with rehearsing() as url:
        environment = {name: value.replace("{url}", url) for name, value in GATEWAYS[provider].items()}
        environment["ANTHROPIC_AUTH_TOKEN"] = "a-key"
        with open_client(provider, environment) as client:
            request = {"role": "user", "content": "rehearse greet"}
            with client.messages.stream(model="claude-x", max_tokens=100, messages=[request]) as stream:  # type: ignore[list-item]
                assert "".join(stream.text_stream).startswith("Hello. I am the rehearsal model")


def test_without_a_credential_it_says_what_to_set() -> None:
    """Nothing is sent without a key, and the way to try it without one is named."""
    with pytest.raises(Problem, match="ANTHROPIC_API_KEY"), open_client(Provider.ANTHROPIC, {}):
        pass


def test_a_model_that_cannot_be_reached_is_told() -> None:
    """The host and what to check are named, and no key."""
    environment = {"ANTHROPIC_BASE_URL": "http://127.0.0.1:1", "ANTHROPIC_API_KEY": "SECRET"}

    def ask() -> None:
        with open_client(Provider.ANTHROPIC, environment) as client, told_as_problem():
            client.with_options(max_retries=0).messages.create(model="m", max_tokens=1, messages=[])

    with pytest.raises(Problem, match="cannot be reached") as caught:
        ask()
    assert caught.value.where == "127.0.0.1"
    assert "SECRET" not in str(caught.value)


def test_a_certificate_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    """A missing or broken file of certificates is an error, and never ignored."""
    broken = tmp_path / "ca.pem"
    broken.write_text("no certificate")
    for path in (broken, tmp_path / "missing.pem"):
        with pytest.raises(Problem, match="NODE_EXTRA_CA_CERTS"):
            make_tls_context({"NODE_EXTRA_CA_CERTS": str(path)})


def test_costs_are_told_where_prices_are_known() -> None:
    """A known model costs something, answers more than questions; an unknown one costs nobody knows what."""
    read, written = Usage(input_tokens=1000), Usage(output_tokens=1000)
    costs = [estimate_cost(usage, "claude-haiku-4-5", Provider.ANTHROPIC) for usage in (read, written)]
    assert costs[0] is not None
    assert costs[1] is not None
    assert 0 < costs[0] < costs[1]
    assert estimate_cost(read, "rehearsal", Provider.ANTHROPIC) is None
