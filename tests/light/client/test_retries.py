"""art.retry: how often a function is called, after what, and how long in between."""

import asyncio
import functools
import inspect
import itertools
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import art
from art.errors import ConfigurationError


class Flaky:
    """Fails a number of times, then returns its argument."""

    def __init__(self, failures: int, error: BaseException | None = None) -> None:
        self.failures = failures
        self.error = error or ConnectionError("flaky")
        self.times: list[float] = []

    def call(self, value: int) -> int:
        self.times.append(time.monotonic())
        if len(self.times) <= self.failures:
            raise self.error
        return value

    async def call_async(self, value: int) -> int:
        await asyncio.sleep(0)
        return self.call(value)


class AsyncCallable:
    def __init__(self, flaky: Flaky) -> None:
        self.flaky = flaky

    async def __call__(self, value: int) -> int:
        return await self.flaky.call_async(value)


class PlainCallable:
    def __init__(self, flaky: Flaky) -> None:
        self.flaky = flaky

    def __call__(self, value: int) -> int:
        return self.flaky.call(value)


# What can be decorated, made of a Flaky and called with one argument.
KINDS: dict[str, Callable[[Flaky], Callable[[int], Any]]] = {
    "function": lambda flaky: lambda value: flaky.call(value),
    "method": lambda flaky: flaky.call,
    "object": PlainCallable,
    "partial": lambda flaky: functools.partial(flaky.call),
    "async method": lambda flaky: flaky.call_async,
    "async object": AsyncCallable,
    "partial of an async method": lambda flaky: functools.partial(flaky.call_async),
    "partial of an async object": lambda flaky: functools.partial(AsyncCallable(flaky)),
    "partial of a partial": lambda flaky: functools.partial(functools.partial(flaky.call_async)),
}


def call(function: Callable[[int], Any], value: int) -> Any:
    result = function(value)

    async def wait() -> Any:
        return await result

    return asyncio.run(wait()) if inspect.isawaitable(result) else result


@pytest.mark.parametrize("kind", KINDS)
@given(failures=st.integers(0, 6), max_attempts=st.integers(1, 5))
def test_it_is_called_until_it_succeeds_or_the_attempts_are_used_up(
    kind: str, failures: int, max_attempts: int
) -> None:
    flaky = Flaky(failures)
    retried = art.retry(max_attempts=max_attempts, delay=0)(KINDS[kind](flaky))
    if failures < max_attempts:
        assert call(retried, 7) == 7
    else:
        with pytest.raises(ConnectionError) as caught:
            call(retried, 7)
        assert caught.value is flaky.error
    assert len(flaky.times) == min(failures + 1, max_attempts)


@pytest.mark.parametrize("kind", ["method", "async method"])
def test_the_delay_is_multiplied_after_each_failure(kind: str) -> None:
    flaky = Flaky(3)
    call(art.retry(max_attempts=4, delay=0.02, backoff_factor=3)(KINDS[kind](flaky)), 7)
    waits = [after - before for before, after in itertools.pairwise(flaky.times)]
    assert len(waits) == 3
    assert all(0 <= wait - asked < 1 for wait, asked in zip(waits, (0.02, 0.06, 0.18), strict=True))


@pytest.mark.parametrize("kind", ["method", "async method"])
@pytest.mark.parametrize("error", [KeyError(), asyncio.CancelledError(), KeyboardInterrupt()])
def test_other_errors_are_raised_at_once(kind: str, error: BaseException) -> None:
    flaky = Flaky(1, error)
    with pytest.raises(type(error)):
        call(art.retry(delay=0, exceptions=(ValueError,))(KINDS[kind](flaky)), 1)
    assert len(flaky.times) == 1


async def test_an_async_function_waits_without_blocking_its_event_loop() -> None:
    flaky = Flaky(1)
    retried = asyncio.create_task(art.retry(delay=30)(AsyncCallable(flaky))(1))
    await asyncio.sleep(0.05)
    assert len(flaky.times) == 1
    retried.cancel()
    with pytest.raises(asyncio.CancelledError):
        await retried


@pytest.mark.parametrize("kind", KINDS)
def test_each_retry_is_reported_with_the_number_of_the_attempt(kind: str) -> None:
    seen: list[tuple[str, int]] = []
    decorate = art.retry(
        delay=0, on_retry=lambda error, attempt: seen.append((str(error), attempt))
    )
    assert call(decorate(KINDS[kind](Flaky(2))), 3) == 3
    assert seen == [("flaky", 1), ("flaky", 2)]


def test_each_retry_is_logged_where_nobody_asked_for_reports(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        art.retry(delay=0)(Flaky(1).call)(3)
    assert "Attempt 1 of 3" in caplog.text
    assert "ConnectionError('flaky')" in caplog.text


def test_the_function_keeps_its_name() -> None:
    @art.retry()
    async def rollout() -> None:
        """Roll out."""

    assert (rollout.__name__, rollout.__doc__) == ("rollout", "Roll out.")
    assert inspect.iscoroutinefunction(rollout)


@pytest.mark.parametrize(
    "options", [{"max_attempts": 0}, {"delay": -1}, {"backoff_factor": -0.5}], ids=str
)
def test_numbers_out_of_range_are_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        art.retry(**options)
