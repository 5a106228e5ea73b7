"""The full arguments of the OpenAI-compatible endpoint, completed from a user's part of them."""

from art.dev.openai_server import OpenAIServerConfig, ServerArgs
from art.dev.validate import validate_server_config


def get_server_args(config: OpenAIServerConfig | None) -> ServerArgs:
    """Fill in the endpoint's arguments with their defaults.

    Args:
        config: The user's values; ``None`` is none.

    Returns:
        A value for every argument.

    Raises:
        art.errors.ConfigurationError: ``config`` has an option without an effect.
    """
    config = config or {}
    validate_server_config(config)
    given = config.get("server_args", {})
    return {
        "host": given.get("host", "127.0.0.1"),
        "port": given.get("port", 0),
        "api_key": given.get("api_key"),
        "chat_template": given.get("chat_template"),
        "strict": given.get("strict", False),
    }
