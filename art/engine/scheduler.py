"""Who computes next.

One thread runs the executor, one call at a time. Each model's requests run in the order of their
``seq_id``, whatever order they arrive in. Sampling requests wait in one line, and whatever is in
it when the executor becomes free runs as one batch. Where both wait, training and sampling take
turns, and models take turns among themselves.

Everything but the work itself belongs to the event loop's thread.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from art.engine.adapter_cache import AdapterCache
from art.engine.futures import Failure, FutureStore, Outcome, Payload, failure_of
from art.errors import ArtError, EngineBusyError, InvalidRequestError, NotFoundError
from art.executors.protocol import Executor
from art.executors.types import SampleRequest, SampleResult

logger = logging.getLogger(__name__)

T = TypeVar("T")
Work = Callable[[], Payload]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingJob:
    """One request in the sampling line.

    Attributes:
        request_id: Where its result goes.
        group: What its result is found under together with others.
        request: What to sample; its ``sampler_id`` and ``folder`` belong together.
        folder: Where the sampler's adapter can be read; ``None`` for the base model.
        encode: Makes the result ready for the wire.
    """

    request_id: str
    group: str
    request: SampleRequest
    folder: Path | None
    encode: Callable[[SampleResult], Payload]


@dataclass(slots=True)
class _ModelQueue:
    """The requests of one model. ``next_seq`` is the one to run next; 0 creates the model."""

    next_seq: int = 0
    created: bool = False
    waiting: dict[int, tuple[str, Work]] = field(default_factory=dict)
    blocked_since: float | None = None

    @property
    def ready(self) -> bool:
        return self.next_seq in self.waiting


class Scheduler:
    """Runs requests on the executor's thread, in an order that is fair.

    Args:
        executor: What computes.
        futures: Where results go.
        max_batch_sequences: Most sequences to sample in one batch.
        max_waiting_samples: Most sampling requests to hold; more are refused for the moment.
        max_samplers: Most sampling adapters to hold in memory.
        window_s: Once sampling may start, how long the line must be quiet first: requests that
            are sent together arrive a few milliseconds apart.
        gap_timeout_s: How long requests wait for one with a lower ``seq_id`` that has not
            arrived. The SDK gives up sending a request after 300 seconds.
    """

    def __init__(
        self,
        executor: Executor,
        futures: FutureStore,
        *,
        max_batch_sequences: int = 256,
        max_waiting_samples: int = 10_000,
        max_samplers: int = 8,
        window_s: float = 0.01,
        gap_timeout_s: float = 420.0,
    ) -> None:
        self._executor, self._futures = executor, futures
        self._max_batch_sequences, self._max_waiting = max_batch_sequences, max_waiting_samples
        self._window_s, self._gap_timeout_s = window_s, gap_timeout_s
        self._samplers = AdapterCache(executor, max_samplers)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="executor")
        self._models: dict[str, _ModelQueue] = {}
        self._samples: deque[SamplingJob] = deque()
        self._calls: deque[tuple[Callable[[], None], asyncio.Future[None]]] = deque()
        self._wake = asyncio.Event()
        self._sampled_last = False
        self._last_run: Future[Any] | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work; there must be a running event loop."""
        self._task = asyncio.create_task(self._run(), name="scheduler")
        self._task.add_done_callback(_report_end)

    async def close(self, timeout: float = 5.0) -> bool:
        """Stop taking work, and give what runs some time to end.

        Args:
            timeout: Seconds to wait for the running call.

        Returns:
            Whether the executor's thread is idle.
        """
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        idle = asyncio.get_running_loop().run_in_executor(self._thread, lambda: None)
        done, _ = await asyncio.wait([idle], timeout=timeout)
        self._thread.shutdown(wait=False, cancel_futures=True)
        return bool(done)

    @property
    def busy(self) -> bool:
        """Whether the executor's thread computes, or will."""
        return self._last_run is not None and not self._last_run.done()

    async def run_now(self, call: Callable[[], T]) -> T:
        """Run something on the executor's thread, before anything that waits."""

        running = self._thread.submit(call)
        self._last_run = running
        return await asyncio.wrap_future(running)

    def add_model(self, model_id: str, request_id: str, create: Work) -> None:
        """Queue the creation of a model; it is the model's request 0."""
        self._models[model_id] = _ModelQueue(waiting={0: (request_id, create)})
        self._wake.set()

    def submit(self, model_id: str, seq_id: int, request_id: str, work: Work) -> None:
        """Queue a request of a model at its place; a repeated one changes nothing.

        Args:
            model_id: The model.
            seq_id: Its place, from 1.
            request_id: Where its result goes.
            work: Computes it, on the executor's thread.

        Raises:
            NotFoundError: The model is not loaded.
            InvalidRequestError: The place has passed and its result is gone.
        """
        queue = self._models.get(model_id)
        if queue is None:
            raise NotFoundError(f"there is no model {model_id!r}; it may have been unloaded")
        if not self._futures.create(request_id):
            return
        if seq_id < queue.next_seq:
            error = InvalidRequestError(f"seq_id {seq_id} of {model_id} was run before")
            self._futures.resolve(request_id, failure_of(error))
            return
        queue.waiting[seq_id] = (request_id, work)
        self._wake.set()

    def submit_sample(self, job: SamplingJob) -> None:
        """Queue a sampling request; a repeated one changes nothing.

        Raises:
            EngineBusyError: The line is full.
        """
        if len(self._samples) >= self._max_waiting:
            raise EngineBusyError(f"{len(self._samples)} sampling requests are waiting")
        if self._futures.create(job.request_id, group=job.group):
            self._samples.append(job)
            self._wake.set()

    def cancel_sample(self, request_id: str) -> None:
        """Take a sampling request out of the line, if it still waits there."""
        kept = deque(job for job in self._samples if job.request_id != request_id)
        if len(kept) < len(self._samples):
            self._samples = kept
            self._futures.resolve(request_id, Failure("the request was cancelled", "user"))

    async def remove_model(self, model_id: str) -> None:
        """Unload a model; what it still had to do fails."""
        queue = self._models.pop(model_id, None)
        if queue is None:
            return
        self._fail_waiting(queue, NotFoundError(f"model {model_id} was unloaded"))
        await self._call(lambda: self._unload(model_id, queue))

    async def remove_sampler(self, sampler_id: str) -> None:
        """Forget a sampler's weights, if they are loaded."""
        await self._call(lambda: self._samplers.drop(sampler_id))

    def fail_gaps(self) -> None:
        """Fail requests that wait too long for one that never arrived; call it now and then."""
        now = time.monotonic()
        for model_id, queue in self._models.items():
            if queue.ready or not queue.waiting:
                queue.blocked_since = None
            elif queue.blocked_since is None:
                queue.blocked_since = now
            elif now - queue.blocked_since > self._gap_timeout_s:
                missing, queue.next_seq = queue.next_seq, max(queue.waiting) + 1
                self._fail_waiting(
                    queue,
                    InvalidRequestError(f"seq_id {missing} of {model_id} never arrived"),
                )

    async def _call(self, call: Callable[[], None]) -> None:
        done = asyncio.get_running_loop().create_future()
        self._calls.append((call, done))
        self._wake.set()
        await done

    def _unload(self, model_id: str, queue: _ModelQueue) -> None:
        if queue.created:  # by now: its creation may have been running when this was asked for
            self._executor.unload_model(model_id)

    def _fail_waiting(self, queue: _ModelQueue, error: ArtError) -> None:
        for request_id, _ in queue.waiting.values():
            self._futures.resolve(request_id, failure_of(error))
        queue.waiting.clear()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while await self._take_turn():
                pass

    async def _take_turn(self) -> bool:
        if self._calls:
            await self._run_call(*self._calls.popleft())
            return True
        model_id = next((name for name, queue in self._models.items() if queue.ready), None)
        if self._samples and (model_id is None or not self._sampled_last):
            self._sampled_last = True
            await self._sample()
            return True
        self._sampled_last = False
        if model_id is None:
            return False
        await self._train(model_id)
        return True

    async def _run_call(self, call: Callable[[], None], done: asyncio.Future[None]) -> None:
        try:
            await self.run_now(call)
        except Exception as error:  # noqa: BLE001 - handed to the caller
            if not done.cancelled():
                done.set_exception(error)
        else:
            if not done.cancelled():
                done.set_result(None)

    async def _train(self, model_id: str) -> None:
        queue = self._models.pop(model_id)
        self._models[model_id] = queue  # to the back: models take turns
        seq_id = queue.next_seq
        request_id, work = queue.waiting.pop(seq_id)
        outcome = await self.run_now(lambda: _attempt(work, request_id))
        self._futures.resolve(request_id, outcome)
        queue.next_seq = seq_id + 1
        if seq_id == 0:
            queue.created = isinstance(outcome, Payload)
        if not queue.created:
            self._models.pop(model_id, None)
            self._fail_waiting(queue, NotFoundError(f"model {model_id} could not be created"))

    async def _sample(self) -> None:
        await self._wait_until_quiet()
        batch = self._next_batch()
        if not batch:  # all were cancelled meanwhile
            return
        for job, outcome in zip(
            batch, await self.run_now(lambda: self._answer(batch)), strict=True
        ):
            self._futures.resolve(job.request_id, outcome)

    async def _wait_until_quiet(self) -> None:
        waiting, deadline = 0, time.monotonic() + 10 * self._window_s
        while waiting < len(self._samples) and time.monotonic() < deadline:
            waiting = len(self._samples)
            await asyncio.sleep(self._window_s)

    def _next_batch(self) -> list[SamplingJob]:
        batch: list[SamplingJob] = []
        sequences, samplers = 0, set[str]()
        while self._samples:
            request = self._samples[0].request
            sequences += request.num_samples
            if request.sampler_id is not None:
                samplers.add(request.sampler_id)
            if batch and (
                sequences > self._max_batch_sequences or len(samplers) > self._samplers.capacity
            ):
                break
            batch.append(self._samples.popleft())
        return batch

    def _answer(self, batch: Sequence[SamplingJob]) -> list[Outcome]:
        """Sample a batch. On the executor's thread."""
        in_use = {job.request.sampler_id for job in batch if job.request.sampler_id is not None}
        failures: dict[str, Failure] = {}
        for job in batch:
            sampler_id = job.request.sampler_id
            if sampler_id is None or job.folder is None or sampler_id in failures:
                continue
            try:
                self._samplers.ensure(sampler_id, job.folder, in_use=in_use)
            except Exception as error:  # noqa: BLE001 - becomes the requests' result
                failures[sampler_id] = _failure(error, f"loading sampler {sampler_id}")
        able = [job for job in batch if job.request.sampler_id not in failures]
        outcomes = iter(self._sample_together(able) if able else ())
        return [
            failures[sampler_id]
            if (sampler_id := job.request.sampler_id) in failures
            else next(outcomes)
            for job in batch
        ]

    def _sample_together(self, jobs: Sequence[SamplingJob]) -> list[Outcome]:
        try:
            results = self._executor.sample([job.request for job in jobs])
            return [job.encode(result) for job, result in zip(jobs, results, strict=True)]
        except Exception as error:  # noqa: BLE001 - becomes the requests' result
            if len(jobs) > 1 and isinstance(error, ArtError):
                # One request is wrong; the others must not pay for it.
                return [self._sample_together([job])[0] for job in jobs]
            failure = _failure(error, f"sampling {len(jobs)} requests")
            return [failure] * len(jobs)


def _report_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.critical("the scheduler has ended", exc_info=task.exception())


def _attempt(work: Work, request_id: str) -> Outcome:
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - becomes the request's result
        return _failure(error, request_id)


def _failure(error: Exception, doing: str) -> Failure:
    failure = failure_of(error)
    if failure.category == "server":
        logger.error("%s failed", doing, exc_info=error)
    else:
        logger.info("%s was refused: %s", doing, failure.error)
    return failure
