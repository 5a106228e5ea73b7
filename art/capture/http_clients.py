"""Requests of httpx's clients, marked with the capture of the context that sends them.

openai's clients and the frameworks above them send by httpx, or by httpx2, its successor; an agent
may have made its client anywhere and any time before. So it is the classes that are changed, once,
when the first capture begins: their ``send`` adds a header to requests that go to an endpoint of
this process, in a context that is captured. All others go out as they were.
"""

import functools
import importlib
import threading
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from art.capture.captures import ENDPOINTS, HEADER

_LIBRARIES = ("httpx", "httpx2")

_lock = threading.Lock()
_marked: set[str] = set()


def mark_requests(current_token: Callable[[], str | None]) -> None:
    """Mark the requests of all clients from now on. Does nothing the second time.

    Args:
        current_token: Returns the token of the current context's capture.
    """
    with _lock:
        for name in _LIBRARIES:
            if name in _marked or find_spec(name) is None:
                continue
            library = importlib.import_module(name)
            _mark_async(library.AsyncClient, current_token)
            _mark_sync(library.Client, current_token)
            _marked.add(name)


def _mark_async(client_type: Any, current_token: Callable[[], str | None]) -> None:
    send = client_type.send

    @functools.wraps(send)
    async def marked_send(self: Any, request: Any, **options: Any) -> Any:
        _mark(request, current_token)
        return await send(self, request, **options)

    client_type.send = marked_send


def _mark_sync(client_type: Any, current_token: Callable[[], str | None]) -> None:
    send = client_type.send

    @functools.wraps(send)
    def marked_send(self: Any, request: Any, **options: Any) -> Any:
        _mark(request, current_token)
        return send(self, request, **options)

    client_type.send = marked_send


def _mark(request: Any, current_token: Callable[[], str | None]) -> None:
    if ENDPOINTS.has(str(request.url)) and (token := current_token()) is not None:
        request.headers.setdefault(HEADER, token)
