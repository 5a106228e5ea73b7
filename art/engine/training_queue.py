"""Requests of models, in order: one at a time on the training lane.

Each model's requests run in the order of their ``seq_id``, whatever order they arrive in. Models
take turns. Everything here belongs to the event loop's thread.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from art._internal.tasks import report_end
from art.engine.futures import FutureStore
from art.engine.lane import Lane
from art.engine.outcomes import Outcomes
from art.engine.results import Result
from art.errors import EngineBusyError, InvalidRequestError, NotFoundError

# One request. It runs on the event loop, reads sessions there, and hands to the lane calls that
# hold all they need; what the lane gives back it notes on the event loop again.
Task = Callable[[], Awaitable[Result]]


@dataclass(frozen=True, slots=True)
class _Request:
    """A request that waits: where its result goes, what it does, and the bytes that it holds."""

    request_id: str
    task: Task
    size: int


@dataclass(slots=True)
class _ModelQueue:
    """The requests of one model.

    Attributes:
        next_seq: The one to run next; 0 creates the model.
        running: True while one of them runs.
        created: True once the model is in memory.
        waiting: The requests that have arrived, by ``seq_id``.
        absent_since: Since when nothing runs and all that wait are behind one that has not
            arrived; ``None`` otherwise.
    """

    next_seq: int = 0
    running: bool = False
    created: bool = False
    waiting: dict[int, "_Request"] = field(default_factory=dict)
    absent_since: float | None = None

    @property
    def ready(self) -> bool:
        return self.next_seq in self.waiting

    def note_absence(self) -> None:
        if self.running or self.ready or not self.waiting:
            self.absent_since = None
        elif self.absent_since is None:
            self.absent_since = time.monotonic()


class TrainingQueue:
    """Runs the requests of models.

    Args:
        lane: The trainer's thread.
        futures: Where clients wait.
        outcomes: Where results go.
        gap_timeout_s: How long requests wait for one with a lower ``seq_id`` that has not
            arrived, while nothing of their model runs. The SDK gives up sending a request after
            300 seconds.
        max_waiting: Most requests of one model to hold; more are refused for the moment.
        max_waiting_bytes: Most bytes of data of all waiting requests together, likewise.
    """

    def __init__(
        self,
        lane: Lane,
        futures: FutureStore,
        outcomes: Outcomes,
        *,
        gap_timeout_s: float = 420.0,
        max_waiting: int = 4096,
        max_waiting_bytes: int = 1 << 30,
    ) -> None:
        self._lane, self._futures, self._outcomes = lane, futures, outcomes
        self._gap_timeout_s = gap_timeout_s
        self._max_waiting, self._max_waiting_bytes = max_waiting, max_waiting_bytes
        self._models: dict[str, _ModelQueue] = {}
        self._unloading: deque[tuple[_ModelQueue, Callable[[], None], asyncio.Future[None]]] = (
            deque()
        )
        self._wake = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work; there must be a running event loop."""
        self._runner = asyncio.create_task(self._run(), name="training queue")
        self._runner.add_done_callback(report_end)

    async def close(self) -> None:
        """Stop taking turns. The lane's running call goes on."""
        if self._runner is not None:
            self._runner.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._runner

    def add_model(self, model_id: str, request_id: str, create: Task) -> None:
        """Queue the creation of a model; it is the model's request 0."""
        self._models[model_id] = _ModelQueue(waiting={0: _Request(request_id, create, 0)})
        self._wake.set()

    def submit(
        self, model_id: str, seq_id: int, request_id: str, task: Task, *, size: int = 0
    ) -> None:
        """Queue a request of a model at its place; a repeated one changes nothing.

        The request that the others wait for is always taken.

        Args:
            model_id: The model.
            seq_id: Its place, from 1.
            request_id: Where its result goes.
            task: The request.
            size: The bytes of data that it holds.

        Raises:
            NotFoundError: The model is not loaded.
            EngineBusyError: Too much waits.
        """
        queue = self._models.get(model_id)
        if queue is None:
            raise NotFoundError(f"there is no model {model_id!r}; it may have been unloaded")
        if seq_id > queue.next_seq:
            self._check_room(queue, size)
        if not self._futures.create(request_id):
            return
        if seq_id < queue.next_seq or (queue.running and seq_id == queue.next_seq):
            error = InvalidRequestError(
                f"seq_id {seq_id} of {model_id} arrived too late: it has run before and its "
                "result is gone, or the wait for it was given up"
            )
            self._outcomes.deliver(request_id, error)
            return
        queue.waiting[seq_id] = _Request(request_id, task, size)
        queue.note_absence()
        self._wake.set()

    async def remove_model(self, model_id: str, unload: Callable[[], None]) -> None:
        """Take a model out, and unload it if it was created; what it still had to do fails.

        Args:
            model_id: The model; one that is not there is no error.
            unload: Unloads it, on the lane's thread.
        """
        queue = self._models.pop(model_id, None)
        if queue is None:
            return
        self._fail_waiting(queue, NotFoundError(f"model {model_id} was unloaded"))
        done = asyncio.get_running_loop().create_future()
        self._unloading.append((queue, unload, done))
        self._wake.set()
        await done

    def fail_gaps(self) -> None:
        """Fail requests that wait too long for one that never arrived; call it now and then."""
        now = time.monotonic()
        for model_id, queue in self._models.items():
            if queue.absent_since is None or now - queue.absent_since <= self._gap_timeout_s:
                continue
            missing, queue.next_seq = queue.next_seq, max(queue.waiting) + 1
            self._fail_waiting(
                queue,
                InvalidRequestError(
                    f"seq_id {missing} of {model_id} never arrived, so what came behind it was "
                    "not run; later requests will be"
                ),
            )

    def _check_room(self, queue: _ModelQueue, size: int) -> None:
        held = sum(
            request.size for each in self._models.values() for request in each.waiting.values()
        )
        if len(queue.waiting) >= self._max_waiting or held + size > self._max_waiting_bytes:
            raise EngineBusyError(
                f"{len(queue.waiting)} requests of this model wait, of {self._max_waiting} at "
                f"most, and those of all models hold {held} bytes, of {self._max_waiting_bytes}; "
                "send it again later"
            )

    def _fail_waiting(self, queue: _ModelQueue, error: Exception) -> None:
        for request in queue.waiting.values():
            self._outcomes.deliver(request.request_id, error)
        queue.waiting.clear()
        queue.absent_since = None

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while await self._take_turn():
                pass

    async def _take_turn(self) -> bool:
        if self._unloading:
            await self._unload(*self._unloading.popleft())
            return True
        model_id = next((name for name, queue in self._models.items() if queue.ready), None)
        if model_id is None:
            return False
        await self._run_next(model_id)
        return True

    async def _unload(
        self, queue: _ModelQueue, unload: Callable[[], None], done: asyncio.Future[None]
    ) -> None:
        try:
            if queue.created:
                await self._lane.run(unload)
        except Exception as error:  # noqa: BLE001 - handed to the caller
            if not done.cancelled():
                done.set_exception(error)
        else:
            if not done.cancelled():
                done.set_result(None)

    async def _run_next(self, model_id: str) -> None:
        queue = self._models.pop(model_id)
        self._models[model_id] = queue  # to the back: models take turns
        request = queue.waiting.pop(queue.next_seq)
        queue.running = True
        try:
            outcome: Result | Exception = await request.task()
        except Exception as error:  # noqa: BLE001 - becomes the request's result
            outcome = error
        finally:
            queue.running = False
        self._outcomes.deliver(request.request_id, outcome)
        if queue.next_seq == 0:
            queue.created = not isinstance(outcome, Exception)
        queue.next_seq += 1
        queue.note_absence()
        if not queue.created:
            if self._models.get(model_id) is queue:
                del self._models[model_id]
            self._fail_waiting(queue, NotFoundError(f"model {model_id} could not be created"))
