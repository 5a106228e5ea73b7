"""Settings of the OpenAI-compatible endpoint."""

from typing import Literal, TypedDict

from art.dev.engine import EngineArgs


class ServerArgs(TypedDict, total=False):
    """Arguments of vLLM's OpenAI-compatible server, by its names; vLLM says what each means."""

    host: str | None
    port: int
    uvicorn_log_level: Literal["debug", "info", "warning", "error", "critical", "trace"]
    allow_credentials: bool
    allowed_origins: str
    allowed_methods: str
    allowed_headers: str
    api_key: str | None
    lora_modules: list[str] | None
    prompt_adapters: list[str] | None
    chat_template: str | None
    chat_template_content_format: Literal["auto", "string", "openai"]
    response_role: str | None
    ssl_keyfile: str | None
    ssl_certfile: str | None
    ssl_ca_certs: str | None
    enable_ssl_refresh: bool
    ssl_cert_reqs: int
    root_path: str | None
    middleware: list[str]
    return_tokens_as_token_ids: bool
    disable_frontend_multiprocessing: bool
    enable_request_id_headers: bool
    enable_auto_tool_choice: bool
    tool_call_parser: str | None
    tool_parser_plugin: str
    max_log_len: int | None
    disable_fastapi_docs: bool
    enable_prompt_tokens_details: bool
    enable_server_load_tracking: bool
    enable_reasoning: bool
    reasoning_parser: str | None


class OpenAIServerConfig(TypedDict, total=False):
    """Settings of the endpoint that serves a model.

    Attributes:
        log_file: Where the server logs.
        server_args: Arguments of the server.
        engine_args: Arguments of the engine behind it.
    """

    log_file: str
    server_args: ServerArgs
    engine_args: EngineArgs
