"""A client that hangs up frees the engine of its request, while that is being sampled."""

import asyncio
import time
from typing import Any

import psutil
import pytest

import art
from tests.engine_server import EngineServer

USER: art.Messages = [{"role": "user", "content": "Is the sky blue?"}]
# Some 60,000 tokens: the best part of a minute on a CPU, far longer than the tests below wait.
LONG: dict[str, Any] = {"n": 128, "max_tokens": 470, "seed": 1}


async def ask(model: art.TrainableModel[None], **fields: Any) -> None:
    answer: Any = await model.openai_client().chat.completions.create(
        model="agent", messages=USER, **fields
    )
    if fields.get("stream"):
        async for _ in answer:
            pass


async def cpu_seconds(engine: psutil.Process, over: float) -> float:
    """Measure the CPU time that the engine uses within some seconds."""
    before = engine.cpu_times()
    await asyncio.sleep(over)
    after = engine.cpu_times()
    return float(after.user + after.system - before.user - before.system)


async def wait_until_busy(engine: psutil.Process) -> None:
    deadline = time.monotonic() + 60
    while await cpu_seconds(engine, over=0.5) < 0.05:
        assert time.monotonic() < deadline, "the engine never began to sample"


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_hanging_up_ends_the_sampling_on_the_engine(
    engine_server: EngineServer, model: art.TrainableModel[None], stream: bool
) -> None:
    engine = psutil.Process(engine_server.process.pid)
    request = asyncio.create_task(ask(model, stream=stream, **LONG))
    await wait_until_busy(engine)
    # It is the request that keeps the engine busy, and it is not about to end by itself.
    assert await cpu_seconds(engine, over=1) > 0.05
    assert not request.done()
    request.cancel()
    hung_up = time.monotonic()
    while await cpu_seconds(engine, over=0.5) > 0.02:
        assert time.monotonic() - hung_up < 10, "the engine goes on for a client that is gone"


async def test_a_short_request_is_answered_after_a_long_one_was_abandoned(
    engine_server: EngineServer, model: art.TrainableModel[None]
) -> None:
    abandoned = asyncio.create_task(ask(model, **LONG))
    await wait_until_busy(psutil.Process(engine_server.process.pid))
    abandoned.cancel()
    async with asyncio.timeout(20):
        await ask(model, max_tokens=4)
