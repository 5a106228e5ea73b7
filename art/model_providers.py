"""OpenAI-compatible endpoints of other models, by litellm's ``"provider/model"`` names.

A judge, or a model that writes scenarios, is asked through the plain openai client; this says
where it is asked, and under which name.
"""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from art._internal.proxies import is_loopback_url
from art.errors import ConfigurationError, MissingAPIKeyError


@dataclass(frozen=True, slots=True)
class Provider:
    """An OpenAI-compatible service.

    Attributes:
        base_url: Its base URL.
        key_variable: The environment variable of its key.
    """

    base_url: str
    key_variable: str


# By litellm's prefixes. The addresses are those of each provider's page on OpenAI compatibility.
PROVIDERS: Mapping[str, Provider] = {
    "anthropic": Provider("https://api.anthropic.com/v1/", "ANTHROPIC_API_KEY"),
    "deepseek": Provider("https://api.deepseek.com", "DEEPSEEK_API_KEY"),
    "fireworks_ai": Provider("https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY"),
    "gemini": Provider(
        "https://generativelanguage.googleapis.com/v1beta/openai/", "GEMINI_API_KEY"
    ),
    "groq": Provider("https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    "mistral": Provider("https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
    "openai": Provider("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "openrouter": Provider("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "together_ai": Provider("https://api.together.xyz/v1", "TOGETHER_API_KEY"),
    "xai": Provider("https://api.x.ai/v1", "XAI_API_KEY"),
}


@dataclass(frozen=True, slots=True)
class AskedModel:
    """A model, and the client to ask it through.

    Attributes:
        client: The client.
        model: The model's name at the client's endpoint.
    """

    client: AsyncOpenAI
    model: str


@asynccontextmanager
async def open_model(
    model: str,
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    client: AsyncOpenAI | None = None,
) -> AsyncIterator[AskedModel]:
    """Open a client of a model's endpoint, closed at the end of the block.

    Args:
        model: With ``client`` or ``base_url``, the model's name there, as it is. Without both,
            ``"provider/model"`` as litellm takes it, such as ``"openai/o3"``; a name without a
            provider is OpenAI's.
        base_url: Base URL of an OpenAI-compatible endpoint.
        api_key: Its key; ``None`` reads the provider's environment variable, or, with
            ``base_url``, ``OPENAI_API_KEY``; a server that asks for no key needs none.
        client: A client to ask through; it stays open. Not with ``base_url`` or ``api_key``.

    Yields:
        The client, and the model's name.

    Raises:
        art.errors.ConfigurationError: The provider is unknown, or ``client`` is given beside one
            of the others.
        art.errors.MissingAPIKeyError: A provider's key is not set.
    """
    if client is not None:
        if base_url is not None or api_key is not None:
            raise ConfigurationError("give a client, or base_url and api_key; not both")
        yield AskedModel(client, model)
        return
    if base_url is None:
        prefix, slash, name = model.partition("/")
        provider = find_provider(prefix if slash else "openai", model)
        model, base_url = name if slash else model, provider.base_url
        api_key = api_key or os.environ.get(provider.key_variable)
        if not api_key:
            raise MissingAPIKeyError(
                f"there is no key for {base_url}: set {provider.key_variable} in the environment, "
                "or pass api_key"
            )
    api_key = api_key or os.environ.get("OPENAI_API_KEY") or "none"
    # A server on this machine is reached directly, whatever proxy the environment names.
    http_client = DefaultAsyncHttpxClient(trust_env=False) if is_loopback_url(base_url) else None
    async with AsyncOpenAI(base_url=base_url, api_key=api_key, http_client=http_client) as opened:
        yield AskedModel(opened, model)


def find_provider(prefix: str, model: str) -> Provider:
    """Look up the provider of a model by litellm's prefix.

    Raises:
        art.errors.ConfigurationError: It is not known here; says how to reach the model anyway.
    """
    if prefix not in PROVIDERS:
        raise ConfigurationError(
            f"the model {model!r} names the provider {prefix!r}, which art does not know (known: "
            f"{', '.join(PROVIDERS)}). Pass base_url of its OpenAI-compatible endpoint and the "
            "model's name there, or a client"
        )
    return PROVIDERS[prefix]
