"""Streamed responses whose content is complete before its first event.

A Tinker server answers with whole samples. Nothing can be sent before, so the response's head waits
for them a while: a refusal within that time has an HTTP status of its own. After it comments keep
the connection alive, and an error can only be an event.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import Any, TypeVar

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from art.endpoint.errors import RequestError, as_request_error

HEAD_WAITS_S = 5.0
"""Time that the head of a response waits for its content, in seconds."""

KEEP_ALIVE_S = 15.0
"""Time between two comments that keep a connection alive, in seconds."""

_COMMENT = ": sampling\n\n"

T = TypeVar("T")


async def stream(
    work: Coroutine[Any, Any, T],
    events: Callable[[T], Iterable[str]],
    error_events: Callable[[RequestError], Iterable[str]],
    *,
    opening: Iterable[str] = (),
) -> StreamingResponse:
    """Answer with server-sent events. Cancelling the response cancels the work.

    Args:
        work: Makes the content.
        events: Writes the content as events.
        error_events: Writes an error that comes after the head of the response.
        opening: Events that precede the content.

    Returns:
        The response.

    Raises:
        Exception: What ``work`` raised before the head of the response was sent.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=HEAD_WAITS_S)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if done:
        task.result()
    return _Streamed(task, _events(task, events, error_events, opening))


class _Streamed(StreamingResponse):
    """A response that cancels a task when it ends, also where its first event was never sent."""

    def __init__(self, task: "asyncio.Future[Any]", body: AsyncIterator[str]) -> None:
        super().__init__(body, media_type="text/event-stream")
        self._task = task

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._task.cancel()


async def _events(
    task: "asyncio.Future[T]",
    events: Callable[[T], Iterable[str]],
    error_events: Callable[[RequestError], Iterable[str]],
    opening: Iterable[str],
) -> AsyncIterator[str]:
    for event in opening:
        yield event
    while not (await asyncio.wait({task}, timeout=KEEP_ALIVE_S))[0]:
        yield _COMMENT
    try:
        content = task.result()
    except Exception as error:  # noqa: BLE001 - told to the client, and logged where unforeseen
        for event in error_events(as_request_error(error)):
            yield event
        return
    for event in events(content):
        yield event
