"""Amazon Bedrock: requests signed with AWS Signature Version 4 by botocore.

Sources: "Bedrock Runtime endpoints and quotas", "Create a signed AWS API request" (AWS documentation).
"""

import asyncio
import threading
from importlib import import_module
from typing import Any

from bailee.flows.messages.upstreams import Headers, Origin, Request
from bailee.flows.messages.wires import Wire
from bailee.policy.plans import Provider
from bailee.policy.problems import Problem

SERVICE = "bedrock"
# What a signature covers. The agent's other headers stay out of it: a proxy on the way may touch them.
_SIGNED = frozenset({b"content-type"})
_SIGNED_PREFIX = b"x-amz-"
_REPLACED = frozenset(
    {b"authorization", b"x-api-key", b"x-amz-date", b"x-amz-security-token", b"x-amz-content-sha256"}
)


class Bedrock:
    """Amazon Bedrock Runtime in one region.

    Credentials come from botocore's usual chain (environment, shared files, SSO, container, instance), which
    is asked when the first request is signed, and again when what it gave expires.

    Args:
        region: such as "us-east-1".
        profile: a profile of the shared AWS files; empty = the chain's own choice.
        origin: another address of the same API, such as an interface endpoint.
        zero_data_retention: the operator's declaration for this account and region.

    Raises:
        Problem: no region, or the `bedrock` extra is not installed.
    """

    name = "bedrock"
    provider = Provider.BEDROCK
    is_first_party = False
    wires = frozenset({Wire.BEDROCK})

    def __init__(
        self,
        region: str,
        *,
        profile: str = "",
        origin: Origin | None = None,
        zero_data_retention: bool = False,
    ) -> None:
        if not region.strip():
            raise Problem("Bedrock needs a region", where="AWS_REGION", fix="name one, such as us-east-1")
        self.region = region.strip()
        self.origin = origin or Origin("https", f"bedrock-runtime.{self.region}.amazonaws.com", 443)
        self.zero_data_retention = zero_data_retention
        self._profile = profile
        self._credentials: Any = None
        self._resolving = threading.Lock()
        _load("botocore.auth")

    async def authorize(self, request: Request) -> tuple[bytes, Headers]:
        """Return the target below the origin's base path, and the headers with the signature.

        The signature covers method, target, body, Host, Content-Type and every X-Amz header; so Host has to
        be sent exactly as `origin.authority`, and the target byte for byte as returned: a model's `:` and
        `%3A` are different targets with different signatures.

        Raises:
            Problem: the chain found no credentials or could not renew them.
        """
        # Resolving reads files and may ask the network; hashing 300 KB takes longer than a loop should wait.
        return await asyncio.to_thread(self.sign, request)

    def sign(self, request: Request) -> tuple[bytes, Headers]:
        """Do the work of `authorize`, blocking."""
        target = self.origin.base.encode("ascii") + request.target
        kept = [(name, value) for name, value in request.headers if name.lower() not in _REPLACED]
        covered = {
            name.decode("ascii"): value.decode("latin-1")
            for name, value in kept
            if name.lower() in _SIGNED or name.lower().startswith(_SIGNED_PREFIX)
        }
        covered["Host"] = self.origin.authority
        signed = _load("botocore.awsrequest").AWSRequest(
            method=request.method.decode("ascii"),
            url=f"{self.origin.scheme}://{self.origin.authority}{target.decode('ascii')}",
            data=request.body,
            headers=covered,
        )
        _load("botocore.auth").SigV4Auth(self._find_credentials(), SERVICE, self.region).add_auth(signed)
        added = [
            (name.encode("ascii"), value.encode("latin-1"))
            for name, value in signed.headers.items()
            if name not in covered
        ]
        return target, [*kept, *added]

    def _find_credentials(self) -> Any:
        failure = _load("botocore.exceptions").BotoCoreError
        try:
            with self._resolving:
                if self._credentials is None:
                    session = _load("botocore.session").Session(profile=self._profile or None)
                    self._credentials = session.get_credentials()
                found = self._credentials
            frozen = None if found is None else found.get_frozen_credentials()
        except failure as error:
            raise Problem(
                f"the AWS credentials cannot be used: {error}",
                where="the AWS credential chain",
                fix="sign in again, or name another profile",
            ) from error
        if frozen is None or not frozen.access_key:
            raise Problem(
                "there are no AWS credentials",
                where="the AWS credential chain",
                fix="set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for the service",
            )
        return frozen


def _load(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise Problem(
            "the upstream bedrock needs botocore, which is not installed",
            where="--upstream bedrock",
            fix="pip install 'bailee[bedrock]'",
        ) from error
