"""The chat model of a rollout, as LangChain's agents take it."""

from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from art._internal.deferred import DeferredModule
from art.errors import ConfigurationError, MissingExtraError
from art.langgraph.rollout import current_model

if TYPE_CHECKING:
    import langchain_openai
else:
    langchain_openai = DeferredModule("langchain_openai")

# A rollout may wait long for its turn.
_REQUEST_SECONDS = 1200.0


def init_chat_model(
    model: object = None,
    *,
    model_provider: object = None,
    configurable_fields: object = None,
    config_prefix: object = None,
    **options: Any,
) -> "langchain_openai.ChatOpenAI":
    """Make a chat model of the rollout's model, in place of LangChain's function of this name.

    Args:
        model: The rollout's model is the only one: leave it out, as the next three.
        model_provider: LangChain's; leave it out.
        configurable_fields: LangChain's; leave it out.
        config_prefix: LangChain's; leave it out.
        **options: Options of ``langchain_openai.ChatOpenAI``. ``temperature`` is 1 by default,
            at which the recorded logprobs are those that training expects.

    Returns:
        LangChain's own client of an OpenAI-compatible endpoint; tools, structured output and
        streaming are its own.

    Raises:
        art.errors.MissingExtraError: ``langchain-openai`` is not installed.
        art.errors.CaptureError: It is called outside of a rollout of
            :func:`art.langgraph.rollout.wrap_rollout`.
        art.errors.ConfigurationError: An option other than those of ``ChatOpenAI`` is given.
    """
    try:
        from langchain_openai import ChatOpenAI
    except ModuleNotFoundError as error:
        if error.name != "langchain_openai":
            raise
        raise MissingExtraError(
            "art.langgraph.init_chat_model", "langchain_openai", "langgraph"
        ) from error
    given = {
        "model": model,
        "model_provider": model_provider,
        "configurable_fields": configurable_fields,
        "config_prefix": config_prefix,
    }
    if wrong := [name for name, value in given.items() if value is not None]:
        raise ConfigurationError(
            f"{', '.join(wrong)}: the chat model of a rollout is that of "
            "art.langgraph.wrap_rollout; use LangChain's own init_chat_model for another one"
        )
    served = current_model()
    url, key = served.inference_base_url, served.inference_api_key
    if url is None or key is None:
        raise ConfigurationError(
            "the model of this rollout has no endpoint; call `await model.register(backend)` first"
        )
    defaults: dict[str, Any] = {"temperature": 1.0, "timeout": _REQUEST_SECONDS}
    return ChatOpenAI(
        model=served.get_inference_name(),
        base_url=url,
        api_key=SecretStr(key),
        **{**defaults, **options},
    )
