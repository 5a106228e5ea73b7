"""Running many rollouts at once: order kept, failures counted, nothing left behind."""

import asyncio
import contextlib
import inspect
import logging
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Generic, Protocol, TypeAlias, TypeGuard, TypeVar
from weakref import WeakValueDictionary

from art._internal.numbers import plain_number
from art.errors import ConfigurationError

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

# What can be run: once (an awaitable), or again after it failed (a callable that gives one).
Rollout: TypeAlias = Awaitable[T] | Callable[[], Awaitable[T]]


class Scored(Protocol):
    """A finished rollout, as a tally counts it. :class:`art.trajectories.Trajectory` is one."""

    @property
    def reward(self) -> float:
        """The score of the rollout."""
        ...

    @property
    def metrics(self) -> Mapping[str, float]:
        """Further numbers, by name."""
        ...


class Tally:
    """Counts of a gather so far: running means and failures.

    Args:
        total: How many rollouts are expected; :meth:`expect` adds to it.
        max_exceptions: How many rollouts may fail, or, between 0 and 1, which part of ``total``.
        retries: How often a rollout that failed is run again before its failure counts.
        on_change: Called after each change, with the tally and the number of rollouts that it
            counted just now.

    Raises:
        art.errors.ConfigurationError: A number is out of its range.
    """

    def __init__(
        self,
        *,
        total: int = 0,
        max_exceptions: float = 0,
        retries: int = 0,
        on_change: "Callable[[Tally, int], None] | None" = None,
    ) -> None:
        if math.isnan(max_exceptions) or max_exceptions < 0:
            raise ConfigurationError(
                f"max_exceptions is {max_exceptions}; give a count, or a fraction between 0 and 1"
            )
        if retries < 0:
            raise ConfigurationError(f"retries is {retries}; it cannot be negative")
        self.total = total
        self.retries = retries
        self.exceptions = 0
        self.on_change = on_change
        self._max_exceptions = max_exceptions
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        # Weak, so that an id can be trusted: its entry goes when the rollout does.
        self._counted: WeakValueDictionary[int, Scored] = WeakValueDictionary()

    def means(self) -> dict[str, float]:
        """Average the reward and each metric over the rollouts that have it."""
        return {name: total / self._counts[name] for name, total in self._sums.items()}

    def expect(self, more: int) -> None:
        """Expect ``more`` rollouts than were known of."""
        self.total += more
        self._changed(0)

    def start_over(self) -> None:
        """Forget what was counted: what is recorded from now on counts by itself.

        Rollouts that are running stay expected.
        """
        self.total -= self._counts.get("reward", 0) + self.exceptions
        self.exceptions = 0
        self._sums.clear()
        self._counts.clear()

    def record(self, finished: Iterable[Scored]) -> int:
        """Add finished rollouts to the means, each of them once.

        Returns:
            How many of them were new.
        """
        new = [item for item in finished if self._counted.get(id(item)) is not item]
        for item in new:
            self._counted[id(item)] = item
            self._add("reward", item.reward)
            for name, value in item.metrics.items():
                self._add(name, value)
        self._changed(len(new))
        return len(new)

    def record_exception(self, error: Exception) -> None:
        """Count a failed rollout.

        Raises:
            Exception: ``error`` itself, when it is one more than are allowed.
        """
        self.exceptions += 1
        self._changed(0)
        limit = self._max_exceptions
        if 0 < limit < 1:
            limit *= self.total
        if self.exceptions > limit:
            raise error
        logger.warning("A rollout failed (%d so far): %r", self.exceptions, error)

    def _add(self, name: str, value: float) -> None:
        value = plain_number(value)
        self._sums[name] = self._sums.get(name, 0.0) + value
        self._counts[name] = self._counts.get(name, 0) + 1

    def _changed(self, newly_counted: int) -> None:
        if self.on_change is not None:
            self.on_change(self, newly_counted)


_current: ContextVar[Tally | None] = ContextVar("art_tally", default=None)


def current_tally() -> Tally | None:
    """Return the tally of the gather that runs this code; ``None`` outside any."""
    return _current.get()


@contextlib.contextmanager
def tallying(tally: Tally | None) -> Iterator[None]:
    """Make ``tally`` the current one for the block and the tasks that it starts."""
    token = _current.set(tally)
    try:
        yield
    finally:
        _current.reset(token)


class PendingRollouts(Generic[T]):
    """Rollouts that were handed over and have not started.

    Args:
        rollouts: Awaitables, or callables that give one.
    """

    def __init__(self, rollouts: Iterable[Rollout[T]]) -> None:
        self._rollouts = list(rollouts)
        self._started = False

    def __len__(self) -> int:
        return len(self._rollouts)

    async def results(self, tally: Tally, finish: Callable[[T], R]) -> list[R | Exception]:
        """Run them all.

        Args:
            tally: Counts their failures, and says how many there may be and how often to retry.
            finish: Takes each result as soon as it is there. What it raises is not a failure
                that can be allowed.

        Returns:
            For each rollout, in the order given, what ``finish`` made of its result, or what it
            raised.

        Raises:
            RuntimeError: They have been run before.
            art.errors.ConfigurationError: A rollout raised one. It is never an allowed failure:
                it would be the same for every rollout.
            Exception: What a rollout raised, when it is one more than ``tally`` allows. The others
                are cancelled. So they are when this is cancelled, which is never a failure.
        """
        if self._started:
            raise RuntimeError("These rollouts have been run; a group can be awaited only once.")
        self._started = True

        async def attempt(rollout: Rollout[T]) -> R | Exception:
            try:
                # A rollout may gather on its own; that is not this tally's.
                with tallying(None):
                    result = await run(rollout, tally.retries)
            except ConfigurationError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever a rollout raises is kept
                tally.record_exception(error)
                return error
            return finish(result)

        try:
            return await run_all([attempt(rollout) for rollout in self._rollouts])
        finally:
            self.close()

    def close(self) -> None:
        """Close what was not started."""
        discard(self._rollouts)


def is_rollout(item: object) -> TypeGuard[Rollout[Any]]:
    """Say whether ``item`` can be run: an awaitable, or a callable that gives one."""
    return inspect.isawaitable(item) or callable(item)


async def run(rollout: Rollout[T], retries: int) -> T:
    """Run one rollout, again after a failure if it can be.

    Args:
        rollout: An awaitable, which runs once, or a callable that gives a new one each time.
        retries: How many more times to try.

    Returns:
        What the rollout returned.

    Raises:
        art.errors.ConfigurationError: ``retries`` were asked for an awaitable.
        Exception: What the last try raised.
    """
    if inspect.isawaitable(rollout):
        if retries:
            raise ConfigurationError(
                "A coroutine cannot run twice, so it cannot be retried. Pass a callable that "
                "makes one: functools.partial(rollout, model, scenario), not "
                "rollout(model, scenario)."
            )
        return await rollout
    for attempt in range(1, retries + 1):
        try:
            return await rollout()
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a rollout raises; the last is kept
            logger.warning("Retry %d of %d: a rollout failed: %r", attempt, retries, error)
    return await rollout()


async def run_all(awaitables: Sequence[Awaitable[T]]) -> list[T]:
    """Await all at once. When one raises, or this is cancelled, cancel the others and wait.

    Args:
        awaitables: What to await.

    Returns:
        Their results, in the same order.
    """
    tasks: list[asyncio.Future[T]] = []
    try:
        tasks.extend(asyncio.ensure_future(awaitable) for awaitable in awaitables)
        return await asyncio.gather(*tasks)
    finally:
        unfinished = [task for task in tasks if not task.done()]
        for task in unfinished:
            task.cancel()
        if unfinished:
            await asyncio.wait(unfinished)
        # Marks the errors of other tasks as seen: only the first is raised.
        for task in tasks:
            if task.done() and not task.cancelled():
                task.exception()


def discard(items: Iterable[object]) -> None:
    """Close what was never started, so that nothing is "never awaited"."""
    for item in items:
        if isinstance(item, asyncio.Future):
            item.cancel()
        elif inspect.iscoroutine(item) or isinstance(item, PendingRollouts):
            item.close()
