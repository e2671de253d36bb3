"""The Bailee service the agent sends to: the one that started it.

Not every address that a model is reached at is a Bailee service: what is declared to go to the service goes
nowhere else, and without one it is not sent.
"""

from collections.abc import Mapping

import msgspec

from bailee.policy.problems import Problem

VARIABLE = "BAILEE_SERVICE"
SECONDS = 10.0
MOST_ANSWERED = 1_000_000  # bytes


class Service(msgspec.Struct, frozen=True):
    """A service, and the key that it knows the user by."""

    url: str
    key: str

    def post(
        self, path: str, body: bytes, environment: Mapping[str, str], *, seconds: float = SECONDS
    ) -> int:
        """Send JSON and return the status; see `exchange`."""
        return self.exchange("POST", path, body, environment, seconds=seconds)[0]

    def exchange(
        self,
        method: str,
        path: str,
        body: bytes,
        environment: Mapping[str, str],
        *,
        seconds: float = SECONDS,
    ) -> tuple[int, bytes]:
        """Send JSON, or nothing, and return the status and what was answered.

        Args:
            seconds: how long to wait for an answer.

        Raises:
            OSError: the service cannot be reached.
        """
        # 60 ms that are needed only where something is sent.
        import http.client
        import urllib.error
        import urllib.request

        from bailee.agent.clients import make_tls_context

        class Unfollowed(urllib.request.HTTPRedirectHandler):
            """A redirect would take the key, and what is sent, elsewhere."""

            def redirect_request(self, *_: object) -> None:
                return None

        headers = {
            "Content-Type": "application/json",
            "User-Agent": "bailee",
            "Authorization": f"Bearer {self.key}",
        }
        request = urllib.request.Request(  # noqa: S310 - the scheme was checked
            self.url.rstrip("/") + path, data=body or None, headers=headers, method=method
        )
        opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=make_tls_context(environment)), Unfollowed
        )
        try:
            with opener.open(request, timeout=seconds) as response:
                return response.status, response.read(MOST_ANSWERED)
        except urllib.error.HTTPError as fault:
            with fault:
                return fault.code, fault.read(MOST_ANSWERED)
        except http.client.HTTPException as fault:
            raise OSError(f"no HTTP was answered: {type(fault).__name__}") from None


def find_service(environment: Mapping[str, str]) -> Service | None:
    """Return the service that started the agent; None where none did.

    Raises:
        Problem: its address is no http or https address.
    """
    url = environment.get(VARIABLE, "")
    if not url:
        return None
    if not url.lower().startswith(("http://", "https://")):
        raise Problem(
            "the service's address is no http or https address",
            where=f"{VARIABLE}={url}",
            fix="write http:// or https:// and the host, or unset it",
        )
    return Service(url, environment.get("ANTHROPIC_AUTH_TOKEN") or environment.get("ANTHROPIC_API_KEY", ""))
