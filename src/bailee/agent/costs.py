"""What a conversation costs, by the published prices of its model, where they are known."""

from bailee.agent.events import Usage
from bailee.policy.plans import Provider

_PROVIDERS = {Provider.ANTHROPIC: "anthropic", Provider.BEDROCK: "aws", Provider.VERTEX: "google"}


def tell_tokens(count: int) -> str:
    """Write a number of tokens shortly: `950`, `12.3k`, `1.2M`."""
    if count < 1000:
        return str(count)
    return f"{count / 1000:.1f}k" if count < 999_950 else f"{count / 1_000_000:.1f}M"


def estimate_cost(usage: Usage, model: str, provider: Provider) -> float | None:
    """Return US dollars, or None where no price of the model is known.

    Prices come with the library (genai-prices) and are as old as it is; nothing is fetched.
    """
    try:
        from genai_prices import Usage as Priced
        from genai_prices import calc_price
    except ImportError:
        return None
    # As that library counts, input tokens include those that were read from and written to the cache.
    tokens = Priced(
        input_tokens=usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        output_tokens=usage.output_tokens,
    )
    for provider_id in (_PROVIDERS[provider], "anthropic"):
        try:
            return float(calc_price(tokens, model, provider_id=provider_id).total_price)
        except LookupError:
            continue
    return None
