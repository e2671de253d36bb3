"""The Bailee service the agent sends to: the one that started it, or that it is logged in to.

Not every address that a model is reached at is a Bailee service: what is declared to go to the service goes
nowhere else, and without one it is not sent.
"""

from collections.abc import Mapping

import msgspec

from bailee.policy.problems import Problem

VARIABLE = "BAILEE_SERVICE"
SECONDS = 10.0
LARGEST = 1_000_000  # bytes of an answer


class Service(msgspec.Struct, frozen=True):
    """A service, and the key or token that it knows the user by."""

    url: str
    token: str

    def post(
        self, path: str, body: bytes, environment: Mapping[str, str], *, kind: str = "application/json"
    ) -> int:
        """Send a body and return the status; raises OSError where the service cannot be reached."""
        status, _ = self.ask("POST", path, environment, body=body, kind=kind)
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
    ) -> tuple[int, bytes]:
        """Send a request and return status and body; raises OSError where the service cannot be reached."""
        # 60 ms that are needed only where something is sent.
        import urllib.error
        import urllib.request

        from bailee.agent.clients import make_tls_context

        class Unfollowed(urllib.request.HTTPRedirectHandler):
            """A redirect would take the token, and what is sent, elsewhere."""

            def redirect_request(self, *_: object) -> None:
                return None

        headers = {"Content-Type": kind, "User-Agent": "bailee", "Authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(  # noqa: S310 - the scheme was checked
            self.url.rstrip("/") + path, data=body, method=method, headers=headers
        )
        opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=make_tls_context(environment)), Unfollowed
        )
        try:
            with opener.open(request, timeout=seconds) as response:
                return response.status, response.read(LARGEST)
        except urllib.error.HTTPError as fault:
            with fault:
                return fault.code, fault.read(LARGEST)


def find_service(environment: Mapping[str, str], *, url: str = "", token: str = "") -> Service | None:
    """Return the service; None where there is none.

    Args:
        url, token: of a login.

    Raises:
        Problem: its address is no http or https address.
    """
    if named := environment.get(VARIABLE, ""):
        key = environment.get("ANTHROPIC_AUTH_TOKEN") or environment.get("ANTHROPIC_API_KEY") or token
        found = Service(named, key)
    elif url and token:
        found = Service(url, token)
    else:
        return None
    if not found.url.lower().startswith(("http://", "https://")):
        raise Problem(
            "the service's address is no http or https address",
            where=f"{VARIABLE}={found.url}",
            fix="mend it",
        )
    return found
