"""Sampling requests: they join what runs on the sampling lane, and leave as each ends.

Everything but :meth:`SamplingQueue._advance`, which runs on the lane's thread, belongs to the
event loop's thread.
"""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from art._internal.tasks import report_end
from art.engine.adapter_cache import AdapterCache
from art.engine.futures import FutureStore
from art.engine.lane import Lane
from art.engine.outcomes import Outcomes
from art.engine.results import Sampled
from art.engine.target_layout import TargetLayout
from art.errors import EngineBusyError, InvalidRequestError, RequestCancelledError
from art.executors.protocol import Sampler
from art.executors.types import EndedRequest, SampleRequest

# The longest stretch of steps between two looks at the event loop, in seconds.
_STRETCH_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingJob:
    """One sampling request.

    Attributes:
        request_id: Where its result goes.
        group: The key under which its result is found together with others.
        sampling_session_id: The sampling session that it belongs to.
        request: What to sample; its ``adapter_id`` and ``folder`` belong together.
        folder: Where the adapter can be read; ``None`` for the base model.
        prompt_logprobs_last_n: How many of the prompt's logprobs to return; ``None`` is all.
        target_layout: Where the targets of the prompt stood; ``None`` without any.
    """

    request_id: str
    group: str
    sampling_session_id: str
    request: SampleRequest
    folder: Path | None = None
    prompt_logprobs_last_n: int | None = None
    target_layout: TargetLayout | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stretch:
    """A stretch of work for the lane: what joins, what leaves, and for how long to step.

    ``seconds`` is 0 where nothing runs.
    """

    joining: tuple[SamplingJob, ...]
    cancelled: tuple[str, ...]
    forgotten: tuple[str, ...]
    adapters_in_use: Collection[str]
    seconds: float


class SamplingQueue:
    """Runs sampling requests.

    Args:
        sampler: What computes.
        lane: The sampler's thread.
        futures: Where clients wait.
        outcomes: Where results go.
        max_running_sequences: Most sequences to sample at a time.
        max_waiting: Most requests to hold; more are refused for the moment.
        max_adapters: Most adapters to hold in memory.
        window_s: How long the line must be quiet before what waits joins: requests that are sent
            together arrive a few milliseconds apart, and what joins together is computed together.
    """

    def __init__(
        self,
        sampler: Sampler,
        lane: Lane,
        futures: FutureStore,
        outcomes: Outcomes,
        *,
        max_running_sequences: int = 256,
        max_waiting: int = 10_000,
        max_adapters: int = 8,
        window_s: float = 0.01,
    ) -> None:
        self._sampler, self._lane = sampler, lane
        self._futures, self._outcomes = futures, outcomes
        self._max_running_sequences, self._max_waiting = max_running_sequences, max_waiting
        self._window_s = window_s
        self._adapters = AdapterCache(sampler, max_adapters)
        self._waiting: deque[SamplingJob] = deque()
        self._first_arrival = self._last_arrival = 0.0
        self._running: dict[str, SamplingJob] = {}
        self._cancelled: list[str] = []
        self._forgotten: list[tuple[str, asyncio.Future[None]]] = []
        self._wake = asyncio.Event()
        # Tells the lane to come back before its stretch is over.
        self._come_back = threading.Event()
        self._runner: asyncio.Task[None] | None = None

    @property
    def controls(self) -> frozenset[str]:
        """The fields of :class:`~art.formats.sampling_controls.SamplingControls` it honours."""
        return self._sampler.sampling_controls

    def start(self) -> None:
        """Begin to work; there must be a running event loop."""
        self._runner = asyncio.create_task(self._run(), name="sampling queue")
        self._runner.add_done_callback(report_end)

    async def close(self) -> None:
        """Stop. The lane's running stretch comes back at its next step."""
        self._come_back.set()
        if self._runner is not None:
            self._runner.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._runner

    def submit(self, job: SamplingJob) -> None:
        """Queue a request; a repeated one changes nothing.

        Raises:
            InvalidRequestError: The sampler does not have one of the controls.
            EngineBusyError: Too many wait.
        """
        changed = job.request.params.controls.changed()
        missing = [name for name in changed if name not in self.controls]
        if missing:
            raise InvalidRequestError(f"the sampler of this server has no {', '.join(missing)}")
        if len(self._waiting) >= self._max_waiting:
            raise EngineBusyError(
                f"{len(self._waiting)} sampling requests are waiting; send it again later"
            )
        if not self._futures.create(job.request_id, group=job.group):
            return
        self._last_arrival = time.monotonic()
        if not self._waiting:
            self._first_arrival = self._last_arrival
        self._waiting.append(job)
        self._interrupt()

    def cancel(self, request_id: str) -> None:
        """Drop a request, waiting or running; it costs nothing from the next step on.

        One that has ended, or is unknown, is no error.
        """
        self._cancel_all(lambda job: job.request_id == request_id)

    def cancel_sessions(self, sampling_session_ids: Collection[str]) -> None:
        """Drop every request of some sampling sessions."""
        self._cancel_all(lambda job: job.sampling_session_id in sampling_session_ids)

    def adapters_in_use(self) -> set[str | None]:
        """The adapters of the requests that wait or run."""
        return {job.request.adapter_id for job in (*self._waiting, *self._running.values())}

    async def forget_adapter(self, adapter_id: str) -> None:
        """Drop an adapter from memory, if it is there. No request may use it any more."""
        done = asyncio.get_running_loop().create_future()
        self._forgotten.append((adapter_id, done))
        self._interrupt()
        await done

    def _cancel_all(self, chosen: Callable[[SamplingJob], bool]) -> None:
        waiting = [job for job in self._waiting if chosen(job)]
        running = [job for job in self._running.values() if chosen(job)]
        if waiting:
            self._waiting = deque(job for job in self._waiting if not chosen(job))
        for job in running:
            del self._running[job.request_id]
            self._cancelled.append(job.request_id)
        for job in (*waiting, *running):
            self._outcomes.deliver(
                job.request_id, RequestCancelledError("the request was cancelled")
            )
        self._interrupt()

    def _interrupt(self) -> None:
        self._wake.set()
        self._come_back.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting or self._running or self._cancelled or self._forgotten:
                if self._waiting and not self._running and not self._quiet():
                    await asyncio.sleep(self._window_s)
                    continue
                await self._run_stretch()

    async def _run_stretch(self) -> None:
        self._come_back.clear()
        joining = self._joining() if self._quiet() else ()
        self._running |= {job.request_id: job for job in joining}
        forgotten, self._forgotten = self._forgotten, []
        cancelled, self._cancelled = self._cancelled, []
        stretch = _Stretch(
            joining=joining,
            cancelled=tuple(cancelled),
            forgotten=tuple(adapter_id for adapter_id, _ in forgotten),
            adapters_in_use=_adapters_of(self._running.values()),
            seconds=self._seconds(),
        )
        try:
            ended = await self._lane.run(lambda: self._advance(stretch))
        except Exception as error:  # noqa: BLE001 - becomes the requests' result
            ended = [
                EndedRequest(request_id=request_id, outcome=error) for request_id in self._running
            ]
        for each in ended:
            self._deliver(each)
        for _, done in forgotten:
            if not done.cancelled():
                done.set_result(None)

    def _seconds(self) -> float:
        if not self._running:
            return 0.0
        return min(self._window_s, _STRETCH_S) if self._waiting else _STRETCH_S

    def _deliver(self, ended: EndedRequest) -> None:
        job = self._running.pop(ended.request_id, None)
        if job is None:  # it was cancelled while the step ran
            return
        outcome = ended.outcome
        self._outcomes.deliver(
            job.request_id,
            outcome
            if isinstance(outcome, Exception)
            else Sampled(outcome, job.prompt_logprobs_last_n, job.target_layout),
        )

    def _quiet(self) -> bool:
        now = time.monotonic()
        return (
            now - self._last_arrival >= self._window_s
            or now - self._first_arrival >= 10 * self._window_s
        )

    def _joining(self) -> tuple[SamplingJob, ...]:
        """Take from the line what there is room for, in the order of arrival."""
        joining: list[SamplingJob] = []
        sequences = sum(job.request.num_samples for job in self._running.values())
        adapters = _adapters_of(self._running.values())
        while self._waiting:
            request = self._waiting[0].request
            sequences += request.num_samples
            if request.adapter_id is not None:
                adapters.add(request.adapter_id)
            full = sequences > self._max_running_sequences
            if (self._running or joining) and (full or len(adapters) > self._adapters.capacity):
                break
            joining.append(self._waiting.popleft())
        self._first_arrival = time.monotonic()
        return tuple(joining)

    def _advance(self, stretch: _Stretch) -> list[EndedRequest]:
        """Step until something ends, the stretch is over, or the event loop calls."""
        for request_id in stretch.cancelled:
            self._sampler.cancel(request_id)
        for adapter_id in stretch.forgotten:
            self._adapters.drop(adapter_id)
        ended = [
            each
            for job in stretch.joining
            if (each := self._join(job, stretch.adapters_in_use)) is not None
        ]
        end = time.monotonic() + stretch.seconds
        while stretch.seconds and not ended:
            ended = self._sampler.step()
            if self._come_back.is_set() or time.monotonic() >= end:
                break
        return ended

    def _join(self, job: SamplingJob, adapters_in_use: Collection[str]) -> EndedRequest | None:
        """Hand a request to the sampler; what it ended with, where that failed."""
        adapter_id = job.request.adapter_id
        try:
            if adapter_id is not None and job.folder is not None:
                self._adapters.ensure(adapter_id, job.folder, in_use=adapters_in_use)
            self._sampler.submit(job.request_id, job.request)
        except Exception as error:  # noqa: BLE001 - becomes the request's result
            return EndedRequest(request_id=job.request_id, outcome=error)
        return None


def _adapters_of(jobs: Collection[SamplingJob]) -> set[str]:
    return {job.request.adapter_id for job in jobs if job.request.adapter_id is not None}
