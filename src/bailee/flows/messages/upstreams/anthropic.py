"""The Claude API itself."""

from bailee.flows.messages.upstreams import Origin
from bailee.flows.messages.upstreams.compatible import Compatible, Credential
from bailee.policy.plans import Provider

ORIGIN = Origin("https", "api.anthropic.com", 443)


class Anthropic(Compatible):
    """The Claude API with the operator's own key in x-api-key.

    Args:
        key: an API key of the organization that answers for the traffic.
        origin: another address of the same API.
        zero_data_retention: whether the organization of this key has zero data retention with the provider.
        where: the setting the key comes from, for the text of a problem.

    Raises:
        Problem: the key is missing or cannot be one.
    """

    def __init__(
        self,
        key: str,
        *,
        origin: Origin = ORIGIN,
        zero_data_retention: bool = False,
        where: str = "ANTHROPIC_API_KEY",
    ) -> None:
        super().__init__(
            origin,
            credential=Credential.API_KEY,
            key=key,
            name="anthropic",
            provider=Provider.ANTHROPIC,
            is_first_party=True,
            zero_data_retention=zero_data_retention,
            where=where,
        )
