"""Settings of the OpenAI-compatible endpoint, by ART's names: only options that have an effect."""

from typing import TypedDict

from art.dev.model import EngineArgs


class ServerArgs(TypedDict, total=False):
    """Arguments of the endpoint.

    Attributes:
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        api_key: Key that the endpoint demands; ``None`` makes a random one.
        chat_template: Jinja text that renders conversations; ``None`` takes the model config's, or
            else the tokenizer's own.
    """

    host: str
    port: int
    api_key: str | None
    chat_template: str | None


class OpenAIServerConfig(TypedDict, total=False):
    """Settings of the endpoint that serves a model.

    Attributes:
        server_args: Arguments of the endpoint.
        engine_args: Takes no option.
    """

    server_args: ServerArgs
    engine_args: EngineArgs


def get_server_args(config: OpenAIServerConfig | None) -> ServerArgs:
    """Fill in the endpoint's arguments with their defaults.

    Args:
        config: The user's values; ``None`` is none.

    Returns:
        A value for every argument.

    Raises:
        art.errors.ConfigurationError: ``config`` has an option without an effect.
    """
    from art.dev.validate import validate_server_config

    config = config or {}
    validate_server_config(config)
    given = config.get("server_args", {})
    return {
        "host": given.get("host", "127.0.0.1"),
        "port": given.get("port", 0),
        "api_key": given.get("api_key"),
        "chat_template": given.get("chat_template"),
    }
