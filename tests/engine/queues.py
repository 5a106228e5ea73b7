"""The two queues on real lanes, without an engine around them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from art.engine.futures import Failure, FutureStore, Payload
from art.engine.lane import Lane
from art.engine.outcomes import Outcomes
from art.engine.results import OptimStepped, Result, Sampled
from art.engine.sampling_queue import SamplingJob, SamplingQueue
from art.engine.training_queue import Task, TrainingQueue
from art.executors.protocol import Sampler
from art.executors.types import SampleRequest, SamplingParams

TEXT = "text/plain"


def encode(result: Result) -> Payload:
    """A sampling result as its number of sequences, a step as its number."""
    if isinstance(result, Sampled):
        return Payload(TEXT, str(len(result.result.sequences)).encode())
    assert isinstance(result, OptimStepped)
    return Payload(TEXT, b"%d" % result.metrics["number"])


async def outcome(futures: FutureStore, request_id: str) -> Payload | Failure:
    found = await futures.wait(request_id, 5)
    assert found is not None, f"{request_id} has not ended"
    return found


async def until(condition: Callable[[], object]) -> None:
    """Wait for another thread; the caller's own timeout ends a wait in vain."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - it is another thread that says so
            await asyncio.sleep(0.001)


@dataclass(frozen=True)
class Training:
    queue: TrainingQueue
    futures: FutureStore
    lane: Lane

    def add_model(self, model_id: str, create: Callable[[], object] = lambda: None) -> None:
        self._create(f"{model_id}:0")
        self.queue.add_model(model_id, f"{model_id}:0", self._task(create, 0))

    def submit(
        self,
        model_id: str,
        seq_id: int,
        compute: Callable[[], object] = lambda: None,
        *,
        size: int = 0,
    ) -> None:
        task = self._task(compute, seq_id)
        self.queue.submit(model_id, seq_id, f"{model_id}:{seq_id}", task, size=size)

    def _create(self, request_id: str) -> None:
        assert self.futures.create(request_id)

    def _task(self, compute: Callable[[], object], number: int) -> Task:
        async def run() -> Result:
            await self.lane.run(compute)
            return OptimStepped({"number": number})

        return run


@contextlib.asynccontextmanager
async def training(
    *, gap_timeout_s: float = 420.0, max_waiting: int = 4096, max_waiting_bytes: int = 1 << 30
) -> AsyncIterator[Training]:
    futures, lane = FutureStore(), Lane("training")
    queue = TrainingQueue(
        lane,
        futures,
        Outcomes(futures, encode),
        gap_timeout_s=gap_timeout_s,
        max_waiting=max_waiting,
        max_waiting_bytes=max_waiting_bytes,
    )
    queue.start()
    try:
        yield Training(queue, futures, lane)
    finally:
        await queue.close()
        assert await lane.close(5)


@contextlib.asynccontextmanager
async def sampling(
    sampler: Sampler,
    *,
    max_running_sequences: int = 256,
    max_waiting: int = 10_000,
    max_adapters: int = 8,
    window_s: float = 0.01,
) -> AsyncIterator[tuple[SamplingQueue, FutureStore]]:
    futures, lane = FutureStore(), Lane("sampling")
    queue = SamplingQueue(
        sampler,
        lane,
        futures,
        Outcomes(futures, encode),
        max_running_sequences=max_running_sequences,
        max_waiting=max_waiting,
        max_adapters=max_adapters,
        window_s=window_s,
    )
    queue.start()
    try:
        yield queue, futures
    finally:
        await queue.close()
        assert await lane.close(5)


def job(
    number: int,
    *,
    token: int = 1,
    max_tokens: int = 1,
    adapter_id: str | None = None,
    folder: Path | None = None,
    samples: int = 1,
    session: str = "s",
) -> SamplingJob:
    return SamplingJob(
        request_id=f"{session}:{number}",
        group=f"{session}#0",
        sampling_session_id=session,
        request=SampleRequest(
            adapter_id=adapter_id,
            prompt=np.array([token]),
            num_samples=samples,
            params=SamplingParams(max_tokens=max_tokens),
        ),
        folder=folder,
    )
