"""The Bailee service the agent sends to: the one that started it, or that it is logged in to.

Not every address that a model is reached at is a Bailee service: what is declared to go to the service goes
nowhere else, and without one it is not sent. Which one it is `account.choose_service` tells.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from bailee.policy.problems import Problem

VARIABLE = "BAILEE_SERVICE"
# Set by `bailee run`, whose services and keys change from run to run: whose the keys are does not.
RUN_ACCOUNT = "BAILEE_RUN_ACCOUNT"
BASE = "ANTHROPIC_BASE_URL"
KEYS = ("ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY")
# How a key of a Bailee service begins.
KEY_START = "bailee_"
SECONDS = 10.0
LARGEST = 1_000_000  # bytes of an answer


class Answer(msgspec.Struct, frozen=True):
    """What a service answered; `tag` is the answer's ETag (RFC 9110, 8.8.3), empty for none."""

    status: int
    body: bytes
    tag: str = ""


class Service(msgspec.Struct, frozen=True):
    """A service, and the key that it knows the user by; empty for none.

    Attributes:
        named_by: what named it, in words.
        account: with `bailee run`, the id of the account that its keys are of.
    """

    url: str
    key: str
    named_by: str = ""
    account: str = ""

    def __repr__(self) -> str:
        return f"Service({self.url!r}, ...)"

    @property
    def place(self) -> str:
        """The address, without credentials that may stand in it."""
        return tell_place(self.url)

    @property
    def recipient(self) -> str:
        """Whose hands something gets into that is sent there: what is meant for one goes to no other."""
        if self.account:
            return f"bailee run, account {self.account}"
        id = key_id(self.key)
        return f"{self.place}, key {id}" if id else self.place

    def post(
        self, path: str, body: bytes, environment: Mapping[str, str], *, seconds: float = SECONDS
    ) -> int:
        """Send JSON and return the status.

        Args:
            seconds: how long to wait for an answer.

        Raises:
            OSError: the service cannot be reached.
        """
        status, _ = self.ask("POST", path, environment, body=body, seconds=seconds)
        return status

    def ask(
        self,
        method: str,
        path: str,
        environment: Mapping[str, str],
        *,
        body: bytes | None = None,
        kind: str = "application/json",
        seconds: float = SECONDS,
        most: int = LARGEST,
    ) -> tuple[int, bytes]:
        """Send a request and return status and body.

        Args:
            kind: what the body is, as a media type.
            seconds: how long the service may be silent.
            most: bytes of the body; what is beyond them is not read.

        Raises:
            OSError: the service cannot be reached.
        """
        answer = self.fetch(method, path, environment, body=body, kind=kind, seconds=seconds, most=most)
        return answer.status, answer.body

    def fetch(
        self,
        method: str,
        path: str,
        environment: Mapping[str, str],
        *,
        body: bytes | None = None,
        kind: str = "application/json",
        seconds: float = SECONDS,
        most: int = LARGEST,
        known: str = "",
    ) -> Answer:
        """Send a request and return the answer with its ETag; see `ask`.

        Args:
            known: the ETag of what is known: the answer is 304 where nothing else is in force.

        Raises:
            OSError: the service cannot be reached.
        """
        # 60 ms that are needed only where something is sent.
        import urllib.error
        import urllib.request
        from http.client import HTTPException

        from bailee.agent.clients import make_tls_context

        class Unfollowed(urllib.request.HTTPRedirectHandler):
            """A redirect would take the key, and what is sent, elsewhere."""

            def redirect_request(self, *_: object) -> None:
                return None

        headers = {"Content-Type": kind, "User-Agent": "bailee"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        if known:
            headers["If-None-Match"] = known
        request = urllib.request.Request(  # noqa: S310 - the scheme was checked
            self.url.rstrip("/") + path, data=body, method=method, headers=headers
        )
        handlers: list[Any] = [Unfollowed]
        if is_plain_here(self.url):
            handlers.append(urllib.request.ProxyHandler({}))
        else:
            handlers.append(urllib.request.HTTPSHandler(context=make_tls_context(environment)))
        opener = urllib.request.build_opener(*handlers)
        try:
            with opener.open(request, timeout=seconds) as response:
                return Answer(response.status, response.read(most), response.headers.get("ETag", ""))
        except urllib.error.HTTPError as fault:
            with fault:
                return Answer(fault.code, fault.read(LARGEST), fault.headers.get("ETag", ""))
        except HTTPException as fault:  # what answers speaks no HTTP, or stops in the middle of it
            raise OSError(f"no answer in HTTP: {type(fault).__name__}") from None


def tell_fault(fault: OSError) -> str:
    """Say why a service could not be reached: urllib wraps what the system said."""
    reason = getattr(fault, "reason", fault)
    return str(getattr(reason, "strerror", None) or reason)


def find_service(environment: Mapping[str, str]) -> Service | None:
    """Return the service that started the agent; None where none did.

    Raises:
        Problem: its address is no http or https address.
    """
    url = environment.get(VARIABLE, "")
    if not url:
        return None
    if not _is_address(url):
        raise Problem(
            "the service's address is no http or https address",
            where=f"{VARIABLE}={url}",
            fix="write http:// or https:// and the host, or unset it",
        )
    return Service(url, find_key(environment), VARIABLE, environment.get(RUN_ACCOUNT, ""))


def find_gateway(environment: Mapping[str, str]) -> Service | None:
    """Return the Bailee service that model traffic goes through by the environment's word; None for none.

    That it is one is told by the key, which has the form of a Bailee service's.
    """
    url, key = environment.get(BASE, ""), find_key(environment)
    return Service(url, key) if key.startswith(KEY_START) and _is_address(url) else None


def find_key(environment: Mapping[str, str]) -> str:
    """Return the credential for the model that the environment names; empty for none."""
    return next((environment[name] for name in KEYS if environment.get(name)), "")


def key_id(key: str) -> str:
    """Return the part of a Bailee service's key that is no secret; empty for another key."""
    parts = key.split("_")
    return parts[1] if key.startswith(KEY_START) and len(parts) == 3 else ""


def tell_place(url: str) -> str:
    """Return scheme, host, port and path of a URL, without credentials and whatever else it says."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url.strip())
        host = parts.netloc.rpartition("@")[2].lower()
    except ValueError:
        return "(an address that cannot be read)"
    return f"{parts.scheme}://{host}{parts.path}".rstrip("/")


def is_same_place(one: str, other: str) -> bool:
    """Tell whether two URLs lead to the same scheme, host and port."""
    try:
        return _origin(one) == _origin(other)
    except ValueError:
        return False


def check_address(url: str, *, where: str) -> str:
    """Return the URL of a service, checked: a token goes there.

    Raises:
        Problem: it is no http or https address, names more than a place, or is plain http to another machine.
    """
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        parts, host = urlsplit(""), ""
    if parts.scheme not in ("http", "https") or not host:
        raise Problem(
            "the service's address is no http or https address",
            where=f"{where} {url}",
            fix="write http:// or https:// and the host",
        )
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise Problem(
            "the service's address holds more than a place",
            where=where,
            fix="write scheme, host and port only",
        )
    if parts.scheme == "http" and not is_loopback(host):
        raise Problem(
            "a token does not go over plain http to another machine",
            where=f"{where} {url}",
            fix="use https: `bailee up --tls-certificate`, or a proxy with TLS before it",
        )
    return url.rstrip("/")


def is_plain_here(url: str) -> bool:
    """Tell whether a URL is plain http on this machine: no proxy, which may be elsewhere, goes between."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        return parts.scheme == "http" and is_loopback(parts.hostname or "")
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine by its name or address alone."""
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_address(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))


def _origin(url: str) -> tuple[str, str, int]:
    from urllib.parse import urlsplit

    parts = urlsplit(url.strip())
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    return parts.scheme, parts.hostname or "", port
