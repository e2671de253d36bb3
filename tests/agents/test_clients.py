"""The official SDK's clients, each in its own way, through the service."""

import asyncio
from collections.abc import Iterator

import anthropic
import pytest

from counterparts.holdings import make_key, read_exchanges
from counterparts.services import Service, serving

ASKED = [{"role": "user", "content": "rehearse greet"}]
MODEL = "claude-rehearsal"
SAID = "Hello. I am the rehearsal model, and this is all of my answer."


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Give a service with the rehearsal model."""
    folder = tmp_path_factory.mktemp("clients")
    with serving(folder / "state", folder, "--upstream", "rehearsal") as running:
        yield running


@pytest.fixture(scope="module")
def key(service: Service) -> str:
    """Give a key."""
    return make_key(service.home)


def test_the_client_and_its_streams(service: Service, key: str) -> None:
    """The synchronous client asks, streams and lists the models."""
    with anthropic.Anthropic(base_url=service.url, api_key=key) as client:
        answer = client.messages.create(model=MODEL, max_tokens=64, messages=ASKED)  # type: ignore[arg-type]
        assert answer.content[0].text == SAID  # type: ignore[union-attr]
        with client.messages.stream(model=MODEL, max_tokens=64, messages=ASKED) as stream:  # type: ignore[arg-type]
            assert "".join(stream.text_stream) == SAID
        assert any("claude" in model.id for model in client.models.list())
        counted = client.messages.count_tokens(model=MODEL, messages=ASKED)  # type: ignore[arg-type]
        assert counted.input_tokens > 0


def test_the_asynchronous_client_asks_many_at_once(service: Service, key: str) -> None:
    """Twenty streams at once, with the key as a bearer token."""

    async def ask() -> list[str]:
        async with anthropic.AsyncAnthropic(base_url=service.url, auth_token=key) as client:

            async def one() -> str:
                async with client.messages.stream(model=MODEL, max_tokens=64, messages=ASKED) as stream:  # type: ignore[arg-type]
                    return await stream.get_final_text()

            return await asyncio.gather(*(one() for _ in range(20)))

    assert asyncio.run(ask()) == [SAID] * 20


def test_the_errors_are_the_sdks_own(service: Service, key: str) -> None:
    """A refusal of the model and one of ours become the exceptions that the SDK has for them."""
    with anthropic.Anthropic(base_url=service.url, api_key=key, max_retries=0) as client:
        for name, kind in (
            ("400", anthropic.BadRequestError),
            ("429", anthropic.RateLimitError),
            ("529", anthropic.InternalServerError),
        ):
            with pytest.raises(kind):
                client.messages.create(
                    model=MODEL,
                    max_tokens=64,
                    messages=[{"role": "user", "content": f"rehearse refuse-{name}"}],
                )
    with (
        anthropic.Anthropic(base_url=service.url, api_key="wrong", max_retries=0) as client,
        pytest.raises(anthropic.AuthenticationError, match="bailee keys create"),
    ):
        client.messages.create(model=MODEL, max_tokens=64, messages=ASKED)  # type: ignore[arg-type]


def test_the_bedrock_client(service: Service, key: str) -> None:
    """It signs with credentials that mean nothing here, and presents our key beside them."""
    with anthropic.AnthropicBedrock(
        base_url=service.url,
        aws_access_key="AKIAEXAMPLE",
        aws_secret_key="none",
        aws_region="us-east-1",
        default_headers={"x-bailee-key": key},
    ) as client:
        answer = client.messages.create(
            model="anthropic.claude-sonnet-4-5-v1:0",
            max_tokens=64,
            messages=ASKED,  # type: ignore[arg-type]
        )
        assert answer.content[0].text == SAID  # type: ignore[union-attr]
        with client.messages.stream(
            model="anthropic.claude-sonnet-4-5-v1:0",
            max_tokens=64,
            messages=ASKED,  # type: ignore[arg-type]
        ) as stream:
            assert stream.get_final_text() == SAID


def test_the_vertex_client(service: Service, key: str) -> None:
    """Its access token is our key."""
    with anthropic.AnthropicVertex(
        base_url=f"{service.url}/v1", region="us-east5", project_id="p", access_token=key
    ) as client:
        answer = client.messages.create(model="claude-rehearsal", max_tokens=64, messages=ASKED)  # type: ignore[arg-type]
        assert answer.content[0].text == SAID  # type: ignore[union-attr]


def test_a_session_named_by_the_client(service: Service, key: str) -> None:
    """`x-bailee-session` names the session that an SDK client's requests belong to."""
    headers = {"x-bailee-session": "my-own-session"}
    with anthropic.Anthropic(base_url=service.url, api_key=key, default_headers=headers) as client:
        client.messages.create(model=MODEL, max_tokens=64, messages=ASKED)  # type: ignore[arg-type]
    assert [one.state for one in read_exchanges(service.home, "my-own-session")] == ["complete"]
