"""The OpenAI-compatible endpoint: an HTTP server in a thread of this process."""

import asyncio
import threading

import uvicorn

from art._internal.http_server import BoundedHttp
from art._internal.network import base_url, bind, is_loopback, new_key
from art.capture.captures import ENDPOINTS
from art.chat.template import ChatTemplate
from art.endpoint.app import create_app
from art.endpoint.served_models import ServedModels
from art.endpoint.state import Endpoint
from art.errors import EngineStartError

# Time that requests may take to finish once the server stops, in seconds.
_GRACE = 2


class OpenAIServer:
    """Serves chat completions of a model and its checkpoints.

    It runs in a daemon thread with an event loop of its own, so that it answers while the
    caller's loop is busy.

    Args:
        models: The models to serve.
        chat_template: Renders prompts and reads completions.
        max_context_length: Context of the base model, in tokens.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        api_key: Key to demand; ``None`` makes a random one.
        strict: Whether requests with unknown fields are refused; otherwise these are ignored, and
            named in the header ``x-art-ignored-fields``.

    Attributes:
        host: Address that it listens on.
        port: Port that it listens on, once :meth:`start` has returned.
        base_url: Base URL for OpenAI clients on this machine, ending in ``/v1``; empty before
            :meth:`start`.
        api_key: The key that it demands.
    """

    def __init__(
        self,
        models: ServedModels,
        chat_template: ChatTemplate,
        *,
        max_context_length: int,
        host: str = "127.0.0.1",
        port: int = 0,
        api_key: str | None = None,
        strict: bool = False,
    ) -> None:
        self.api_key = api_key or new_key("art-")
        self.host, self.port, self.base_url = host, port, ""
        self._endpoint = Endpoint(self.api_key, models, chat_template, max_context_length, strict)
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    async def start(self) -> None:
        """Listen and answer.

        Raises:
            PortInUseError: Another process listens on the port.
            ConfigurationError: The address cannot be listened on.
            EngineStartError: The server's thread ended at once.
        """
        listener = bind(self.host, self.port)
        self.port = listener.getsockname()[1]
        self.base_url = f"{base_url(listener)}/v1"
        # What the server listens on decides which names it goes by.
        app = create_app(self._endpoint, loopback=is_loopback(listener))
        self._server = server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=BoundedHttp,
                log_level="warning",
                lifespan="off",
                timeout_graceful_shutdown=_GRACE,
            )
        )
        self._thread = threading.Thread(
            target=server.run, args=([listener],), name="art-openai-server", daemon=True
        )
        self._thread.start()
        while not server.started:
            if not self._thread.is_alive():
                raise EngineStartError(
                    "the OpenAI-compatible endpoint could not start; its log has the reason"
                )
            await asyncio.sleep(0.005)
        ENDPOINTS.add(self.base_url)

    async def stop(self) -> None:
        """Stop listening and wait for the thread. Does nothing where it is not running."""
        ENDPOINTS.remove(self.base_url)
        thread, self._thread = self._thread, None
        if thread is not None and self._server is not None:
            self._server.should_exit = True
            await asyncio.to_thread(thread.join)
