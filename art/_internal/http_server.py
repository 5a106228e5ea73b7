"""The HTTP/1.1 protocol of both servers, with a bound on how long a request's head may take.

uvicorn closes a connection that is idle between two requests, but waits for ever for the first, and
for the rest of a head that was begun.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

HEAD_S = 15.0
"""Seconds from connecting, or from the end of a request, until the next request's head is whole."""


class BoundedHttp(H11Protocol):
    """Closes connections whose next request does not come; give it to ``uvicorn.Config(http=)``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]  # as uvicorn narrows it
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def send_400_response(self, msg: str) -> None:
        """Answer a request that is not HTTP; where its head was, the application is not heard."""
        super().send_400_response(msg)
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_watching()

    def _watch(self) -> None:
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn says never None; at first it is
        if cycle is not None and not cycle.response_complete:
            self._stop_watching()
        elif self._head is None:
            self._head = self.loop.call_later(HEAD_S, self.transport.close)

    def _stop_watching(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None
