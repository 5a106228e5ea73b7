"""ASGI middleware that cancels a request once its client has hung up.

ASGI tells an application of that only if it asks, and FastAPI asks for streamed responses alone.
Here every request is watched, so no dialect has to: the handler's task is cancelled, and with it
the sampling that it waits for.
"""

import asyncio
import contextlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Messages of a body that are read before the application asks for them; of a body that it refuses
# the rest is never read.
_MAX_UNREAD = 16


class CancelOnDisconnect:
    """Cancels the handling of a request whose client disconnects before the response is complete.

    Args:
        app: The application behind it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(receive, send)
        watching = asyncio.create_task(exchange.watch())
        handling = asyncio.create_task(self._handle(scope, exchange))
        try:
            await asyncio.wait({watching, handling}, return_when=asyncio.FIRST_COMPLETED)
            if not exchange.abandoned:
                await handling
        finally:
            watching.cancel()
            handling.cancel()
            await asyncio.gather(watching, handling, return_exceptions=True)

    async def _handle(self, scope: Scope, exchange: "_Exchange") -> None:
        await self._app(scope, exchange.receive, exchange.send)


class _Exchange:
    """One request's messages, read ahead so that a disconnection is seen at once.

    Attributes:
        abandoned: ``True`` once the client has disconnected before the response was complete.
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._unread: asyncio.Queue[Message] = asyncio.Queue(_MAX_UNREAD)
        self._disconnected = self._complete = self.abandoned = False

    async def watch(self) -> None:
        """Read the client's messages until it disconnects."""
        while (message := await self._receive())["type"] != "http.disconnect":
            await self._unread.put(message)
        self._disconnected = True
        with contextlib.suppress(asyncio.QueueFull):  # then nobody waits for it
            self._unread.put_nowait(message)
        # Servers report a disconnection after every complete response too.
        self.abandoned = not self._complete

    async def receive(self) -> Message:
        """Hand the next message of the client to the application."""
        if self._disconnected and self._unread.empty():
            return {"type": "http.disconnect"}
        return await self._unread.get()

    async def send(self, message: Message) -> None:
        """Pass a message of the application on, and note the end of the response."""
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._complete = True
        await self._send(message)
