"""A client that hangs up stops what is being sampled for it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

import pytest
from openai import AsyncOpenAI

from art.endpoint.disconnect import CancelOnDisconnect
from tests.light.endpoint.scripted import Script

Message = MutableMapping[str, Any]
REQUEST: Message = {"type": "http.request", "body": b"{}", "more_body": False}
DISCONNECT: Message = {"type": "http.disconnect"}


async def ask(client: AsyncOpenAI, *, stream: bool) -> None:
    answer: Any = await client.chat.completions.create(
        model="agent", messages=[{"role": "user", "content": "hi"}], stream=stream
    )
    if stream:
        async for _ in answer:
            pass


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_hanging_up_cancels_the_sampling(
    client: AsyncOpenAI, script: Script, caplog: pytest.LogCaptureFixture, stream: bool
) -> None:
    script.never_ends = True
    request = asyncio.create_task(ask(client, stream=stream))
    assert await asyncio.to_thread(script.sampling.wait, 5)
    assert not script.cancelled.is_set()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert await asyncio.to_thread(script.cancelled.wait, 5)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_hanging_up_leaves_other_requests_alone(client: AsyncOpenAI, script: Script) -> None:
    script.never_ends = True
    abandoned = asyncio.create_task(ask(client, stream=False))
    assert await asyncio.to_thread(script.sampling.wait, 5)
    script.never_ends = False
    abandoned.cancel()
    await asyncio.gather(*(ask(client, stream=stream) for stream in (False, True)))
    assert await asyncio.to_thread(script.cancelled.wait, 5)


async def exchange(
    app: Callable[..., Awaitable[None]], messages: AsyncIterator[Message]
) -> list[Message]:
    """Send one request through the middleware; return the messages of the response."""
    sent: list[Message] = []

    async def receive() -> Message:
        return await anext(messages)

    async def send(message: Message) -> None:
        sent.append(message)

    await asyncio.wait_for(CancelOnDisconnect(app)({"type": "http"}, receive, send), timeout=5)
    return sent


async def request_then_hang_up() -> AsyncIterator[Message]:
    yield REQUEST
    await asyncio.sleep(0.01)
    yield DISCONNECT


async def test_work_after_a_complete_response_is_not_cancelled() -> None:
    finished = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})
        assert await receive() == DISCONNECT
        await asyncio.sleep(0.01)
        finished.append(True)

    sent = await exchange(app, request_then_hang_up())
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert finished == [True]


async def test_an_error_of_the_application_is_raised_as_it_is() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert await receive() == REQUEST
        raise KeyError("x")

    with pytest.raises(KeyError, match="x"):
        await exchange(app, request_then_hang_up())


async def test_cancelling_the_server_cancels_the_application() -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        started.set()
        try:
            await asyncio.sleep(600)
        finally:
            cancelled.set()

    async def request_and_wait() -> AsyncIterator[Message]:
        yield REQUEST
        await asyncio.sleep(600)

    serving = asyncio.create_task(exchange(app, request_and_wait()))
    await started.wait()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert cancelled.is_set()
