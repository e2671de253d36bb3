"""Clients of the model: the official SDK's, for the Claude API, Bedrock, Vertex, a gateway, or a rehearsal.

They are imported when the first prompt is sent, not when the agent starts: the SDK alone takes 0.7 s.
"""

import contextlib
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from bailee.policy.plans import Provider
from bailee.policy.problems import Problem
from bailee.policy.switches import TRUE

if TYPE_CHECKING:
    import ssl

    from anthropic import Anthropic

REHEARSAL = "rehearsal"
SECONDS = 600.0  # without a byte; the API sends a ping every few seconds
RETRIES = 4
# What the extra brings and nothing else does; one of them missing is all of it missing.
_LIBRARIES = ("anthropic", "prompt_toolkit")


def require_libraries() -> None:
    """Raise Problem where the agent's libraries are not installed; none of them is imported by that."""
    if any(_is_missing(name) for name in _LIBRARIES):
        raise Problem(
            "the agent's libraries are not installed",
            where=", ".join(_LIBRARIES),
            fix="install them, in a clone: pip install '.[agent]'",
        )


def _is_missing(name: str) -> bool:
    try:
        return find_spec(name) is None
    except ValueError:  # its place among the loaded modules is taken by nothing
        return True


@contextlib.contextmanager
def open_client(
    provider: Provider, environment: Mapping[str, str], *, is_direct: bool = False
) -> Iterator["Anthropic"]:
    """Give a client for a provider; what it needs comes from the environment, as the official SDKs read it.

    Args:
        is_direct: no proxy of the environment's stands between.

    Raises:
        Problem: a credential is missing, or a certificate that is named.
    """
    import anthropic

    http = anthropic.DefaultHttpxClient(
        verify=make_tls_context(environment), timeout=SECONDS, trust_env=not is_direct
    )
    shared: dict[str, Any] = {"http_client": http, "max_retries": RETRIES, "timeout": SECONDS}
    make = {Provider.ANTHROPIC: _anthropic, Provider.BEDROCK: _bedrock, Provider.VERTEX: _vertex}[provider]
    with http:
        try:
            yield make(environment, shared)
        except (anthropic.AnthropicError, ValueError, ImportError) as fault:
            if isinstance(fault, anthropic.APIError):
                raise
            raise Problem(
                f"no client for {provider}: {fault}", fix="see docs/agent.md, Models and providers"
            ) from None


@contextlib.contextmanager
def rehearsing() -> Iterator["Anthropic"]:
    """Give a client of the rehearsal model, which runs in this process and costs nothing."""
    import anthropic

    from bailee.flows.messages.rehearsal.serving import rehearsing as serving

    with serving() as url, anthropic.DefaultHttpxClient(trust_env=False) as http:
        yield anthropic.Anthropic(base_url=url, api_key="rehearsal", http_client=http)


def _anthropic(environment: Mapping[str, str], shared: dict[str, Any]) -> "Anthropic":
    import anthropic

    key, bearer = environment.get("ANTHROPIC_API_KEY"), environment.get("ANTHROPIC_AUTH_TOKEN")
    base = environment.get("ANTHROPIC_BASE_URL")
    if not (key or bearer):
        raise Problem(
            "there is no credential for the model",
            where="ANTHROPIC_API_KEY, ANTHROPIC_AUTH_TOKEN",
            fix="set one, log in to a Bailee service: bailee login (its token goes to no other "
            "ANTHROPIC_BASE_URL), or try without any: bailee code --model rehearsal",
        )
    return anthropic.Anthropic(base_url=base or None, api_key=key, auth_token=bearer, **shared)


def _bedrock(environment: Mapping[str, str], shared: dict[str, Any]) -> Any:
    from anthropic import AnthropicBedrock

    base = environment.get("ANTHROPIC_BEDROCK_BASE_URL") or environment.get("BEDROCK_BASE_URL")
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
    if _is_skipped(environment, "CLAUDE_CODE_SKIP_BEDROCK_AUTH"):
        # A gateway signs for us and knows us by its own key.
        bearer = environment.get("ANTHROPIC_AUTH_TOKEN") or environment.get("ANTHROPIC_API_KEY")
        return AnthropicBedrock(aws_region=region or "us-east-1", api_key=bearer, base_url=base, **shared)
    return AnthropicBedrock(aws_region=region, base_url=base, **shared)


def _vertex(environment: Mapping[str, str], shared: dict[str, Any]) -> Any:
    from anthropic import AnthropicVertex

    base = environment.get("ANTHROPIC_VERTEX_BASE_URL")
    project = environment.get("ANTHROPIC_VERTEX_PROJECT_ID")
    region = environment.get("CLOUD_ML_REGION", "")
    options: dict[str, Any] = {"project_id": project} if project else {}
    if _is_skipped(environment, "CLAUDE_CODE_SKIP_VERTEX_AUTH"):
        bearer = environment.get("ANTHROPIC_AUTH_TOKEN") or environment.get("ANTHROPIC_API_KEY")
        # Without one Google's library would look for credentials all the same.
        options |= {"access_token": bearer or "none", "project_id": project or "gateway"}
    return AnthropicVertex(region=region or "global", base_url=base, **options, **shared)


def _is_skipped(environment: Mapping[str, str], name: str) -> bool:
    return environment.get(name, "").strip().lower() in TRUE


def make_tls_context(environment: Mapping[str, str]) -> "ssl.SSLContext":
    """Return what servers are checked against, with the certificates of the user's own authority.

    `SSL_CERT_FILE` and `SSL_CERT_DIR` take the place of the system's; `NODE_EXTRA_CA_CERTS` adds to them;
    `CLAUDE_CODE_CLIENT_CERT` and `_KEY` are what this client shows of itself.

    Raises:
        Problem: a file named there cannot be read.
    """
    import ssl

    context = ssl.create_default_context()  # OpenSSL reads SSL_CERT_FILE and SSL_CERT_DIR itself
    if not (environment.get("SSL_CERT_FILE") or environment.get("SSL_CERT_DIR")):
        import certifi

        context.load_verify_locations(certifi.where())
    name = "NODE_EXTRA_CA_CERTS"
    try:
        if extra := environment.get(name):
            context.load_verify_locations(extra)
        name = "CLAUDE_CODE_CLIENT_CERT"
        if certificate := environment.get(name):
            key = environment.get("CLAUDE_CODE_CLIENT_KEY") or None
            password = environment.get("CLAUDE_CODE_CLIENT_KEY_PASSPHRASE") or None
            context.load_cert_chain(certificate, key, password)
    except (OSError, ssl.SSLError) as fault:
        reason = fault.strerror if isinstance(fault, OSError) and fault.strerror else fault
        raise Problem(
            f"a certificate cannot be used: {reason}",
            where=f"{name}={environment.get(name)}",
            fix="name a readable file in PEM form, or unset it",
        ) from None
    return context
