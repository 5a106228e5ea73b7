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
        strict: Whether requests with unknown fields are refused, instead of named in a header.
    """

    host: str
    port: int
    api_key: str | None
    chat_template: str | None
    strict: bool


class OpenAIServerConfig(TypedDict, total=False):
    """Settings of the endpoint that serves a model.

    Attributes:
        server_args: Arguments of the endpoint.
        engine_args: Takes no option.
    """

    server_args: ServerArgs
    engine_args: EngineArgs
