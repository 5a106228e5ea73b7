"""The OpenAI-compatible endpoint: an HTTP server in a thread of this process."""

import asyncio
import errno
import secrets
import socket
import threading

import uvicorn

from art.chat.template import ChatTemplate
from art.endpoint.routes import Endpoint, create_app
from art.endpoint.served_models import Samplers
from art.errors import EngineStartError, PortInUseError

# How long requests that are being answered may go on once the server stops, in seconds.
_GRACE = 2


class OpenAIServer:
    """Serves chat completions of a model and its checkpoints.

    It runs in a daemon thread with an event loop of its own, so that it answers while the
    caller's loop is busy.

    Args:
        samplers: The models to serve.
        chat_template: Renders prompts and reads completions.
        max_context_length: Of the base model, in tokens.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        api_key: Key to demand; ``None`` makes a random one.
    """

    def __init__(
        self,
        samplers: Samplers,
        chat_template: ChatTemplate,
        *,
        max_context_length: int,
        host: str = "127.0.0.1",
        port: int = 0,
        api_key: str | None = None,
    ) -> None:
        self.api_key = api_key or f"art-{secrets.token_urlsafe(24)}"
        self.host, self.port = host, port
        app = create_app(Endpoint(self.api_key, samplers, chat_template, max_context_length))
        self._server = uvicorn.Server(
            uvicorn.Config(
                app, log_level="warning", lifespan="off", timeout_graceful_shutdown=_GRACE
            )
        )
        self._thread: threading.Thread | None = None

    async def start(self) -> tuple[str, int]:
        """Listen and answer.

        Returns:
            The host and the port.

        Raises:
            PortInUseError: Something else listens on the port.
            EngineStartError: The server's thread ended at once.
        """
        listener = _listen(self.host, self.port)
        self.port = listener.getsockname()[1]
        self._thread = threading.Thread(
            target=self._server.run, args=([listener],), name="art-openai-server", daemon=True
        )
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise EngineStartError(
                    "the OpenAI-compatible endpoint could not start; see its log"
                )
            await asyncio.sleep(0.005)
        return self.host, self.port

    async def stop(self) -> None:
        """Stop listening and wait for the thread. Does nothing where it is not running."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._server.should_exit = True
            await asyncio.to_thread(thread.join)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise PortInUseError(
            error.errno, f"port {port} of {host} is taken; choose another, or 0 for any free one"
        ) from error
