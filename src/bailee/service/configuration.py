"""What `bailee up` is told, checked before anything starts."""

import ipaddress
import ssl
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from bailee.flows.messages.upstreams import Origin, Upstream, is_written, parse_origin
from bailee.policy.problems import Problem

UPSTREAMS = ("anthropic", "bedrock", "vertex", "compatible", "rehearsal")


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one service.

    Attributes:
        upstream: one of UPSTREAMS.
        upstream_url: another address of the upstream; needed for `compatible`.
        upstream_credential: how a `compatible` upstream is given its key: x-api-key, bearer or none.
        zero_data_retention: the operator's declaration that the upstream, as configured, retains nothing.
        otlp_grpc: the port for OTLP over gRPC, 0 for a free one; None to leave it out.
        forward: next hops, see `flows.forwarding.hops.read_hops`.
        intake_rate: how many requests a second a key may send of metrics, and as many of errors.
        while_used: end once no `bailee run` uses the service.
    """

    home: Path
    host: str = "127.0.0.1"
    port: int = 8787
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    upstream: str = "anthropic"
    upstream_url: str = ""
    upstream_credential: str = "x-api-key"
    upstream_ca: Path | None = None
    upstream_certificate: Path | None = None
    upstream_certificate_key: Path | None = None
    zero_data_retention: bool = False
    otlp_grpc: int | None = None
    forward: tuple[str, ...] = ()
    intake_rate: float = 100.0
    while_used: bool = False


def check(configuration: Configuration) -> Configuration:
    """Return the configuration unchanged.

    Raises:
        Problem: it listens beyond this machine without TLS, names half a certificate or one that cannot be
            used, an unknown upstream, or a `compatible` one without its URL.
    """
    if (configuration.tls_certificate is None) != (configuration.tls_key is None):
        raise Problem(
            "TLS needs a certificate and its key", where="--tls-certificate, --tls-key", fix="give both"
        )
    if configuration.tls_certificate is not None and configuration.tls_key is not None:
        for option, file in (
            ("--tls-certificate", configuration.tls_certificate),
            ("--tls-key", configuration.tls_key),
        ):
            if not file.is_file():
                raise Problem("there is no such file", where=f"{option} {file}", fix="give the PEM file")
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
                configuration.tls_certificate, configuration.tls_key
            )
        except (OSError, ssl.SSLError) as error:
            raise Problem(
                f"TLS cannot be served with these files: {error}",
                where=f"--tls-certificate {configuration.tls_certificate}, --tls-key {configuration.tls_key}",
                fix="give a PEM certificate chain and its unencrypted PEM key",
            ) from None
    if configuration.tls_certificate is None and not is_loopback(configuration.host):
        raise Problem(
            f"listening on {configuration.host} without TLS would send keys and conversations in clear",
            where="--host",
            fix="give --tls-certificate and --tls-key, or listen on 127.0.0.1",
        )
    if configuration.upstream not in UPSTREAMS:
        raise Problem(
            f"unknown upstream {configuration.upstream!r}",
            where="--upstream",
            fix=f"use one of {', '.join(UPSTREAMS)}",
        )
    if configuration.upstream == "compatible" and not configuration.upstream_url:
        raise Problem(
            "a compatible upstream has no address of its own",
            where="--upstream",
            fix="write --upstream compatible=https://HOST",
        )
    if configuration.upstream_url:
        origin = parse_origin(configuration.upstream_url, where="--upstream")
        if origin.scheme == "http" and not is_loopback(origin.host):
            raise Problem(
                f"conversations would cross to {origin.host} in clear, and the upstream's key with them",
                where=f"--upstream {configuration.upstream}={configuration.upstream_url}",
                fix="give an https:// URL; http:// is for this machine only",
            )
    if configuration.upstream == "rehearsal" and configuration.upstream_ca is not None:
        raise Problem(
            "the rehearsal model runs in the service and is reached without TLS",
            where="--upstream-ca",
            fix="leave it out",
        )
    if configuration.upstream == "rehearsal" and configuration.upstream_url:
        raise Problem(
            "the rehearsal model runs in the service and has no URL",
            where="--upstream",
            fix="leave out the URL",
        )
    if (configuration.upstream_certificate is None) != (configuration.upstream_certificate_key is None):
        raise Problem(
            "a client certificate needs its key",
            where="--upstream-certificate, --upstream-certificate-key",
            fix="give both",
        )
    return configuration


def is_loopback(host: str) -> bool:
    """Tell whether an address to listen on can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def make_upstream(
    configuration: Configuration, environment: Mapping[str, str], rehearsal: Origin | None
) -> Upstream:
    """Make the configured upstream; credentials come from the environment and are never on a command line.

    Args:
        rehearsal: where the service's own rehearsal model listens, if that is the upstream.

    Raises:
        Problem: a key, a region or an extra is missing.
    """
    declared = configuration.zero_data_retention
    url = configuration.upstream_url
    origin = parse_origin(url, where="--upstream") if url else None
    match configuration.upstream:
        case "rehearsal":
            from bailee.flows.messages.upstreams.compatible import Compatible
            from bailee.flows.messages.wires import Wire

            assert rehearsal is not None
            # It runs in this very process and keeps nothing: the one upstream whose declaration is a fact.
            return Compatible(rehearsal, name="rehearsal", zero_data_retention=True, wires=frozenset(Wire))
        case "compatible":
            from bailee.flows.messages.upstreams.compatible import Compatible, Credential

            assert origin is not None
            credential = Credential(configuration.upstream_credential)
            key = environment.get("BAILEE_UPSTREAM_KEY", "")
            return Compatible(
                origin,
                credential=credential,
                key=key,
                zero_data_retention=declared,
                where="BAILEE_UPSTREAM_KEY",
            )
        case "bedrock":
            from bailee.flows.messages.upstreams.bedrock import Bedrock

            region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION", "")
            profile = environment.get("AWS_PROFILE", "")
            return Bedrock(region, profile=profile, origin=origin, zero_data_retention=declared)
        case "vertex":
            from bailee.flows.messages.upstreams.vertex import Vertex

            region = environment.get("CLOUD_ML_REGION", "")
            return Vertex(region, origin=origin, zero_data_retention=declared)
        case _:
            from bailee.flows.messages.upstreams.anthropic import ORIGIN, Anthropic

            where = "BAILEE_UPSTREAM_KEY" if environment.get("BAILEE_UPSTREAM_KEY") else "ANTHROPIC_API_KEY"
            key = environment.get(where, "")
            return Anthropic(key, origin=origin or ORIGIN, zero_data_retention=declared, where=where)


def make_tls(configuration: Configuration, origin: Origin) -> ssl.SSLContext | None:
    """Make the context for an https upstream: the system's trust anchors, the operator's own CA beside them.

    SSL_CERT_FILE and SSL_CERT_DIR replace the system's anchors (OpenSSL's own rule).

    Raises:
        Problem: a CA or client certificate file cannot be used.
    """
    if origin.scheme != "https":
        return None
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    if configuration.upstream_ca is not None:
        try:
            context.load_verify_locations(configuration.upstream_ca)
        except (OSError, ssl.SSLError) as error:
            raise Problem(
                f"the CA file cannot be used: {error}",
                where=f"--upstream-ca {configuration.upstream_ca}",
                fix="give a file of PEM certificates",
            ) from None
    if configuration.upstream_certificate is not None:
        try:
            context.load_cert_chain(
                configuration.upstream_certificate, configuration.upstream_certificate_key
            )
        except (OSError, ssl.SSLError) as error:
            raise Problem(
                f"the client certificate cannot be used: {error}",
                where=f"--upstream-certificate {configuration.upstream_certificate}",
                fix="give a PEM certificate and its unencrypted PEM key",
            ) from None
    return context


def find_proxy(origin: Origin, environment: Mapping[str, str]) -> str | None:
    """Return the proxy for an origin by HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY, lower case first.

    NO_PROXY may be separated by commas or spaces and matches as the standard library does it: `*`,
    a host, a domain and all below it, with or without a port.

    Raises:
        Problem: the proxy is not an http:// or https:// URL.
    """
    names = (f"{origin.scheme}_proxy", f"{origin.scheme}_proxy".upper(), "all_proxy", "ALL_PROXY")
    where = next((name for name in names if environment.get(name)), "")
    if not where:
        return None
    proxy = environment[where]
    exempt = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    listed = ",".join(exempt.replace(",", " ").split())
    host = f"{origin.host}:{origin.port}"
    if urllib.request.proxy_bypass_environment(host, {"no": listed}):  # type: ignore[attr-defined]
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    if not proxy.startswith(("http://", "https://")):
        raise Problem(
            "the proxy is not an HTTP proxy",
            where=where,
            fix="give an http:// or https:// URL; SOCKS is not supported",
        )
    try:
        is_address = is_written(proxy) and bool(urlsplit(proxy).hostname) and urlsplit(proxy).port != 0
    except ValueError:
        is_address = False
    if not is_address:
        raise Problem("the proxy has no address", where=where, fix="give http://HOST:PORT")
    return proxy
