"""Costs of requests to other models: the tokens that a response reports, by their prices.

art has no table of prices, since they change: an endpoint that reports its own cost is believed,
and the price of any other model is registered (``MetricsBuilder.register_model_pricing``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from art.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class TokenPricing:
    """Prices of a model's tokens, in US dollars per million.

    Attributes:
        prompt_per_million: Tokens of the prompt.
        completion_per_million: Tokens of the completion.
        cached_prompt_per_million: Tokens of the prompt that a cache held, of OpenAI's dialect;
            ``None`` is ``prompt_per_million``, here and below.
        cache_creation_per_million: Tokens put into a cache, of Anthropic's dialect.
        cache_read_per_million: Tokens that a cache held, of Anthropic's dialect.
    """

    prompt_per_million: float
    completion_per_million: float
    cached_prompt_per_million: float | None = None
    cache_creation_per_million: float | None = None
    cache_read_per_million: float | None = None


def tokens_to_cost(num_tokens: float, price_per_million: float) -> float:
    """Price tokens.

    Args:
        num_tokens: How many.
        price_per_million: US dollars per million of them.

    Returns:
        US dollars.
    """
    return num_tokens * price_per_million / 1_000_000


def reported_cost(response: Any) -> float | None:
    """Read the cost that a response reports itself, as OpenRouter's do in ``usage.cost``.

    Args:
        response: A response of openai's or anthropic's client, or its JSON.

    Returns:
        US dollars; ``None`` where it reports none.
    """
    cost = _field(_field(response, "usage"), "cost")
    return float(cost) if isinstance(cost, int | float) and not isinstance(cost, bool) else None


def token_cost(response: Any, provider: str, pricing: TokenPricing) -> float | None:
    """Price the tokens that a response reports.

    Args:
        response: A response of openai's or anthropic's client, or its JSON.
        provider: ``"anthropic"`` for Anthropic's dialect of ``usage``; OpenAI's for any other.
        pricing: The prices.

    Returns:
        US dollars; ``None`` where the response has no ``usage``.
    """
    usage = _field(response, "usage")
    if usage is None:
        return None
    prompt = pricing.prompt_per_million
    if provider == "anthropic":
        counted = [
            ("input_tokens", prompt),
            ("cache_creation_input_tokens", _or(pricing.cache_creation_per_million, prompt)),
            ("cache_read_input_tokens", _or(pricing.cache_read_per_million, prompt)),
            ("output_tokens", pricing.completion_per_million),
        ]
        return sum(tokens_to_cost(_count(usage, name), price) for name, price in counted)
    total = _count(usage, "prompt_tokens")
    # OpenAI counts cached tokens among those of the prompt; Anthropic beside them.
    cached = min(_count(_field(usage, "prompt_tokens_details"), "cached_tokens"), total)
    return (
        tokens_to_cost(total - cached, prompt)
        + tokens_to_cost(cached, _or(pricing.cached_prompt_per_million, prompt))
        + tokens_to_cost(_count(usage, "completion_tokens"), pricing.completion_per_million)
    )


def _or(price: float | None, otherwise: float) -> float:
    return otherwise if price is None else price


def _field(container: Any, name: str) -> Any:
    # Each client has response types of its own.
    return container.get(name) if isinstance(container, Mapping) else getattr(container, name, None)


def _count(usage: Any, name: str) -> float:
    count = _field(usage, name)
    if count is None:
        return 0.0
    if not isinstance(count, int | float) or count < 0:
        raise ConfigurationError(f"the response's usage has {name}={count!r}, which is no count")
    return float(count)
