"""How requests are authorized for each kind of upstream."""

import asyncio
import hashlib
import hmac
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from anthropic import AnthropicBedrock
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from bailee.flows.messages.rehearsal import Received
from bailee.flows.messages.rehearsal.serving import rehearsing
from bailee.flows.messages.upstreams import Headers, Origin, Request, parse_origin
from bailee.flows.messages.upstreams.anthropic import Anthropic
from bailee.flows.messages.upstreams.bedrock import Bedrock
from bailee.flows.messages.upstreams.compatible import Compatible, Credential
from bailee.flows.messages.upstreams.vertex import Vertex, locate
from bailee.flows.messages.wires import Wire
from bailee.policy.problems import Problem

ACCESS_KEY = "AKIDEXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


def request(target: bytes, *, wire: Wire = Wire.MESSAGES, headers: Headers | None = None) -> Request:
    return Request(
        method=b"POST",
        target=target,
        headers=[(b"Content-Type", b"application/json")] if headers is None else headers,
        body=b'{"messages":[]}',
        wire=wire,
    )


def find(headers: Headers, name: bytes) -> list[bytes]:
    return [value for each, value in headers if each.lower() == name.lower()]


# --- Messages API ---


def test_anthropic_takes_the_operators_key() -> None:
    """Every other header stays in its spelling and order, and the operator's key comes last."""
    sent = [
        (b"Anthropic-Beta", b"a,b"),
        (b"x-API-key", b"the-agents-own"),
        (b"X-Other", b"1"),
        (b"x-other", b"2"),
    ]
    target, headers = asyncio.run(
        Anthropic("sk-operator").authorize(request(b"/v1/messages?beta=true", headers=sent))
    )
    assert target == b"/v1/messages?beta=true"
    assert headers == [sent[0], sent[2], sent[3], (b"x-api-key", b"sk-operator")]


def test_anthropic_is_the_claude_api_unless_told_otherwise() -> None:
    """The default origin is api.anthropic.com by TLS, which promises no zero data retention."""
    upstream = Anthropic("k")
    assert upstream.origin == Origin("https", "api.anthropic.com", 443)
    assert not upstream.zero_data_retention
    assert upstream.wires == {Wire.MESSAGES}


@pytest.mark.parametrize(
    ("credential", "expected"),
    [
        (Credential.API_KEY, [(b"x-api-key", b"k")]),
        (Credential.BEARER, [(b"Authorization", b"Bearer k")]),
        (Credential.NONE, []),
    ],
)
def test_a_compatible_upstream_takes_the_credential_it_is_said_to(
    credential: Credential, expected: Headers
) -> None:
    """The key goes into x-api-key, a bearer, or nowhere; what the agent presented goes nowhere at all."""
    upstream = Compatible(
        parse_origin("http://127.0.0.1:9/proxy/", where="test"), credential=credential, key="k"
    )
    sent = request(b"/v1/messages", headers=[(b"authorization", b"Bearer agent")])
    assert asyncio.run(upstream.authorize(sent)) == (b"/proxy/v1/messages", expected)


@pytest.mark.parametrize("key", ["", "  ", "two words", "line\r\nX-Evil: 1", "schlüssel"])
def test_a_key_that_cannot_be_one_is_refused(key: str) -> None:
    """A missing or impossible key is told at once, with the setting it came from and without its text."""
    with pytest.raises(Problem) as caught:
        Anthropic(key, where="ANTHROPIC_API_KEY")
    assert caught.value.where == "ANTHROPIC_API_KEY"
    assert not key.strip() or key not in str(caught.value)


def test_no_upstream_shows_its_key() -> None:
    """An upstream that ends up in a log or a traceback does not show its key."""
    assert "sk-secret" not in repr(Anthropic("sk-secret"))


# --- Bedrock ---


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Credentials in the environment, and none of the machine's own files in reach."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_BEARER_TOKEN_BEDROCK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def compute_signature(host: str, target: bytes, headers: Headers, body: bytes, *, region: str) -> str:
    """Signature Version 4 from its definition ("Create a signed AWS API request") by hand."""
    [authorization] = find(headers, b"authorization")
    names = authorization.decode().split("SignedHeaders=")[1].split(",")[0].split(";")
    values = {name.decode().lower(): value.decode().strip() for name, value in headers} | {"host": host}
    path, _, query = target.decode().partition("?")
    pairs = sorted(
        (quote(name, safe="-_.~"), quote(value, safe="-_.~"))
        for name, found in parse_qs(query, keep_blank_values=True).items()
        for value in found
    )
    canonical = "\n".join(
        (
            "POST",
            quote(path, safe="/-_.~"),
            "&".join(f"{name}={value}" for name, value in pairs),
            *(f"{name}:{values[name]}" for name in names),
            "",
            ";".join(names),
            hashlib.sha256(body).hexdigest(),
        )
    )
    moment = values["x-amz-date"]
    scope = f"{moment[:8]}/{region}/bedrock/aws4_request"
    text = "\n".join(("AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    key = b"AWS4" + SECRET_KEY.encode()
    for part in (moment[:8], region, "bedrock", "aws4_request", text):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key.hex()


BEDROCK_TARGETS = [
    b"/model/us.anthropic.claude-sonnet-4-5-20250929-v1:0/invoke-with-response-stream",
    b"/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/invoke",
    b"/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fa.b-v1%3A0/invoke",
    b"/model/a/invoke?beta=true&empty=",
]


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize("target", BEDROCK_TARGETS)
def test_a_bedrock_signature_is_the_one_the_definition_gives(target: bytes) -> None:
    """The signature equals one computed from its definition, with `:` and `%3A` kept as they were sent."""
    upstream = Bedrock("us-east-1")
    sent = request(
        target, wire=Wire.BEDROCK, headers=[(b"Content-Type", b"application/json"), (b"X-App", b"cli")]
    )
    signed_target, headers = asyncio.run(upstream.authorize(sent))
    [authorization] = find(headers, b"authorization")
    host = "bedrock-runtime.us-east-1.amazonaws.com"
    expected = compute_signature(host, target, headers, sent.body, region="us-east-1")
    assert signed_target == target
    assert authorization.decode().endswith(f"Signature={expected}")
    assert compute_signature(host, target, headers, sent.body + b" ", region="us-east-1") != expected


def test_the_definition_gives_what_the_official_client_signs() -> None:
    """The computation that checks our signatures also gives the one that the official SDK sends."""
    caught: list[Received] = []
    with rehearsing(recorder=caught.append) as url:
        client = AnthropicBedrock(
            base_url=url, aws_region="eu-west-1", aws_access_key=ACCESS_KEY, aws_secret_key=SECRET_KEY
        )
        with client:
            client.messages.create(
                model="anthropic.claude-v1:0", max_tokens=10, messages=[{"role": "user", "content": "hello"}]
            )
    [sent] = caught
    [host] = find(sent.headers, b"host")
    [authorization] = find(sent.headers, b"authorization")
    headers = [(name, value) for name, value in sent.headers if name != b"host"]
    expected = compute_signature(host.decode(), sent.target, headers, sent.body, region="eu-west-1")
    assert authorization.decode().endswith(f"Signature={expected}")


@pytest.mark.usefixtures("aws")
def test_bedrock_replaces_what_the_agent_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent's own signature and token never reach AWS; a session token of the operator's does, signed."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", "operators-token")
    agents = [
        (b"authorization", b"AWS4-HMAC-SHA256 agent"),
        (b"X-Amz-Date", b"20000101T000000Z"),
        (b"x-amz-security-token", b"agents-token"),
        (b"x-amz-content-sha256", b"0"),
        (b"x-amz-custom", b"kept"),
    ]
    sent = request(b"/model/a/invoke", wire=Wire.BEDROCK, headers=agents)
    _, headers = asyncio.run(Bedrock("us-east-1").authorize(sent))
    [authorization] = find(headers, b"authorization")
    assert find(headers, b"x-amz-security-token") == [b"operators-token"]
    assert len(find(headers, b"x-amz-date")) == 1
    assert b"agent" not in b"".join(value for _, value in headers)
    assert b"x-amz-custom;x-amz-date;x-amz-security-token" in authorization
    assert find(headers, b"host") == []


@pytest.mark.usefixtures("aws")
def test_bedrock_without_credentials_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing in the whole chain the problem tells what to set; nothing unsigned is sent."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(Problem, match="no AWS credentials"):
        asyncio.run(Bedrock("us-east-1").authorize(request(b"/model/a/invoke", wire=Wire.BEDROCK)))


@pytest.mark.usefixtures("aws")
def test_bedrock_with_an_unknown_profile_says_so() -> None:
    """A profile that no file knows is told as such."""
    with pytest.raises(Problem, match="nobody"):
        asyncio.run(
            Bedrock("us-east-1", profile="nobody").authorize(request(b"/model/a/invoke", wire=Wire.BEDROCK))
        )


# --- Vertex ---


class Issuer(ThreadingHTTPServer):
    """A token endpoint on the loopback interface (RFC 7523), which counts what it was asked."""

    lifetime = 3600
    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), IssuerHandler)
        self.asked: list[dict[str, list[str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/token"


class IssuerHandler(BaseHTTPRequestHandler):
    server: Issuer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        self.server.asked.append(parse_qs(body))
        granted = {
            "access_token": f"token-{len(self.server.asked)}",
            "expires_in": self.server.lifetime,
            "token_type": "Bearer",
        }
        refused = {"error": "invalid_grant", "error_description": "the account is disabled"}
        answer = json.dumps(granted if self.server.status == 200 else refused).encode()
        self.send_response(self.server.status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        pass


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    """A running token endpoint."""
    with Issuer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def key_file(tmp_path: Path, issuer: Issuer) -> Path:
    """The key file of a service account whose tokens come from the issuer."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    content = {
        "type": "service_account",
        "project_id": "demo",
        "private_key_id": "1",
        "private_key": pem.decode(),
        "client_email": "service@demo.iam.gserviceaccount.com",
        "token_uri": issuer.url,
    }
    path = tmp_path / "service-account.json"
    path.write_text(json.dumps(content))
    return path


VERTEX_TARGET = b"/v1/projects/p/locations/us-east5/publishers/anthropic/models/m@1:streamRawPredict"


def test_vertex_presents_a_token_of_its_service_account(issuer: Issuer, key_file: Path) -> None:
    """The token comes from the account's issuer for the platform's scope, and replaces the agent's own."""
    sent = request(VERTEX_TARGET, wire=Wire.VERTEX, headers=[(b"authorization", b"Bearer agent")])
    target, headers = asyncio.run(Vertex("us-east5", service_account=key_file).authorize(sent))
    assert target == VERTEX_TARGET
    assert headers == [(b"Authorization", b"Bearer token-1")]
    assert issuer.asked[0]["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]


def test_vertex_uses_application_default_credentials(
    issuer: Issuer, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a key file of its own it finds the credentials as every Google library does."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key_file))
    _, headers = asyncio.run(Vertex("us-east5").authorize(request(VERTEX_TARGET, wire=Wire.VERTEX)))
    assert find(headers, b"authorization") == [b"Bearer token-1"]
    assert len(issuer.asked) == 1


@pytest.mark.parametrize(("lifetime", "times"), [(3600, 1), (60, 2)])
def test_vertex_keeps_a_token_until_it_nears_its_end(
    issuer: Issuer, key_file: Path, lifetime: int, times: int
) -> None:
    """A token of an hour serves many requests at once; one about to expire is renewed before the next."""
    issuer.lifetime = lifetime
    upstream = Vertex("us-east5", service_account=key_file)

    async def many() -> None:
        await upstream.authorize(request(VERTEX_TARGET, wire=Wire.VERTEX))
        await upstream.authorize(request(VERTEX_TARGET, wire=Wire.VERTEX))

    asyncio.run(many())
    assert len(issuer.asked) == times


def test_vertex_asks_once_for_requests_that_come_together(issuer: Issuer, key_file: Path) -> None:
    """Ten requests that find no token cause one renewal, not ten."""
    upstream = Vertex("us-east5", service_account=key_file)

    async def many() -> None:
        await asyncio.gather(
            *(upstream.authorize(request(VERTEX_TARGET, wire=Wire.VERTEX)) for _ in range(10))
        )

    asyncio.run(many())
    assert len(issuer.asked) == 1


def test_vertex_tells_when_its_issuer_refuses(issuer: Issuer, key_file: Path) -> None:
    """A refusal of the issuer is a problem that names the key file and the reason."""
    issuer.status = 400
    with pytest.raises(Problem, match="disabled") as caught:
        asyncio.run(
            Vertex("us-east5", service_account=key_file).authorize(request(VERTEX_TARGET, wire=Wire.VERTEX))
        )
    assert caught.value.where == str(key_file)


def test_vertex_tells_when_its_key_file_is_none(tmp_path: Path) -> None:
    """A file that is missing or no key file is a problem that names the file."""
    for name in ("absent.json", "broken.json"):
        (tmp_path / "broken.json").write_text("{}")
        with pytest.raises(Problem) as caught:
            asyncio.run(
                Vertex("us-east5", service_account=tmp_path / name).authorize(
                    request(VERTEX_TARGET, wire=Wire.VERTEX)
                )
            )
        assert caught.value.where.endswith(name)


def test_vertex_adds_the_version_that_an_agent_left_out(issuer: Issuer, key_file: Path) -> None:
    """A target without an API version gets /v1, which Vertex needs; one that has a version keeps it."""
    upstream = Vertex("us-east5", service_account=key_file)
    bare = VERTEX_TARGET.removeprefix(b"/v1")
    beta = b"/v1beta1" + bare
    assert asyncio.run(upstream.authorize(request(bare, wire=Wire.VERTEX)))[0] == VERTEX_TARGET
    assert asyncio.run(upstream.authorize(request(beta, wire=Wire.VERTEX)))[0] == beta


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("us-east5", "us-east5-aiplatform.googleapis.com"),
        ("global", "aiplatform.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
    ],
)
def test_vertex_has_an_address_for_each_kind_of_location(region: str, host: str) -> None:
    """Regions, multi-regions and the global location have addresses of different form."""
    assert locate(region) == Origin("https", host, 443)
    assert urlsplit(f"https://{locate(region).authority}").hostname == host


# --- Extras ---


@pytest.mark.parametrize(
    ("module", "name", "extra"),
    [("botocore", "bedrock.Bedrock", "bedrock"), ("google.auth", "vertex.Vertex", "vertex")],
)
def test_a_missing_library_names_the_extra_to_install(module: str, name: str, extra: str) -> None:
    """Where the upstream's library is not installed, the problem gives the command that installs it."""
    file, _, kind = name.partition(".")
    program = f"""
import sys
sys.modules[{module!r}] = None
from bailee.flows.messages.upstreams.{file} import {kind}
from bailee.policy.problems import Problem
try:
    {kind}("us-east5")
except Problem as problem:
    print(problem.fix)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"pip install 'bailee[{extra}]'"


@pytest.mark.parametrize("upstream", [Bedrock, Vertex])
def test_a_region_is_needed(upstream: type[Bedrock] | type[Vertex]) -> None:
    """An upstream that is reached by region refuses to be made without one."""
    with pytest.raises(Problem, match="needs a"):
        upstream(" ")


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    """The modules of the upstreams alone import neither botocore nor google-auth."""
    program = """
import sys
import bailee.flows.messages.upstreams.bedrock, bailee.flows.messages.upstreams.vertex
print([name for name in ("botocore", "google.auth", "requests") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
