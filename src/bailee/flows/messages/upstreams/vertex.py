"""Claude on Google Vertex AI: an OAuth access token from google-auth, renewed before it expires.

Sources: "Application Default Credentials" and "Locations of generative AI" (Google Cloud documentation).
"""

import asyncio
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

from bailee.flows.messages.upstreams import Headers, Origin, Request
from bailee.flows.messages.wires import Wire
from bailee.policy.plans import Provider
from bailee.policy.problems import Problem

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_VERSIONS = (b"/v1/", b"/v1beta1/")
_CREDENTIALS = frozenset({b"authorization", b"x-api-key", b"x-goog-api-key"})


def locate(region: str) -> Origin:
    """Return the address that serves a location: `global`, the multi-regions `us` and `eu`, or a region."""
    if region == "global":
        return Origin("https", "aiplatform.googleapis.com", 443)
    if region in ("us", "eu"):
        return Origin("https", f"aiplatform.{region}.rep.googleapis.com", 443)
    return Origin("https", f"{region}-aiplatform.googleapis.com", 443)


class Vertex:
    """Vertex AI in one location.

    Args:
        region: such as "us-east5" or "global".
        service_account: the key file of a service account; None = Application Default Credentials.
        origin: another address of the same API.
        zero_data_retention: the operator's declaration for this project.

    Raises:
        Problem: no region, or the `vertex` extra is not installed.
    """

    name = "vertex"
    provider = Provider.VERTEX
    is_first_party = False
    wires = frozenset({Wire.VERTEX})

    def __init__(
        self,
        region: str,
        *,
        service_account: Path | None = None,
        origin: Origin | None = None,
        zero_data_retention: bool = False,
    ) -> None:
        if not region.strip():
            raise Problem(
                "Vertex needs a location", where="CLOUD_ML_REGION", fix="name one, such as us-east5"
            )
        self.region = region.strip()
        self.origin = origin or locate(self.region)
        self.zero_data_retention = zero_data_retention
        self._service_account = service_account
        self._credentials: Any = None
        self._renewing = threading.Lock()
        _load("google.auth.transport.requests")

    async def authorize(self, request: Request) -> tuple[bytes, Headers]:
        """Return the target below the origin's base path and API version, and the headers with a fresh token.

        An agent whose base URL names no version leaves it out of its target; Vertex itself always has one.

        Raises:
            Problem: there are no credentials, or their issuer refused to renew them.
        """
        version = b"" if request.target.startswith(_VERSIONS) else b"/v1"
        token = self._current_token() or await asyncio.to_thread(self._renew)
        headers = [(name, value) for name, value in request.headers if name.lower() not in _CREDENTIALS]
        headers.append((b"Authorization", b"Bearer " + token.encode("ascii")))
        return self.origin.base.encode("ascii") + version + request.target, headers

    def _current_token(self) -> str:
        credentials = self._credentials
        # google-auth calls a token fresh until 3 min 45 s before it expires.
        if (
            credentials is None
            or credentials.token_state is not _load("google.auth.credentials").TokenState.FRESH
        ):
            return ""
        return str(credentials.token)

    def _renew(self) -> str:
        errors = _load("google.auth.exceptions")
        with self._renewing:
            if token := self._current_token():
                return token
            try:
                credentials = self._credentials or self._find_credentials()
                credentials.refresh(_load("google.auth.transport.requests").Request())
            except errors.GoogleAuthError as error:
                raise Problem(
                    f"Google did not give an access token: {error}",
                    where=self._place(),
                    fix="run `gcloud auth application-default login`, or name another service account",
                ) from error
            self._credentials = credentials
            return str(credentials.token)

    def _find_credentials(self) -> Any:
        if self._service_account is None:
            credentials, _ = _load("google.auth").default(scopes=[SCOPE])
            return credentials
        reader = _load("google.oauth2.service_account").Credentials
        try:
            return reader.from_service_account_file(str(self._service_account), scopes=[SCOPE])
        except (OSError, ValueError) as error:
            raise Problem(
                "the key file of the service account cannot be read",
                where=str(self._service_account),
                fix="give the JSON file that Google Cloud made for the service account",
            ) from error

    def _place(self) -> str:
        return str(self._service_account or "Application Default Credentials")


def _load(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise Problem(
            "the upstream vertex needs google-auth and requests, which are not installed",
            where="--upstream vertex",
            fix="pip install 'bailee[vertex]'",
        ) from error
