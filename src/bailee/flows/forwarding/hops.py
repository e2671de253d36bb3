"""Next hops: where metrics or errors go on to, as the operator names them."""

import ipaddress
from collections.abc import Iterable, Mapping
from enum import StrEnum
from urllib.parse import SplitResult, urlsplit

import msgspec

from bailee.policy.flows import FlowId
from bailee.policy.problems import Problem

OPTION = "--forward"
OTLP_HEADERS = "BAILEE_FORWARD_OTLP_HEADERS"
STATSIG_KEY = "BAILEE_FORWARD_STATSIG_KEY"
SENTRY_DSN = "BAILEE_FORWARD_SENTRY_DSN"


class Wire(StrEnum):
    """What a next hop speaks."""

    OTLP = "otlp"
    STATSIG = "statsig"
    SENTRY = "sentry"


class NextHop(msgspec.Struct, frozen=True):
    """Where a flow goes on to.

    Attributes:
        url: what a request's path is put after.
        headers: with the credential.
    """

    wire: Wire
    flow: FlowId
    url: str
    headers: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        return f"NextHop({self.wire}, {self.target!r}, ...)"

    @property
    def name(self) -> str:
        """What it is called: there is one of each wire."""
        return self.wire.value

    @property
    def target(self) -> str:
        """Scheme, host and port, which may be told."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"


def read_hops(words: Iterable[str], environment: Mapping[str, str]) -> tuple[NextHop, ...]:
    """Return the next hops that words such as `otlp=URL`, `statsig=URL` and `sentry` name.

    Credentials are taken from the environment. Source of their forms: OpenTelemetry's
    `OTEL_EXPORTER_OTLP_HEADERS`; Sentry developer documentation, "Data Source Name".

    Raises:
        Problem: a word, a URL or a credential cannot be used, or a wire is named twice.
    """
    hops: dict[Wire, NextHop] = {}
    for word in words:
        kind, _, url = word.partition("=")
        where = f"{OPTION} {kind}"
        if kind not in set(Wire):
            raise Problem(
                f"unknown next hop {kind!r}", where=OPTION, fix="use otlp=URL, statsig=URL or sentry"
            )
        wire = Wire(kind)
        if wire in hops:
            raise Problem(f"{kind} is named twice", where=OPTION, fix="there is one next hop of each kind")
        hops[wire] = _READERS[wire](url, environment, where)
    return tuple(hops.values())


def _read_otlp(url: str, environment: Mapping[str, str], where: str) -> NextHop:
    headers = []
    for pair in filter(None, environment.get(OTLP_HEADERS, "").split(",")):
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise Problem("a header is no name=value", where=OTLP_HEADERS, fix="separate headers by commas")
        headers.append((name.strip(), value.strip()))
    return NextHop(Wire.OTLP, FlowId.METRICS, _check_url(url, where), tuple(headers))


def _read_statsig(url: str, environment: Mapping[str, str], where: str) -> NextHop:
    key = environment.get(STATSIG_KEY, "")
    if not key:
        raise Problem("Statsig's key is missing", where=STATSIG_KEY, fix=f"set {STATSIG_KEY}")
    return NextHop(Wire.STATSIG, FlowId.METRICS, _check_url(url, where), (("statsig-api-key", key),))


def _read_sentry(url: str, environment: Mapping[str, str], where: str) -> NextHop:
    if url:
        raise Problem(
            "a DSN holds a key, and has no place on a command line", where=where, fix=f"set {SENTRY_DSN}"
        )
    parts = _split(environment.get(SENTRY_DSN, ""), SENTRY_DSN)
    path, _, project = parts.path.rstrip("/").rpartition("/")
    if not parts.username or not project:
        raise Problem(
            "this is no DSN", where=SENTRY_DSN, fix="write https://KEY@HOST/PROJECT, as Sentry shows it"
        )
    host = parts.netloc.rpartition("@")[2]
    address = _check_url(f"{parts.scheme}://{host}", SENTRY_DSN)
    auth = f"Sentry sentry_version=7, sentry_client=bailee/1, sentry_key={parts.username}"
    return NextHop(Wire.SENTRY, FlowId.ERRORS, f"{address}{path}/api/{project}", (("X-Sentry-Auth", auth),))


_READERS = {Wire.OTLP: _read_otlp, Wire.STATSIG: _read_statsig, Wire.SENTRY: _read_sentry}


def _check_url(url: str, where: str) -> str:
    """Return a URL without a slash at its end.

    Raises:
        Problem: it is none, holds a credential or a query, or leads beyond this machine in clear.
    """
    parts = _split(url, where)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise Problem(
            "the URL holds more than an address",
            where=where,
            fix=f"give scheme, host and path alone; credentials go into {OTLP_HEADERS} or {STATSIG_KEY}",
        )
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        raise Problem(
            "what is forwarded would leave this machine in clear",
            where=where,
            fix="give an https:// URL; http:// is for this machine only",
        )
    return url.rstrip("/")


def _split(url: str, where: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        raise Problem("there is no http:// or https:// URL", where=where, fix="give one")
    return parts


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
