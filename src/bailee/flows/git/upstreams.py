"""The Git hosts behind the proxy: asked with the real credential, which no session sees."""

import base64
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from httpx2 import AsyncClient, Response

CONNECT_SECONDS = 15.0
# A host may think for minutes about a pack before it answers.
QUIET_SECONDS = 600.0
_USER = "x-access-token"  # GitHub's word; GitLab and Gitea take any before a token


class Credential(msgspec.Struct, frozen=True):
    """What opens a repository at its host.

    Attributes:
        secret: a token, or `user:password`.
    """

    secret: str

    def __repr__(self) -> str:
        return "Credential(...)"

    def to_header(self) -> str:
        """Return the value of the Authorization header."""
        pair = self.secret if ":" in self.secret else f"{_USER}:{self.secret}"
        return "Basic " + base64.b64encode(pair.encode()).decode()

    def to_bearer(self) -> str:
        """Return the value of the Authorization header for GitHub's API."""
        return self.to_header() if ":" in self.secret else f"Bearer {self.secret}"


class Upstreams:
    """Asks Git hosts, over TLS as the system trusts it (`SSL_CERT_FILE` included)."""

    def __init__(self) -> None:
        self._client: AsyncClient | None = None

    def _open(self) -> "AsyncClient":
        if self._client is None:
            import ssl

            import httpx2  # 60 ms, for who uses Git through the service

            self._client = httpx2.AsyncClient(
                # A redirect is answered, never followed: a credential put in here goes to its host alone.
                follow_redirects=False,
                timeout=httpx2.Timeout(QUIET_SECONDS, connect=CONNECT_SECONDS),
                verify=ssl.create_default_context(),
            )
        return self._client

    async def ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: AsyncIterator[bytes] | bytes | None = None,
    ) -> "Response":
        """Send a request, and return the answer with its body yet to come; close it.

        Raises:
            OSError: the host cannot be reached, or stopped talking.
        """
        import httpx2

        client = self._open()
        request = client.build_request(method, url, headers=dict(headers), content=body)
        try:
            return await client.send(request, stream=True)
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as fault:
            raise OSError(type(fault).__name__) from None

    async def close(self) -> None:
        """End all connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None
