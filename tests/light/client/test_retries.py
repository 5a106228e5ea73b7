import asyncio
import logging
import time

import pytest

import art
from art.errors import ConfigurationError


class Flaky:
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


async def test_an_async_function_is_called_again() -> None:
    flaky = Flaky(2)
    assert await art.retry(delay=0.02)(flaky.call_async)(7) == 7
    first, second, third = flaky.times
    # The delay doubles.
    assert 0.02 <= second - first < 1
    assert 0.04 <= third - second < 1


def test_a_function_is_called_again() -> None:
    flaky = Flaky(1)
    assert art.retry(delay=0)(flaky.call)(7) == 7


async def test_the_last_error_is_raised() -> None:
    flaky = Flaky(9)
    with pytest.raises(ConnectionError, match="flaky"):
        await art.retry(max_attempts=3, delay=0)(flaky.call_async)(1)
    with pytest.raises(ConnectionError, match="flaky"):
        art.retry(max_attempts=2, delay=0)(flaky.call)(1)
    assert len(flaky.times) == 5


@pytest.mark.parametrize("error", [KeyError(), asyncio.CancelledError(), KeyboardInterrupt()])
async def test_other_errors_are_raised_at_once(error: BaseException) -> None:
    flaky = Flaky(1, error)
    with pytest.raises(type(error)):
        art.retry(delay=0, exceptions=(ValueError,))(flaky.call)(1)
    assert len(flaky.times) == 1


async def test_retries_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[tuple[str, int]] = []
    decorate = art.retry(
        delay=0, on_retry=lambda error, attempt: seen.append((str(error), attempt))
    )
    assert await decorate(Flaky(2).call_async)(3) == 3
    assert seen == [("flaky", 1), ("flaky", 2)]
    with caplog.at_level(logging.WARNING):
        art.retry(delay=0)(Flaky(1).call)(3)
    assert "Attempt 1 of 3" in caplog.text
    assert "ConnectionError('flaky')" in caplog.text


def test_the_function_keeps_its_name() -> None:
    @art.retry()
    async def rollout() -> None:
        """What it does."""

    assert (rollout.__name__, rollout.__doc__) == ("rollout", "What it does.")


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="max_attempts"):
        art.retry(max_attempts=0)
    with pytest.raises(ConfigurationError, match="delay"):
        art.retry(delay=-1)
