"""Arguments of litellm's ``completion`` in the terms of the openai client."""

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

from openai import AsyncOpenAI
from openai.resources.chat.completions import AsyncCompletions

from art.errors import ConfigurationError

# What the question itself sets.
_TAKEN = {"self", "messages", "model", "stream", "stream_options", "timeout"}
# litellm's names of what the caller of `ruler` can also say.
_ENDPOINT = {
    "api_base": "base_url",
    "base_url": "base_url",
    "api_key": "api_key",
    "client": "client",
    "timeout": "timeout",
    "num_retries": "max_retries",
    "max_retries": "max_retries",
}
# A model that litellm reaches at `api_base` has one of these prefixes, which the server never sees.
_PREFIXES = ("openai/", "hosted_vllm/")


class JudgeCall(NamedTuple):
    """The way to ask a judge.

    Attributes:
        model: The judge's name; with ``base_url`` or ``client``, as the endpoint knows it.
        base_url: The endpoint's base URL.
        api_key: Its key.
        client: A client to ask through.
        timeout: Seconds for one attempt.
        max_retries: How often to ask again.
        options: Further arguments of ``chat.completions.create``.
    """

    model: str
    base_url: str | None
    api_key: str | None
    client: AsyncOpenAI | None
    timeout: float
    max_retries: int
    options: dict[str, Any]


def with_litellm_params(call: JudgeCall, params: Mapping[str, Any]) -> JudgeCall:
    """Take arguments that were written for litellm.

    Args:
        call: What was said otherwise.
        params: ``api_base``, ``api_key``, ``timeout``, ``num_retries``, and arguments of
            ``chat.completions.create`` such as ``temperature``.

    Returns:
        The call. With ``api_base``, litellm's prefixes ``openai/`` and ``hosted_vllm/`` are taken
        off the model's name.

    Raises:
        art.errors.ConfigurationError: An argument has no meaning without litellm.
    """
    known = inspect.signature(AsyncCompletions.create).parameters.keys() - _TAKEN
    fields: dict[str, Any] = {}
    options = dict(call.options)
    for name, value in params.items():
        if name in _ENDPOINT:
            fields[_ENDPOINT[name]] = value
        elif name in known:
            options[name] = value
        else:
            raise ConfigurationError(
                f"extra_litellm_params has {name!r}, which only litellm knows; the judge is asked "
                f"through the openai client. Leave it out, or pass client= with what it should do"
            )
    if "base_url" in fields:
        prefix = next((each for each in _PREFIXES if call.model.startswith(each)), "")
        fields["model"] = call.model.removeprefix(prefix)
    return call._replace(**fields, options=options)
